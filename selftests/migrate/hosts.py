# SPDX-License-Identifier: GPL-2.0
"""Two hosts with an mspd each, guests that move between them, TAP.

A test script has functions with one argument, the Hosts, whose docstrings name
them, and calls run(). It finds itself started again beside a pair of hosts, which
serves all its tests: VMs with vasi.ko, or namespaces of this machine without it.
build/migrate/NAME is what they share (at the same path in each, as a SAN is);
logs are there too.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GUESTS = os.path.join(TOP, "build", "guests")
ADDRESS = {"a": "10.77.0.1", "b": "10.77.0.2"}
SIDES = ("a", "b")
PORT = 7700
FAULTY_PORT = 7710      # and those behind it
# Each host has its own /run.
KEYS = "/run/mspd-keys"
# For something that is lost, not for a slow machine.
PATIENCE = int(os.environ.get("PATIENCE", "90"))


class Failed(Exception):
    """What was to hold does not."""


class Skipped(Exception):
    """What the test needs is not there."""


def check(condition, text):
    if not condition:
        raise Failed(text)


def say(text):
    for line in str(text).splitlines():
        print("# " + line, flush=True)


def wait_for(what, condition, patience=PATIENCE):
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed("waited in vain for " + what)
        time.sleep(0.02)


def other(side):
    return "b" if side == "a" else "a"


def last_line(path):
    """The last whole line of a file that grows."""
    try:
        with open(path, "rb") as f:
            f.seek(max(0, os.path.getsize(path) - 65536))
            lines = f.read().split(b"\n")
    except FileNotFoundError:
        return ""
    return lines[-2].decode() if len(lines) > 1 else ""


def load_json(path):
    try:
        with open(path) as f:
            return json.load(f)
    except (FileNotFoundError, ValueError):
        return None


class Hosts:
    """Both machines, what they share, and attributes that all moves have.

    A test may change the attributes for itself.
    """

    def __init__(self, san, attributes, module, tls):
        self.san, self.attributes, self.module = san, attributes, module
        self.tls = tls
        self.config = os.path.join(san, "mspd.conf")
        self.faulty = {}
        self.daemons = {}

    def start(self, side, *command):
        """A command that runs on; its output is to be read."""
        return subprocess.Popen([os.environ["VM_EXEC"], side, "--", *command],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, cwd=TOP)

    def run(self, side, *command, fails=False):
        """The command's output; Failed when it fails (None with @fails)."""
        return self.end(self.start(side, *command), fails)

    def end(self, process, fails=False):
        """What run() does, of a command that was started."""
        with process:
            out, err = process.communicate()
        if process.returncode == 0:
            return out
        if fails:
            return None
        raise Failed("vm-%s: '%s' ended with %d: %s" % (
            process.args[1], " ".join(process.args[3:]), process.returncode,
            (err.strip() or out.strip())[-600:]))

    def mspctl(self, side, *command, fails=False):
        return self.run(side, "build/mspctl", *command, fails=fails)

    def certificate(self, side):
        return os.path.join(self.san, "host-%s.pem" % side)

    def boot(self):
        with open(self.config, "w") as f:
            f.write("[mspd]\nkeys = %s\ntls = %s\n" % (KEYS, self.tls))
        for side in SIDES:
            self.run(side, "sh", "-c", "build/mspctl keys -c $0 export > $1",
                     self.config, self.certificate(side))
        for side in SIDES:
            self.mspctl(side, "keys", "-c", self.config, "trust",
                        self.certificate(other(side)))
            self.boot_side(side)

    def boot_side(self, side, fault=""):
        self.start_mspd(side, environment="MSPD_FAULT=" + fault)
        self.daemons[side] = json.loads(self.mspctl(side, "info", "--json"))["pid"]

    def daemon_lives(self, side):
        return self.alive(side, self.daemons[side])

    def kill(self, side):
        """SIGKILL for a daemon, which has no time to say goodbye."""
        self.run(side, "kill", "-KILL", str(self.daemons[side]), fails=True)
        wait_for("the end of mspd", lambda: not self.daemon_lives(side))

    def restart(self, side, fault=""):
        self.kill(side)
        self.boot_side(side, fault)

    def start_mspd(self, side, port=PORT, config=None, name="mspd", environment=""):
        """One that goes to the background; others than the first are named."""
        own = "" if name == "mspd" else (
            "--socket /run/%s.sock --state-dir /run/%s" % (name, name))
        self.run(side, "sh", "-c",
                 "%s build/mspd --config %s --listen 0.0.0.0:%d %s 2>>%s/%s-%s.log" % (
                     environment, config or self.config, port, own, self.san, name, side))

    def boot_faulty(self, fault):
        """One more mspd on vm-b, with a fault point; its port."""
        if fault not in self.faulty:
            port = FAULTY_PORT + len(self.faulty)
            self.start_mspd("b", port, name="faulty-%d" % port,
                            environment="MSPD_FAULT=" + fault)
            self.faulty[fault] = port
        return self.faulty[fault]

    def guests(self, side):
        return {g["name"]: g for g in
                json.loads(self.mspctl(side, "list", "--json"))["guests"]}

    def alive(self, side, pid):
        return self.run(side, "test", "-e", "/proc/%d/stat" % pid,
                        fails=True) is not None

    def address(self, side):
        """Of the host that a guest on @side would move to."""
        return "%s:%d" % (ADDRESS[other(side)], PORT)

    def workspace(self, name):
        """A directory of the SAN for one guest, open to all."""
        path = os.path.join(self.san, name)
        shutil.rmtree(path, ignore_errors=True)     # of an earlier test
        os.mkdir(path)
        os.chmod(path, 0o777)
        return path


