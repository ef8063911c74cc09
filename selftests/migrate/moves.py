# SPDX-License-Identifier: GPL-2.0
"""Tests of guests that move between two hosts, whatever the hosts are.

MOVES (44) and SEED in the environment are for the self-checking guest.
"""

import json
import os
import time

from guests import (Redis, Selfcheck, move_at_random, pauses_of,
                    redis_there_and_back)
from hosts import (GUESTS, TOP, Failed, Guest, check, last_line,
                   load_json, pauses, say, wait_for)

LOAD = os.path.join(TOP, "build", "vasi-load")
PAGE = 4096


def one_page(hosts):
    """One thread and one page move over one stream, and back."""
    with Guest(hosts, "one", os.path.join(GUESTS, "one_page"), "{dir}/out") as guest:
        last = guest.ask("out")
        for _ in range(2):
            guest.move("streams=1")
            now = guest.ask("out")
            check(now["ok"], "the page and the register differ: %s" % now)
            check(now["pid"] == last["pid"], "its PID changed: %s" % now)
            check(now["count"] > last["count"], "it does not count on: %s" % now)
            last = now
        guest.finish()
        check(load_json(guest.file("out"))["ok"], "not ok at its end")
        say(pauses_of(guest))


def redis(hosts):
    """redis-server there and back, digests equal, a client goes on, BGSAVE."""
    redis_there_and_back(hosts, 30000)


def bgsave(hosts):
    """A redis-server that saves when it is to be stopped is waited for."""
    with Redis(hosts, "bgsave", 2000) as guest:
        guest.cli("CONFIG", "SET", "rdb-key-save-delay", "500")
        started = []
        with guest.start_move("connections=close,child_wait_ms=60000") as process:
            while not started:
                event = json.loads(process.stdout.readline())
                if event["event"] == "phase" and event["phase"] == "prepare":
                    started.append(guest.cli("BGSAVE"))
            guest.end_move(process)
        check("started" in started[0], "BGSAVE says: " + started[0])
        info = guest.cli("INFO", "persistence")
        for line in ("rdb_bgsave_in_progress:0", "rdb_last_bgsave_status:ok"):
            check(line in info, "INFO says: " + info)
        hosts.run(guest.side, "redis-check-rdb", guest.file("dump.rdb"))
        check(guest.cli("DBSIZE") == "2000", "DBSIZE is " + guest.cli("DBSIZE"))


def selfcheck(hosts):
    """The self-checking guest at random phases, again and again."""
    moves = int(os.environ.get("MOVES", "44"))
    seed = int(os.environ.get("SEED", time.time_ns() % 1000000))
    with Selfcheck(hosts, "selfcheck", "--size", "2") as guest:
        try:
            move_at_random(guest, moves, seed)
        finally:
            if guest.moves:
                say(pauses(guest.moves))
        guest.verdict()


def python(hosts):
    """An interpreter with threads and a queue."""
    with Guest(hosts, "python", "python3", os.path.join(GUESTS, "python_threads.py"),
               "{dir}", "5000") as guest:
        def verdict():
            seen = last_line(guest.file("status"))
            wait_for("a status line", lambda: last_line(guest.file("status")) != seen)
            line = last_line(guest.file("status"))
            check(line.endswith(" OK"), line)
        verdict()
        for _ in range(3):
            guest.move()
            verdict()
        guest.finish()
        check(last_line(guest.file("status")).endswith(" OK"), "not ok at its end")
        say(last_line(guest.file("status")))


