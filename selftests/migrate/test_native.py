#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Guests that move between two hosts of namespaces, without the module.

MOVES (20) and SEED in the environment are for the self-checking guest.
"""

import os
import sys

sys.dont_write_bytecode = True
os.environ.setdefault("MOVES", "20")
from hosts import run  # noqa: E402
import moves  # noqa: E402

# A tracker without the module does cause faults.
run([test for test in moves.ALL if test is not moves.no_faults], pair="netns",
    attributes="access=user")
