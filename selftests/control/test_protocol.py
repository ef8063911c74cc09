#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The control socket under clients that are wrong, slow or gone."""

import json
import os
import re
import socket
import subprocess
import sys

sys.dont_write_bytecode = True
from mspd_test import MSPD, Daemon, free_port, main, require, wait_for, with_daemon  # noqa: E402

PARSE, REQUEST, METHOD, PARAMS, FAILED = -32700, -32600, -32601, -32602, -32000


def open_fds(d):
    return len(os.listdir("/proc/%d/fd" % d.process.pid))


@with_daemon()
def test_malformed(d):
    """every kind of malformed request gets its JSON-RPC error, and no more"""
    ok = b'"jsonrpc": "2.0", "id": 7, "method": '
    cases = [
        (b"hello", PARSE), (b"{", PARSE), (b"\xff\xfe", PARSE), (b"\0", PARSE),
        (b'{"a": 1, "a": 2}', PARSE), (b"[" * 3000 + b"]" * 3000, PARSE),
        (b"[]", REQUEST), (b"{}", REQUEST),
        (b'{"id": 1, "method": "server.info"}', REQUEST),
        (b'{"jsonrpc": "1.0", "id": 1, "method": "server.info"}', REQUEST),
        (b'{"jsonrpc": "2.0", "id": {}, "method": "server.info"}', REQUEST),
        (b'{"jsonrpc": "2.0", "id": 1, "method": 5}', REQUEST),
        (b"{" + ok + b'"server.info", "params": []}', REQUEST),
        (b"{" + ok + b'"server.nothing"}', METHOD),
        (b"{" + ok + b'""}', METHOD),
        (b"{" + ok + b'"guest.run"}', PARAMS),
        (b"{" + ok + b'"guest.run", "params": {"name": "x", "argv": []}}', PARAMS),
        (b"{" + ok + b'"guest.run", "params": {"name": "x", "argv": [1]}}', PARAMS),
        (b"{" + ok + b'"guest.run", "params": {"name": "x", "argv": "true"}}', PARAMS),
        (b"{" + ok + b'"guest.run", "params": {"name": "x", "argv": ["true"], '
         b'"cwd": "etc"}}', PARAMS),
        (b"{" + ok + b'"guest.run", "params": {"name": "x", "argv": ["true"], '
         b'"uid": 0}}', PARAMS),
        (b"{" + ok + b'"guest.adopt", "params": {"name": "x", "pid": "1"}}', PARAMS),
        (b"{" + ok + b'"guest.adopt", "params": {"name": "x", "pid": -1}}', FAILED),
        (b"{" + ok + b'"migration.start", "params": {"name": "x"}}', PARAMS),
        (b"{" + ok + b'"migration.start", "params": {"name": "x", "host": "h"}}', FAILED),
        (b"{" + ok + b'"migration.watch", "params": {"id": 99}}', FAILED),
    ]
    c = d.rpc()
    for text, code in cases:
        c.send(text + b"\n")
        answer = c.line()
        require(answer["jsonrpc"] == "2.0" and "result" not in answer, text[:80], answer)
        require(answer["error"]["code"] == code, text[:80], answer)
        require(answer["error"]["message"], text[:80])
    # the connection is as good as before, and nothing was done
    require(c.call("guest.list")["result"]["guests"] == [])


@with_daemon()
def test_framing(d):
    """requests may come in pieces, many at once, and without an answer wanted"""
    c = d.rpc()
    request = b'{"jsonrpc": "2.0", "id": "%s", "method": "server.info"}\n'
    for byte in request % b"a":
        c.send(bytes([byte]))
    require(c.line()["id"] == "a")
    c.send(b"".join(request % str(i).encode() for i in range(200)))
    require([c.line()["id"] for _ in range(200)] == [str(i) for i in range(200)])
    c.send(b'{"jsonrpc": "2.0", "method": "server.info"}\n\n' + request % b"z")
    require(c.line()["id"] == "z")


