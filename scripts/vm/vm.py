# SPDX-License-Identifier: GPL-2.0
"""Test VMs: QEMU under TCG, the host's root read only, commands by an agent.

A VM lives in a state directory (build/vm/NAME): kernel log, QEMU's own
messages, one socket per agent port, and a `vm.json` that lets other processes
find it.  Every process is ended by the pid it was started with.
"""

import argparse
import ctypes
import fcntl
import json
import os
import re
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, "build")
STATE = os.path.join(BUILD, "vm")
HERE = os.path.join(TOP, "scripts", "vm")

KERNELS = ("6.1", "6.12")
MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay",
           "virtio_net")
PORTS = 16
BOOT_SECONDS = 180

EXIT_SPLAT = 99         # the kernel complained, whatever the command said
EXIT_TIMEOUT = 124      # as timeout(1)
EXIT_VM = 125           # the VM did not boot, or died

GUEST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# A slow host alone must not look like a kernel bug, so the watchdogs get long
# deadlines (see CMDLINE); what still trips them is taken for a hang.
SPLAT = re.compile(
    r"WARNING: |BUG: |Oops: |INFO: task .* blocked for more than"
    r"|INFO: possible (?:recursive|circular)|possible deadlock"
    r"|INFO: (?:inconsistent|trying to register|lockdep)"
    r"|INFO: rcu\w* (?:self-)?detected|rcu\w*: INFO:|RCU stall"
    r"|KASAN: |KFENCE: |KCSAN: |UBSAN: |refcount_t: "
    r"|list_(?:add|del) corruption|general protection fault"
    r"|Kernel panic|Bad page (?:state|map|cache)|bad p[gu4m]d |Bad rss-counter"
    r"|(?:Poison|Redzone|Object) .*overwritten|kmemleak: [1-9]"
    r"|[Uu]nable to handle|double fault:")

# No page-table isolation: it flushes the software TLB on every system call.
# A slow host must not make the timer look broken, nor the TSC (which is the
# host's) unstable: that would take the clock out of the vDSO.
CMDLINE = ("console=ttyS0 loglevel=7 panic=-1 oops=panic mitigations=off "
           "tsc=reliable no_timer_check cgroup_no_v1=all net.ifnames=0 audit=0 "
           "watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=120 vm.ports=%d" % PORTS)


class VmError(Exception):
    """Something about the VM itself, as opposed to the command in it."""


def log(message):
    print("vm: " + message, file=sys.stderr, flush=True)


def stop_on_signals():
    """Makes a terminating signal an exception, so that clean-ups run."""
    def handler(number, _frame):
        raise SystemExit(128 + number)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, handler)


def sweep():
    """Removes the states of runs that were killed together with their VMs."""
    for name in os.listdir(STATE):
        state = os.path.join(STATE, name)
        maker = re.match(r"(?:run|pair)\.(\d+)", name)
        if not maker or (int(maker.group(1)) != os.getpid() and
                         os.path.exists("/proc/" + maker.group(1))):
            continue
        vms = [state] + [os.path.join(state, side) for side in SIDES]
        vms = [v for v in vms if os.path.exists(os.path.join(v, "vm.json"))]
        if vms and not any(Vm.attach(v).alive() for v in vms):
            shutil.rmtree(state, ignore_errors=True)


# -- kernels and the initramfs ---------------------------------------------

