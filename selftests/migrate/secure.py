# SPDX-License-Identifier: GPL-2.0
"""Hosts that do not trust each other, that disagree on TLS, and that are flooded."""

import json
import os
import re

from bad_input import Big, command, during, one_page, refused, unharmed
from hosts import ADDRESS, KEYS, PORT, check, say, wait_for

OTHER_PORT = 7703
# An address that no mover has.
INTRUDER = "10.77.0.9"
PLACES = 32
# writes about as fast as it is sent
BUSY = ("--size", "96", "--wss", "64", "--rate", "60000")

# Connects to sys.argv[2]:sys.argv[3] from sys.argv[1] at any pace until it is killed,
# and says nothing, a part of a handshake, or nonsense.
FLOOD = r"""
import os, random, socket, sys, time
own, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
said = [b"", b"\x16\x03\x01\x02\x00\x01", b"VSIC\1\0\1\0", b"GET / HTTP/1.0\r\n\r\n",
        bytes(random.randrange(256) for _ in range(4096))]
held = []
print(os.getpid(), flush=True)
while True:
    for what in said:
        try:
            s = socket.create_connection((host, port), 1, (own, 0))
            s.sendall(what)
            held.append(s)
        except OSError:
            pass
    while len(held) > 400:
        held.pop(0).close()
    time.sleep(0.002)
"""


class Other:
    """One more mspd on vm-b, with its own settings and keys."""

    def __init__(self, hosts, settings="", keys="/run/other-keys"):
        self.hosts, self.keys = hosts, keys
        self.to = "%s:%d" % (ADDRESS["b"], OTHER_PORT)
        config = os.path.join(hosts.san, "other.conf")
        with open(config, "w") as f:
            # cgroups are for the first one to tidy up
            f.write("[mspd]\nkeys = %s\n%s[target]\ncgroup_root =\n" % (keys, settings))
        hosts.start_mspd("b", OTHER_PORT, config, "other")

    def mspctl(self, *args):
        return self.hosts.mspctl("b", "-s", "/run/other.sock", *args)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pid = json.loads(self.mspctl("info", "--json"))["pid"]
        self.hosts.run("b", "kill", str(pid))
        wait_for("its end", lambda: not self.hosts.alive("b", pid))

    def log(self):
        with open("%s/other-b.log" % self.hosts.san) as f:
            return f.read()


def strangers(hosts):
    """Hosts that do not trust each other say what to do, and two commands pair them."""
    theirs, ours = (os.path.join(hosts.san, n) for n in ("other.pem", "host-a.pem"))
    keys = ["keys", "--dir", "/run/other-keys"]
    with one_page(hosts, "strange") as guest:
        with Other(hosts) as mover:
            refused(hosts, guest, "has it a key?", to=mover.to)
            wait_for("its log", lambda: mover.log().count("no key in /run/other-keys") > 1)
            fingerprint = hosts.mspctl("b", *keys, "init").split(",")[0]
            refused(hosts, guest, "certificate %s is not trusted here" % fingerprint,
                    to=mover.to)
            hosts.run("b", "sh", "-c", "build/mspctl keys --dir /run/other-keys export > $0",
                      theirs)
            hosts.mspctl("a", "keys", "--dir", KEYS, "trust", "--name", "other", theirs)
            refused(hosts, guest, "does not trust this host's certificate", to=mover.to)
            wait_for("its log", lambda: "not trusted here" in mover.log())
            hosts.mspctl("b", *keys, "trust", ours)
            code, err = command(hosts, guest, "validate", to=mover.to)
            check(code == 0, err)
            told = json.loads(mover.mspctl("info", "--json"))
            check(told["tls"] == "required" and told["certificate"] == fingerprint, told)
            check("insecure" not in mover.mspctl("list"), "it says that it is insecure")
        unharmed(hosts, guest)
    hosts.run("a", "rm", KEYS + "/trusted/other.pem")
    hosts.run("b", "rm", "-r", "/run/other-keys")


def without(hosts):
    """A host with TLS and one without do not speak, and both say why."""
    with one_page(hosts, "without") as guest:
        with Other(hosts, "tls = off\n", KEYS) as mover:
            refused(hosts, guest, "does without TLS (tls = off)", to=mover.to)
            wait_for("its log", lambda: "speaks TLS" in mover.log())
            check("insecure" in mover.mspctl("list") and
                  "insecure" in mover.mspctl("list", "-m"), "list does not say so")
            check(re.search(r"(?m)^tls +off$", mover.mspctl("info")), "info does not say so")
            check("whoever can connect" in mover.log(), mover.log())
            # and the other way about
            started = json.loads(mover.mspctl("run", "--name", "plain", "--json", "--",
                                              "sleep", "1000"))
            with hosts.start("b", "build/mspctl", "-s", "/run/other.sock", "migrate",
                             "plain", "%s:%d" % (ADDRESS["a"], PORT)) as process:
                err = process.communicate()[1]
            say(err.strip())
            check(process.returncode == 1 and "does without TLS (tls = off)" in err, err)
            check(hosts.alive("b", started["pid"]), "it is gone")
            hosts.run("b", "kill", "-KILL", str(started["pid"]))
            wait_for("its end", lambda: "plain" not in mover.mspctl("list"))
        unharmed(hosts, guest)


class Flood:
    """Connections to vm-b from an address of vm-a, without an end."""

    def __init__(self, hosts, own):
        self.hosts = hosts
        self.process = hosts.start("a", "python3", "-c", FLOOD, own, ADDRESS["b"],
                                   str(PORT))
        self.pid = int(self.process.stdout.readline())

    def end(self):
        self.hosts.run("a", "kill", "-KILL", str(self.pid))
        self.process.communicate()


def flood(hosts):
    """Floods of connections disturb neither a move nor one that begins."""
    hosts.run("a", "ip", "address", "add", INTRUDER + "/24", "dev", "eth0")
    floods, most = [], []

    def workers():
        most.append(int(hosts.run("b", "sh", "-c", "pgrep -c -x mspd-worker || :")))
        return most[-1]

    def look():
        # who shares the source's address may keep the next one out, not this one
        floods.append(Flood(hosts, ADDRESS["a"]))
        wait_for("more of it", lambda: workers() > 20)
        for _ in range(10):
            workers()
            check(json.loads(hosts.mspctl("b", "info", "--json"))["active_target"] <= 1,
                  "strangers are migrations")

    try:
        floods.append(Flood(hosts, INTRUDER))
        wait_for("the flood", lambda: workers() > 8)
        with Big(hosts, "flooded", BUSY) as guest:
            result = during(hosts, guest, "copy", look, ok=True,
                            attributes="pause_limit_ms=1,max_rounds=40")
            guest.moved(result)
            check(result["tls"] in ("process", "kernel"), "not encrypted: %s" % result)
            check(guest.ask("out")["ok"], "it is not well")
        say("at most %d workers" % max(most))
        check(max(most) <= PLACES + 2, "%d workers" % max(most))
        with open("%s/mspd-b.log" % hosts.san) as f:
            check("connections are closed unheard" in f.read(), "the log does not tell")
        check(len(json.loads(hosts.mspctl("b", "list", "-m", "--json"))["migrations"]) < 32,
              "strangers are in the history")
    finally:
        for one in floods:
            one.end()
        hosts.run("a", "ip", "address", "del", INTRUDER + "/24", "dev", "eth0")
    wait_for("the strangers to go", lambda: workers() == 0)


ALL = [strangers, without, flood]
