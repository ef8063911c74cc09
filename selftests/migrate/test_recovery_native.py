#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Switch-overs that break off, without the module on this machine's kernel."""

import sys

sys.dont_write_bytecode = True
import recovery  # noqa: E402
from hosts import run  # noqa: E402

run(recovery.ALL, pair="netns", attributes="access=user")