class Kernel:
    """An unpacked kernel image package under build/kernels."""

    def __init__(self, version):
        self.dir = os.path.join(BUILD, "kernels", version)
        modules = os.path.join(self.dir, "lib", "modules")
        try:
            self.release = sorted(os.listdir(modules))[-1]
        except (FileNotFoundError, IndexError):
            raise VmError("no kernel in %s: run scripts/setup" % self.dir) from None
        self.version = version
        self.modules = os.path.join(modules, self.release)
        self.image = os.path.join(self.dir, "boot", "vmlinuz-" + self.release)
        self.module = os.path.join(BUILD, "module", version, "vasi.ko")

    def _closure(self):
        """The modules of the initramfs in loading order."""
        depends = {}
        with open(os.path.join(self.modules, "modules.dep")) as f:
            for line in f:
                path, _, rest = line.partition(":")
                depends[os.path.basename(path).split(".ko")[0]] = (path, rest.split())
        order = []
        for name in MODULES:
            if name not in depends:     # built in
                continue
            path, rest = depends[name]
            for p in list(reversed(rest)) + [path]:
                if p not in order:
                    order.append(p)
        return order

    def initramfs(self):
        """Path of the initramfs, made again when its parts have changed."""
        image = os.path.join(self.dir, "initramfs.cpio")
        parts = [os.path.join(HERE, f) for f in ("vm.py", "init", "agent.c")]
        parts.append(os.path.join(self.modules, "modules.dep"))
        if os.path.exists(image) and all(os.path.getmtime(p) < os.path.getmtime(image)
                                         for p in parts):
            return image
        with tempfile.TemporaryDirectory(dir=self.dir) as tmp:
            root = os.path.join(tmp, "root")
            for d in ("bin", "dev", "proc", "sys", "modules", "lower", "upper", "new"):
                os.makedirs(os.path.join(root, d))
            shutil.copy("/bin/busybox", os.path.join(root, "bin", "busybox"))
            os.symlink("busybox", os.path.join(root, "bin", "sh"))
            shutil.copy(os.path.join(HERE, "init"), os.path.join(root, "init"))
            subprocess.run(["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror",
                            "-static", "-o", os.path.join(root, "agent"),
                            os.path.join(HERE, "agent.c")], check=True)
            names = []
            for path in self._closure():
                name = os.path.basename(path)
                data = os.path.join(root, "modules", name)
                shutil.copy(os.path.join(self.modules, path), data)
                if name.endswith(".xz"):
                    subprocess.run(["xz", "-d", data], check=True)
                    name = name[:-3]
                names.append(name)
            with open(os.path.join(root, "modules", "order"), "w") as f:
                f.write("".join(n + "\n" for n in names))
            made = os.path.join(tmp, "cpio")
            files = subprocess.run(["find", ".", "-print0"], cwd=root, check=True,
                                   stdout=subprocess.PIPE).stdout
            with open(made, "wb") as f:
                subprocess.run(["cpio", "-o", "-0", "-H", "newc", "--quiet"], cwd=root,
                               input=files, stdout=f, check=True)
            os.rename(made, image)
        return image


def qemu():
    """The QEMU that scripts/setup unpacked, or else the installed one."""
    root = os.path.join(BUILD, "qemu")
    if not os.path.exists(os.path.join(root, "complete")):
        return ["qemu-system-x86_64"]
    return [os.path.join(root, "usr", "bin", "qemu-system-x86_64"),
            "-L", os.path.join(root, "usr", "share", "qemu"),
            "-L", os.path.join(root, "usr", "share", "seabios")]


class Share:
    """DIR:MOUNTPOINT[:ro], a directory of the host seen in the VM."""

    def __init__(self, text):
        fields = text.split(":")
        if len(fields) not in (2, 3) or (len(fields) == 3 and fields[2] != "ro"):
            raise argparse.ArgumentTypeError("not DIR:MOUNTPOINT[:ro]: " + text)
        self.dir = os.path.abspath(fields[0])
        self.mountpoint = fields[1]
        self.read_only = len(fields) == 3
        if not os.path.isdir(self.dir):
            raise argparse.ArgumentTypeError("no such directory: " + self.dir)


# -- one VM ----------------------------------------------------------------

