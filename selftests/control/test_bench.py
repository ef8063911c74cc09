#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""vasi-bench: options, what it writes, and what it does without its rivals."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from mspd_test import MSPCTL, MSPD, TOP, main, require  # noqa: E402

BENCH = os.path.join(TOP, "tools", "vasi-bench")
BUILD = os.path.dirname(MSPD)
PLAIN = os.path.join(BUILD, "vasi-plain")
LOAD = os.path.join(BUILD, "vasi-load")
TINY = ("mover", "--quick", "--runs", "1", "--size", "8", "--streams", "2",
        "--guests", "16", "--moves", "2", "--tls", "off")

RUN = {"link", "streams", "access", "tracker", "compression", "tls", "goodput_Bps",
       "ratio_tls", "iperf3_Bps", "plain_Bps", "qemu_Bps", "ratio_iperf3", "ratio_plain", "ratio_qemu"}
PAUSE = {"guest_bytes", "dirty_pages_per_s", "moves", "p50_ms", "p99_ms",
         "guest_seen_p50_ms"}
WHOLE = {"runs", "pause", "cpu_s_per_gb", "rss_bytes", "skipped", "skipped_why", "notes",
         "links", "host", "settings", "samples", "pause_samples"}


class Bare:
    """A PATH with all programs of this machine but the rivals."""

    def __init__(self):
        # not in /tmp: hosts made of namespaces have their own
        self.dir = tempfile.mkdtemp(prefix="bench-test.", dir=BUILD)
        self.bin = os.path.join(self.dir, "bin")
        os.mkdir(self.bin)
        for folder in os.environ["PATH"].split(":") + ["/usr/sbin", "/sbin"]:
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                link = os.path.join(self.bin, name)
                if not name.startswith(("iperf", "qemu")) and not os.path.lexists(link):
                    os.symlink(os.path.join(folder, name), link)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.dir)

    def bench(self, *words):
        """Its output, and the JSON it wrote."""
        out = os.path.join(self.dir, "out.json")
        r = subprocess.run([BENCH, *words, "--output", out], capture_output=True,
                           text=True, timeout=250, check=False,
                           env=dict(os.environ, PATH=self.bin, QEMU="/no/such/qemu"))
        require(r.returncode == 0, r.returncode, r.stdout, r.stderr)
        with open(out, encoding="utf-8") as f:
            return r.stdout, json.load(f)


def test_options():
    """wrong options are told by name, and nothing is begun"""
    cases = [
        ([], "COMMAND"),
        (["move"], "'move'"),
        (["mover", "--links", "loopback,2g"], "'2g' is none of: loopback, veth, 1g, 10g"),
        (["mover", "--links", ""], "'' is none of"),
        (["mover", "--streams", "1,0"], "'0' is no number of 1 to 64"),
        (["mover", "--streams", "65"], "'65' is no number"),
        (["mover", "--streams", "1,,2"], "'' is no number"),
        (["mover", "--runs", "many"], "'many' is no number of 1 to 1000"),
        (["mover", "--size", "0"], "'0' is no number"),
        (["mover", "--size", "-1"], "'-1' is no number"),
        (["mover", "--guests", "none,1"], "'none' is no number"),
        (["mover", "--moves", "0"], "'0' is no number"),
        (["mover", "--dirty", "x"], "'x' is no number"),
        (["mover", "--access", "root"], "'root' is none of: vasi, user"),
        (["mover", "--tracker", "soft"], "'soft' is none of"),
        (["mover", "--without", "rsync"], "'rsync' is none of"),
        (["mover", "--qui"], "--qui"),
        (["mover", "--output", "/no/such/dir/f"], "/no/such/dir/f"),
        (["mover", "more"], "more"),
    ]
    # what is taken for right by mistake gets no further than this
    nowhere = dict(os.environ, VM_PAIR="/no/such/pair")
    for words, text in cases:
        r = subprocess.run([BENCH, *words], capture_output=True, text=True, timeout=60,
                           check=False, env=nowhere)
        require(r.returncode == 2, words, r.returncode)
        require(text in r.stderr.splitlines()[-1], words, r.stderr)
        require(r.stdout == "" and "Traceback" not in r.stderr, words, r.stderr)


