# SPDX-License-Identifier: GPL-2.0
"""What the mover is held against: iperf3, plain sockets, QEMU's own migration.

Each is a Peer.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import time

import sides
from sides import TOP, BenchError

PORT = 7790
MIB = 1 << 20


class Peer:
    """What there is to a peer, besides its name."""
    name = None
    note = None     # what a reader of its figures must know

    def missing(self):
        """None, or why it cannot run here."""
        raise NotImplementedError

    def goodput(self, link, source, target, streams, size):
        """Payload bytes per second of one transfer of @size bytes of random memory."""
        raise NotImplementedError

    def close(self):
        """Gives back what it keeps between two transfers."""


class Iperf3(Peer):
    """The tool that links are measured with. Sends the same block again and again."""
    name = "iperf3"

    def __init__(self):
        self.program = shutil.which("iperf3")
        if self.program:
            text = subprocess.run([self.program, "--version"], stdout=subprocess.PIPE,
                                  text=True, check=False).stdout
            match = re.match(r"iperf (\d+)\.(\d+)", text)
            version = tuple(map(int, match.groups())) if match else (0, 0)
            if version < (3, 16):
                self.note = "iperf3 %d.%d is one thread for all streams" % version

    def missing(self):
        return None if self.program else "not installed"

    def goodput(self, link, source, target, streams, size):
        server = target.start(self.program, "-s", "-1", "-p", str(PORT), "--forceflush")
        try:
            sides.wait_line(server, "Server listening")
            out = source.run(self.program, "-c", target.address, "-p", str(PORT), "-P",
                             str(streams), "-n", str(size), "-J",
                             seconds=link.seconds(size))
            return json.loads(out)["end"]["sum_received"]["bits_per_second"] / 8
        finally:
            sides.stop(server)


class Plain(Peer):
    """build/vasi-plain: send and recv, a thread for each stream."""
    name = "plain"
    program = os.path.join(TOP, "build", "vasi-plain")

    def missing(self):
        return None if os.access(self.program, os.X_OK) else "not built: make tools"

    def goodput(self, link, source, target, streams, size):
        server = target.start(self.program, "--streams", str(streams), "--listen",
                              "%s:0" % target.address)
        try:
            port = json.loads(sides.wait_line(server, "listening"))["listening"]
            out = source.run(self.program, "--streams", str(streams), "--size",
                             str(size // MIB), "%s:%d" % (target.address, port),
                             seconds=link.seconds(size))
            return json.loads(out)["goodput_Bps"]
        finally:
            sides.stop(server)


class Monitor:
    """QMP over a socket pair whose other end QEMU has inherited."""

    def __init__(self, sock, seconds):
        sock.settimeout(seconds)
        self.sock, self.file = sock, sock.makefile("rw")
        self.file.readline()        # the greeting
        self("qmp_capabilities")

    def __call__(self, command, **arguments):
        try:
            self.file.write(json.dumps({"execute": command,
                                        "arguments": arguments}) + "\n")
            self.file.flush()
            while True:
                line = self.file.readline()
                if not line:
                    raise BenchError("qemu ended at " + command)
                answer = json.loads(line)
                if "error" in answer:
                    raise BenchError("qemu: %s: %s" % (command,
                                                       answer["error"]["desc"]))
                if "return" in answer:
                    return answer["return"]
        except OSError as error:
            raise BenchError("qemu: %s: %s" % (command, error)) from None

    def close(self):
        self.file.close()
        self.sock.close()


class Qemu(Peer):
    """A paused virtual machine whose memory is full of random data (TCG).

    Paused, none of its CPU's time is taken from the transfer, and nothing is sent
    twice: the best case.
    """
    name = "qemu"

    def __init__(self):
        self.command = self.find()
        self.memory, self.memory_size = -1, 0

    @staticmethod
    def find():
        """QEMU of the environment, of scripts/setup, or the one installed."""
        wanted = os.environ.get("QEMU")
        unpacked = os.path.join(TOP, "build", "qemu")
        if wanted is None and os.path.exists(os.path.join(unpacked, "complete")):
            return [os.path.join(unpacked, "usr/bin/qemu-system-x86_64"),
                    "-L", os.path.join(unpacked, "usr/share/qemu"),
                    "-L", os.path.join(unpacked, "usr/share/seabios")]
        program = shutil.which(wanted or "qemu-system-x86_64")
        return [program] if program else None

    def missing(self):
        return None if self.command else "not installed"

    def fill(self, size):
        """The memory of the machine that is sent: a file without a name."""
        if self.memory_size == size:
            return
        self.close()
        self.memory = os.memfd_create("vasi-bench", os.MFD_CLOEXEC)
        for _ in range(size // MIB):
            os.write(self.memory, os.urandom(MIB))
        self.memory_size = size

    def close(self):
        if self.memory >= 0:
            os.close(self.memory)
        self.memory, self.memory_size = -1, 0

    def boot(self, side, size, backend, *options, fds=()):
        """A machine that never runs: (process, monitor)."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = side.start(
                *self.command, "-accel", "tcg", "-machine", "q35,memory-backend=ram",
                "-object", "%s,id=ram,size=%d" % (backend, size), "-m",
                "%dM" % (size // MIB), "-nodefaults", "-display", "none", "-S",
                "-chardev", "socket,id=qmp,fd=%d" % theirs.fileno(), "-mon",
                "chardev=qmp,mode=control", *options,
                fds=(theirs.fileno(),) + fds)
        return process, ours

    def goodput(self, link, source, target, streams, size):
        self.fill(size)
        seconds = link.seconds(size)
        machines, monitors = [], []
        try:
            machines.append(self.boot(
                source, size, "memory-backend-file,share=on,mem-path=/proc/self/fd/%d"
                % self.memory, fds=(self.memory,)))
            machines.append(self.boot(target, size, "memory-backend-ram", "-incoming",
                                      "defer"))
            for process, sock in machines:
                try:
                    monitors.append(Monitor(sock, seconds))
                except (BenchError, ValueError):
                    raise BenchError("qemu: " + (process.stderr.read() or
                                                 "it ended").strip()) from None
            return self.migrate(monitors, target.address, streams, seconds)
        finally:
            for monitor in monitors:
                monitor.close()
            for process, sock in machines:
                sock.close()
                sides.stop(process)

    @staticmethod
    def migrate(monitors, address, streams, seconds):
        source, target = monitors
        for monitor in monitors:
            # with a return path the source is done when the target says so
            monitor("migrate-set-capabilities", capabilities=[
                {"capability": name, "state": True}
                for name in ("multifd", "return-path")])
            monitor("migrate-set-parameters", **{"multifd-channels": streams})
        source("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        uri = "tcp:%s:%d" % (address, PORT + 1)
        target("migrate-incoming", uri=uri)
        source("migrate", uri=uri)
        end = time.monotonic() + seconds
        while True:
            seen = source("query-migrate")
            if seen["status"] == "completed":
                # what is sent before the first byte of memory is not counted
                lasted = max(1, seen["total-time"] - seen["setup-time"])
                return seen["ram"]["normal-bytes"] * 1000 / lasted
            if seen["status"] in ("failed", "cancelled"):
                raise BenchError("qemu: the migration failed: " +
                                 seen.get("error-desc", "without a word"))
            if time.monotonic() > end:
                raise BenchError("qemu: no end within %d s" % seconds)
            time.sleep(0.02)
