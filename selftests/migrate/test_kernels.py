#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Guests that move between Debian's 6.1 and 6.12, with the module and without it.

Their vDSOs differ; without the module 6.1 tracks by soft-dirty bits, 6.12 by
asynchronous write protection. No TLS, as in test_moves.py. MOVES (6, and 4 without the
module) and SEED in the environment are for the self-checking guest.
"""

import os
import sys
import time

sys.dont_write_bytecode = True
from guests import Selfcheck, move_at_random, redis_there_and_back  # noqa: E402
from hosts import GUESTS, Guest, check, pauses, run, say  # noqa: E402

WITHOUT = "access=user"


def kernels_differ(hosts):
    """The two machines run 6.1 and 6.12."""
    releases = [hosts.run(side, "uname", "-r").strip() for side in "ab"]
    say(" and ".join(releases))
    check(releases[0].startswith("6.1.") and releases[1].startswith("6.12."),
          "they do not")


def moves_at_random(hosts, moves):
    moves = int(os.environ.get("MOVES", moves))
    seed = int(os.environ.get("SEED", time.time_ns() % 1000000))
    with Selfcheck(hosts, "selfcheck", "--size", "2") as guest:
        move_at_random(guest, moves, seed)
        say(pauses(guest.moves))
        guest.verdict()


def selfcheck(hosts):
    """The self-checking guest, 6.1 to 6.12 to 6.1, three times."""
    moves_at_random(hosts, 6)


def redis(hosts):
    """redis-server, 6.1 to 6.12 to 6.1, digests equal."""
    redis_there_and_back(hosts, 30000)


def trackers(hosts):
    """Without the module each kernel has its tracker."""
    hosts.attributes = WITHOUT
    with Guest(hosts, "which", os.path.join(GUESTS, "one_page"), "{dir}/out") as guest:
        for tracker in ("softdirty", "wpasync"):
            out = hosts.mspctl(guest.side, "validate", "--json", "-i", WITHOUT,
                               guest.name, hosts.address(guest.side))
            check("tracked by " + tracker in out, out)
            guest.move()


def user_selfcheck(hosts):
    """The self-checking guest without the module, twice."""
    hosts.attributes = WITHOUT
    moves_at_random(hosts, 4)


def user_redis(hosts):
    """redis-server without the module."""
    hosts.attributes = WITHOUT
    redis_there_and_back(hosts, 30000)


run([kernels_differ, selfcheck, redis, trackers, user_selfcheck, user_redis],
    kernels=("6.1", "6.12"), tls="off")