def test_congestion():
    """a congestion control that is not there is told by name"""
    r = subprocess.run([BENCH, *TINY, "--congestion", "lunar"], capture_output=True,
                       text=True, timeout=60, check=False)
    require(r.returncode == 1 and r.stdout == "", r.returncode, r.stdout)
    require(r.stderr.startswith("vasi-bench: ") and "tcp_congestion" in r.stderr,
            r.stderr)


def test_manual():
    """every option and every name in the JSON is in the manual"""
    r = subprocess.run([BENCH, "mover", "--help"], capture_output=True, text=True,
                       timeout=60, check=False)
    require(r.returncode == 0, r.stderr)
    options = set(re.findall(r"(?m)^  (?:-h, )?(--[a-z]+)", r.stdout))
    require(len(options) > 10, options)
    with open(os.path.join(TOP, "Documentation", "man", "vasi-bench.1.rst"),
              encoding="utf-8") as f:
        page = f.read()
    described = set(re.findall(r"(?m)^(?:-h, )?(--[a-z]+)", page))
    require(described == options, described ^ options)
    for name in RUN | PAUSE | WHOLE:
        require(re.search(r"(?m)(^|\W)%s(\W|$)" % name, page), name)


def test_without_rivals():
    """where no rival is installed it measures the rest, and says so"""
    with Bare() as bare:
        text, seen = bare.bench(*TINY, "--links", "loopback,1g",
                                "--congestion", "reno")
    require(set(seen) == WHOLE, set(seen) ^ WHOLE)
    require(seen["host"]["congestion_control"] == "reno", seen["host"])
    moved = not [n for n in seen["skipped"] if n.startswith("mover")]
    for name in seen["skipped"]:
        if name.startswith("mover"):
            require("this kernel has not" in seen["skipped_why"][name],
                    seen["skipped_why"])
    require(set(seen["skipped"]) >= {"iperf3", "qemu"}, seen["skipped"])
    require(set(seen["skipped"]) == set(seen["skipped_why"]), seen["skipped_why"])
    require("skipped: iperf3: not installed" in text, text)
    require([(r["link"], r["streams"]) for r in seen["runs"]] ==
            [("loopback", 2), ("1g", 2)], seen["runs"])
    for row in seen["runs"]:
        require(set(row) == RUN, set(row) ^ RUN)
        require(row["plain_Bps"] > 0, row)
        for rival in ("iperf3", "qemu"):
            require(row[rival + "_Bps"] is None and row["ratio_" + rival] is None, row)
        require((row["goodput_Bps"] is not None) == moved, row, seen["skipped_why"])
        if moved:
            require(row["access"] == "user" or os.path.exists("/dev/vasi"), row)
            require(abs(row["ratio_plain"] * row["plain_Bps"] - row["goodput_Bps"]) < 1,
                    row)
    # More than a token bucket lets through is no question of a fast machine.
    require([l["link"] for l in seen["links"]] == ["1g"], seen["links"])
    for goodput in seen["links"][0]["seen_Bps"]:
        require(0 < goodput < 1.1 * 125e6, seen["links"])
    require(len(seen["pause"]) == len({s["access"] for s in seen["pause_samples"]}), seen)
    require(bool(seen["pause"]) == moved, seen["pause"])
    for row in seen["pause"]:
        require(set(row) == PAUSE, set(row) ^ PAUSE)
        require(row["guest_bytes"] == 16 << 20 and row["moves"] == 2, row)
        require(0 < row["p50_ms"] <= row["p99_ms"] and row["guest_seen_p50_ms"] > 0, row)
    require(set(seen["cpu_s_per_gb"]) == {"source", "target"}, seen["cpu_s_per_gb"])
    if moved:
        require(min(seen["cpu_s_per_gb"].values()) > 0, seen["cpu_s_per_gb"])
        require(set(seen["rss_bytes"]) >= {"mspd"}, seen["rss_bytes"])
        # all of it went over: the guest is random, and larger than what it sends
        for sample in seen["samples"]:
            require(sample["name"] != "mover" or sample["bytes_sent"] > 8 << 20, sample)


