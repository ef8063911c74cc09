#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""
The guests' own tests: right under pauses, and able to see what is wrong.

usage: test_guests.py [BUILD_DIRECTORY]      (TAP; exit code 0, 1, 4)

SIGSTOP stands in for a suspension. Bytes are changed through /proc/PID/mem and
registers through ptrace, as a faulty mover would leave them.
"""
import concurrent.futures
import ctypes
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

AT_ONCE = 4
BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
GUESTS = os.path.join(BUILD, "guests")
PATIENCE = 60


class Failed(Exception):
    pass


class Skipped(Exception):
    pass


def check(condition, text):
    if not condition:
        raise Failed(text)


def wait_for(what, condition):
    """The patience is for a guest that is lost, not for a slow machine."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise Failed(f"waited in vain for {what}")


class Guest:
    """A started guest, its directory, and the end of both."""

    def __init__(self, program, *args, path=None):
        self.dir = tempfile.mkdtemp(prefix="guest-")
        os.chmod(self.dir, 0o777)
        self.file = os.path.join(self.dir, "out")
        args = [a.format(dir=self.dir, file=self.file) for a in args]
        self.process = subprocess.Popen(
            [path or os.path.join(GUESTS, program), *args],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def signal(self, sig):
        self.process.send_signal(sig)

    def pause(self, seconds):
        self.signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.signal(signal.SIGCONT)

    def read(self, name="out"):
        try:
            with open(os.path.join(self.dir, name), encoding="ascii") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def out(self):
        text = self.read()
        return json.loads(text) if text else {}

    def report(self):
        text = self.read("report")
        return json.loads(text) if text else {}

    def status_lines(self):
        return self.read("status").splitlines()

    def wait_lines(self, n):
        wait_for(f"{n} status lines", lambda: len(self.status_lines()) >= n)

    def end(self):
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired as e:
            raise Failed("SIGTERM did not end it") from e

    def maps(self):
        with open(f"/proc/{self.pid}/maps", encoding="ascii") as f:
            for line in f:
                fields = line.split(None, 5)
                start, end = (int(x, 16) for x in fields[0].split("-"))
                yield (start, end, fields[1],
                       fields[5].strip() if len(fields) > 5 else "")

    def flip(self, address):
        with open(f"/proc/{self.pid}/mem", "r+b", buffering=0) as f:
            f.seek(address)
            byte = f.read(1)[0]
            f.seek(address)
            f.write(bytes([byte ^ 0x10]))


def selfcheck(*args):
    return Guest("selfcheck", "--dir", "{dir}", "--size", "4", *args)


def wait_failure(guest, needle):
    def failed():
        lines = guest.status_lines()
        return lines and " FAIL " in lines[-1]
    wait_for("a FAIL", failed)
    report = wait_for("a report", guest.report)
    check(not report["ok"], "the report says ok")
    lines = len(guest.status_lines())
    guest.wait_lines(lines + 1)
    check(" FAIL " in guest.status_lines()[-1], "FAIL was forgotten")
    check(guest.end() == 1, "the exit code is not 1")
    errors = guest.report()["errors"]
    check(any(needle in e for e in errors),
          f"no error has '{needle}': {errors[:3]}")


def test_selfcheck_pauses():
    with selfcheck("--stop-signals") as g:
        g.wait_lines(2)
        for seconds in (0.01, 0.1, 0.5, 1.5, 0.05, 0.02):
            g.pause(seconds)
            time.sleep(0.2)
        g.wait_lines(8)
        g.signal(signal.SIGUSR1)
        report = wait_for("a report", g.report)
        check(report["ok"], f"errors: {report['errors']}")
        check(max(x["us"] for x in report["gaps"]) >= 1400000,
              "the pause of 1.5 s is not among the gaps")
        idle = [k for k, n in report["loops"].items() if not n and k != "pause"]
        check(not idle, f"never ran: {idle}")
        lines = len(g.status_lines())
        g.wait_lines(lines + 2)
        check(g.end() == 0, "the exit code is not 0")


def test_selfcheck_sees_eintr():
    with selfcheck() as g:
        g.wait_lines(1)
        for _ in range(5):
            g.pause(0.05)
            time.sleep(0.05)
        wait_failure(g, "visible EINTR")


def flip_test(needle, choose, offset):
    def test():
        with selfcheck() as g:
            g.wait_lines(2)
            found = [m for m in g.maps() if choose(*m)]
            check(found, "no such mapping")
            start, end = found[0][:2]
            check(start + offset < end, "the mapping is too small")
            g.flip(start + offset)
            wait_failure(g, needle)
    return test


def mix64(x):
    x = (x + 0x9e3779b97f4a7c15) % 2**64
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9 % 2**64
    x = (x ^ x >> 27) * 0x94d049bb133111eb % 2**64
    return x ^ x >> 31


def find_bytes(guest, wanted):
    """Where the guest has these bytes in private anonymous memory."""
    with open(f"/proc/{guest.pid}/mem", "rb", buffering=0) as f:
        for start, end, prot, name in guest.maps():
            if prot != "rw-p" or name:
                continue
            try:
                f.seek(start)
                at = f.read(end - start).find(wanted)
            except OSError:  # the mapping went meanwhile
                continue
            if at >= 0:
                return start + at
    return 0


def test_arena_flip():
    with selfcheck() as g:
        g.wait_lines(2)
        # what visit 500 left on page 9: it stays for 511 visits
        word = mix64(mix64(9) ^ 500).to_bytes(8, "little")
        g.flip(wait_for("page 9", lambda: find_bytes(g, word)) + 5)
        wait_failure(g, "arena: page 9")


def guarded(wanted):
    def choose(start, end, prot, name):
        return prot == wanted and not name and end - start == 8 * 4096
    return choose


def named(part, wanted):
    def choose(start, end, prot, name):
        return part in name and prot == wanted
    return choose


class Ptrace:
    """One thread, stopped and let go again, without a signal it could see."""

    SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
    GETREGSET, SETREGSET = 0x4204, 0x4205
    GENERAL, FLOATING = 1, 2
    R12, XMM15 = 3 * 8, 160 + 15 * 16

    def __init__(self, tid):
        self.tid = tid
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long,
                                     ctypes.c_void_p, ctypes.c_void_p]
        self.libc.ptrace.restype = ctypes.c_long

    def call(self, request, addr=None, data=None):
        if self.libc.ptrace(request, self.tid, addr, data) < 0:
            raise OSError(ctypes.get_errno(), "ptrace")

    def __enter__(self):
        self.call(self.SEIZE)
        self.call(self.INTERRUPT)
        os.waitpid(self.tid, 0x40000000)  # __WALL
        return self

    def __exit__(self, *_):
        try:
            self.call(self.DETACH)
        except ProcessLookupError:  # the guest has ended meanwhile
            pass

    def add_one(self, regset, offset):
        buf = ctypes.create_string_buffer(512)
        iov = struct.pack("PN", ctypes.addressof(buf), len(buf))
        vec = ctypes.create_string_buffer(iov)
        self.call(self.GETREGSET, regset, ctypes.addressof(vec))
        value = struct.unpack_from("<Q", buf, offset)[0]
        struct.pack_into("<Q", buf, offset, (value + 1) % 2**64)
        self.call(self.SETREGSET, regset, ctypes.addressof(vec))

    def in_system_call(self):
        buf = ctypes.create_string_buffer(512)
        vec = ctypes.create_string_buffer(
            struct.pack("PN", ctypes.addressof(buf), len(buf)))
        self.call(self.GETREGSET, self.GENERAL, ctypes.addressof(vec))
        return struct.unpack_from("<q", buf, 15 * 8)[0] >= 0


