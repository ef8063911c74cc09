# SPDX-License-Identifier: GPL-2.0
"""Moves on a host that refuses something, and of guests that somebody else holds.

The best way that is left is taken and said; where there is none the message names
the cause, and the guest runs on the source as if nothing had been.
"""

import json

from bad_input import Big, Script, command, during, one_page, refused, unharmed
from hosts import ADDRESS, Skipped, check, say, wait_for

DENIED_PORT = 7702

# A program some of whose system calls fail: NUMBER/ERRNO[/SECOND ARGUMENT],...
DENY = r"""
import ctypes, os, struct, sys
LD, JEQ, RET = 0x20, 0x15, 0x06
ERRNO, ALLOW = 0x00050000, 0x7fff0000
def insn(code, k, jf=0):
    return struct.pack("HBBI", code, 0, jf, k)
program = b""
for call in sys.argv[1].split(","):
    nr, errno, *arg = (int(n, 0) for n in call.split("/"))
    program += insn(LD, 0) + insn(JEQ, nr, 1 + 2 * len(arg))
    for value in arg:
        program += insn(LD, 24) + insn(JEQ, value, 1)
    program += insn(RET, ERRNO | errno)
program += insn(RET, ALLOW)
code = ctypes.create_string_buffer(program)
filters = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
if ctypes.CDLL(None, use_errno=True).prctl(22, 2, filters, 0, 0):
    raise OSError(ctypes.get_errno(), "seccomp")
os.execv(sys.argv[2], sys.argv[2:])
"""
EPERM, ENOTTY = 1, 25
IO_URING_SETUP = "425/%d" % EPERM
PTRACE = "101/%d" % EPERM
USERFAULTFD = "323/%d" % EPERM
PAGEMAP_SCAN = "16/%d/0xc0606610" % ENOTTY


class Denied:
    """One more mspd, which is denied a system call; on vm-a it knows the guest."""

    SOCKET = "/run/denied.sock"

    def __init__(self, hosts, guest, call, side="a"):
        self.hosts, self.guest, self.side = hosts, guest, side
        hosts.run(side, "sh", "-c", "python3 -c \"$0\" \"$@\" 2>>%s/mspd-denied.log" %
                  hosts.san, DENY, call, "build/mspd", "--config", hosts.config, "--listen",
                  "0.0.0.0:%d" % DENIED_PORT, "--socket", self.SOCKET,
                  "--state-dir", "/run/denied")
        if side == "a":
            self.mspctl("adopt", "--name", guest.name, str(guest.pid))

    def mspctl(self, *args):
        return self.hosts.mspctl(self.side, "-s", self.SOCKET, *args)

    def command(self, *args):
        """Exit code, output and messages of a look at the guest, or of its move."""
        with self.hosts.start("a", "build/mspctl", "-s", self.SOCKET, *args,
                              self.guest.name, ADDRESS["b"]) as process:
            out, err = process.communicate()
        text = out + err
        say(text.strip().splitlines()[-1] if text else "no message")
        return process.returncode, text

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pid = json.loads(self.mspctl("info", "--json"))["pid"]
        self.hosts.run(self.side, "kill", str(pid))
        wait_for("its end", lambda: not self.hosts.alive(self.side, pid))

    def refuses(self, text, attributes):
        """Both a look and a move say what is in the way, and leave the guest alone."""
        for what in ("validate", "migrate"):
            code, told = self.command(what, "-i", attributes)
            check(code == 1 and text in told, "%s says (%d): %s" % (what, code, told))
        unharmed(self.hosts, self.guest)

    def moves(self, text, attributes):
        """Both say what is done instead, and it works."""
        code, told = self.command("validate", "-i", attributes)
        check(code == 0 and text in told, "validate says (%d): %s" % (code, told))
        code, told = self.command("migrate", "--json", "-i", attributes)
        result = json.loads(told.splitlines()[-1])
        check(code == 0 and text in result["how"], "migrate says (%d): %s" % (code, told))
        wait_for("its end", lambda: self.guest.name not in self.hosts.guests("a"))
        self.guest.moved(result)


def no_ptrace(hosts):
    """A mover that may not trace says so before it touches the guest."""
    with one_page(hosts, "noptrace") as guest, Denied(hosts, guest, PTRACE) as mover:
        mover.refuses("ptrace is refused by the seccomp filter", "access=user")


def no_tracker(hosts):
    """Without userfaultfd or PAGEMAP_SCAN the next tracker is taken, if there is one."""
    for name, call, text in (
            ("nouffd", USERFAULTFD, "no wpasync: userfaultfd(): Operation not permitted"),
            ("noscan", PAGEMAP_SCAN, "no wpasync: ioctl PAGEMAP_SCAN")):
        with one_page(hosts, name) as guest, Denied(hosts, guest, call) as mover:
            mover.refuses(text, "access=user,tracker=wpasync")
            if mover.command("validate", "-i", "access=user,tracker=softdirty")[0]:
                mover.refuses("no softdirty", "access=user")
                continue
            mover.moves("tracked by softdirty (" + text, "access=user")
            check(guest.ask("out")["ok"], "it is not well")


