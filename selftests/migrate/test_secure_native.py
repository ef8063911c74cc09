#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Who may send guests, without the module."""

import sys

sys.dont_write_bytecode = True
from hosts import run  # noqa: E402
from secure import ALL  # noqa: E402

run(ALL, pair="netns", attributes="access=user")