@with_daemon()
def test_endless_line(d):
    """a line without an end drops its sender alone"""
    c, other = d.rpc(), d.rpc()
    try:
        for _ in range(64):
            c.send(b"x" * 65536)
        closed = c.sock.recv(1) == b""
    except (BrokenPipeError, ConnectionResetError):
        closed = True
    require(closed)
    require("line above" in d.log_text())
    require("result" in other.call("server.info"))


@with_daemon()
def test_stalled_client(d):
    """a client that never reads is dropped and holds nobody up"""
    c, other = d.rpc(), d.rpc()
    request = b'{"jsonrpc": "2.0", "id": 1, "method": "server.info"}\n' * 1000
    c.sock.settimeout(20)
    dropped = False
    for _ in range(200):
        try:
            c.send(request)
        except (BrokenPipeError, ConnectionResetError):
            dropped = True
            break
        require("result" in other.call("server.info"))
    require(dropped and "does not read" in d.log_text())


@with_daemon()
def test_many_clients(d):
    """the number of clients is bounded; those who leave make room"""
    before = open_fds(d)
    clients = []
    for _ in range(64):
        clients.append(d.rpc())
        require("result" in clients[-1].call("server.info"))
    late = d.rpc()
    require("too many" in late.line()["error"]["message"])
    for c in clients:
        c.close()
    require(wait_for(lambda: open_fds(d) <= before))
    require(d.ctl("info").returncode == 0)


@with_daemon()
def test_leaving_client(d):
    """clients that leave in the middle of a request leave nothing behind"""
    before = open_fds(d)
    for _ in range(100):
        c = d.rpc()
        c.send(b'{"jsonrpc": "2.0", "id": 1, "method": "server.info"}\n' * 50 + b'{"js')
        c.close()
    require(wait_for(lambda: open_fds(d) <= before))


@with_daemon()
def test_no_module(d):
    """a move where /dev/vasi is missing fails with its cause, and the guest runs"""
    if os.path.exists("/dev/vasi"):
        return
    g = d.run("web", "sleep", "1000")
    r = d.ctl("migrate", "-i", "access=vasi", "web", "127.0.0.1:%d" % d.port)
    require(r.returncode == 1 and "/dev/vasi" in r.stderr, r.stderr)
    r = d.ctl("migrate", "-i", "access=user,tracker=dbit", "web", "127.0.0.1:%d" % d.port)
    require(r.returncode == 1 and "no tracker dbit" in r.stderr, r.stderr)
    require(d.guests()["web"]["state"] == "running")
    require(d.guests()["web"]["pid"] == g["pid"])


@with_daemon()
def test_attributes(d):
    """wrong attributes and hosts are refused before anything starts"""
    d.run("web", "sleep", "1000")
    for args, text in (
            (["-i", "streams=0", "web", "h"], "1 to 64"),
            (["-i", "streams=65", "web", "h"], "1 to 64"),
            (["-i", "streams=4x", "web", "h"], "1 to 64"),
            (["-i", "streams=-1", "web", "h"], "1 to 64"),
            (["-i", "connections=keep", "web", "h"], "refuse or close"),
            (["-i", "access=kvm", "web", "h"], "auto, vasi or user"),
            (["-i", "tracker=x", "web", "h"], "auto, dbit, wpasync or softdirty"),
            (["-i", "colour=red", "web", "h"], "no attribute"),
            (["web", "h:0"], "HOST"), (["web", "h:65536"], "HOST"),
            (["web", "h:x"], "HOST"), (["web", ""], "HOST"),
            (["nobody", "h"], "no guest")):
        r = d.ctl("migrate", *args)
        require(r.returncode == 1 and text in r.stderr, args, r.stderr)
    for args in ((["web"]), (["-i", "streams", "web", "h"]), (["--colour", "web", "h"])):
        require(d.ctl("migrate", *args).returncode == 2, args)
    require(d.json("list", "--migrations")["migrations"] == [])


def workers(d):
    """PIDs of those that the daemon started, strangers' ones too."""
    return subprocess.run(["pgrep", "-P", str(d.process.pid)], capture_output=True,
                          text=True, check=False).stdout.split()