def no_io_uring(hosts):
    """Without io_uring data are sent all the same."""
    with Big(hosts, "nouring") as guest:
        with Denied(hosts, guest, IO_URING_SETUP) as mover:
            mover.moves("sent without io_uring (Operation not permitted: "
                        "kernel.io_uring_disabled", "access=user")
        check(guest.ask("out")["ok"], "it is not well")


def filtered_target(hosts):
    """A target whose guests would get mspd's own filter is refused."""
    with one_page(hosts, "filtered") as guest:
        with Denied(hosts, guest, IO_URING_SETUP, "b"):
            to = "%s:%d" % (ADDRESS["b"], DENIED_PORT)
            code, err = command(hosts, guest, "validate", to=to)
            check(code == 1 and "target.seccomp" in err,
                  "validate says (%d): %s" % (code, err))
            refused(hosts, guest, "seccomp filter", to=to)
        unharmed(hosts, guest)


# Started before it is to trace: a move may be over before an interpreter runs.
TRACER = """
import ctypes, os, sys, time
ptrace = ctypes.CDLL(None).ptrace
print("ready", flush=True)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.001)
if ptrace(0x4206, int(sys.argv[1]), None, None):
    sys.exit("not traced")
print("traced", flush=True)
time.sleep(1000)
"""


class Tracer:
    """A process that seizes a guest when it is told to."""

    def __init__(self, hosts, guest):
        self.order = guest.file("trace")
        self.process = hosts.start("a", "python3", "-c", TRACER, str(guest.pid),
                                   self.order)
        self.expect("ready")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def expect(self, word):
        check(self.process.stdout.readline() == word + "\n", "the tracer is not " + word)

    def trace(self):
        with open(self.order, "w"):
            pass
        self.expect("traced")


def traced(hosts):
    """A guest that is traced, from before a move or from its middle on."""
    with one_page(hosts, "traced") as guest:
        with Tracer(hosts, guest) as tracer:
            tracer.trace()
            code, err = command(hosts, guest, "validate")
            check(code == 1 and "process.traced" in err, "validate says: " + err)
            refused(hosts, guest, "is traced")
        unharmed(hosts, guest)
        guest.move()
    with Big(hosts, "seized") as guest:
        with Tracer(hosts, guest) as tracer:
            result = during(hosts, guest, "copy", tracer.trace,
                            attributes="pause_limit_ms=1,max_rounds=100,suspend_ms=200")
            check("trace" in result["error"], result["error"])
        unharmed(hosts, guest)


GROWS = """
import signal, sys
memory, more, count = bytearray(32 << 20), bytearray(), 0
def grow(*_):
    global more
    more = bytearray(b"x") * (160 << 20)
def told(*_):
    with open(sys.argv[1], "w") as out:
        out.write('{"ok": %s, "count": %d}' % (
            "true" if more.count(b"x") == len(more) else "false", count))
signal.signal(signal.SIGUSR1, told)
signal.signal(signal.SIGUSR2, grow)
told()
while True:
    count += 1
    memory[count * 4096 * 17 % len(memory)] = count & 255
"""

# The guest that is being built on vm-b gets no more memory than so many bytes.
LIMIT = """
set -e
mkdir -p /tmp/memory
if mount -t cgroup -o memory memory /tmp/memory 2> /dev/null; then
	mkdir -p /tmp/memory/vasi-test
	echo $1 > /tmp/memory/vasi-test/memory.limit_in_bytes
	pgrep -P "$(pgrep -n -x mspd-reaper)" > /tmp/memory/vasi-test/cgroup.procs
elif ! grep -qw memory /sys/fs/cgroup/cgroup.controllers; then
	echo none
else
	echo +memory > /sys/fs/cgroup/cgroup.subtree_control
	echo $1 > /sys/fs/cgroup/mspd.guests/memory.max
fi
"""
UNLIMIT = """
if mountpoint -q /tmp/memory; then
	rmdir /tmp/memory/vasi-test && umount /tmp/memory
elif [ -e /sys/fs/cgroup/mspd.guests/memory.max ]; then
	echo max > /sys/fs/cgroup/mspd.guests/memory.max
fi
"""


def grows(hosts):
    """A guest that grows during the move past the memory that the target has for it."""
    limited = []

    def grow():
        limited.append(hosts.run("b", "sh", "-c", LIMIT, "limit", str(96 << 20)))
        guest.signal("KILL" if limited[0] else "USR2")
    try:
        with Script(hosts, "grows", GROWS) as guest:
            result = during(hosts, guest, "copy", grow)
            if limited[0]:
                raise Skipped("no memory cgroup")
            check("memory ran out" in result["error"], result["error"])
            unharmed(hosts, guest)
    finally:
        hosts.run("b", "sh", "-c", UNLIMIT)


# What needs neither the module nor a kernel of its own.
OF_THE_HOST = [no_ptrace, no_tracker, no_io_uring, filtered_target, traced, grows]