def thread_named(guest, name):
    for tid in os.listdir(f"/proc/{guest.pid}/task"):
        with open(f"/proc/{guest.pid}/task/{tid}/comm", encoding="ascii") as f:
            if f.read().strip() == name:
                return int(tid)
    raise Failed(f"no thread {name}")


def test_selfcheck_sees_stall():
    with selfcheck("--stall", "4") as g:
        g.wait_lines(2)
        # what a lost wake-up looks like from outside; a guest could not end
        # while one of its threads is held
        with Ptrace(thread_named(g, "pipe-reader")):
            wait_for("a report", g.report)
        # who writes to it stands still, too, and may be the first to be seen
        wait_failure(g, "did nothing during")


def register_test(regset, offset, needle):
    def test():
        with selfcheck() as g:
            g.wait_lines(2)
            tid = thread_named(g, "vector-a")

            def change():
                # between system calls it is in its loop nearly always
                with Ptrace(tid) as p:
                    if p.in_system_call():
                        return False
                    p.add_one(regset, offset)
                    return True
            wait_for("the thread in its loop", change)
            wait_failure(g, needle)
    return test


def test_one_page():
    with Guest("one_page", "{file}") as g:
        time.sleep(0.1)
        g.pause(0.2)
        g.signal(signal.SIGUSR1)
        first = wait_for("a verdict", g.out)
        check(first["ok"], str(first))
        g.signal(signal.SIGUSR1)
        wait_for("a later count", lambda: g.out()["count"] > first["count"])
        check(g.end() == 0, "the exit code is not 0")