PREAMBLE = b"VSIC\1\0\1\0"


@with_daemon("[target]\nhandshake_ms = 1000\n[mspd]\nmax_migrations = 2\ntls = off\n")
def test_peers(d):
    """peers that speak garbage, close or stall do no harm; their number is bounded"""
    before = open_fds(d)
    for data in (b"", b"GET / HTTP/1.0\r\n\r\n", bytes(range(256)) * 64):
        with socket.create_connection(("127.0.0.1", d.port)) as s:
            try:
                s.sendall(data)
            except OSError:
                pass
    require(wait_for(lambda: not workers(d)))
    stalled = [socket.create_connection(("127.0.0.1", d.port)) for _ in range(60)]
    require(wait_for(lambda: "closed unheard" in d.log_text()))
    require(wait_for(lambda: 0 < len(workers(d)) <= 16), workers(d))
    # who has said nothing is no migration
    require(d.json("info")["active_target"] == 0)
    require(wait_for(lambda: not workers(d)))
    for s in stalled:
        s.close()
    require(wait_for(lambda: open_fds(d) <= before))
    require(not d.guests())
    # whoever never said which guest is no entry of the history
    require(wait_for(lambda: d.json("list", "-m")["migrations"] == []))


@with_daemon("[mspd]\nmax_migrations = 1\ntls = off\n")
def test_peer_refused(d):
    """a host that comes while no more migrations are allowed is told so"""
    with socket.create_connection(("127.0.0.1", d.port)) as first:
        first.sendall(PREAMBLE)
        require(wait_for(lambda: d.json("info")["active_target"] == 1))
        before = open_fds(d)
        for _ in range(8):
            with socket.create_connection(("127.0.0.1", d.port)) as s:
                s.settimeout(20)
                s.sendall(PREAMBLE + b"x" * 100)
                s.shutdown(socket.SHUT_WR)
                answer = b""
                while data := s.recv(4096):
                    answer += data
            require(answer.startswith(b"VSIC"), answer)
            require(b"max_migrations is reached" in answer, answer)
        require("max_migrations is reached" in d.log_text())
        require(wait_for(lambda: open_fds(d) <= before))


@with_daemon("[target]\nhandshake_ms = 60000\n[mspd]\ntls = off\n")
def test_places(d):
    """when all places are taken whoever waits the longest gives way"""
    # loopback has many addresses
    def call(host):
        s = socket.socket()
        s.bind((host, 0))
        s.connect(("127.0.0.1", d.port))
        return s
    calls = [call("127.0.1.%d" % (1 + i % 3)) for i in range(32)]
    require(wait_for(lambda: len(workers(d)) == 32), workers(d))
    newest = call("127.0.2.1")
    calls[0].settimeout(20)
    while calls[0].recv(100):   # a preamble, and the end
        pass
    require(wait_for(lambda: len(workers(d)) == 32), workers(d))
    newest.settimeout(20)
    require(newest.recv(100) == PREAMBLE, "the newest is not there")
    for s in [newest, *calls]:
        s.close()
    require(wait_for(lambda: not workers(d)))


@with_daemon()
def test_no_keys(d):
    """without a key mspd says so when it starts, and guests run all the same"""
    require("mspctl keys init" in d.log_text() and "not moved" in d.log_text())
    info = d.json("info")
    require((info["tls"], info["certificate"]) == ("required", "none"), info)
    g = d.run("web", "sleep", "1000")
    require(d.guests()["web"]["pid"] == g["pid"])


def mspd(*args):
    return subprocess.run([MSPD] + list(args), capture_output=True, text=True,
                          timeout=30)