def user(hosts):
    """A guest of uid 1000 without privileges stays what it is."""
    def verdict(path):
        try:
            with open(path) as f:
                return f.read()
        except FileNotFoundError:
            return None
    with Guest(hosts, "creds", os.path.join(GUESTS, "creds"), "{dir}/out") as guest:
        wait_for("the guest to be ready", lambda: verdict(guest.file("out")))
        for _ in range(2):
            guest.move()
            text = guest.ask("out", read=verdict)
            check(text.startswith("OK "), text)
            status = hosts.run(guest.side, "cat", "/proc/%d/status" % guest.pid)
            fields = dict(line.split(":\t", 1) for line in status.splitlines())
            for name in ("Uid", "Gid"):
                check(fields[name].split() == ["1000"] * 4,
                      "the kernel says %s %s" % (name, fields[name]))
            check(int(fields["CapEff"], 16) == 0, "it has capabilities: " + status)
        say("vm-%s: uid %s, groups %s" % (guest.side, fields["Uid"].split()[0],
                                         fields["Groups"]))


def hops(guest):
    for _ in range(2):
        guest.move("streams=1")


def suspends(guest):
    for _ in range(2):
        guest.rolled_back("streams=1")
    guest.move("streams=1")


def sleep_through(hosts, what, name):
    """The sleeps must last: a machine too slow for that gets longer ones."""
    for seconds in (10, 30, 80):
        with Guest(hosts, "%s-%d" % (name, seconds),
                   os.path.join(GUESTS, "sleepers"), "{dir}/out", str(seconds),
                   "27") as guest:
            started = time.monotonic()
            what(guest)
            if os.path.exists(guest.file("out")):
                say("%.1f s were too long for sleeps of %d s" % (
                    time.monotonic() - started, seconds))
                continue
            text = wait_for("the sleepers", lambda: load_json(guest.file("out")),
                            seconds + 90)
            for s in text["sleepers"]:
                check(s["result"] == "ok" and s["slept_ns"] >= text["duration_ns"],
                      "%(kind)s: %(result)s after %(slept_ns)d ns" % s)
            check(text["ok"], "the guest is not content")
            longest = max(text["sleepers"], key=lambda s: s["slept_ns"])
            say("%d sleeps of %d s, the longest %.2f s (%s)" % (
                len(text["sleepers"]), seconds, longest["slept_ns"] / 1e9,
                longest["kind"]))
            return
    check(False, "no sleep was long enough")


def second_hop_in_a_sleep(hosts):
    """Sleeps go on over two moves."""
    sleep_through(hosts, hops, "hops")


def two_suspends_in_a_sleep(hosts):
    """Sleeps go on over two suspends that are rolled back, and a move."""
    sleep_through(hosts, suspends, "suspends")


SENDER = """
sent=$3
while kill -USR1 $1; do
	sent=$((sent + 1)); echo $sent > $2.sent
	while [ -d /proc/$1 ]; do
		read -r line < $2
		case $line in *'"waits": '$sent,*) break ;; esac
		sleep 0.01
	done
done 2> /dev/null
"""


def sigsuspend(hosts):
    """sigsuspend() ends once for each signal that arrives on the way."""
    with Guest(hosts, "sigsuspend", os.path.join(GUESTS, "sigsuspend"),
               "{dir}/out") as guest:
        wait_for("the guest to wait", lambda: load_json(guest.file("out")))
        waits = late = 0
        for _ in range(4):
            with hosts.start(guest.side, "bash", "-c", SENDER, "sender",
                             str(guest.pid), guest.file("out"),
                             str(waits)) as sender:
                wait_for("signals", lambda: os.path.exists(guest.file("out.sent")))
                guest.move("streams=1")
                sender.communicate()
            with open(guest.file("out.sent")) as f:
                sent = int(f.read())
            os.unlink(guest.file("out.sent"))
            # It waits there, or takes now what it brought along.
            guest.signal("USR2")
            state = taken(guest, sent)
            # The last may have come when there was nobody left to take it.
            check(state["waits"] in (sent, sent + 1),
                  "%d signals sent: %s" % (sent + 1, state))
            late += sent + 1 - state["waits"]
            waits = state["waits"]
        say("%d signals taken in %d moves, %d came to the copy left behind" % (
            waits, len(guest.moves), late))


