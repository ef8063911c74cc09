# SPDX-License-Identifier: GPL-2.0
"""The larger guests of the move tests, and what must hold for each of them."""

import json
import os
import random
import time

from hosts import (ADDRESS, GUESTS, Failed, Guest, check, last_line, load_json, say,
                   wait_for)


class Selfcheck(Guest):
    """build/guests/selfcheck: every thread checks one kind of state."""

    def __init__(self, hosts, name, *options):
        super().__init__(hosts, name, os.path.join(GUESTS, "selfcheck"), "--dir",
                         "{dir}", *options)
        self.next_line()

    def line(self):
        """(sequence, {thread: loops}, verdict) of the newest status line."""
        words = last_line(self.file("status")).split(" ", 6)
        if len(words) < 7:
            return 0, {}, ""
        loops = dict(item.rsplit("=", 1) for item in words[3].split(","))
        return int(words[0]), {k: int(v) for k, v in loops.items()}, words[6]

    def good(self):
        """The newest line says OK: one that says FAIL is followed by no other."""
        number, loops, verdict = self.line()
        check(verdict == "OK", "status line %d says: %s" % (number, verdict))
        return loops

    def next_line(self):
        """Waits for a line that is written from now on; it must say OK."""
        seen = self.line()[0]
        wait_for("a status line of guest " + self.name, lambda: self.line()[0] > seen)
        return self.good()

    def all_go_on(self):
        """Each thread does something more; one that was lost never does."""
        before = self.next_line()

        def still():
            now = self.line()[1]
            return [t for t, n in before.items() if now[t] == n and t != "pause"]
        try:
            wait_for("every thread", lambda: not still())
        except Failed:
            raise Failed("threads that do nothing any more: " +
                         ", ".join(still())) from None

    def verdict(self):
        """Ends it; every line and the report must be good."""
        self.all_go_on()
        self.finish()
        report = load_json(self.file("report"))
        check(report, "no report")
        check(report["ok"] and report["why"] == "SIGTERM",
              "the report says: %s" % report["errors"])
        with open(self.file("status")) as f:
            lines = f.read().splitlines()
        bad = [n for n, line in enumerate(lines, 1)
               if not line.startswith("%d " % n) or not line.endswith(" OK")]
        check(not bad, "status lines %s" % bad[:10])
        say("%d threads, %d status lines, all OK; longest gap seen by the guest "
            "%.0f ms" % (len(report["loops"]), len(lines), max(
                [g["us"] for g in report["gaps"]] or [0]) / 1000))


def move_at_random(guest, moves, seed):
    """Back and forth, at random phases of what the guest does."""
    rng = random.Random(seed)
    say("%d moves, seed %d" % (moves, seed))
    for number in range(1, moves + 1):
        delay = rng.uniform(0, 0.7)
        time.sleep(delay)
        try:
            # It writes all of its memory all the time: more rounds gain nothing.
            guest.move("streams=%d,max_rounds=%d" % (rng.choice((1, 2, 4)),
                                                     rng.choice((1, 1, 2))))
            if number % 5:
                guest.good()
            else:
                guest.next_line()
        except Failed as why:
            raise Failed("move %d, after %.3f s: %s" % (number, delay, why)) from None


class Redis(Guest):
    """redis-server, unmodified; data are read back and digested by itself."""

    def __init__(self, hosts, name, keys):
        super().__init__(hosts, name, "redis-server", "--port", "6379", "--bind",
                         "0.0.0.0", "--protected-mode", "no", "--save", "",
                         "--appendonly", "no", "--dir", "{dir}",
                         "--enable-debug-command", "yes")
        wait_for("redis-server", lambda: self.cli("PING", fails=True) == "PONG")
        self.fill(keys)

    def cli(self, *command, fails=False):
        out = self.hosts.run(self.side, "redis-cli", *command, fails=fails)
        return None if out is None else out.strip()

    def fill(self, keys):
        rng = random.Random(keys)
        with open(self.file("fill"), "wb") as f:
            for i in range(keys):
                words = [b"SET", b"key:%d" % i, b"%d:%x" % (i, rng.getrandbits(400))]
                f.write(b"*3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(w), w)
                                            for w in words))
        self.hosts.run(self.side, "sh", "-c",
                       "redis-cli --pipe < " + self.file("fill"))
        os.unlink(self.file("fill"))
        check(self.cli("DBSIZE") == str(keys), "DBSIZE is " + self.cli("DBSIZE"))
        self.keys = keys

    def digest(self):
        """Of the keys that nobody but fill() has written."""
        self.hosts.run(self.side, "sh", "-c", "redis-cli --scan --pattern 'client:*' | "
                       "xargs -r -n 500 redis-cli DEL > /dev/null")
        return self.cli("DEBUG", "DIGEST")

    def saves(self):
        """fork(), and copy-on-write of memory that was moved."""
        check("started" in self.cli("BGSAVE"), "BGSAVE does not start")

        def info():
            text = self.cli("INFO", "persistence")
            return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        wait_for("BGSAVE", lambda: info()["rdb_bgsave_in_progress"].strip() == "0")
        check(info()["rdb_last_bgsave_status"].strip() == "ok", "BGSAVE failed")
        self.hosts.run(self.side, "redis-check-rdb", self.file("dump.rdb"))

    def start_client(self, side):
        stop = self.file("stop")
        if os.path.exists(stop):
            os.unlink(stop)
        client = self.hosts.start(
            side, "python3", "selftests/guests/redis_client.py", "--host",
            ",".join((ADDRESS[self.side], ADDRESS["b" if self.side == "a" else "a"])),
            "--stop-file", stop, "--give-up", "60")
        wait_for("the client's writes",
                 lambda: int(self.cli("DBSIZE")) > self.keys + 200)
        return client

    def stop_client(self, client):
        with open(self.file("stop"), "w"):
            pass
        with client:
            out, err = client.communicate()
        check(client.returncode == 0 and out.startswith("{"),
              "the client ended with %d: %s" % (client.returncode, out or err))
        result = json.loads(out)
        say("client: %(acked)d writes acknowledged, %(lost)d lost, %(wrong)d wrong, "
            "%(reconnects)d reconnects, longest gap %(longest_gap_ms).0f ms" % result)
        check(result["reconnects"] >= 1, "the client's connection did not break")


def redis_there_and_back(hosts, keys):
    with Redis(hosts, "redis", keys) as redis:
        before = redis.digest()
        for _ in range(2):
            client = redis.start_client("b")
            redis.move("connections=close")
            redis.stop_client(client)
            after = redis.digest()
            say("vm-%s: DEBUG DIGEST %s, DBSIZE %s" % (redis.side, after,
                                                      redis.cli("DBSIZE")))
            check(after == before, "DEBUG DIGEST was " + before)
            redis.saves()
        say(pauses_of(redis))


def pauses_of(guest):
    return "\n".join(
        "%d rounds, %.1f MiB for a guest of %.1f MiB, pause %.1f ms (%s), predicted "
        "%.1f ms" % (len(m["rounds"]), m["bytes_sent"] / 2**20,
                     m["guest_bytes"] / 2**20, m["pause_ms"]["total"],
                     ", ".join("%s %.1f" % i for i in m["pause_ms"].items()
                               if i[0] != "total"), m["predicted_pause_ms"])
        for m in guest.moves)
