#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Guests that move without the module between Debian's 6.1 and 6.12.

6.1 tracks by soft-dirty bits, 6.12 by asynchronous write protection. MOVES (4) and
SEED in the environment are for the self-checking guest.
"""

import os
import sys

sys.dont_write_bytecode = True
os.environ.setdefault("MOVES", "4")
from hosts import check, run  # noqa: E402
import moves  # noqa: E402


def trackers(hosts):
    """Each kernel has its tracker."""
    with moves.Guest(hosts, "which", os.path.join(moves.GUESTS, "one_page"),
                     "{dir}/out") as guest:
        for tracker in ("softdirty", "wpasync"):
            out = hosts.mspctl(guest.side, "validate", "--json", "-i", "access=user",
                               guest.name, hosts.address(guest.side))
            check("tracked by " + tracker in out, out)
            guest.move()


run([trackers, moves.redis, moves.selfcheck], kernels=("6.1", "6.12"),
    attributes="access=user")