def taken(guest, least):
    """So many waits have ended; what is still to come has had the time."""
    def state():
        now = load_json(guest.file("out"))
        return now if now and now["waits"] >= least and now["usr2"] == len(
            guest.moves) else None
    try:
        wait_for("%d signals" % least, state)
    except Failed as why:
        raise Failed("%s: %s" % (why, load_json(guest.file("out")))) from None
    time.sleep(0.5)
    now = load_json(guest.file("out"))
    check(now["ok"], now["error"])
    check(now["waits"] == now["usr1"] + now["usr2"], str(now))
    return now


class Load(Guest):
    """build/vasi-load: verifies its memory and counts its writes."""

    def __init__(self, hosts, name, *options):
        super().__init__(hosts, name, LOAD, "--output", "{dir}/out", *options)
        wait_for("vasi-load", lambda: last_line(self.file("out")))

    def verify(self):
        seen = last_line(self.file("out"))
        self.signal("USR1")
        wait_for("its report", lambda: last_line(self.file("out")) != seen)
        report = json.loads(last_line(self.file("out")))
        check(report["ok"], "its memory is wrong: %s" % report)
        return report

    def status(self, field):
        text = self.hosts.run(self.side, "cat", "/proc/%d/status" % self.pid)
        return int(next(line for line in text.splitlines()
                        if line.startswith(field + ":")).split()[1])

    def faults(self):
        text = self.hosts.run(self.side, "cat", "/proc/%d/stat" % self.pid)
        return int(text.rsplit(")", 1)[1].split()[7])


def load_moves(hosts, name, *options):
    with Load(hosts, name, *options) as guest:
        guest.verify()
        for _ in range(2):
            guest.move()
            report = guest.verify()
        say("%(writes)d writes, sum %(sum)d, no bad page" % report)
        say(pauses_of(guest))


def load(hosts):
    """Memory under random writes is right after a move, and a move back."""
    load_moves(hosts, "load", "--size", "64", "--wss", "16", "--rate", "4000",
               "--threads", "2")


def load_thp(hosts):
    """Transparent huge pages under random writes."""
    load_moves(hosts, "thp", "--size", "32", "--wss", "16", "--rate", "4000", "--thp")


def bytes_sent(hosts):
    """Bytes sent are at most 1.05 of what is resident or was dirtied."""
    with Load(hosts, "bytes", "--size", "48", "--wss", "8", "--rate", "2000") as guest:
        guest.verify()
        for _ in range(2):
            before = guest.verify()["writes"]
            resident = (guest.status("RssAnon") + guest.status("RssShmem") +
                        guest.status("RssFile")) * 1024
            result = guest.move("streams=4")
            writes = guest.verify()["writes"] - before
            dirtied = sum(r["pages"] for r in result["rounds"][1:]) * PAGE
            ratio = result["bytes_sent"] / (resident + dirtied)
            say("sent %.2f MiB; resident %.2f MiB, dirtied in %d rounds %.2f MiB "
                "(the guest counts %d writes): ratio %.3f" % (
                    result["bytes_sent"] / 2**20, resident / 2**20,
                    len(result["rounds"]) - 1, dirtied / 2**20, writes, ratio))
            check(ratio <= 1.05, "the ratio is %.3f" % ratio)
            # the tracker's own count must be covered by what was written
            others = 300 * len(result["rounds"])
            check(dirtied / PAGE <= writes + others,
                  "%d pages were told dirty after %d writes" % (dirtied / PAGE, writes))


REWRITES = """
import mmap, sys, time
size = 8 << 20
data = bytes(range(256)) * (size // 256)
memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
count = 0
while True:
    memory[:] = data
    count += 1
    with open(sys.argv[1], "w") as f:
        f.write("%d\\n" % count)
    time.sleep(0.01)
"""