def test_config():
    """mistakes in the configuration name file, line and what would be right"""
    d = Daemon()
    try:
        d.end()
        for text, line, what in (
                ("[mspd]\ncolour = red\n", 2, 'unknown setting "colour"'),
                ("[guests]\nport = 1\n", 2, "unknown setting"),
                ("port = 1\n", 1, "unknown setting"),
                ("[mspd]\n\nport = 0\n", 3, "1 to 65535"),
                ("[mspd]\nport = 65536\n", 2, "1 to 65535"),
                ("[mspd]\nport = many\n", 2, "1 to 65535"),
                ("[mspd]\nlog_level = loud\n", 2, "error, warning"),
                ("[migration]\nstreams = 65\n", 2, "1 to 64"),
                ("[migration]\nconnections = keep\n", 2, "refuse or close"),
                ("[mspd]\nport\n", 2, "name = value"),
                ("[mspd\n", 1, "name = value"),
                ("[mspd]\ntls = on\n", 2, "required or off"),
                ("[mspd]\nnonsense\ncolour = red\n", 2, "name = value"),
                ("[mspd]\nsocket = /" + "x" * 150 + "\n", 2, "socket needs")):
            with open(d.config, "w") as f:
                f.write(text)
            r = mspd("-f", "-c", d.config)
            place = "%s:%d: " % (d.config, line)
            require(r.returncode == 2 and place in r.stderr and what in r.stderr,
                    text, r.stderr)
        for text, what in (("[target]\nport_low = 5\n", "no range"),
                           ("[target]\nport_low = 9\nport_high = 8\n", "no range"),
                           ("[target]\nmax_streams = 2\n", "above max_streams")):
            with open(d.config, "w") as f:
                f.write(text)
            r = mspd("-f", "-c", d.config)
            require(r.returncode == 2 and what in r.stderr, text, r.stderr)
        r = mspd("-f", "-c", "/no/such/file")
        require(r.returncode == 2 and "/no/such/file" in r.stderr, r.stderr)
        with open(d.config, "w") as f:
            f.write("[mspd]\ngroup = no-such-group\n")
        r = mspd("-f", "-c", d.config, "-s", d.socket, "-d", d.state,
                 "-l", "127.0.0.1:%d" % d.port)
        require(r.returncode == 1 and "no-such-group" in r.stderr, r.stderr)
    finally:
        d.close()


def test_shipped_config():
    """the file that is shipped is read, and shows the defaults"""
    d = Daemon()
    try:
        shipped = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..",
                               "daemon", "mspd.conf")
        before = d.json("info")
        d.end()
        with open(shipped) as f:
            text = f.read()
        # with all comments taken away that hold a setting
        with open(d.config, "w") as f:
            f.write(re.sub(r"(?m)^# (\w+ = )", r"\1", text))
        d.start()
        after = d.json("info")
        for key in ("max_migrations", "listen"):
            require(before[key] == after[key], key)
    finally:
        d.close()


def test_command_line():
    """wrong options of mspd exit with 2; a port in use is told, also from behind"""
    for args in (["--colour"], ["extra"], ["-l", "host:port:x:y:0", "-l", "a:0"],
                 ["-L", "loud"], ["-s", "x" * 200]):
        r = mspd("-f", *args)
        require(r.returncode == 2 and r.stderr, args, r.stderr)
    require(mspd("--help").returncode == 0 and mspd("--version").returncode == 0)
    d = Daemon()
    try:
        for front in (["-f"], []):
            r = mspd(*front, "-c", d.config, "-s", d.socket + "2", "-d", d.state + "2",
                     "-l", "127.0.0.1:%d" % d.port)
            require(r.returncode == 1 and "in use" in r.stderr, r.stderr)
        # in the background: returns when it listens
        port = free_port()
        with open(os.path.join(d.dir, "log2"), "w") as log:
            r = subprocess.run([MSPD, "-c", d.config, "-s", d.socket + "2", "-d",
                                d.state + "2", "-l", "127.0.0.1:%d" % port],
                               stderr=log, timeout=30)
        require(r.returncode == 0)
        info = json.loads(d.ctl("-s", d.socket + "2", "info", "--json").stdout)
        require(info["port"] == port, info)
        os.kill(info["pid"], 15)
        require(wait_for(lambda: not os.path.exists(d.socket + "2")))
    finally:
        d.close()


if __name__ == "__main__":
    if os.geteuid():
        print("1..0 # SKIP needs root")
        sys.exit(4)
    sys.exit(main(globals()))
