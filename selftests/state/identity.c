// SPDX-License-Identifier: GPL-2.0
/* Who the guest is and what it may do: the same, and never more */
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "bare.h"
#include "lib/cleanup.h"
#include "state/procfile.h"

#define IOPRIO(class, data) ((class) << 13 | (data))

static struct bare m;
static char dir[] = "/tmp/vasi-identity-XXXXXX";
static char secret[64];

static void set_caps(uint64_t effective, uint64_t permitted,
		     uint64_t inheritable)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2] = {
		{ (uint32_t)effective, (uint32_t)permitted,
		  (uint32_t)inheritable },
		{ (uint32_t)(effective >> 32), (uint32_t)(permitted >> 32),
		  (uint32_t)(inheritable >> 32) },
	};

	guest_must(!syscall(SYS_capset, &header, data));
}

/* what a careful server does */
static void user(void)
{
	gid_t groups[] = { 5, 1001, 2000 };
	struct rlimit nofile = { 50, 60 };
	cpu_set_t set;

	guest_must(open(secret, O_RDONLY) == 0);
	guest_must(socket(AF_UNIX, SOCK_STREAM, 0) == 1);
	guest_must(dup2(0, 70) == 70);
	umask(0137);
	guest_must(!chdir(dir));
	guest_must(!setrlimit(RLIMIT_NOFILE, &nofile));
	guest_must(!setpriority(PRIO_PROCESS, 0, 7));
	guest_must(!syscall(SYS_ioprio_set, 1, 0, IOPRIO(2, 6)));
	CPU_ZERO(&set);
	CPU_SET(0, &set);
	guest_must(!sched_setaffinity(0, sizeof(set), &set));
	guest_must(!setgroups(3, groups));
	guest_must(!setresgid(1001, 1001, 1001));
	guest_must(!setresuid(1000, 1000, 1000));
	guest_must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	guest_must(!prctl(PR_SET_DUMPABLE, 1));
	guest_must(socket(AF_UNIX, SOCK_STREAM, 0) == 2);
}

/* a program with a few rights of root, in all the sets */
static void partly(void)
{
	uint64_t bind = 1ULL << CAP_NET_BIND_SERVICE;
	uint64_t raw = 1ULL << CAP_NET_RAW;
	unsigned int cap;

	for (cap = 0; cap < 20; cap += 3)
		guest_must(!prctl(PR_CAPBSET_DROP, cap));
	guest_must(!prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP |
			  SECBIT_NOROOT | SECBIT_NOROOT_LOCKED));
	guest_must(!setgroups(0, NULL));
	guest_must(!setresgid(10, 11, 12));
	guest_must(!setresuid(1000, 1001, 1002));
	set_caps(bind, bind | raw, bind | 1ULL << CAP_KILL);
	guest_must(!prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE,
			  CAP_NET_BIND_SERVICE, 0, 0));
}

static void root(void)
{
}

static char *fields(pid_t pid)
{
	static const char *const names[] = {
		"Umask", "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff",
		"CapBnd", "CapAmb", "NoNewPrivs", "Cpus_allowed",
	};
	_cleanup_free_ char *status = NULL;
	char file[32], *text = calloc(1, 4096);
	size_t i, len = 0;

	snprintf(file, sizeof(file), "/proc/%d/status", pid);
	must(text && !procfile_read(AT_FDCWD, file, &status, NULL));
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		const char *p = procfile_field(status, names[i]);

		must(p);
		len += (size_t)sprintf(text + len, "%s: %.*s; ", names[i],
				       (int)strcspn(p, "\n"), p);
	}
	return text;
}

static void moved(guest_part part, uint32_t securebits, const char *what)
{
	_cleanup_free_ char *before = NULL, *after = NULL;
	struct vasi_rec_process *rec;
	long bits;
	int r;

	bare_start(&m, part, NULL);
	before = fields(m.pid);
	rec = (void *)((struct vasi_record *)m.c.records + 1);
	rec->securebits = securebits;
	r = (int)bare_check(&m);
	if (!r)
		r = bare_capture_early(&m);
	if (!r)
		r = bare_capture_final(&m);
	bare_kill(&m);
	if (!r)
		r = (int)bare_target_check(&m);
	if (!r)
		r = bare_prepare(&m);
	if (!r)
		r = bare_finish(&m);
	if (!ok(!r, "%s: moved", what)) {
		bare_print(&m);
		exit(tap_end());
	}
	after = fields(m.r->ns.pid);
	if (!ok(!strcmp(before, after), "%s: the same in every field", what)) {
		note("before %s", before);
		note("after  %s", after);
	}
	bits = remote_call(&m.r->remote, 0, SYS_prctl, PR_GET_SECUREBITS);
	ok(bits == (long)securebits, "%s: securebits (%lx)", what, bits);
}

