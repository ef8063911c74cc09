#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The guests of a host: start, adopt, list, lose, find again."""

import grp
import json
import os
import signal
import subprocess
import sys

sys.dont_write_bytecode = True
from mspd_test import MSPCTL, alive, main, require, wait_for, with_daemon  # noqa: E402


def status(pid, key):
    with open("/proc/%d/status" % pid) as f:
        for line in f:
            if line.startswith(key + ":"):
                return line.split(":", 1)[1].split()
    return None


@with_daemon()
def test_run(d):
    """run starts a guest in namespaces of its own and lists it"""
    out = os.path.join(d.dir, "out")
    g = d.run("web", "/bin/sh", "-c", "echo hello; pwd; exec sleep 1000",
              options=["--output", out, "--cwd", "/usr"])
    require(alive(g["pid"]))
    require(d.guests()["web"]["pid"] == g["pid"])
    require(d.guests()["web"]["state"] == "running")
    for ns in ("pid", "time"):
        require(os.readlink("/proc/%d/ns/%s" % (g["pid"], ns)) !=
                os.readlink("/proc/self/ns/%s" % ns), ns)
    require(status(g["pid"], "NSpid")[-1] == "2", status(g["pid"], "NSpid"))
    require(wait_for(lambda: open(out).read() == "hello\n/usr\n"), open(out).read())
    fds = os.listdir("/proc/%d/fd" % g["pid"])
    require(sorted(fds) == ["0", "1", "2"], fds)


@with_daemon()
def test_exit(d):
    """a guest that ends leaves the list and its file"""
    g = d.run("web", "sleep", "1000")
    path = os.path.join(d.state, "guests", "web.json")
    require(os.path.exists(path))
    os.kill(g["pid"], signal.SIGKILL)
    require(wait_for(lambda: "web" not in d.guests()))
    require(not os.path.exists(path))
    d.run("web", "sleep", "1000")


@with_daemon()
def test_run_refused(d):
    """run says why it cannot: name, program, directory, output"""
    d.run("web", "sleep", "1000")
    cases = [
        (["--name", "web", "--", "true"], "taken"),
        (["--name", "a/b", "--", "true"], "no name for a guest"),
        (["--name", ".x", "--", "true"], "no name for a guest"),
        (["--name", "x" * 64, "--", "true"], "no name for a guest"),
        (["--name", "x", "--", "/no/such/program"], "No such file"),
        (["--name", "x", "--cwd", "/no/such/dir", "--", "true"], "No such file"),
        (["--name", "x", "--output", "/no/such/dir/f", "--", "true"], "No such file"),
    ]
    for args, text in cases:
        r = d.ctl("run", *args)
        require(r.returncode == 1 and text in r.stderr, args, r.stderr)
        require(len(r.stderr.splitlines()) == 1, r.stderr)
    require(list(d.guests()) == ["web"])


@with_daemon()
def test_run_fifo(d):
    """run refuses a FIFO as output, read or not, and waits for no reader"""
    fifo = os.path.join(d.dir, "fifo")
    os.mkfifo(fifo)
    for read in (False, True):
        fd = os.open(fifo, os.O_RDWR) if read else -1
        r = d.ctl("run", "--name", "x", "--output", fifo, "--", "sleep", "1000")
        if read:
            os.close(fd)
        require(r.returncode == 1 and "output file" in r.stderr, read, r.stderr)
    require(not d.guests())
    g = d.run("web", "sleep", "1000", options=["--output", os.path.join(d.dir, "out")])
    with open("/proc/%d/fdinfo/1" % g["pid"]) as f:
        flags = int(next(line for line in f if line.startswith("flags:")).split()[1], 8)
    require(flags & os.O_APPEND and not flags & os.O_NONBLOCK, oct(flags))


@with_daemon()
def test_adopt(d):
    """adopt takes a running process, once, and release lets it go"""
    p = d.adoptable("sleep", "1000")
    try:
        r = d.ctl("adopt", "--name", "old", str(p.pid))
        require(r.returncode == 0, r.stderr)
        require(d.guests()["old"]["pid"] == p.pid)
        r = d.ctl("adopt", "--name", "other", str(p.pid))
        require(r.returncode == 1 and '"old" already' in r.stderr, r.stderr)
        r = d.ctl("release", "old")
        require(r.returncode == 0, r.stderr)
        require(not d.guests() and p.poll() is None)
        r = d.ctl("release", "old")
        require(r.returncode == 1 and "no guest" in r.stderr, r.stderr)
    finally:
        p.kill()
        p.wait()


@with_daemon()
def test_adopt_refused(d):
    """adopt refuses what can be no guest, and says why"""
    g = d.run("web", "sleep", "1000")
    reaper = int(status(g["pid"], "PPid")[0])
    threaded = d.adoptable(sys.executable, "-c",
                           "import threading, time\n"
                           "threading.Thread(target=time.sleep, args=(1000,)).start()\n")
    tasks = "/proc/%d/task" % threaded.pid
    try:
        require(wait_for(lambda: len(os.listdir(tasks)) == 2))
        thread = max(int(t) for t in os.listdir(tasks))
        cases = [
            (1, "PID 1"),
            (2, "kernel thread"),
            (d.process.pid, "mspd itself"),
            (os.getpid(), "ancestors"),
            (reaper, "PID 1 of its namespace"),
            (thread, "thread"),
            (4194303, "No such process"),
            (g["pid"], "already"),
        ]
        for pid, text in cases:
            r = d.ctl("adopt", "--name", "x", str(pid))
            require(r.returncode == 1 and text in r.stderr, pid, text, r.stderr)
    finally:
        threaded.kill()
        threaded.wait()
    require(list(d.guests()) == ["web"])


