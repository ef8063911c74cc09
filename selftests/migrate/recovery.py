# SPDX-License-Identifier: GPL-2.0
"""Movers and daemons that are killed between any two steps of a switch-over.

However it breaks off, in the end there is exactly one copy of the guest, which runs
and counts on, on the host that the last durable record names.
"""

import os

from hosts import GUESTS, SIDES, Guest, check, other, say, wait_for

# Where to kill, and where the guest has to be in the end.
POINTS = {
    "a": (("prepared", "a"), ("sealed", "a"), ("committed", "a"), ("sent", "b"),
          ("resumed", "b"), ("destroyed", "b"), ("completed", "b")),
    "b": (("parked", "a"), ("recorded", "a"), ("prepared", "a"), ("ready", "a"),
          ("committed", "b"), ("resumed", "b"), ("told", "b"), ("adopted", "b")),
}


class OnePage(Guest):
    """A guest that counts, wherever it is."""

    def __init__(self, hosts, name):
        super().__init__(hosts, name, os.path.join(GUESTS, "one_page"), "{dir}/out")
        self.ask("out")

    def processes(self, side):
        return int(self.hosts.run(side, "sh", "-c", "pgrep -c -x one_page || :"))

    def listed(self):
        """(side, state, PID) of each copy that a daemon knows."""
        found = []
        for side in SIDES:
            guest = self.hosts.guests(side).get(self.name)
            if guest:
                found.append((side, guest["state"], guest["pid"]))
        return found

    def settle(self):
        """Waits for one copy that runs and counts; there is no other process."""
        def owner():
            found = self.listed()
            return found[0] if len(found) == 1 and found[0][1] == "running" else None
        try:
            self.side, _, self.pid = wait_for("one owner", owner)
        except Exception:
            say("listed: %s" % self.listed())
            raise
        counts = [self.ask("out") for _ in range(2)]
        check(all(c["ok"] for c in counts), "it is not well: %s" % counts)
        check(counts[1]["count"] > counts[0]["count"], "it does not count on")
        wait_for("the other copy to go", lambda: not self.processes(other(self.side)))
        check(self.processes(self.side) == 1, "it runs more than once")


def killed(hosts, side, point, owner, how):
    """One case: the daemon of @side has the fault, and is started again."""
    hosts.restart(side, "%s=%s" % (how, point))
    with OnePage(hosts, "%s-%s-%s" % (how, side, point)) as guest:
        with guest.start_move("streams=1") as process:
            if how == "killall":
                wait_for("the end of mspd on vm-" + side,
                         lambda: not hosts.daemon_lives(side))
                hosts.boot_side(side)
            process.communicate()
        guest.settle()
        check(guest.side == owner, "it is on vm-%s" % guest.side)
        # and nothing holds it: it can be moved the ordinary way
        hosts.restart(side)
        guest.move("streams=1")
        guest.settle()


def killed_everywhere(hosts, how):
    try:
        for side in SIDES:
            for point, owner in POINTS[side]:
                say("%s at \"%s\" on vm-%s" % (how, point, side))
                killed(hosts, side, point, owner, how)
    finally:
        for side in SIDES:
            hosts.restart(side)


def worker_killed(hosts):
    """A mover that is killed between any two steps leaves one copy that runs."""
    killed_everywhere(hosts, "kill")


def daemon_killed(hosts):
    """A daemon that is killed along with it and started again, likewise."""
    killed_everywhere(hosts, "killall")


def in_doubt(hosts):
    """A guest in doubt is stopped and shown; asking helps, or force."""
    for force in (False, True):
        hosts.restart("b", "killall=ready")
        with OnePage(hosts, "doubt-%d" % force) as guest:
            with guest.start_move("streams=1") as process:
                process.communicate()
            check(process.returncode == 3, "exit code %d" % process.returncode)

            def shown():
                line = hosts.run("a", "build/lslparmigr")
                check("name=%s,migration_state=in doubt,side=source," % guest.name in
                      line, line)
            shown()
            # no restart and no time makes it run
            hosts.restart("a")
            shown()
            with hosts.start("a", "build/migrlpar", "-o", "r", "-p",
                             guest.name) as process:
                _, err = process.communicate()
            check(process.returncode == 3 and "does not answer" in err, err)
            shown()
            if force:
                hosts.run("a", "build/mspctl", "recover", "--force", guest.name)
                guest.side = "a"
                counts = [guest.ask("out") for _ in range(2)]
                check(counts[1]["count"] > counts[0]["count"], "it does not count on")
            hosts.boot_side("b")
            if force:
                # what is stopped there has to go by hand, as the manual says
                copy = hosts.guests("b")[guest.name]
                check(copy["state"] == "in doubt", str(copy))
                hosts.run("b", "kill", "-KILL", str(copy["pid"]))
            guest.settle()
            check(guest.side == "a", "it is on vm-%s" % guest.side)


