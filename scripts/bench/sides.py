# SPDX-License-Identifier: GPL-2.0
"""The two sides of a measurement and the link between them.

Beneath scripts/netns/with-pair: a and b are its hosts, eth0 of each is an end of
a veth pair, which tbf shapes in both directions. On the link "loopback" b's
programs run in a's network, all else of b is as before.
"""

import mmap
import os
import select
import subprocess
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WITH_PAIR = os.path.join(TOP, "scripts", "netns", "with-pair")
PATIENCE = 60
MADV_POPULATE_WRITE = 23

# Bits per second, burst (bytes), latency of a full queue (ms). The burst holds
# the largest packet that TCP segmentation leaves whole, several times.
SHAPES = {
    "loopback": None,
    "veth": None,
    "1g": (10 ** 9, 256 << 10, 20),
    "10g": (10 ** 10, 1 << 20, 5),
}


class BenchError(Exception):
    """What was to be measured cannot be."""


def warm(size):
    """Has the hypervisor, if there is one, give so much memory to this machine.

    It may have taken back what is free for some seconds; whoever uses that next pays
    for it, 0.3 instead of 3 GB/s were seen. So nobody is measured doing so.
    """
    area = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # it takes large blocks of memory, and so would who uses them
    area.madvise(mmap.MADV_HUGEPAGE)
    area.madvise(MADV_POPULATE_WRITE)
    area.close()


class Side:
    """One host. A link says where it is: its address and its network."""

    def __init__(self, name):
        self.name = name
        with open(os.path.join(os.environ["VM_PAIR"], name), encoding="ascii") as f:
            pid, self.cgroup = f.read().split(maxsplit=1)
        self.pid, self.cgroup = int(pid), self.cgroup.strip()
        self.network, self.address = self.pid, None

    def start(self, *words, cgroup="", fds=(), stderr=subprocess.PIPE, quiet=False):
        """A command here, in a cgroup below the side's own. Its output is text."""
        group = os.path.join(self.cgroup, cgroup)
        os.makedirs(group, exist_ok=True)
        return subprocess.Popen(
            ["sh", "-c", 'echo 0 > "$1/cgroup.procs"; shift; exec "$@"', "enter", group,
             "nsenter", "-t", str(self.pid), "-m", "-p", "-C", "-i", "-u",
             "--net=/proc/%d/ns/net" % self.network, "--wd=" + TOP, "--", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if quiet else subprocess.PIPE,
            stderr=stderr, text=True, pass_fds=fds, cwd=TOP)

    def run(self, *words, seconds=PATIENCE):
        """The output of a command that must succeed."""
        return finish(self.start(*words), seconds)

    def cpu_seconds(self, cgroup):
        """Used so far by all that ever ran in a cgroup of this side."""
        with open(os.path.join(self.cgroup, cgroup, "cpu.stat"), encoding="ascii") as f:
            return int(f.readline().split()[1]) / 1e6

    def pids(self, cgroup):
        """Processes of a cgroup, as this machine numbers them."""
        with open(os.path.join(self.cgroup, cgroup, "cgroup.procs"),
                  encoding="ascii") as f:
            return [int(line) for line in f]


def finish(process, seconds=PATIENCE):
    """Waits for a command of start(); its output."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        stop(process)
        raise BenchError("'%s' did not end within %d s" % (name_of(process),
                                                           seconds)) from None
    if process.returncode:
        text = ((err or "").strip() or (out or "").strip() or
                "exit code %d" % process.returncode)
        raise BenchError("%s: %s" % (name_of(process), text[-600:]))
    return out


def name_of(process):
    """The command that a process of start() runs, without how it got there."""
    words = process.args[process.args.index("--") + 1:]
    return os.path.basename(words[0])


def child_of(process):
    """What nsenter runs: it waits outside of the PID namespace it entered."""
    try:
        with open("/proc/%d/task/%d/children" % (process.pid, process.pid),
                  encoding="ascii") as f:
            return [int(pid) for pid in f.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def stop(process, number=9):
    """Ends a command of start() for good."""
    if process.poll() is None:
        for pid in child_of(process) or [process.pid]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        for pid in child_of(process) + [process.pid]:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()


def wait_line(process, text, seconds=PATIENCE):
    """The first line of a server's output with @text in it: it listens."""
    end, seen = time.monotonic() + seconds, ""
    while True:
        # not by the stream: what that has buffered, select does not see
        left = max(0, end - time.monotonic())
        if not select.select([process.stdout], [], [], left)[0]:
            raise BenchError("%s: not ready after %d s" % (name_of(process), seconds))
        data = os.read(process.stdout.fileno(), 4096).decode(errors="replace")
        seen += data
        for line in seen.splitlines(keepends=True):
            if text in line and line.endswith("\n"):
                return line
        if not data:
            why = process.stderr.read() if process.stderr else ""
            raise BenchError("%s: %s" % (name_of(process), why.strip() or "it ended"))


class Link:
    """How a and b are joined now, and what it can carry."""

    def __init__(self, name, a, b):
        self.name, self.a, self.b = name, a, b
        self.shape = SHAPES[name]
        a.network, b.network = a.pid, b.pid
        if name == "loopback":
            b.network = a.pid
            a.address = b.address = "127.0.0.1"
        else:
            a.address, b.address = "10.77.0.1", "10.77.0.2"
        for side in (a, b):
            if name != "loopback":
                self.shape_side(side)

    def shape_side(self, side):
        if "tbf" in side.run("tc", "qdisc", "show", "dev", "eth0"):
            side.run("tc", "qdisc", "del", "dev", "eth0", "root")
        if self.shape:
            rate, burst, latency = self.shape
            side.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate",
                     "%dbit" % rate, "burst", "%d" % burst, "latency", "%dms" % latency)

    def seconds(self, size):
        """Patience for @size bytes, several times what the link needs."""
        return PATIENCE + (4 * 8 * size / self.shape[0] if self.shape else 0)

    def holds(self, goodputs):
        """Whether no direction carries more than it may, or far less (bytes/s)."""
        return not self.shape or all(
            0.5 * self.shape[0] / 8 < each < 1.03 * self.shape[0] / 8
            for each in goodputs)
