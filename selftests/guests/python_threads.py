#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""
python_threads.py DIR [ENTRIES]: an interpreter with three threads and a queue.

One thread hashes a dictionary again and again, one passes numbers through a
queue whose other end, the third, adds them up; the sums are known by formula.
DIR/status gets one line a second: sequence, pid, hashes, numbers, OK or FAIL and
why. SIGTERM writes a last line and ends with 0 or 1.
"""
import hashlib
import os
import queue
import signal
import sys
import threading
import time


class Guest:
    def __init__(self, entries):
        self.stopping = threading.Event()
        self.errors = []
        self.hashes = 0
        self.numbers = 0
        self.queue = queue.Queue(maxsize=100)
        self.table = {f"key:{i}": f"value {i * 2654435761 % 2**32:08x}"
                      for i in range(entries)}
        self.digest = self.hash_generated(entries)

    @staticmethod
    def hash_generated(entries):
        """The digest by the rule, without looking into the table."""
        h = hashlib.sha256()
        for i in range(entries):
            h.update(b"key:%d=value %08x;" % (i, i * 2654435761 % 2**32))
        return h.hexdigest()

    def fail(self, text):
        self.errors.append(text)

    def hasher(self):
        while not self.stopping.is_set():
            h = hashlib.sha256()
            for key, value in self.table.items():
                h.update(f"{key}={value};".encode())
            if h.hexdigest() != self.digest:
                self.fail("the dictionary's digest changed")
            self.hashes += 1
            time.sleep(0.01)

    def producer(self):
        n = 0
        while not self.stopping.is_set():
            self.queue.put((n, n * n))
            n += 1
            if n % 50 == 0:
                before = time.monotonic()
                time.sleep(0.02)
                if time.monotonic() - before < 0.02:
                    self.fail("a sleep ended early")
        self.queue.put(None)

    def consumer(self):
        total = 0
        n = 0
        while (item := self.queue.get()) is not None:
            if item != (n, n * n):
                self.fail(f"got {item} where {n} was expected")
                n = item[0]
            total += item[0]
            if total != n * (n + 1) // 2:
                self.fail(f"the sum to {n} is {total}")
            n += 1
            self.numbers = n


def append_line(fd, guest, seq):
    verdict = "OK" if not guest.errors else "FAIL " + guest.errors[0]
    line = (f"{seq} {os.getpid()} {time.monotonic_ns()} "
            f"hashes={guest.hashes},numbers={guest.numbers} "
            f"errors={len(guest.errors)} {verdict}\n")
    os.write(fd, line.encode())


def guarded(guest, body):
    def run():
        try:
            body()
        except Exception as e:  # a thread that dies silently is a failure
            guest.fail(f"{body.__name__}: {e!r}")
    return run


def main():
    if len(sys.argv) not in (2, 3):
        print("usage: python_threads.py DIR [ENTRIES]", file=sys.stderr)
        return 2
    fd = os.open(os.path.join(sys.argv[1], "status"),
                 os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    guest = Guest(int(sys.argv[2]) if len(sys.argv) == 3 else 20000)
    signal.signal(signal.SIGTERM, lambda *_: guest.stopping.set())
    threads = [threading.Thread(target=guarded(guest, body), daemon=True)
               for body in (guest.hasher, guest.producer, guest.consumer)]
    for t in threads:
        t.start()
    seq = 0
    while not guest.stopping.wait(1):
        seq += 1
        append_line(fd, guest, seq)
    for t in threads:
        t.join()
    append_line(fd, guest, seq + 1)
    return 1 if guest.errors else 0


if __name__ == "__main__":
    sys.exit(main())