def test_compression():
    """what is compressed is told apart, and has fewer bytes"""
    with Bare() as bare:
        _, seen = bare.bench(*TINY, "--links", "loopback", "--guests", "none",
                             "--fill", "mixed", "--compression", "off,lz4")
    require([r["compression"] for r in seen["runs"]] == ["off", "lz4"], seen["runs"])
    off, lz4 = (s["sent_part"] for s in seen["samples"] if s["name"] == "mover")
    require(lz4 < 0.7 < 1 < off, seen["samples"])


def test_tls():
    """what encryption costs is said, of the same guest"""
    with Bare() as bare:
        text, seen = bare.bench(*TINY, "--links", "loopback", "--guests", "none",
                                "--tls", "off,required")
    if any(name.startswith("mover") for name in seen["skipped"]):
        return
    off, on = seen["runs"]
    require((off["tls"], on["tls"]) == ("off", "required"), seen["runs"])
    require(off["ratio_tls"] is None, off)
    require(abs(on["ratio_tls"] * off["goodput_Bps"] - on["goodput_Bps"]) < 1, on)
    require("TLS to plain on loopback, 2 streams" in text, text)


def test_failing_rival():
    """a rival that fails is left out with its own words, the rest goes on"""
    with Bare() as bare:
        fake = os.path.join(bare.bin, "iperf3")
        with open(fake, "w", encoding="utf-8") as f:
            f.write('#!/bin/sh\n[ "$1" != --version ] || exec echo "iperf 3.12 (none)"\n'
                    'echo "iperf3: error - the moon" >&2\nexit 1\n')
        os.chmod(fake, 0o755)
        text, seen = bare.bench(*TINY, "--links", "veth", "--without", "mover")
    require(set(seen["skipped"]) == {"iperf3", "mover", "qemu"}, seen["skipped"])
    require("the moon" in seen["skipped_why"]["iperf3"], seen["skipped_why"])
    require(seen["runs"][0]["plain_Bps"] > 0, seen["runs"])
    require(seen["pause"] == [] and seen["cpu_s_per_gb"]["source"] is None, seen)
    require("skipped: mover: left out" in text, text)


def test_plain():
    """vasi-plain: both sides count every byte, whatever the number of streams"""
    for streams in (1, 3, 64):
        receiver = subprocess.Popen([PLAIN, "--streams", str(streams), "--listen",
                                     "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
        with receiver:
            port = json.loads(receiver.stdout.readline())["listening"]
            r = subprocess.run([PLAIN, "--streams", str(streams), "--size", "5",
                                "127.0.0.1:%d" % port], capture_output=True, text=True,
                               timeout=60, check=False)
            require(r.returncode == 0, r.stderr)
            for text in (r.stdout, receiver.stdout.readline()):
                require(json.loads(text)["bytes"] == 5 << 20, text)
            require(receiver.wait(60) == 0)
    for words, code, text in (([], 2, "where to?"), (["--size", "x"], 2, "x"),
                              (["nowhere"], 1, "nowhere"), (["a:1", "b:1"], 2, "argument"),
                              (["--streams", "65", "a:1"], 2, "65")):
        r = subprocess.run([PLAIN, *words], capture_output=True, text=True, timeout=60,
                           check=False)
        require(r.returncode == code and text in r.stderr, words, r.returncode, r.stderr)


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("1..0 # SKIP needs root: network namespaces")
        sys.exit(4)
    sys.exit(main(globals(), (MSPD, MSPCTL, PLAIN, LOAD)))
