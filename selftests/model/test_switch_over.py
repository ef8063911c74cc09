#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The model of the switch-over holds, and breaks when one of its rules is broken.

usage: test_switch_over.py [--faults N] [--trail] [NAME...]

Searches Documentation/design/switch-over.pml for each property, completely, and
for each macro BREAK_... in it until the property fails that the rule is for.
NAME is one of these; --trail shows the steps that lead to a failure.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODEL = os.path.join(TOP, "Documentation", "design", "switch-over.pml")
FAULTS = 3
MEGABYTES = 2000
SECONDS = 600
DEPTH = 10000   # of a run, in steps; a longer one ends the search as not complete
SKIP = 4

DEADLOCK = "no_deadlock"    # not a formula: every process is where it may end
PROPERTIES = (DEADLOCK, "never_two", "never_twice", "never_lost", "settled")

# What each broken rule leads to, within this number of faults.
BREAK_FAULTS = 3
BREAKS = {
    "BREAK_ANSWER_FIRST": "never_two",      # refused, then the tombstone
    "BREAK_COMMIT_UNSEALED": "never_two",   # commit, then the seal
    "BREAK_FORGETS": "never_two",           # the target's record goes with Resumed
    "BREAK_HALF_COMMITTED": "never_twice",  # a commit that failed, and came with the power
    "BREAK_LOST_IS_REFUSED": "never_twice",  # committed, lost with the power: refused
    "BREAK_NEVER_ASKS": "settled",          # in doubt for ever
    "BREAK_NOT_AWAITED": "never_lost",      # Commit is sent, the copy goes
    "BREAK_NOT_TOLD": "settled",            # rolled back, the target is not told
    "BREAK_NO_LOCK": "never_two",           # two decide on the target
    "BREAK_NO_TOMBSTONE": "never_two",      # refused, and nothing on record
    "BREAK_OLD_IMAGE": "never_twice",       # begun and lost: the target may have it
    "BREAK_RESUME_FIRST": "never_twice",    # resumed, then the record
    "BREAK_SEND_FIRST": "never_two",        # Commit, then the record
    "BREAK_TIMEOUT_UNSEALS": "never_two",   # silence is taken for a refusal
    "BREAK_TRUSTS_CACHE": "never_twice",    # a record that is read may not be durable
}


class Search:
    """A model with its macros, as programs that search it."""

    def __init__(self, folder, faults, macro=None):
        self.folder = folder
        self.faults = faults
        self.macros = ["-DFAULTS=%d" % faults] + (["-D" + macro] if macro else [])
        self.optimise = "-O0" if macro else "-O2"
        shutil.copy(MODEL, os.path.join(folder, "model.pml"))
        self.run("spin", *self.macros, "-a", "model.pml")

    def run(self, *command):
        return subprocess.run(command, cwd=self.folder, check=True, timeout=SECONDS,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True).stdout

    def compile(self, name, *options):
        """No reduction: `unless` and its order are not worth the doubt."""
        if not os.path.exists(os.path.join(self.folder, name)):
            self.run("gcc", self.optimise, "-w", "-DNOREDUCE", "-DMEMLIM=%d" % MEGABYTES,
                     *options, "-o", name, "pan.c")

    def search(self, what):
        """What pan says of a property."""
        if what == DEADLOCK:
            self.compile("pan-end", "-DNOCLAIM", "-DSAFETY")
            return self.run("./pan-end", "-m%d" % DEPTH)
        self.compile("pan")
        return self.run("./pan", "-a", "-m%d" % DEPTH, "-N", what)

    def trail(self):
        """Who did what on the way to a failure, and how it is in the end."""
        text = self.run("spin", *self.macros, "-t", "-p", "-k", "model.pml.trail", "model.pml")
        steps = re.findall(r"(?m)^ *\d+:\s+proc +\d+ \((\w+):\d+\) model.pml:(\d+) .*?\t(\[.*\])$",
                           text)
        return (["%-8s %4s %s" % step for step in steps if step[2] not in ("[else]", "[(1)]")] +
                [line.strip() for line in text.splitlines() if line.startswith("\t")])


def incomplete(text):
    """Why a search that found nothing is none; None if it is one."""
    for sign in ("Search not completed", "max search depth too small", "out of memory",
                 "hash table is full"):
        if sign in text:
            return sign
    if not re.search(r"errors: 0\b", text):
        return "no count of errors"
    return None


def unreached(text):
    """Statements that no run came to."""
    found = []
    for part in re.split(r"(?m)^(?=unreached in )", text):
        if part.startswith(("unreached in proctype", "unreached in init")):
            found += [line.strip() for line in part.splitlines()[1:]
                      if line.startswith("\t") and "-end-" not in line and
                      "states)" not in line]
    return found


def violation(text):
    m = re.search(r"(?m)^pan:\d+: (.*)", text)
    return m.group(1) if m else None


def size(text):
    states = re.search(r"(\d+) states, stored", text)
    memory = re.search(r"([\d.]+)\s+total actual memory", text)
    seconds = re.search(r"elapsed time ([\d.e+-]+) seconds", text)
    return "%s states, %s MB, %s s" % tuple(m.group(1) if m else "?"
                                            for m in (states, memory, seconds))


def holds(search, what):
    """(good, lines that say why not)"""
    text = search.search(what)
    why = violation(text) or incomplete(text)
    lost = unreached(text) if what == DEADLOCK and search.faults >= FAULTS else []
    if why:
        return False, [why]
    return not lost, [size(text)] + ["unreached: " + line for line in lost]


def breaks(search, what):
    why = violation(search.search(what))
    return why is not None, [why or "the search of %s found nothing" % what]


def report(number, good, name, notes, trail):
    print("%sok %d - %s" % ("" if good else "not ", number, name))
    for line in notes + trail:
        print("# " + line, flush=True)


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n")[2][len("usage: "):])
    parser.add_argument("--faults", type=int, default=FAULTS)
    parser.add_argument("--trail", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME")
    args = parser.parse_args()
    known = list(PROPERTIES) + list(BREAKS)
    for name in args.names:
        if name not in known:
            parser.error("no %s, there are: %s" % (name, ", ".join(known)))
    if not shutil.which("spin"):
        print("1..0 # SKIP no spin")
        return SKIP
    with open(MODEL) as f:
        in_model = set(re.findall(r"\bBREAK_[A-Z_]*[A-Z]\b", f.read()))

    count = failed = 0
    with tempfile.TemporaryDirectory(prefix="model.") as folder:
        whole = None
        for name in args.names or known:
            if name in BREAKS:
                own = os.path.join(folder, name)
                os.mkdir(own)
                search, title = Search(own, BREAK_FAULTS, name), name + ": it is found"
                good, notes = breaks(search, BREAKS[name])
                if name not in in_model:
                    good, notes = False, ["the model has no such macro"]
            else:
                search = whole = whole or Search(folder, args.faults)
                title = "%s, up to %d faults" % (name, args.faults)
                good, notes = holds(search, name)
            trail = []
            if os.path.exists(os.path.join(search.folder, "model.pml.trail")):
                if args.trail or name not in BREAKS:
                    trail = search.trail()
                os.unlink(os.path.join(search.folder, "model.pml.trail"))
            count += 1
            failed += not good
            report(count, good, title, notes, trail)
    if not args.names:
        count += 1
        missing = sorted(in_model - set(BREAKS))
        failed += bool(missing)
        report(count, not missing, "each rule that can be broken is", missing, [])
    print("1..%d" % count)
    return 1 if failed else 0


sys.exit(main())
