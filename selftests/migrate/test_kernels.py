#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Guests that move between Debian's 6.1 and 6.12, whose vDSOs differ."""

import os
import sys
import time

sys.dont_write_bytecode = True
from guests import Selfcheck, move_at_random, redis_there_and_back  # noqa: E402
from hosts import check, pauses, run, say  # noqa: E402


def kernels_differ(hosts):
    """The two machines run 6.1 and 6.12."""
    releases = [hosts.run(side, "uname", "-r").strip() for side in "ab"]
    say(" and ".join(releases))
    check(releases[0].startswith("6.1.") and releases[1].startswith("6.12."),
          "they do not")


def selfcheck(hosts):
    """The self-checking guest, 6.1 to 6.12 to 6.1, three times."""
    seed = int(os.environ.get("SEED", time.time_ns() % 1000000))
    with Selfcheck(hosts, "selfcheck", "--size", "2") as guest:
        move_at_random(guest, 6, seed)
        say(pauses(guest.moves))
        guest.verdict()


def redis(hosts):
    """redis-server, 6.1 to 6.12 to 6.1, digests equal."""
    redis_there_and_back(hosts, 30000)


run([kernels_differ, selfcheck, redis], kernels=("6.1", "6.12"))
