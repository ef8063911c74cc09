# SPDX-License-Identifier: GPL-2.0
"""Moves that must not happen, or not to their end.

Whatever stands against a move: the message names the cause, the exit code is 1,
the guest runs on the source, and nothing is left behind on the target.
"""

import json
import os

from hosts import (ADDRESS, GUESTS, KEYS, SIDES, TOP, Failed, Guest, check, last_line,
                   say, wait_for)

LOAD = os.path.join(TOP, "build", "vasi-load")
PEER_PORT = 7799
# Copies for longer than anything here takes to interfere.
BIG = ("--size", "96", "--wss", "32", "--rate", "8000")
ENDLESS = "pause_limit_ms=1,max_rounds=200"

# With the key of vm-b's mspd: it is trusted, and is none.
PEER = r"""
import socket, ssl, struct, sys, time
mode = sys.argv[1]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("%s/cert.pem", "%s/key.pem")
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", %d))
s.listen()
print("ready", flush=True)
c = context.wrap_socket(s.accept()[0], server_side=True)
if mode == "version":
    c.sendall(struct.pack("<IHH", 0x43495356, 77, 78))
    time.sleep(5)
elif mode == "garbage":
    c.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n" * 100)
    time.sleep(5)
elif mode == "close":
    c.recv(8)
elif mode == "stall":
    c.sendall(struct.pack("<IHH", 0x43495356, 1, 1))
    time.sleep(60)
""" % (KEYS, KEYS, PEER_PORT)


def one_page(hosts, name):
    return Guest(hosts, name, os.path.join(GUESTS, "one_page"), "{dir}/out")


class Script(Guest):
    """A program in python that tells of itself in {dir}/out, its first argument."""

    def __init__(self, hosts, name, text, *args):
        path = os.path.join(hosts.san, name + ".py")
        with open(path, "w") as f:
            f.write(text)
        super().__init__(hosts, name, "python3", path, "{dir}/out", *args)
        wait_for("guest " + name, lambda: os.path.exists(self.file("out")))


class Big(Guest):
    """build/vasi-load, which adds a line to its file when it is asked."""

    def __init__(self, hosts, name, size=BIG):
        super().__init__(hosts, name, LOAD, "--output", "{dir}/out", *size)
        wait_for("vasi-load", lambda: last_line(self.file("out")))

    def ask(self, name, sig="USR1", read=None):
        seen = last_line(self.file(name))
        self.signal(sig)
        wait_for("its report", lambda: last_line(self.file(name)) != seen)
        report = json.loads(last_line(self.file(name)))
        return dict(report, count=report["writes"])


def command(hosts, guest, *args, to=None):
    """mspctl's exit code and what it says."""
    with hosts.start(guest.side, "build/mspctl", args[0], *args[1:], guest.name,
                     to or ADDRESS["b"]) as process:
        _, err = process.communicate()
    return process.returncode, err


def refused(hosts, guest, text, *options, to=None):
    """The move fails with a message that names the cause."""
    code, err = command(hosts, guest, "migrate", *options, to=to)
    say(err.strip().splitlines()[-1] if err else "no message")
    check(code == 1, "exit code %d: %s" % (code, err))
    check(text in err, "the message lacks \"%s\": %s" % (text, err))


def settled(hosts):
    """No mover works any more, and no stream is open, on either side."""
    def quiet():
        for side in SIDES:
            info = json.loads(hosts.mspctl(side, "info", "--json"))
            if info["active_source"] or info["active_target"]:
                return False
        return True
    wait_for("the movers to end", quiet)
    for side in SIDES if hosts.module else ():
        streams = hosts.run(side, "build/vasistat", "-json")
        check(not streams.strip(), "vm-%s has streams: %s" % (side, streams))