@with_daemon()
def test_restart(d):
    """guests outlive the daemon's end, also a violent one, and are found again"""
    g = d.run("web", "sleep", "1000")
    for sig in (signal.SIGTERM, signal.SIGKILL):
        code = d.end(sig)
        require(code == (0 if sig == signal.SIGTERM else -sig), code)
        require(alive(g["pid"]))
        d.start()
        found = d.guests()["web"]
        require((found["pid"], found["uuid"], found["since"]) ==
                (g["pid"], g["uuid"], g["since"]), found)
    os.kill(g["pid"], signal.SIGKILL)
    require(wait_for(lambda: not d.guests()))


@with_daemon()
def test_recycled(d):
    """another process with a guest's PID, or of another boot, is not the guest"""
    g = d.run("web", "sleep", "1000")
    path = os.path.join(d.state, "guests", "web.json")
    with open(path) as f:
        good = json.load(f)
    require(good["start_ticks"] == g["start_ticks"])
    for key, value in (("start_ticks", good["start_ticks"] + 1),
                       ("boot_id", "0" * 36), ("pid", 4194303)):
        d.end()
        with open(path, "w") as f:
            json.dump(dict(good, **{key: value}), f)
        d.start()
        require(not d.guests(), key)
        require(not os.path.exists(path), key)
    require(alive(g["pid"]))
    d.end()
    with open(path, "w") as f:
        json.dump(good, f)
    d.start()
    require(d.guests()["web"]["pid"] == g["pid"])


@with_daemon()
def test_damaged(d):
    """a damaged registry file is left alone with a warning"""
    d.run("web", "sleep", "1000")
    d.end()
    path = os.path.join(d.state, "guests", "bad.json")
    for text in ("", "{", "[]", '{"name": "bad"}', '{"name": "web"}'):
        with open(path, "w") as f:
            f.write(text)
        d.start()
        require(list(d.guests()) == ["web"], text)
        require("bad.json" in d.log_text())
        require(os.path.exists(path))
        d.end()


@with_daemon()
def test_second_daemon(d):
    """a second daemon on the same socket gives up and changes nothing"""
    d.run("web", "sleep", "1000")
    from mspd_test import MSPD
    r = subprocess.run([MSPD, "-f", "-c", d.config, "-s", d.socket, "-d", d.state,
                        "-l", "127.0.0.1:1"], capture_output=True, text=True,
                       timeout=30)
    require(r.returncode == 1 and "another mspd" in r.stderr, r.stderr)
    require(list(d.guests()) == ["web"])


def as_user(d, uid, gid, *args):
    return subprocess.run(["setpriv", "--reuid", str(uid), "--regid", str(gid),
                           "--clear-groups", MSPCTL, "-s", d.socket] + list(args),
                          capture_output=True, text=True, timeout=60)


@with_daemon()
def test_users(d):
    """nobody but root may use the control socket"""
    require(os.stat(d.socket).st_mode & 0o777 == 0o600)
    r = as_user(d, 65534, 65534, "list")
    require(r.returncode == 1 and "permission denied" in r.stderr, r.stderr)
    # the mode is not the only lock
    os.chmod(d.socket, 0o666)
    r = as_user(d, 65534, 65534, "list")
    require(r.returncode == 1 and "be root or a member" in r.stderr, r.stderr)
    require("may not use" in d.log_text())


GROUP = grp.getgrgid(100).gr_name


@with_daemon("[mspd]\ngroup = %s\n" % GROUP)
def test_group(d):
    """a member of the group may, and its guests are its own"""
    require(os.stat(d.socket).st_mode & 0o777 == 0o660)
    r = as_user(d, 1234, 100, "run", "--name", "mine", "--cwd", "/", "--json", "--",
                "sleep", "1000")
    require(r.returncode == 0, r.stderr)
    pid = json.loads(r.stdout)["pid"]
    d.pids.append(pid)
    require(status(pid, "Uid") == ["1234"] * 4, status(pid, "Uid"))
    require(status(pid, "Gid") == ["100"] * 4, status(pid, "Gid"))
    require(status(pid, "CapEff") == ["0000000000000000"], status(pid, "CapEff"))
    p = d.adoptable("sleep", "1000")
    try:
        r = as_user(d, 1234, 100, "adopt", "--name", "x", str(p.pid))
        require(r.returncode == 1 and "another user" in r.stderr, r.stderr)
    finally:
        p.kill()
        p.wait()
    # the mode is not the only lock
    os.chmod(d.socket, 0o666)
    r = as_user(d, 1234, 65534, "list")
    require(r.returncode == 1 and "be root or a member" in r.stderr, r.stderr)


if __name__ == "__main__":
    if os.geteuid():
        print("1..0 # SKIP needs root")
        sys.exit(4)
    sys.exit(main(globals()))