def test_one_page_sees():
    with Guest("one_page", "{file}") as g:
        time.sleep(0.1)
        pages = [m for m in g.maps() if m[2] == "rw-p" and "one_page" in m[3]
                 or m[2] == "rw-p" and not m[3]]

        def counter():
            # the page whose first word changes
            for start, end, *_ in pages:
                with open(f"/proc/{g.pid}/mem", "rb", buffering=0) as f:
                    for at in range(start, end, 4096):
                        f.seek(at)
                        a = f.read(8)
                        time.sleep(0.01)
                        f.seek(at)
                        if f.read(8) != a:
                            return at
            return 0
        at = wait_for("the counter", counter) + 6

        def flipped():
            # lost when the guest writes what it read before
            try:
                g.flip(at)
                g.process.wait(0.5)
            except (subprocess.TimeoutExpired, OSError):
                pass
            return g.process.poll() is not None
        wait_for("its verdict", flipped)
        check(g.process.returncode == 1, "the exit code is not 1")
        check(not g.out()["ok"], "the verdict is ok")


def test_sleepers():
    with Guest("sleepers", "{file}", "1.2", "18") as g:
        check(g.process.wait(PATIENCE) == 0, g.read())
        check(len(g.out()["sleepers"]) == 18, "not all have woken")


def test_sleepers_sees_eintr():
    with Guest("sleepers", "{file}", "1.2", "9") as g:
        time.sleep(0.3)
        g.pause(0.2)
        check(g.process.wait(PATIENCE) == 1, "a pause showed in no call")
        failed = {s["kind"] for s in g.out()["sleepers"] if s["result"] != "ok"}
        check(failed == {"epoll_wait"}, f"interrupted: {failed}")


def test_sigsuspend():
    with Guest("sigsuspend", "{file}") as g:
        wait_for("the first wait", g.out)
        for n in range(1, 11):
            g.signal(signal.SIGSTOP)
            g.signal(signal.SIGUSR1 if n % 2 else signal.SIGUSR2)
            g.signal(signal.SIGCONT)
            wait_for("the next wait", lambda: g.out()["waits"] == n)
        out = g.out()
        check(out["ok"] and out["usr1"] == out["usr2"] == 5, str(out))
        check(g.end() == 0, "the exit code is not 0")


def test_creds():
    if os.getuid():
        raise Skipped("needs root")
    with Guest("creds", "{file}") as g:
        text = wait_for("a verdict", g.read)
        check(text.startswith("OK ") and "uid 1000 1000 1000" in text, text)
        # another nice value than its own is one of the things it must see
        subprocess.run(["renice", "-n", "7", "-p", str(g.pid)], check=True,
                       stdout=subprocess.DEVNULL)
        g.signal(signal.SIGUSR1)
        wait_for("FAIL", lambda: g.read().startswith("FAIL "))
        check(g.end() == 1, "the exit code is not 1")


