#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Help, manual pages and completion say the same as the programs."""

import os
import re
import subprocess
import sys

sys.dont_write_bytecode = True
from mspd_test import MSPCTL, MSPD, TOP, main, require  # noqa: E402

MAN = os.path.join(TOP, "Documentation", "man")
OPTION = re.compile(r"(?<![\w-])(--?[A-Za-z][\w-]*)")
COMMANDS = ("run", "adopt", "release", "list", "info", "validate", "migrate", "watch",
            "cancel", "recover", "track", "keys")
OWN_NAMES = ("migrlpar", "lslparmigr", "vasistat")


def read(*path):
    with open(os.path.join(TOP, *path)) as f:
        return f.read()


def output(*command):
    r = subprocess.run(command, capture_output=True, text=True, timeout=30)
    require(r.returncode == 0 and not r.stderr, command, r.stderr)
    return r.stdout


def options_of(text):
    """The options of a help text: what starts an indented line."""
    found = set()
    for line in text.splitlines():
        m = re.match(r"  (-\S.*?)(?:  |$)", line)
        if m:
            found |= set(OPTION.findall(m.group(1)))
    return found


def section(page, name):
    """The text under a heading of a page, up to the next one."""
    m = re.search(r"(?ms)^%s\n-+\n(.*?)(?=^\S+\n[-=]{3,}\n|\Z)" % re.escape(name), page)
    require(m, "no section", name)
    return m.group(1)


def words(line):
    """What completion offers for a command line that ends with a dash or space."""
    script = ("source %s/tools/completion/mspctl; COMP_WORDS=(%s ''); "
              "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); "
              "compopt() { :; }; mspctl() { :; }; "
              "_%s x '%s' \"${COMP_WORDS[COMP_CWORD-1]}\"; printf '%%s\\n' \"${COMPREPLY[@]}\"")
    name = line.split()[0]
    r = subprocess.run(["bash", "-c", script % (TOP, line, name, "")],
                       capture_output=True, text=True, timeout=30)
    require(r.returncode == 0 and not r.stderr, line, r.stderr)
    return set(r.stdout.split())


def same(where, told, help_options, ignore=()):
    missing = help_options - told - set(ignore)
    require(not missing, "%s lacks %s" % (where, sorted(missing)))


def documented(page):
    """Options that a page describes: definitions at the start of a line."""
    return set(OPTION.findall("\n".join(
        line for line in page.splitlines() if line.startswith("-"))))


def test_mspd():
    """mspd: every option is in help, manual and completion, and no other"""
    told = options_of(output(MSPD, "--help"))
    page = documented(read("Documentation", "man", "mspd.8.rst"))
    require(told == page, told ^ page)
    offered = {w for w in words("mspd") if w.startswith("-")}
    require(told == offered, told ^ offered)


def test_mspctl():
    """mspctl: every command and option is in help, manual and completion"""
    page = read("Documentation", "man", "mspctl.1.rst")
    told = output(MSPCTL, "--help")
    listed = set(re.findall(r"(?m)^  ([a-z]+) +[A-Z]", told))
    require(listed == set(COMMANDS) | set(OWN_NAMES), listed)
    offered = words("mspctl")
    require(listed | options_of(told) == offered, (listed | options_of(told)) ^ offered)
    same("manual", documented(page.split("COMMANDS")[0]), options_of(told))
    for command in COMMANDS:
        help_options = options_of(output(MSPCTL, command, "--help"))
        text = section(page, command)
        described = documented(text)
        if command == "validate":
            require("Options as for **migrate**" in text)
            described = documented(section(page, "migrate"))
        require(described == help_options - {"-h", "--help"}, command,
                described ^ help_options)
        offered = {w for w in words("mspctl " + command) if w.startswith("-")}
        require(offered == help_options, command, offered ^ help_options)


def test_own_names():
    """migrlpar, lslparmigr, vasistat: likewise"""
    for name in OWN_NAMES:
        help_options = options_of(output(os.path.join(os.path.dirname(MSPCTL), name),
                                         "-h" if name != "vasistat" else "-help"))
        page = documented(read("Documentation", "man", name + ".1.rst"))
        require(page == help_options, name, page ^ help_options)
        for offered in (words(name), words("mspctl " + name)):
            require(offered == help_options, name, offered ^ help_options)


def test_attributes():
    """the attributes of a migration are in help, manual, completion, settings"""
    source = read("daemon", "control", "attributes.c")
    names = set(re.findall(r'\{ "(\w+)", offsetof', source))
    require(len(names) == 10, names)
    told = set(re.findall(r"(?m)^ {20,}(\w+)=", output(MSPCTL, "migrate", "--help")))
    page = set(re.findall(r"\*\*(\w+)\*\*\n", section(
        read("Documentation", "man", "mspctl.1.rst"), "migrate")))
    offered = {w.split("=")[0] for w in words("mspctl migrate -i")}
    require(names == told == page == offered, names, told, page, offered)


def test_settings():
    """every setting is in the manual and in the file that is shipped"""
    source = read("daemon", "config.c")
    keys = set(re.findall(r"\tKEY(?:_WORD)?\((\w+), (\w+)[,)]", source))
    require(len(keys) > 15, keys)
    page = read("Documentation", "man", "mspd.conf.5.rst")
    described, at = set(), ""
    for line in page.splitlines():
        m = re.match(r"\[(\w+)\]$", line)
        at = m.group(1) if m else at
        if at and re.match(r"[a-z_, ]+$", line):
            described |= {(at, name) for name in line.split(", ")}
    require(described == keys, described ^ keys)
    shipped, at = set(), ""
    for line in read("daemon", "mspd.conf").splitlines():
        m = re.match(r"\[(\w+)\]$", line)
        at = m.group(1) if m else at
        m = re.match(r"# (\w+) =", line)
        if m:
            shipped.add((at, m.group(1)))
    require(shipped == keys, shipped ^ keys)


def test_methods():
    """every method of the control socket is in the manual"""
    methods = set()
    for name in ("guests", "migrations", "info"):
        methods |= set(re.findall(r'\{ "(\w+\.\w+)", ',
                                  read("daemon", "control", name + ".c")))
    page = set(re.findall(r"\*\*(\w+\.\w+)\*\*", read("Documentation", "man",
                                                     "mspd.8.rst"))) - {
        "mspd.conf", "migration.event"}
    require(methods == page, methods ^ page)


def test_commands_of_vasi():
    """every command of the module is in vasi(4)"""
    header = read("uapi", "linux", "vasi.h")
    commands = set(re.findall(r"#define (VASI_\w+)\s+_IO\(", header))
    page = set(re.findall(r"\*\*(VASI_\w+)\*\*", read("Documentation", "man",
                                                     "vasi.4.rst")))
    require(commands == page, commands ^ page)


def test_pages():
    """every page has its sections and is understood by rst2man"""
    for name in sorted(os.listdir(MAN)):
        page = read("Documentation", "man", name)
        for part in ("DESCRIPTION", "SEE ALSO"):
            require("\n%s\n=" % part in page, name, part)
        r = subprocess.run(["rst2man", "--strict", os.path.join(MAN, name)],
                           capture_output=True, text=True, timeout=60)
        require(r.returncode == 0 and not r.stderr, name, r.stderr)


if __name__ == "__main__":
    sys.exit(main(globals()))