def nothing_left(hosts, guests=()):
    """On vm-b there is no guest, no process in another PID namespace, no cgroup."""
    settled(hosts)
    check(sorted(hosts.guests("b")) == sorted(guests),
          "vm-b has guests: %s" % hosts.guests("b"))
    if not guests:
        inner = hosts.run("b", "sh", "-c", "grep -l 'NSpid:.*[0-9]\t[0-9]' "
                          "/proc/[0-9]*/status 2>/dev/null || :")
        check(not inner, "vm-b has processes: " + inner)
    wait_for("the cgroups to go", lambda: hosts.run(
        "b", "sh", "-c", "ls -d /sys/fs/cgroup/mspd.guests/*/ 2>/dev/null | wc -l"
        ).strip() == str(len(guests)))


def unharmed(hosts, guest, others=()):
    """It counts on, where it was, and could be moved: nothing holds it."""
    nothing_left(hosts, others)
    listed = hosts.guests("a").get(guest.name)
    check(listed and listed["pid"] == guest.pid and listed["state"] == "running",
          "vm-a lists %s" % listed)
    first = guest.ask("out")
    check(first["ok"], "it is not well: %s" % first)
    if "count" in first:
        second = guest.ask("out")
        check(second["count"] > first["count"], "it does not count on")


def during(hosts, guest, phase, action, ok=False, attributes=ENDLESS):
    """A move; @action is called once when it has reached @phase. Its result."""
    result = None
    with guest.start_move(attributes) as process:
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "result":
                result = event
            if action and event["event"] == "phase" and event["phase"] == phase:
                action()
                action = None
        err = process.stderr.read()
    check(not action, "phase %s was not reached: %s %s" % (phase, result, err))
    check(result, "no result, exit code %d: %s" % (process.returncode, err))
    check(result["ok"] == ok, "the result: %s" % result)
    check(process.returncode == (0 if ok else 1), "exit code %d" % process.returncode)
    say(result.get("error") or "moved")
    return result


def name_taken(hosts):
    """A target that has the name already."""
    with one_page(hosts, "taken") as guest:
        hosts.mspctl("b", "run", "--name", "taken", "--", "sleep", "1000")
        try:
            refused(hosts, guest, "taken")
            unharmed(hosts, guest, others=["taken"])
        finally:
            pid = hosts.guests("b")["taken"]["pid"]
            hosts.run("b", "kill", "-KILL", str(pid))
            wait_for("its end", lambda: not hosts.guests("b"))


# tells when it is asked to, and whether it is well
TOLD = """
import signal, sys, time
def told(*_):
    with open(sys.argv[1], "w") as out:
        out.write('{"ok": true}')
signal.signal(signal.SIGUSR1, told)
told()
while True:
    time.sleep(1)
"""
PRIVATE = "f = open('/tmp/private', 'a')" + TOLD


def file_missing(hosts):
    """A target that lacks a file, a program, or shares no storage."""
    with Script(hosts, "files", PRIVATE) as guest:
        refused(hosts, guest, "/tmp/private")
        unharmed(hosts, guest)
    hosts.run("a", "cp", os.path.join(GUESTS, "one_page"), "/tmp/program")
    with Guest(hosts, "program", "/tmp/program", "{dir}/out") as guest:
        refused(hosts, guest, "/tmp/program")
        unharmed(hosts, guest)


def no_module(hosts):
    """A target without the module, and with one of another ABI."""
    release = hosts.run("b", "uname", "-r").strip()
    module = "build/module/%s/" % ".".join(release.split(".")[:2])
    with one_page(hosts, "module") as guest:
        hosts.run("b", "rmmod", "vasi")
        try:
            refused(hosts, guest, "vasi.ko", "-i", "access=vasi")
            hosts.run("b", "insmod", module + "vasi-test.ko", "test_abi=77")
            try:
                refused(hosts, guest, "another ABI", "-i", "access=vasi")
            finally:
                hosts.run("b", "rmmod", "vasi")
        finally:
            hosts.run("b", "insmod", module + "vasi.ko")
        unharmed(hosts, guest)


def no_peer(hosts):
    """A target where nobody listens, or that does not exist."""
    with one_page(hosts, "nopeer") as guest:
        refused(hosts, guest, "refused", to="%s:%d" % (ADDRESS["b"], PEER_PORT))
        refused(hosts, guest, "no-such-host", to="no-such-host")
        unharmed(hosts, guest)