def test_vfork_storm():
    with Guest("vfork_storm", "{file}", "2") as g:
        for _ in range(10):
            time.sleep(0.05)
            g.pause(0.05)
        g.signal(signal.SIGUSR1)
        wait_for("a verdict", g.out)
        check(g.end() == 0, g.read())
        check(g.out()["started"] == g.out()["ended"] > 0, g.read())


def test_python_threads():
    with Guest("python_threads.py", "{dir}") as g:
        g.wait_lines(1)
        g.pause(0.5)
        g.wait_lines(3)
        check(g.end() == 0, g.read("status"))
        check(g.status_lines()[-1].endswith(" OK"), g.status_lines()[-1])


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Redis:
    """A server that loses nothing it acknowledged when it is killed."""

    def __init__(self, directory):
        self.program = shutil.which("redis-server")
        if not self.program:
            raise Skipped("no redis-server")
        self.dir, self.port, self.process = directory, free_port(), None

    def start(self):
        self.process = subprocess.Popen(
            [self.program, "--port", str(self.port), "--dir", self.dir,
             "--appendonly", "yes", "--appendfsync", "always", "--save", ""],
            stdout=subprocess.DEVNULL)

    def stop(self):
        self.process.kill()
        self.process.wait()

    def call(self, text):
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as s:
            s.sendall(text.encode() + b"\r\n")
            return s.recv(1000)


def redis_run(harm):
    directory = tempfile.mkdtemp(prefix="redis-")
    stop_file = os.path.join(directory, "stop")
    server = Redis(directory)
    server.start()
    client = None
    try:
        client = subprocess.Popen(
            [os.path.join(GUESTS, "redis_client.py"), "--host", "127.0.0.1",
             "--port", str(server.port), "--stop-file", stop_file,
             "--keys", "300"], stdout=subprocess.PIPE)
        time.sleep(1)
        server.stop()
        server.start()
        time.sleep(0.8)
        if harm:
            # the client goes on reading what it had written
            client.send_signal(signal.SIGSTOP)
            harm(server)
            open(stop_file, "w", encoding="ascii").close()
            client.send_signal(signal.SIGCONT)
        else:
            open(stop_file, "w", encoding="ascii").close()
        out = json.loads(client.communicate(timeout=PATIENCE)[0])
        return client.returncode, out
    finally:
        if client and client.poll() is None:
            client.kill()
            client.wait()
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def test_redis_client():
    code, out = redis_run(None)
    check(code == 0 and out["acked"] > 100 and out["reconnects"] >= 1 and
          out["lost"] == out["wrong"] == 0, str(out))


def test_redis_client_sees():
    code, out = redis_run(lambda s: s.call("FLUSHALL"))
    check(code == 1 and out["lost"] > 0, f"nothing lost: {out}")


def load(*args):
    return Guest("vasi-load", "--size", "8", "--wss", "4", "--threads", "2",
                 "--output", "{file}", *args,
                 path=os.path.join(BUILD, "vasi-load"))


def last_line(guest):
    lines = guest.read().splitlines()
    return json.loads(lines[-1]) if lines else {}


def test_load():
    for pattern in ("seq", "random", "hot"):
        with load("--pattern", pattern, "--rate", "2000") as g:
            wait_for("the start", g.read)
            time.sleep(0.3)
            g.pause(0.2)
            g.signal(signal.SIGUSR1)
            wait_for("a line", lambda: "report" in g.read())
            check(g.end() == 0, g.read())
            last = last_line(g)
            check(last["ok"] and last["sum"] == last["writes"] > 0, str(last))


