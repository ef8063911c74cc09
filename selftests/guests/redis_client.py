#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""
Writes keys to a redis server that may move meanwhile, and reads them all back.

    redis_client.py --host A[,B...] [--port N] [--seconds N | --stop-file F]

A key counts as acknowledged when the server has answered; from then on it must
be there with exactly that value. A write without an answer (the connection broke)
may or may not have happened: its key must then hold the old value or the new one.
Every connection loss is followed by connecting again, to each host in turn.

Prints one JSON object {acked, reconnects, lost, wrong, longest_gap_ms, ...} and
exits with 0 when nothing is lost or wrong, 1 otherwise.
"""
import argparse
import json
import os
import random
import signal
import socket
import sys
import time


class ConnectionLost(Exception):
    pass


class Client:
    """Just enough of the redis protocol: bulk strings out, replies in."""

    def __init__(self, hosts, port, timeout):
        self.hosts, self.port, self.timeout = hosts, port, timeout
        self.sock = None
        self.buffer = b""
        self.reconnects = -1
        self.next_host = 0
        self.addresses = []

    def connect(self, give_up_at):
        """Goes round the hosts until one accepts and answers."""
        self.close()
        while time.monotonic() < give_up_at:
            host = self.hosts[self.next_host % len(self.hosts)]
            try:
                self.sock = socket.create_connection((host, self.port),
                                                     self.timeout)
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.buffer = b""
                if self.call(b"PING") == b"PONG":
                    self.reconnects += 1
                    self.addresses.append(host)
                    return
            except (OSError, ConnectionLost):
                pass
            self.close()
            self.next_host += 1
            if self.next_host % len(self.hosts) == 0:
                time.sleep(0.005)
        raise TimeoutError("no server answered")

    def close(self):
        if self.sock:
            self.sock.close()
        self.sock = None

    def _fill(self):
        try:
            data = self.sock.recv(65536)
        except OSError as e:
            raise ConnectionLost(str(e)) from e
        if not data:
            raise ConnectionLost("end of stream")
        self.buffer += data

    def _line(self):
        while b"\r\n" not in self.buffer:
            self._fill()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def _reply(self):
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"-":
            # a server that is still loading is not there yet
            raise ConnectionLost(rest.decode())
        if kind == b"$":
            size = int(rest)
            if size < 0:
                return None
            while len(self.buffer) < size + 2:
                self._fill()
            value, self.buffer = self.buffer[:size], self.buffer[size + 2:]
            return value
        if kind == b"*":
            return [self._reply() for _ in range(int(rest))]
        raise ConnectionLost(f"not a reply: {line!r}")

    def call(self, *args):
        request = b"*%d\r\n" % len(args)
        for a in args:
            request += b"$%d\r\n%s\r\n" % (len(a), a)
        try:
            self.sock.sendall(request)
        except OSError as e:
            raise ConnectionLost(str(e)) from e
        return self._reply()


class Ledger:
    """What the server has to remember: counted here, never read from there."""

    def __init__(self):
        self.acked = {}
        self.open = {}
        self.acknowledged = 0
        self.longest_gap = 0.0
        self.gap_at = None
        self.last_answer = None

    def answered(self):
        now = time.monotonic()
        if self.last_answer is not None and now - self.last_answer > self.longest_gap:
            self.longest_gap = now - self.last_answer
            self.gap_at = self.last_answer
        self.last_answer = now

    def acknowledge(self, key, value):
        self.acked[key] = value
        self.open.pop(key, None)
        self.acknowledged += 1
        self.answered()

    def allowed(self, key):
        return {self.acked.get(key)} | self.open.get(key, set())


def write_until(client, ledger, args, stopping):
    rng = random.Random(args.seed)
    end = time.monotonic() + args.seconds if args.seconds else float("inf")
    n = 0
    while time.monotonic() < end and not stopping["now"]:
        if args.stop_file and n % 64 == 0 and os.path.exists(args.stop_file):
            return
        n += 1
        # new keys and old ones: an old value that comes back is seen too
        key = b"%s:%d" % (args.prefix.encode(), rng.randrange(args.keys))
        value = b"%d:%x" % (n, rng.getrandbits(128))
        ledger.open.setdefault(key, set()).add(value)
        try:
            reply = client.call(b"SET", key, value)
            if reply != b"OK":
                raise ConnectionLost(f"SET answered {reply!r}")
            ledger.acknowledge(key, value)
        except ConnectionLost:
            client.next_host += 1
            client.connect(time.monotonic() + args.give_up)
        if args.rate:
            time.sleep(1 / args.rate)


def read_back(client, ledger, args):
    lost, wrong, examples = 0, 0, []
    keys = sorted(set(ledger.acked) | set(ledger.open))
    at = 0
    while at < len(keys):
        key = keys[at]
        try:
            value = client.call(b"GET", key)
        except ConnectionLost:
            client.connect(time.monotonic() + args.give_up)
            continue
        at += 1
        if value in ledger.allowed(key):
            continue
        if value is None:
            lost += 1
        else:
            wrong += 1
        if len(examples) < 5:
            examples.append([key.decode(), str(value), str(ledger.acked.get(key))])
    return lost, wrong, examples


def parse():
    p = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    p.add_argument("--host", required=True, help="addresses, by comma")
    p.add_argument("--port", type=int, default=6379)
    p.add_argument("--seconds", type=float, default=0,
                   help="write for so long (0: until SIGTERM or --stop-file)")
    p.add_argument("--stop-file", help="stop writing when this file exists")
    p.add_argument("--rate", type=float, default=0, help="writes per second")
    p.add_argument("--keys", type=int, default=5000)
    p.add_argument("--prefix", default="client")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--timeout", type=float, default=2,
                   help="seconds without an answer that end a connection")
    p.add_argument("--give-up", type=float, default=120,
                   help="seconds without a server that end the client")
    return p.parse_args()


def main():
    args = parse()
    stopping = {"now": False}
    signal.signal(signal.SIGTERM, lambda *_: stopping.update(now=True))
    client = Client(args.host.split(","), args.port, args.timeout)
    ledger = Ledger()
    result = {}
    try:
        client.connect(time.monotonic() + args.give_up)
        ledger.answered()
        write_until(client, ledger, args, stopping)
        lost, wrong, examples = read_back(client, ledger, args)
        result = {"lost": lost, "wrong": wrong, "examples": examples}
    except TimeoutError as e:
        result = {"lost": -1, "wrong": -1, "error": str(e)}
    result = {"acked": ledger.acknowledged, "keys": len(ledger.acked),
              "reconnects": max(client.reconnects, 0),
              "hosts": client.addresses,
              "longest_gap_ms": round(ledger.longest_gap * 1000, 3),
              "longest_gap_at": ledger.gap_at, **result}
    print(json.dumps(result))
    return 0 if result["lost"] == 0 and result["wrong"] == 0 and ledger.acked else 1


if __name__ == "__main__":
    sys.exit(main())
