# SPDX-License-Identifier: GPL-2.0
"""What the tests of the supervisor share: a daemon of their own, and TAP."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MSPD = os.environ.get("MSPD", os.path.join(TOP, "build", "mspd"))
MSPCTL = os.environ.get("MSPCTL", os.path.join(TOP, "build", "mspctl"))


def wait_for(condition, seconds=20):
    """True when it came true; timing only ends what would hang."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def alive(pid):
    """Neither gone nor a zombie."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Rpc:
    """A raw connection, to say what mspctl would not."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        require(wait_for(lambda: self.connected(path)))
        self.buffer = b""
        self.id = 0

    def connected(self, path):
        try:
            self.sock.connect(path)
        except BlockingIOError:     # the backlog is full for a moment
            return False
        return True

    def send(self, data):
        self.sock.sendall(data)

    def line(self):
        while b"\n" not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def call(self, method, **params):
        self.id += 1
        self.send(json.dumps({"jsonrpc": "2.0", "id": self.id, "method": method,
                              "params": params}).encode() + b"\n")
        answer = self.line()
        assert answer["id"] == self.id, answer
        return answer

    def close(self):
        self.sock.close()


class Daemon:
    """An mspd with a socket, a state directory and a port of its own."""

    def __init__(self, config=""):
        self.dir = tempfile.mkdtemp(prefix="mspd-test.")
        os.chmod(self.dir, 0o755)
        self.socket = os.path.join(self.dir, "control.sock")
        self.state = os.path.join(self.dir, "state")
        self.log = os.path.join(self.dir, "log")
        self.config = os.path.join(self.dir, "mspd.conf")
        self.port = free_port()
        # its own keys, not those of this machine's; what follows may set others
        self.keys = os.path.join(self.dir, "keys")
        with open(self.config, "w") as f:
            f.write("[mspd]\nkeys = %s\n%s" % (self.keys, config))
        self.process = None
        self.pids = []
        self.start()

    def start(self):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                [MSPD, "-f", "-c", self.config, "-s", self.socket, "-d", self.state,
                 "-l", "127.0.0.1:%d" % self.port, "-L", "debug"], stderr=log)
        ready = wait_for(lambda: self.process.poll() is not None or
                         self.ctl("info").returncode == 0)
        assert ready and self.process.poll() is None, self.log_text()

    def ctl(self, *args, **kwargs):
        return subprocess.run([MSPCTL, "-s", self.socket] + list(args),
                              capture_output=True, text=True, timeout=120, **kwargs)

    def json(self, *args):
        r = self.ctl(*args, "--json")
        assert r.returncode == 0, r.stderr
        return json.loads(r.stdout)

    def guests(self):
        return {g["name"]: g for g in self.json("list")["guests"]}

    def run(self, name, *argv, options=()):
        r = self.ctl("run", "--name", name, "--json", *options, "--", *argv)
        assert r.returncode == 0, r.stderr
        guest = json.loads(r.stdout)
        self.pids.append(guest["pid"])
        return guest

    def adoptable(self, *argv):
        """A process to adopt; it is reaped in close()."""
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, start_new_session=True)

    def rpc(self):
        return Rpc(self.socket)

    def log_text(self):
        with open(self.log) as f:
            return f.read()

    def end(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        return self.process.wait(30)

    def close(self):
        if self.process.poll() is None:
            self.end()
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        shutil.rmtree(self.dir)


def main(tests, needs=(MSPD, MSPCTL)):
    """Runs functions named test_*; their first line of text is the name."""
    tests = [(n, f) for n, f in tests.items() if n.startswith("test_")]
    for program in needs:
        if not os.access(program, os.X_OK):
            print("1..0 # SKIP %s is not built" % program)
            return 4
    failed = 0
    print("1..%d" % len(tests), flush=True)
    for i, (name, test) in enumerate(tests, 1):
        text = (test.__doc__ or name).split("\n")[0].rstrip(".")
        try:
            test()
            print("ok %d - %s" % (i, text), flush=True)
        except Exception:
            failed += 1
            print("not ok %d - %s" % (i, text), flush=True)
            for line in traceback.format_exc().splitlines():
                print("# " + line, flush=True)
    return 1 if failed else 0


def with_daemon(config=""):
    """Decorator: the test gets a daemon that is ended behind it."""
    def wrap(test):
        def run():
            daemon = Daemon(config)
            try:
                test(daemon)
            except Exception:
                for line in daemon.log_text().splitlines():
                    print("# mspd: " + line)
                raise
            finally:
                daemon.close()
        run.__doc__ = test.__doc__
        return run
    return wrap


def require(condition, *what):
    if not condition:
        raise AssertionError(*what)


if __name__ == "__main__":
    sys.exit("this is a library")