def load_flip(offset, key):
    with load("--rate", "500") as g:
        wait_for("the start", g.read)
        # word 2 of page 1 by the rule of the fill, seed 1
        word = mix64(1 ^ mix64(512 + 2)).to_bytes(8, "little")
        at = find_bytes(g, word)
        check(at, "page 1 is not to be found")
        g.flip(at - 4096 - 16 + offset)
        check(g.end() == 1, g.read())
        check(last_line(g)[key] > 0, str(last_line(g)))


def test_load_sees():
    load_flip(100 * 4096 + 1000, "bad_pages")
    load_flip((6 << 20) + 80, "bad_cold_pages")
    load_flip(4096 + 5, "bad_sums")


TESTS = [
    ("selfcheck stays right when it is paused", test_selfcheck_pauses),
    ("selfcheck sees an EINTR", test_selfcheck_sees_eintr),
    ("selfcheck sees a byte of the arena", test_arena_flip),
    ("selfcheck sees a byte behind PROT_NONE",
     flip_test("PROT_NONE", guarded("---p"), 3 * 4096 + 77)),
    ("selfcheck sees a byte behind PROT_READ",
     flip_test("PROT_READ", guarded("r--p"), 5 * 4096 + 77)),
    ("selfcheck sees a byte of a private file page",
     flip_test("map-kinds: file", named("/private", "rw-p"), 4 * 4096 + 8)),
    ("selfcheck sees a byte of a deleted file's page",
     flip_test("map-kinds: deleted", named("/deleted (deleted)", "rw-p"),
               4 * 4096 + 9)),
    ("selfcheck sees a byte of a memfd",
     flip_test("map-kinds: memfd", named("/memfd:selfcheck", "rw-s"),
               7 * 4096 + 8)),
    ("selfcheck sees a byte of shared anonymous memory",
     flip_test("map-kinds: shared", named("/dev/zero", "rw-s"),
               6 * 4096 + 8)),
    ("selfcheck sees a thread that is lost", test_selfcheck_sees_stall),
    ("selfcheck sees xmm15 differ from r12",
     register_test(Ptrace.FLOATING, Ptrace.XMM15, "vector lane")),
    ("selfcheck sees r12 differ from the loop",
     register_test(Ptrace.GENERAL, Ptrace.R12, "r12 counted")),
    ("one_page counts on", test_one_page),
    ("one_page sees a byte", test_one_page_sees),
    ("sleepers wake in time", test_sleepers),
    ("sleepers see an EINTR", test_sleepers_sees_eintr),
    ("sigsuspend ends once for each signal", test_sigsuspend),
    ("creds keeps and compares its ids", test_creds),
    ("vfork_storm loses no child", test_vfork_storm),
    ("python_threads goes on", test_python_threads),
    ("redis_client outlives a restart", test_redis_client),
    ("redis_client sees a lost key", test_redis_client_sees),
    ("vasi-load counts right in each pattern", test_load),
    ("vasi-load sees bytes, cold bytes and sums", test_load_sees),
]


def outcome(test):
    """None, or what kept it from passing."""
    try:
        test()
    except (Skipped, Failed, OSError, ValueError, KeyError,
            subprocess.TimeoutExpired) as e:
        return e
    return None


def main():
    failed = skipped = 0
    only = os.environ.get("TEST_ONLY", "")
    tests = [t for t in TESTS if only in t[0]]
    print("TAP version 13")
    print(f"1..{len(tests)}")
    # Guests mostly wait, and the tests wait for them.
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = pool.map(outcome, [test for _, test in tests])
        for n, ((name, _), e) in enumerate(zip(tests, outcomes), 1):
            if isinstance(e, Skipped):
                skipped += 1
                print(f"ok {n} - {name} # SKIP {e}", flush=True)
            elif e:
                failed += 1
                print(f"not ok {n} - {name}", flush=True)
                print("# " + str(e)[:2000].replace("\n", "\n# "), flush=True)
            else:
                print(f"ok {n} - {name}", flush=True)
    return 1 if failed else 4 if skipped == len(tests) else 0


if __name__ == "__main__":
    sys.exit(main())