class Guest:
    """A guest that was started on vm-a by `mspctl run`, wherever it is now."""

    def __init__(self, hosts, name, *command, cwd="/"):
        self.hosts, self.name, self.side = hosts, name, "a"
        self.dir = hosts.workspace(name)
        self.moves = []
        command = [c.format(dir=self.dir) for c in command]
        hosts.mspctl("a", "run", "--name", name, "--cwd", cwd, "--output",
                     self.dir + "/output", "--", *command)
        self.pid = hosts.guests("a")[name]["pid"]

    def __enter__(self):
        return self

    def __exit__(self, kind, _error, _trace):
        if kind:
            self.tell_all()
        for side in SIDES:
            guest = self.hosts.guests(side).get(self.name)
            if guest:
                self.hosts.run(side, "kill", "-KILL", str(guest["pid"]), fails=True)
                wait_for("the end of guest " + self.name,
                         lambda: self.name not in self.hosts.guests(side))

    def tell_all(self):
        """What there is to know of a guest that is not as it should be."""
        say("guest %s, PID %d on vm-%s, after %d moves" % (
            self.name, self.pid, self.side, len(self.moves)))
        for name in sorted(os.listdir(self.dir)):
            path = os.path.join(self.dir, name)
            if name in ("output", "report"):
                with open(path, errors="replace") as f:
                    say("%s: %s" % (name, f.read()[-3000:]))
        say(self.hosts.run(self.side, "sh", "-c",
                           "cd /proc/%d/task && grep -hoE '^[0-9]+ .[^)]*. .' */stat "
                           "&& grep -H . */wchan" % self.pid, fails=True) or "")

    def start_move(self, attributes="", port=PORT):
        """A move that is under way, as a process."""
        command = ["migrate", "--json"]
        for some in (self.hosts.attributes, attributes):
            if some:
                command += ["-i", some]
        return self.hosts.start(self.side, "build/mspctl", *command, self.name,
                                "%s:%d" % (ADDRESS[other(self.side)], port))

    def end_move(self, process, ok=True):
        """Waits for a move; its result, after a look at both sides."""
        out, err = process.communicate()
        events = [json.loads(line) for line in out.splitlines()
                  if line.startswith("{")]
        result = next((e for e in events if e["event"] == "result"), None)
        if not result:
            raise Failed("no result of the move, exit code %d: %s" % (
                process.returncode, (err or out)[-600:]))
        if result["ok"] != ok:
            findings = [f for e in events for f in e.get("findings", [])
                        if f["level"] != "pass"]
            raise Failed("%s to vm-%s: %s%s" % (
                "the move" if ok else "a move that must fail", other(self.side),
                result.get("error") or "done",
                "".join("\n%(level)s %(check)s %(object)s: %(text)s" % f
                        for f in findings)))
        if ok:
            self.moved(result)
        return result

    def moved(self, result):
        source, self.side = self.side, other(self.side)
        self.moves.append(result)
        # All at once: each is a program that starts in an emulated machine.
        lists = {side: self.hosts.start(side, "build/mspctl", "list", "--json")
                 for side in SIDES}
        gone = self.hosts.start(source, "test", "!", "-e", "/proc/%d/stat" % self.pid)
        guests = {side: {g["name"]: g["pid"] for g in
                         json.loads(self.hosts.end(lists[side]))["guests"]}
                  for side in SIDES}
        check(self.hosts.end(gone, fails=True) is not None,
              "the process is still on vm-%s" % source)
        check(self.name not in guests[source], "vm-%s still lists the guest" % source)
        check(self.name in guests[self.side],
              "vm-%s does not know the guest that moved to it" % self.side)
        self.pid = guests[self.side][self.name]

    def move(self, attributes=""):
        with self.start_move(attributes) as process:
            return self.end_move(process)

    def rolled_back(self, attributes="", fault="digest", error="digest"):
        """A move that fails: by default when the guest is stopped and built there."""
        check(self.side == "a", "the faulty mspd is on vm-b")
        port = self.hosts.boot_faulty(fault)
        with self.start_move(attributes, port) as process:
            result = self.end_move(process, ok=False)
        check(error in result["error"],
              "it did not fail as it should: " + result["error"])
        return result

    def signal(self, name):
        self.hosts.run(self.side, "kill", "-" + name, str(self.pid))

    def file(self, name):
        return os.path.join(self.dir, name)

    def ask(self, name, sig="USR1", read=load_json):
        """Has the guest write a file anew, and reads it."""
        path = self.file(name)
        if os.path.exists(path):
            os.unlink(path)
        self.signal(sig)
        return wait_for("%s of guest %s" % (name, self.name), lambda: read(path))

    def finish(self):
        """SIGTERM, and the end of it."""
        self.signal("TERM")
        wait_for("the end of guest " + self.name,
                 lambda: not self.hosts.alive(self.side, self.pid))