def bad_peers(hosts):
    """Peers of another version, of no sense, that close, that stall."""
    with one_page(hosts, "peers") as guest:
        for mode, text in (("version", "77"), ("garbage", "not"),
                           ("close", "closed"), ("stall", "")):
            with hosts.start("b", "python3", "-c", PEER, mode) as peer:
                check(peer.stdout.readline() == "ready\n", "no peer")
                refused(hosts, guest, text,
                        to="%s:%d" % (ADDRESS["b"], PEER_PORT))
                peer.kill()
            unharmed(hosts, guest)


def no_room(hosts):
    """A target without room for the guest's memory."""
    free = int(hosts.run("b", "sh", "-c", "awk '/^MemAvailable/ {print int($2 / 1024)}' "
                         "/proc/meminfo"))
    try:
        hosts.run("b", "sh", "-c", "mount -o remount,size=100%% /dev/shm && "
                  "dd if=/dev/zero of=/dev/shm/fill bs=1M count=%d status=none" %
                  (free - 80))
        with Big(hosts, "room") as guest:
            refused(hosts, guest, "room")
            unharmed(hosts, guest)
    finally:
        hosts.run("b", "rm", "-f", "/dev/shm/fill")


def killed(hosts):
    """A guest that is killed while it is copied."""
    with Big(hosts, "killed") as guest:
        result = during(hosts, guest, "copy", lambda: guest.signal("KILL"))
        check("guest" in result["error"], result["error"])
        nothing_left(hosts)
        check("killed" not in hosts.guests("a"), "vm-a still lists it")


EXECS = """
import os, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: os.execvp("sleep", ["sleep", "1000"]))
signal.signal(signal.SIGUSR2, lambda *_: os._exit(3))
memory = bytearray(96 << 20)
open(sys.argv[1], "w").write("ready")
at = 0
while True:
    at = (at + 4096 * 17) % len(memory)
    memory[at] += 1 if memory[at] < 255 else -255
"""


def execs(hosts):
    """A guest that calls exec, or exits, while it is copied."""
    with Script(hosts, "execs", EXECS) as guest:
        result = during(hosts, guest, "copy", lambda: guest.signal("USR1"))
        check("exec" in result["error"], result["error"])
        nothing_left(hosts)
        check(hosts.alive("a", guest.pid), "it is gone")
        check(hosts.run("a", "cat", "/proc/%d/comm" % guest.pid) == "sleep\n", "no exec")
        guest.move()
    with Script(hosts, "exits", EXECS) as guest:
        result = during(hosts, guest, "copy", lambda: guest.signal("USR2"))
        check("exited" in result["error"], result["error"])
        nothing_left(hosts)
        check("exits" not in hosts.guests("a"), "vm-a still lists it")


def second_migration(hosts):
    """A second migration of a guest that is in one; and a cancel of the first."""
    with Big(hosts, "second") as guest:
        def meanwhile():
            refused(hosts, guest, "already")
            running = [m["id"] for m in json.loads(hosts.mspctl(
                "a", "list", "-m", "--json"))["migrations"] if m["running"]]
            check(len(running) == 1, "running: %s" % running)
            hosts.mspctl("a", "cancel", str(running[0]))
        result = during(hosts, guest, "copy", meanwhile)
        check("cancel" in result["error"], result["error"])
        unharmed(hosts, guest)


FORKS = """
import os, signal, sys, time
def child(seconds):
    if os.fork() == 0:
        time.sleep(seconds)
        os._exit(0)
def told(*_):
    open(sys.argv[1], "w").write('{"ok": true}')
signal.signal(signal.SIGUSR1, told)
child(float(sys.argv[2]))
told()
while True:
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        time.sleep(0.1)
"""


def children(hosts):
    """A child that stays is named and ends the move; one that goes is waited for."""
    with Script(hosts, "stays", FORKS, "1000") as guest:
        refused(hosts, guest, "child", "-i", "child_wait_ms=1000")
        unharmed(hosts, guest)
    with Script(hosts, "goes", FORKS, "8") as guest:
        guest.move("child_wait_ms=60000")
        check(guest.ask("out")["ok"], "it is not well")


