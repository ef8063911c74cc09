#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Guests that move between two machines with Debian's 6.1.

MOVES (44: with the 6 of test_kernels.py 50) and SEED in the environment are for the
self-checking guest.
"""

import sys

sys.dont_write_bytecode = True
from hosts import run  # noqa: E402
import moves  # noqa: E402

# No TLS: an emulated processor encrypts so slowly that it would be all that is tried.
# It is natively, and with the module by test_bad_input.py and test_recovery.py.
#
# These do not know how the guest is reached: natively only. And test_kernels.py has a
# redis.
run([test for test in moves.ALL if test not in (
    moves.rewrites, moves.compression, moves.bits, moves.renames, moves.redis)],
    tls="off")