def rewrites(hosts):
    """Pages that are written with what is in them already are not sent again."""
    with Guest(hosts, "rewrites", "python3", "-c", REWRITES, "{dir}/out") as guest:
        for _ in range(2):
            wait_for("the guest to write", lambda: last_line(guest.file("out")))
            again = guest.move()["rounds"][1:]
            written, sent, equal = (sum(r[field] for r in again)
                                    for field in ("dirty_pages", "pages", "equal"))
            say("%d pages written in %d rounds, %d sent, %d equal" % (
                written, len(again), sent, equal))
            check(written >= (8 << 20) // PAGE, "%d pages written" % written)
            check(equal > 10 * sent, "%d pages sent, %d equal" % (sent, equal))
            os.unlink(guest.file("out"))


# The mapping of a file without a name that gets shorter and longer all the time; behind
# the move it is anonymous, and has what it had before.
NAMELESS = """
import ctypes, mmap, os, random, sys, time
PAGE, PAGES = 4096, 64
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int,
                      ctypes.c_int, ctypes.c_long)
name = "/tmp/nameless-%d" % os.getpid()
fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
should = bytearray(random.randbytes(PAGE * PAGES))
os.write(fd, should)
at = libc.mmap(None, PAGE * PAGES, mmap.PROT_READ | mmap.PROT_WRITE,
               mmap.MAP_PRIVATE, fd, 0)
os.unlink(name)
os.close(fd)
memory = (ctypes.c_char * (PAGE * PAGES)).from_address(at)
link = "/proc/self/map_files/%x-%x" % (at, at + PAGE * PAGES)
while True:
    length = random.randrange(PAGES + 1) * PAGE
    try:
        os.truncate(link, length)
    except FileNotFoundError:
        break
    should[length:] = bytes(PAGE * PAGES - length)
    for page in random.sample(range(length // PAGE), length // PAGE // 8):
        should[page * PAGE] = memory[page * PAGE] = random.randrange(256)
    time.sleep(0.002)
looks = 0
while True:
    bad = [n for n in range(PAGES) if should[n * PAGE:][:PAGE] !=
           bytes(memory[n * PAGE:(n + 1) * PAGE])]
    looks += 1
    with open(sys.argv[1], "a") as f:
        f.write("%d %s\\n" % (looks, "wrong pages %s" % bad if bad else "OK"))
    time.sleep(0.01)
"""


def nameless(hosts):
    """A file without a name that changes its length is moved as long as it is."""
    for number in range(4):
        with Guest(hosts, "nameless%d" % number, "python3", "-c", NAMELESS,
                   "{dir}/out") as guest:
            time.sleep(0.3)
            for _ in range(2):
                result = guest.move()
                seen = last_line(guest.file("out"))
                wait_for("a verdict", lambda: last_line(guest.file("out")) != seen)
                verdict = last_line(guest.file("out"))
                check(verdict.endswith(" OK"), verdict)
            say("%d rounds" % len(result["rounds"]))


RENAMES = """
import os, signal, sys, time
asked = False
def told(*_):
    global asked
    asked = True
signal.signal(signal.SIGUSR1, told)
count = 0
while True:
    with open(sys.argv[2] + ".tmp", "w") as f:
        f.write("%d\\n" % count)
        time.sleep(0.002)
    os.rename(sys.argv[2] + ".tmp", sys.argv[2])
    count += 1
    if asked:
        asked = False
        os.link(sys.argv[2], sys.argv[1])
    time.sleep(0.01)
"""


def renames(hosts):
    """A guest that writes a file and gives it another name, all the time."""
    with Guest(hosts, "renames", "python3", "-c", RENAMES, "{dir}/out",
               "{dir}/file") as guest:
        count = -1
        for _ in range(6):
            guest.move()
            seen = int(guest.ask("out", read=last_line))
            check(seen > count, "it does not count on")
            count = seen


# Every other page of a file's mapping is written, with the zero that is in it.
OWN = """
import json, mmap, signal, sys, time
PAGE, PAGES = 4096, 64
with open(sys.argv[2], "wb") as f:
    f.truncate(PAGES * PAGE)
with open(sys.argv[2], "rb") as f:
    memory = mmap.mmap(f.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
for page in range(0, PAGES, 2):
    memory[page * PAGE] = 0
def told(*_):
    first = [memory[page * PAGE] for page in range(PAGES)]
    with open(sys.argv[1], "w") as f:
        json.dump(dict(own=sorted(set(first[::2])), file=sorted(set(first[1::2]))), f)
signal.signal(signal.SIGUSR1, told)
told()
while True:
    time.sleep(1)
"""


def own_zeros(hosts):
    """A page of a file's mapping that was written is the guest's, even if it is zero."""
    with Guest(hosts, "own", "python3", "-c", OWN, "{dir}/out", "{dir}/mapped") as guest:
        wait_for("the guest", lambda: load_json(guest.file("out")))
        guest.move()
        with open(guest.file("mapped"), "r+b") as f:
            f.write(b"x" * 64 * PAGE)
        seen = guest.ask("out")
        check(seen == {"own": [0], "file": [ord("x")]}, seen)


def compression(hosts):
    """Memory that compresses arrives with fewer bytes, whatever is written to it."""
    with Load(hosts, "dense", "--size", "32", "--wss", "32", "--rate", "8000",
              "--fill", "zero") as guest:
        for encoding in ("lz4", "zstd", "off", "auto"):
            # pages with something in them
            wait_for("writes", lambda: guest.verify()["writes"] > 3000)
            result = guest.move("compression=" + encoding)
            guest.verify()
            plain, sent = result["plain_bytes"], result["bytes_sent"]
            say("%s: %.1f of %.1f MiB, %s" % (encoding, sent / 2**20, plain / 2**20,
                                              result["encoding"]))
            if encoding == "off":
                check(set(result["encoding"]) == {"none"}, result["encoding"])
                check(sent > plain, "%d bytes for %d" % (sent, plain))
            elif encoding != "auto":
                check(result["encoding"].get(encoding), result["encoding"])
                check(sent < plain / 4, "%d bytes for %d" % (sent, plain))


def bits(hosts):
    """A bit that changes on the target is noticed, and the guest runs on."""
    faults = [("spoil=1:1000003", "is corrupt"), ("spoil=2", "is corrupt")]
    faults += [("decay=%d:%d" % (number % 2 + 1, number * 1000003),
                "as something else") for number in range(6)]
    with Load(hosts, "bits", "--size", "16", "--rate", "4000") as guest:
        for fault, error in faults:
            guest.rolled_back(fault=fault, error=error)
            guest.verify()
        pause = guest.move()["pause_ms"]
        check(pause["digest"] > 0, "nothing was read back in the pause: %s" % pause)
        guest.verify()


def no_faults(hosts):
    """Tracking causes a steady writer no minor fault."""
    with Load(hosts, "faults", "--size", "16", "--rate", "4000") as guest:
        time.sleep(2)

        def untracked():
            start = guest.faults(), time.monotonic()
            time.sleep(5)
            return guest.faults() - start[0], time.monotonic() - start[1]
        before, seconds = untracked()
        start = guest.faults()
        out = hosts.mspctl("a", "track", "--rounds", "5", "--interval", "1", "--json",
                           str(guest.pid))
        tracked = guest.faults() - start
        rounds = [json.loads(line) for line in out.splitlines()]
        pages = sum(r["pages"] for r in rounds[1:])
        say("%d minor faults while %d dirty pages were harvested in %d rounds; %d in "
            "%.1f s without tracking" % (tracked, pages, len(rounds), before, seconds))
        check(len(rounds) == 5, "%d rounds" % len(rounds))
        check(pages > 2000, "only %d dirty pages were seen" % pages)
        check(tracked <= before, "%d faults more" % (tracked - before))
        guest.verify()


ALL = [one_page, redis, bgsave, selfcheck, python, user, second_hop_in_a_sleep,
       two_suspends_in_a_sleep, sigsuspend, load, load_thp, bytes_sent, rewrites,
       nameless, renames, own_zeros, compression, bits, no_faults]
