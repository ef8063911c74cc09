#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Switch-overs that break off, through the module: a sample of the points."""

import sys

sys.dont_write_bytecode = True
import recovery  # noqa: E402
from hosts import run  # noqa: E402

run([recovery.sample], attributes="access=vasi")