def force_on_target(hosts):
    """A complete copy waits for its source's word, or for force, which then holds."""
    hosts.restart("b", "killall=ready")
    with OnePage(hosts, "forced") as guest:
        with guest.start_move("streams=1") as process:
            process.communicate()
        hosts.kill("a")
        hosts.boot_side("b")
        with hosts.start("b", "build/mspctl", "recover", guest.name) as process:
            _, err = process.communicate()
        check(process.returncode == 1 and "--force" in err, err)
        check(hosts.guests("b")[guest.name]["state"] == "in doubt", "it is not")
        hosts.mspctl("b", "recover", "--force", guest.name)
        check(hosts.guests("b")[guest.name]["state"] == "running", "it is not")
        # the source comes back, asks, and lets go
        hosts.boot_side("a")
        guest.settle()
        check(guest.side == "b", "it is on vm-%s" % guest.side)


def power_loss(hosts):
    """A source that goes down behind its commit: the copy on the target takes over."""
    hosts.restart("b", "killall=ready")
    with OnePage(hosts, "power") as guest:
        with guest.start_move("streams=1") as process:
            process.communicate()
        check(process.returncode == 3, "exit code %d" % process.returncode)
        # what a boot leaves: files, which tell of another one
        hosts.kill("a")
        hosts.run("a", "kill", "-KILL", str(guest.pid))
        hosts.run("a", "sh", "-c", "sed -i 's/\"boot\":\"[^\"]*\"/\"boot\":\"another\"/' "
                  "/var/lib/mspd/journal/*.source")
        for side in SIDES:
            hosts.boot_side(side)
        guest.settle()
        check(guest.side == "b", "it is on vm-%s" % guest.side)


def journal_full(hosts):
    """A target that cannot write that it refuses keeps its copy until it can."""
    hosts.restart("b", "digest,journal=target.refused")
    with OnePage(hosts, "full") as guest:
        with guest.start_move("streams=1") as process:
            process.communicate()
        check(process.returncode == 1, "exit code %d" % process.returncode)
        wait_for("the copy on vm-b", lambda: [g[:2] for g in guest.listed()] == [
            ("a", "running"), ("b", "in doubt")])
        counts = [guest.ask("out") for _ in range(2)]
        check(counts[1]["count"] > counts[0]["count"], "it does not count on")
        # it is asked, and does not say what it cannot make durable
        with open("%s/mspd-b.log" % hosts.san, errors="replace") as log:
            wait_for("a question", lambda: "the refusal is not durable" in log.read())
        check(len(guest.listed()) == 2, "the copy is gone: %s" % guest.listed())
        hosts.restart("b")
        guest.settle()
        check(guest.side == "a", "it is on vm-%s" % guest.side)


def not_told(hosts):
    """A source that cannot write that it took its guest back tells the target even so."""
    hosts.restart("a", "journal=source.returned")
    hosts.restart("b", "kill=prepared")
    try:
        with OnePage(hosts, "untold") as guest:
            with guest.start_move("streams=1") as process:
                process.communicate()
            check(process.returncode == 1, "exit code %d" % process.returncode)
            guest.settle()
            check(guest.side == "a", "it is on vm-%s" % guest.side)
    finally:
        for side in SIDES:
            hosts.restart(side)


def sample(hosts):
    """Daemon and mover killed on either side, before and behind the commit."""
    try:
        for side, point in (("a", "sealed"), ("a", "resumed"), ("b", "prepared"),
                            ("b", "committed")):
            say("killall at \"%s\" on vm-%s" % (point, side))
            killed(hosts, side, point, dict(POINTS[side])[point], "killall")
    finally:
        for side in SIDES:
            hosts.restart(side)


ALL = [worker_killed, daemon_killed, in_doubt, force_on_target, power_loss, journal_full,
       not_told]