class Vm:
    """A VM of this process, or (attach) one that another process started."""

    def __init__(self, state):
        self.state = state
        self.log = os.path.join(state, "kernel.log")
        self.pid = None
        self.kernel = None
        self.process = None     # when it is our child

    @classmethod
    def attach(cls, state):
        vm = cls(state)
        try:
            with open(os.path.join(state, "vm.json")) as f:
                data = json.load(f)
        except FileNotFoundError:
            raise VmError("no VM in " + state) from None
        vm.pid = data["pid"]
        vm.kernel = data["kernel"]
        return vm

    def start(self, kernel, cpus=2, mem=2048, shares=(), append="", netdev=None,
              mac=None, own=True):
        """Starts QEMU; with @own it does not outlive this process."""
        os.makedirs(self.state, exist_ok=True)
        args = qemu() + ["-name", "vasi-vm", "-accel", "tcg,thread=multi",
                "-cpu", "max", "-machine", "q35", "-smp", str(cpus), "-m", str(mem),
                "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
                "-chardev", "file,id=log,path=kernel.log", "-serial", "chardev:log",
                "-kernel", kernel.image, "-initrd", kernel.initramfs(),
                "-append", "%s vm.modules=%s %s" % (CMDLINE, kernel.dir, append),
                "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,"
                          "multidevs=remap",
                "-device", "virtio-9p-pci,fsdev=root,mount_tag=root",
                "-device", "virtio-serial-pci,max_ports=%d" % (PORTS + 1)]
        for i in range(PORTS):
            args += ["-chardev", "socket,id=p%d,path=port%d,server=on,wait=off" % (i, i),
                     "-device", "virtserialport,nr=%d,chardev=p%d" % (i + 1, i)]
        for i, share in enumerate(shares):
            args += ["-fsdev", "local,id=s%d,path=%s,security_model=passthrough,"
                               "multidevs=remap%s" % (i, share.dir,
                                                      ",readonly=on" if share.read_only else ""),
                     "-device", "virtio-9p-pci,fsdev=s%d,mount_tag=share%d" % (i, i)]
        if netdev:
            args += ["-netdev", netdev,
                     "-device", "virtio-net-pci,netdev=net0,mac=%s,romfile=" % mac]

        parent = os.getpid()

        def child():
            if own:
                ctypes.CDLL(None).prctl(1, signal.SIGKILL)      # PR_SET_PDEATHSIG
                if os.getppid() != parent:
                    os._exit(1)
            else:
                os.setsid()

        with open(os.path.join(self.state, "qemu.log"), "wb") as out:
            self.process = subprocess.Popen(args, cwd=self.state,
                                            stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=out, preexec_fn=child)
        self.pid = self.process.pid
        self.kernel = kernel.version
        with open(os.path.join(self.state, "vm.json"), "w") as f:
            json.dump({"pid": self.pid, "kernel": kernel.version,
                       "release": kernel.release}, f)

    def alive(self):
        """True while the process with our pid is our QEMU."""
        if self.pid is None or (self.process and self.process.poll() is not None):
            return False
        try:
            if os.readlink("/proc/%d/cwd" % self.pid) != os.path.realpath(self.state):
                return False
            with open("/proc/%d/stat" % self.pid) as f:
                return f.read().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def boot(self, kernel, shares=(), module=False, hostname="vm", script=""):
        """Waits for the agent, then does the run-time part of the set-up."""
        lines = ["hostname " + hostname, "echo %s > /etc/hostname" % hostname,
                 "printf '127.0.0.1 localhost %s\\n10.77.0.1 vm-a\\n10.77.0.2 vm-b\\n'"
                 " > /etc/hosts" % hostname]
        for i, share in enumerate(shares):
            mode = "ro,cache=loose" if share.read_only else "rw,cache=none"
            lines.append("mkdir -p '%s' && mount -t 9p -o %s,trans=virtio,"
                         "version=9p2000.L,msize=512000,access=any share%d '%s'"
                         % (share.mountpoint, mode, i, share.mountpoint))
        lines.append(script)
        if module:
            lines.append("insmod " + kernel.module)
        code = self.run(["/bin/sh", "-ec", "\n".join(filter(None, lines))],
                        cwd="/", timeout=BOOT_SECONDS)
        if code:
            raise VmError("setting up the VM failed (%d), see %s" % (code, self.log))

    def stop(self):
        if self.alive():
            os.kill(self.pid, signal.SIGKILL)
        if self.process:
            self.process.wait()
            return
        while self.alive():
            time.sleep(0.01)

    def splats(self):
        """The lines of the kernel log that say that something is wrong."""
        try:
            with open(self.log, errors="replace") as f:
                return [line.rstrip() for line in f if SPLAT.search(line)]
        except FileNotFoundError:
            return []

    # -- commands ------------------------------------------------------

    def _port(self):
        """A free port: its socket and the lock that keeps it ours."""
        while True:
            for i in range(PORTS):
                lock = open(os.path.join(self.state, "port%d.lock" % i), "w")
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    lock.close()
                    continue
                return lock, self._connect("port%d" % i)
            time.sleep(0.05)

    def _connect(self, name):
        # A socket's path is limited to 108 bytes, the state directory is not.
        fd = os.open(self.state, os.O_PATH)
        try:
            deadline = time.monotonic() + 10
            while True:
                s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    s.connect("/proc/self/fd/%d/%s" % (fd, name))
                    return s
                except (FileNotFoundError, ConnectionRefusedError):
                    s.close()
                    if not self.alive() or time.monotonic() > deadline:
                        raise VmError("the VM does not run, see %s/qemu.log"
                                      % self.state) from None
                    time.sleep(0.02)
        finally:
            os.close(fd)

    def run(self, argv, cwd=None, timeout=None):
        """Runs a command, its output to ours; returns its exit code.

        It finds the kernel's series in VM_KERNEL and the folder of the modules
        built for it in VM_MODULE_DIR.
        """
        token = secrets.token_bytes(8)
        environment = {"PATH": GUEST_PATH, "HOME": "/root", "LANG": "C.UTF-8",
                       "TERM": os.environ.get("TERM", "dumb"),
                       "VM_KERNEL": self.kernel,
                       "VM_MODULE_DIR": os.path.join(BUILD, "module", self.kernel)}
        strings = [cwd or os.getcwd()]
        strings += ["%s=%s" % item for item in environment.items()]
        strings += [""] + list(argv)
        body = token + b"".join(os.fsencode(s) + b"\0" for s in strings)
        deadline = time.monotonic() + timeout if timeout else None
        lock, s = self._port()
        with lock, s:
            s.sendall(struct.pack("<I", len(body)) + body)
            return self._receive(s, token, deadline)

    def _receive(self, s, token, deadline):
        data = b""
        started = False
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return EXIT_TIMEOUT
            if not select.select([s], [], [], left)[0]:
                continue
            try:
                more = s.recv(1 << 16)
            except ConnectionResetError:
                more = b""
            if not more:
                return EXIT_VM
            data += more
            if not started:
                at = data.find(token)
                if at < 0:
                    continue
                data = data[at + len(token):]
                started = True
            while len(data) >= 8:
                kind, size = struct.unpack_from("<II", data)
                if len(data) < 8 + size:
                    break
                payload, data = data[8:8 + size], data[8 + size:]
                if kind == 3:
                    return struct.unpack("<I", payload)[0]
                write_all(kind, payload)