def pauses(moves):
    """For a comment: what the pauses were."""
    totals = sorted(m["pause_ms"]["total"] for m in moves)
    parts = [p for p in moves[0]["pause_ms"] if p != "total"]
    middle = len(totals) // 2
    return "pause of %d moves: median %.1f ms, min %.1f, max %.1f; medians: %s" % (
        len(totals), totals[middle], totals[0], totals[-1],
        ", ".join("%s %.1f" % (p, sorted(m["pause_ms"][p] for m in moves)[middle])
                  for p in parts))


def run_tests(hosts, tests):
    failed = skipped = 0
    attributes = hosts.attributes
    for number, test in enumerate(tests, 1):
        name = test.__doc__.splitlines()[0].rstrip(".")
        start = time.monotonic()
        hosts.attributes = attributes
        try:
            test(hosts)
            print("ok %d - %s" % (number, name))
        except Skipped as why:
            skipped += 1
            print("ok %d - %s # SKIP %s" % (number, name, why))
        except Failed as why:
            failed += 1
            say(why)
            print("not ok %d - %s" % (number, name))
        say("%.1f s" % (time.monotonic() - start))
    print("1..%d" % len(tests), flush=True)
    if failed:
        for side in SIDES:
            with open("%s/mspd-%s.log" % (hosts.san, side), errors="replace") as f:
                say("mspd of vm-%s:\n%s" % (side, f.read()[-2000:]))
    return 1 if failed else 4 if skipped == len(tests) else 0


def start_pair(pair, kernels, san):
    """Becomes what runs this script once more, beside a pair of hosts."""
    command = [os.path.join(TOP, "scripts", pair, "with-pair")]
    if pair == "vm":
        command += ["--module", "--kernel-a", kernels[0], "--kernel-b", kernels[1],
                    "--share", "%s:%s" % (san, san),
                    "--log", os.path.join(san, "kernel")]
    os.execv(command[0], command + ["--"] + [os.path.abspath(sys.argv[0])] + sys.argv[1:])


def run(tests, kernels=("6.1", "6.1"), pair="vm", attributes="", tls="required"):
    """Runs the tests named on the command line, or all, beside a pair of hosts."""
    names = {t.__name__: t for t in tests}
    parser = argparse.ArgumentParser(description="tests: " + ", ".join(names))
    parser.add_argument("test", nargs="*", metavar="TEST")
    args = parser.parse_args()
    for name in args.test:
        if name not in names:
            parser.error("no test %s; there are: %s" % (name, ", ".join(names)))
    chosen = [names[n] for n in args.test] or tests

    me = os.path.abspath(sys.argv[0])
    san = os.path.join(TOP, "build", "migrate",
                       os.path.splitext(os.path.basename(me))[0])
    if "VM_PAIR" not in os.environ:
        shutil.rmtree(san, ignore_errors=True)
        os.makedirs(san)
        os.chmod(san, 0o777)
        start_pair(pair, kernels, san)
    hosts = Hosts(san, attributes, pair == "vm", tls)
    hosts.boot()
    sys.exit(run_tests(hosts, chosen))
