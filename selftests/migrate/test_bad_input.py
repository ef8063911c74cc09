#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Moves through the module that must not happen, or not to their end."""

import sys

sys.dont_write_bytecode = True
from bad_input import OF_THE_MODULE  # noqa: E402
from hosts import run  # noqa: E402

run(OF_THE_MODULE)