def write_all(fd, data):
    while data:
        data = data[os.write(fd, data):]


def report_splats(vm, name):
    """Names what the kernel complained about; true when it did."""
    splats = vm.splats()
    if splats:
        log("%s: KERNEL SPLAT, %d lines, the first of them:" % (name, len(splats)))
        for line in splats[:10]:
            log("  " + line)
    return bool(splats)


def add_vm_options(parser):
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--mem", type=int, default=2048, metavar="MiB")
    parser.add_argument("--share", type=Share, action="append", default=[],
                        metavar="DIR:MOUNTPOINT[:ro]",
                        help="show a directory of the host in the VM")
    parser.add_argument("--module", action="store_true",
                        help="load build/module/KERNEL/vasi.ko")
    parser.add_argument("--append", default="", metavar="ARGS",
                        help="more kernel command line")


def split_command(args):
    """The command after `--`."""
    if "--" not in args:
        return args, []
    at = args.index("--")
    return args[:at], args[at + 1:]


# -- two VMs joined by a network ---------------------------------------------

SIDES = ("a", "b")


class Pair:
    """vm-a (10.77.0.1) and vm-b (10.77.0.2) on one link."""

    def __init__(self, name):
        self.name = name
        self.state = os.path.join(STATE, name)
        self.vms = {}

    @classmethod
    def attach(cls, name):
        pair = cls(name)
        for side in SIDES:
            pair.vms[side] = Vm.attach(os.path.join(pair.state, side))
        return pair

    def start(self, args, own):
        """Boots both, as asked for by the options of add_pair_options()."""
        os.makedirs(STATE, exist_ok=True)
        sweep()
        try:
            os.mkdir(self.state)
        except FileExistsError:
            raise VmError("%s exists: scripts/vm/stop --name %s"
                          % (self.state, self.name)) from None
        kernels = {"a": Kernel(args.kernel_a), "b": Kernel(args.kernel_b)}
        for side in SIDES:
            vm = self.vms[side] = Vm(os.path.join(self.state, side))
            link = "stream,id=net0,server=%s,addr.type=unix,addr.path=../link" % (
                "on" if side == "a" else "off")
            vm.start(kernels[side], args.cpus, args.mem, args.share, args.append,
                     netdev=link, mac="52:54:00:77:00:0" + side, own=own)
            while side == "a" and not os.path.exists(os.path.join(self.state, "link")):
                if not vm.alive():
                    raise VmError("vm-a does not run, see %s/qemu.log" % vm.state)
                time.sleep(0.02)
        for number, side in enumerate(SIDES, 1):
            self.vms[side].boot(kernels[side], args.share, args.module, "vm-" + side,
                                "ip link set eth0 mtu %d up\n"
                                "ip address add 10.77.0.%d/24 dev eth0"
                                % (args.mtu, number))

    def stop(self, log_prefix):
        """Ends both, keeps their logs; true when a kernel complained."""
        splat = False
        for side, vm in self.vms.items():
            vm.stop()
            if os.path.exists(vm.log):
                shutil.copyfile(vm.log, "%s-%s.log" % (log_prefix, side))
            splat |= report_splats(vm, "vm-" + side)
        shutil.rmtree(self.state, ignore_errors=True)
        return splat


def add_pair_options(parser):
    parser.add_argument("--kernel-a", choices=KERNELS, default="6.1")
    parser.add_argument("--kernel-b", choices=KERNELS, default="6.1")
    parser.add_argument("--mtu", type=int, default=9000)
    add_vm_options(parser)


def add_log_option(parser):
    parser.add_argument("--log", metavar="PREFIX", default=os.path.join(STATE, "last"),
                        help="the kernel logs go to PREFIX-a.log and PREFIX-b.log")