CONNECTED = """
import signal, socket, sys, time
s = socket.socket()
s.bind(("127.0.0.1", 0))
s.listen()
c = socket.create_connection(s.getsockname())
def told(*_):
    open(sys.argv[1], "w").write('{"ok": true, "fd": %d}' % c.fileno())
signal.signal(signal.SIGUSR1, told)
told()
while True: time.sleep(1)
"""


def connections(hosts):
    """An established connection is refused, the descriptor named, by default."""
    with Script(hosts, "connected", CONNECTED) as guest:
        fd = guest.ask("out")["fd"]
        code, err = command(hosts, guest, "validate")
        check(code == 1 and "fd %d" % fd in err, "validate says: " + err)
        refused(hosts, guest, "connection")
        unharmed(hosts, guest)


UNSUPPORTED = {
    "inotify": "import ctypes; ctypes.CDLL(None).inotify_init()",
    "shm": "import ctypes; l = ctypes.CDLL(None); "
           "l.shmat.restype = ctypes.c_void_p; l.shmat(l.shmget(0, 4096, 0o1600), None, 0)",
    "timer": "import ctypes; ctypes.CDLL(None).timer_create(1, None, "
             "ctypes.byref(ctypes.c_void_p()))",
    "hugetlb": "import mmap; open('/proc/sys/vm/nr_hugepages', 'w').write('4'); "
               "m = mmap.mmap(-1, 2 << 20, flags=0x40022); m[0] = 1",
    "device": "f = open('/dev/ttyS0', 'rb', buffering=0)",
}


def unsupported(hosts):
    """What cannot be moved is refused by name, before the guest is touched."""
    words = {"inotify": "inotify", "shm": "SYSV", "timer": "timer",
             "hugetlb": "huge", "device": "/dev/ttyS0"}
    for kind, code in UNSUPPORTED.items():
        with Script(hosts, kind, code + TOLD) as guest:
            code, err = command(hosts, guest, "validate")
            say(err.strip().splitlines()[-1] if err else "no message")
            check(code == 1 and words[kind].lower() in err.lower(),
                  "%s: validate says (%d): %s" % (kind, code, err))
            unharmed(hosts, guest)


DIRECT = "import os; f = os.open(sys.argv[1] + '.data', os.O_RDWR | os.O_CREAT | " \
         "os.O_DIRECT)"


def direct_reads(hosts):
    """A file that is read with O_DIRECT is refused without the module."""
    with Script(hosts, "direct", "import sys; " + DIRECT + TOLD) as guest:
        code, err = command(hosts, guest, "validate", "-i", "access=user")
        check(code == 1 and "fd.file.direct: fd " in err and "out.data" in err,
              "validate says (%d): %s" % (code, err))
        refused(hosts, guest, "O_DIRECT", "-i", "access=user")
        unharmed(hosts, guest)


def unseen_reads(hosts):
    """A file on 9p is warned of, whatever the access."""
    with Script(hosts, "unseen", "import sys; f = open(__file__)" + TOLD) as guest:
        for access in ("vasi", "user"):
            code, err = command(hosts, guest, "validate", "-i", "access=" + access)
            check(code == 0 and "warning: fd.file.unseen: fd " in err and
                  "unseen.py" in err, "validate says (%d): %s" % (code, err))
        unharmed(hosts, guest)


def worker(hosts, side):
    return hosts.run(side, "pgrep", "-x", "mspd-worker").split()[0]


def movers_killed(hosts):
    """Movers that are killed while they copy, on either side."""
    for side in SIDES:
        with Big(hosts, "mover-" + side) as guest:
            during(hosts, guest, "copy",
                   lambda side=side: hosts.run(side, "kill", "-KILL",
                                               worker(hosts, side)))
            unharmed(hosts, guest)


