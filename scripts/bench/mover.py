# SPDX-License-Identifier: GPL-2.0
"""This mover on both sides of a link, and the guest that it moves to and fro.

The guest is build/vasi-load: random memory of a known size and dirty rate, which
verifies itself and knows the largest gap it saw. It outlives the mspd that is ended
for another, with TLS or without. Each mspd runs in a cgroup of its
own, where guests are not: that cgroup's CPU time is the mover's.
"""

import json
import os
import re
import signal
import threading
import time

import sides
from sides import TOP, BenchError

MSPD = os.environ.get("MSPD", os.path.join(TOP, "build", "mspd"))
MSPCTL = os.environ.get("MSPCTL", os.path.join(TOP, "build", "mspctl"))
LOAD = os.path.join(TOP, "build", "vasi-load")
CGROUP = "mover"
KEYS = "/run/mspd-keys"             # of each side
PORTS = {"a": 7700, "b": 7701}      # on loopback both are at one address
MIB = 1 << 20
GUEST_SECONDS = 300


def missing():
    """None, or why no mover can run here."""
    absent = [os.path.basename(p) for p in (MSPD, MSPCTL, LOAD)
              if not os.access(p, os.X_OK)]
    return "not built: make daemon tools (%s)" % ", ".join(absent) if absent else None


def accesses():
    """The ways to reach a guest that this host may have, the best first."""
    return (["vasi"] if os.path.exists("/dev/vasi") else []) + ["user"]


class Peak:
    """The largest memory of each mspd and of its workers, looked at all the time."""

    def __init__(self, movers):
        self.movers, self.bytes = movers, {}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def watch(self):
        while not self.ended.wait(0.02):
            for mover in self.movers.values():
                self.look(mover)

    def look(self, mover):
        """The kernel keeps the peak: a late look misses little."""
        for pid in mover.side.pids(CGROUP):
            try:
                with open("/proc/%d/status" % pid, encoding="ascii",
                          errors="replace") as f:
                    text = f.read()
            except (FileNotFoundError, ProcessLookupError):
                continue
            peak = re.search(r"(?m)^VmHWM:\s+(\d+) kB", text)
            # A guest that is being built is not the mover's memory.
            if not peak or not text.startswith("Name:\tmspd"):
                continue
            name = "mspd" if pid == mover.pid else "%s_worker" % mover.role
            self.bytes[name] = max(self.bytes.get(name, 0), int(peak.group(1)) << 10)


class Mover:
    """mspd on one side."""

    def __init__(self, side, folder, tls):
        self.side, self.role, self.folder = side, "source", folder
        self.at = "%s:%d" % (side.address, PORTS[side.name])
        self.log = self.process = None
        with open(self.certificate(), "w", encoding="ascii") as f:
            f.write(self.side.run(MSPCTL, "keys", "--dir", KEYS, "export"))
        self.start(tls)

    def certificate(self):
        return os.path.join(self.folder, "mover-%s.pem" % self.side.name)

    def trust(self, other):
        self.side.run(MSPCTL, "keys", "--dir", KEYS, "trust", other.certificate())

    def start(self, tls):
        config = os.path.join(self.folder, "mspd-%s.conf" % self.side.name)
        with open(config, "w", encoding="ascii") as f:
            f.write("[mspd]\ntls = %s\nkeys = %s\n" % (tls, KEYS))
        log = os.path.join(self.folder, "mspd-%s.log" % self.side.name)
        self.log = open(log, "a", encoding="utf-8")
        self.process = self.side.start(MSPD, "-f", "--config", config, "--listen",
                                       self.at, cgroup=CGROUP, stderr=self.log, quiet=True)
        end = time.monotonic() + sides.PATIENCE
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise BenchError("mspd does not start, see " + log)
            time.sleep(0.05)
        self.pid = sides.child_of(self.process)[0]

    def answers(self):
        try:
            self.ctl("info")
        except BenchError:
            return False
        return True

    def ctl(self, *words, seconds=sides.PATIENCE):
        return self.side.run(MSPCTL, *words, seconds=seconds)

    def guest_pid(self):
        for guest in json.loads(self.ctl("list", "--json"))["guests"]:
            if guest["name"] == "load":
                return guest["pid"]
        return None

    def idle(self):
        """No worker: mspd is alone with the nsenter that waits for it."""
        return set(self.side.pids(CGROUP)) <= {self.pid, self.process.pid}

    def cpu_seconds(self):
        return self.side.cpu_seconds(CGROUP)

    def stop(self):
        sides.stop(self.process, signal.SIGTERM)
        self.log.close()