static void test_user(void)
{
	_cleanup_free_ char *limits = NULL;
	char file[64], cwd[128] = "";
	struct stat st;
	int fd;

	moved(user, 0, "a user");
	snprintf(file, sizeof(file), "/proc/%d/limits", m.r->ns.pid);
	must(!procfile_read(AT_FDCWD, file, &limits, NULL));
	ok(strstr(limits, "Max open files            50                   60 "),
	   "limits, below what is open");
	fd = bare_fd(&m, 70);
	ok(fd >= 0, "a descriptor above the limit");
	close(fd);
	ok(getpriority(PRIO_PROCESS, (id_t)m.r->ns.pid) == 7, "nice value");
	ok(syscall(SYS_ioprio_get, 1, m.r->ns.pid) == IOPRIO(2, 6),
	   "I/O priority");
	snprintf(file, sizeof(file), "/proc/%d/cwd", m.r->ns.pid);
	ok(readlink(file, cwd, sizeof(cwd)) > 0 && !strcmp(cwd, dir),
	   "working directory");
	ok(remote_call(&m.r->remote, 0, SYS_setuid, 0) == -EPERM,
	   "it may not become root");
	fd = bare_fd(&m, 2);
	ok(!fstat(fd, &st) && st.st_uid == 1000 && st.st_gid == 1001,
	   "a new socket belongs to the guest, not to the daemon");
	close(fd);
	fd = bare_fd(&m, 0);
	ok(fd >= 0, "a file it could not open any more is open");
	close(fd);
	bare_end(&m);
}

static void test_others(void)
{
	unsigned long stops;

	moved(partly, SECBIT_NO_SETUID_FIXUP | SECBIT_NOROOT |
	      SECBIT_NOROOT_LOCKED, "partly root");
	bare_end(&m);

	moved(root, 0, "root");
	stops = m.r->remote.stops;
	must(!resource_creds.finish(m.r, m.final));
	ok(m.r->remote.stops == stops,
	   "a guest that is as the daemon costs no call");
	bare_end(&m);
}

/* -- more than the target's daemon has can't be given */

static void test_too_much(void)
{
	bare_start(&m, root, NULL);
	must(!bare_capture_early(&m));
	m.early->creds->cap_bounding |= 1ULL << 62;
	ok(bare_target_check(&m) &&
	   bare_found(&m, "creds.capabilities", "mspd"),
	   "a capability that the target does not have is refused");
	bare_end(&m);

	bare_start(&m, root, NULL);
	must(!bare_capture_early(&m) && !bare_capture_final(&m));
	bare_kill(&m);
	must(!bare_prepare(&m));
	m.final->creds->cap_effective |= 1ULL << 62;
	m.final->creds->cap_permitted |= 1ULL << 62;
	ok(bare_finish(&m) < 0 && bare_found(&m, "creds", "process"),
	   "and fails the restore");
	bare_end(&m);
}

/* -- processor, room, affinity */

static void pinned(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	guest_must(!sched_setaffinity(0, sizeof(set), &set));
}

static bool warned(const char *check)
{
	size_t i;

	for (i = 0; i < m.findings.n; i++)
		if (m.findings.v[i].level == FINDING_WARNING &&
		    !strcmp(m.findings.v[i].check, check))
			return true;
	return false;
}

static void test_target(void)
{
	uint8_t *bits;

	bare_start(&m, pinned, NULL);
	must(!bare_capture_early(&m));
	ok(!bare_target_check(&m) && !warned("sched.affinity"),
	   "this host can take what it has");
	m.early->sched[0]->affinity.data[0] |= 0x80;
	ok(!bare_target_check(&m) && warned("sched.affinity"),
	   "a processor that is not there is a warning");
	bits = m.early->cpu->cpuid.data;
	memset(bits, 0xff, m.early->cpu->cpuid.len);
	ok(bare_target_check(&m) && bare_found(&m, "cpu.features", "processor"),
	   "features that are not there are refused");
	m.early->cpu->xcr0 |= 1ULL << 40;
	m.early->cpu->xstate_size += 64;
	bare_target_check(&m);
	ok(bare_found(&m, "cpu.xcr0", "") && bare_found(&m, "cpu.xstate", ""),
	   "so is another register layout");
	bare_end(&m);
}

int main(void)
{
	char cmd[64];
	int fd;

	must(mkdtemp(dir));
	must(!chmod(dir, 0755));
	snprintf(secret, sizeof(secret), "%s/secret", dir);
	fd = open(secret, O_CREAT | O_WRONLY, 0600);
	must(fd >= 0 && write(fd, "secret", 6) == 6);
	close(fd);
	test_user();
	test_others();
	test_too_much();
	test_target();
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	must(!system(cmd));
	return tap_end();
}