def daemon_killed(hosts):
    """A source's daemon that is killed: a new one finds the guest, unharmed."""
    with Big(hosts, "daemon") as guest:
        def kill():
            pid = json.loads(hosts.mspctl("a", "info", "--json"))["pid"]
            hosts.run("a", "kill", "-KILL", str(pid))
        with guest.start_move(ENDLESS) as process:
            for line in process.stdout:
                event = json.loads(line)
                if event["event"] == "phase" and event["phase"] == "copy":
                    kill()
            err = process.stderr.read()
        check(process.returncode == 3, "exit code %d: %s" % (process.returncode, err))
        check("lost" in err, err)
        hosts.start_mspd("a")
        unharmed(hosts, guest)


def daemon_stopped(hosts):
    """A daemon that is told to end rolls its moves back first."""
    with Big(hosts, "stopped") as guest:
        def stop():
            pid = json.loads(hosts.mspctl("a", "info", "--json"))["pid"]
            hosts.run("a", "kill", "-TERM", str(pid))
        during(hosts, guest, "copy", stop)
        wait_for("its end", lambda: hosts.run("a", "pgrep", "-x", "mspd",
                                              fails=True) is None)
        hosts.start_mspd("a")
        unharmed(hosts, guest)


def names(hosts):
    """migrlpar validates, moves and stops; lslparmigr and vasistat show it."""
    with one_page(hosts, "lpar") as guest:
        out = hosts.run("a", "build/migrlpar", "-o", "v", "-t", ADDRESS["b"], "-p", "lpar")
        check("can be moved" in out, out)
        hosts.run("a", "build/migrlpar", "-o", "m", "-t", ADDRESS["b"], "-p", "lpar",
                  "-i", "streams=2", "-w", "1", "-d", "2")
        guest.side = "b"
        guest.pid = hosts.guests("b")["lpar"]["pid"]
        out = hosts.run("b", "build/lslparmigr")
        check(out == "name=lpar,migration_state=not migrating\n", out)
        check("num_active_migrations_in_progress=0" in
              hosts.run("b", "build/lslparmigr", "-r", "msp"), "limits")
    with Big(hosts, "stop") as guest:
        def stop():
            check("migration_state=migrating" in hosts.run("a", "build/lslparmigr"),
                  "lslparmigr does not show it")
            streams = [json.loads(line) for line in
                       hosts.run("a", "build/vasistat", "-json").splitlines()]
            check(len(streams) == 1 and streams[0]["service"] == "source" and
                  streams[0]["pid"] == guest.pid and streams[0]["count"]["harvests"],
                  "vasistat shows %s" % streams)
            text = hosts.run("a", "build/vasistat", "-stream", streams[0]["stream_id"])
            check("State: Enabled" in text, text)
            hosts.run("a", "build/migrlpar", "-o", "s", "-p", "stop")
        during(hosts, guest, "copy", stop)
        unharmed(hosts, guest)


def track(hosts):
    """track counts what a guest writes and leaves it where it is."""
    with Big(hosts, "track") as guest:
        out = hosts.mspctl("a", "track", "--rounds", "4", "--interval", "0.5", "--json",
                           str(guest.pid))
        rounds = [json.loads(line) for line in out.splitlines()]
        check(len(rounds) == 4, "%d rounds" % len(rounds))
        check(rounds[0]["pages"] > (96 << 20) // 4096, "round 1: %s" % rounds[0])
        check(all(0 < r["pages"] < rounds[0]["pages"] for r in rounds[1:]),
              "rounds: %s" % rounds)
        check(guest.ask("out")["ok"], "it is not well")
        try:
            hosts.mspctl("a", "track", "4194303")
            raise AssertionError
        except Failed as why:
            check("is gone" in str(why), str(why))


# What has to do with the module, with its guests that end, and with the machine.
OF_THE_MODULE = [no_module, no_room, unseen_reads, killed, execs, movers_killed, names, track]
# What is the daemon's business, whatever the access.
OF_THE_DAEMON = [name_taken, file_missing, no_peer, bad_peers, killed, execs,
                 second_migration, children, connections, unsupported, direct_reads,
                 movers_killed, daemon_killed, daemon_stopped]