class Shuttle:
    """Both movers of a link and a guest that goes from one to the other."""

    def __init__(self, link, folder, size, rate, working_set, fill, thp, tls):
        self.link, self.size, self.tls = link, size, tls
        self.movers, self.at, self.lines = {}, "a", 0
        self.log = os.path.join(folder, "load.json")
        if os.path.exists(self.log):
            os.unlink(self.log)
        try:
            for side in (link.a, link.b):
                self.movers[side.name] = Mover(side, folder, tls)
            a, b = self.movers.values()
            a.trust(b)
            b.trust(a)
            self.movers["a"].ctl(
                "run", "--name", "load", "--cwd", "/", "--", LOAD,
                "--size", str(size // MIB), "--wss", str(max(1, working_set // MIB)),
                "--rate", str(rate), "--output", self.log, "--fill", fill,
                *(["--thp"] if thp else []))
            self.next_line()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for mover in self.movers.values():
            try:
                pid = mover.guest_pid()
                if pid:
                    mover.side.run("kill", "-KILL", str(pid))
                # a large one ends slowly, and the next one has its name
                end = time.monotonic() + sides.PATIENCE
                while mover.guest_pid() and time.monotonic() < end:
                    time.sleep(0.05)
            except BenchError:
                pass
            mover.stop()

    def use_tls(self, tls):
        """Both movers anew, where they have to do something else."""
        if tls == self.tls:
            return
        self.tls = tls
        for mover in self.movers.values():
            mover.stop()
            mover.start(tls)

    def next_line(self):
        """What the guest says next."""
        start = looked = time.monotonic()
        while time.monotonic() < start + GUEST_SECONDS:
            if time.monotonic() > looked + 1:
                looked = time.monotonic()
                if self.movers[self.at].guest_pid() is None:
                    raise BenchError("the guest has ended")
            try:
                with open(self.log, encoding="utf-8") as f:
                    lines = f.read().splitlines(keepends=True)
            except FileNotFoundError:
                lines = []
            if len(lines) > self.lines and lines[self.lines].endswith("\n"):
                self.lines += 1
                return json.loads(lines[self.lines - 1])
            time.sleep(0.02)
        raise BenchError("the guest says nothing")

    def ask(self):
        """Has the guest verify itself; its gap is counted anew."""
        here = self.movers[self.at]
        here.side.run("kill", "-USR1", str(here.guest_pid()))
        line = self.next_line()
        if not line["ok"]:
            raise BenchError("the guest's memory is wrong")
        return line

    def move(self, attributes):
        """One move to where it is not: the figures of it."""
        source, target = self.movers[self.at], self.movers["ab"[self.at == "a"]]
        source.role, target.role = "source", "target"
        before = {m.role: m.cpu_seconds() for m in (source, target)}
        out = source.ctl("migrate", "--json", "-i", attributes, "load", target.at,
                         seconds=self.link.seconds(2 * self.size) + GUEST_SECONDS)
        events = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        result = next((e for e in reversed(events) if e["event"] == "result"), None)
        if not result or not result["ok"]:
            raise BenchError("the move failed: %s" % (result or {}).get("error", out))
        self.at = target.side.name
        self.settle(source)
        first = result["rounds"][0]
        return {
            "access": re.search(r"access=(\w+)", attributes).group(1),
            "compression": re.search(r"compression=(\w+)", attributes).group(1),
            "tracker": tracker(events),
            "tls": self.tls,
            "encrypted_by": result["tls"],
            "goodput_Bps": result["goodput_Bps"],
            "round1_Bps": first["plain_bytes"] * 1e9 / max(1, first["ns"]),
            "bytes_sent": result["bytes_sent"],
            "sent_part": result["bytes_sent"] / max(1, result["plain_bytes"]),
            "rounds": len(result["rounds"]),
            "pause_ms": result["pause_ms"],
            "cpu_s": {m.role: m.cpu_seconds() - before[m.role]
                      for m in (source, target)},
        }

    @staticmethod
    def settle(source):
        """Until the copy that was left is gone, and with it whoever cleans up."""
        end = time.monotonic() + sides.PATIENCE
        while time.monotonic() < end:
            if source.idle() and source.guest_pid() is None:
                return
            time.sleep(0.02)
        raise BenchError("the source does not end its part of the move")


def tracker(events):
    """How writes were found: what the source says of its access."""
    for event in events:
        for finding in event.get("findings", []):
            if finding["check"] == "access" and finding["side"] == "source":
                named = re.search(r"tracked by (\w+)", finding["text"])
                if named:
                    return "dbit" if named.group(1) == "dirty" else named.group(1)
    return None
