// SPDX-License-Identifier: GPL-2.0
/*
 * Identity and rights
 *
 * They are the last thing a guest gets before its registers: nothing else could
 * be restored without root's rights. Each thread has its own, so each changes
 * its own; all are the same (the module tells when they are not). A guest never
 * gains anything: what can't be set exactly fails the restore.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include "lib/cleanup.h"
#include "state/creds.h"
#include "state/procfile.h"
#include "state/process.h"
#include "state/resource.h"
#include "state/restore.h"

static int ids(const char *status, const char *field, uint32_t v[4])
{
	const char *p = procfile_field(status, field);

	return p && sscanf(p, "%u %u %u %u", &v[0], &v[1], &v[2], &v[3]) == 4 ?
		0 : -EIO;
}

static int hex(const char *status, const char *field, uint64_t *ret)
{
	const char *p = procfile_field(status, field);

	if (!p)
		return -EIO;
	*ret = strtoull(p, NULL, 16);
	return 0;
}

static int groups(const char *status, Mspd__Creds *c)
{
	const char *p = procfile_field(status, "Groups");
	size_t room = 0;
	char *end;

	if (!p)
		return -EIO;
	for (;; p = end) {
		unsigned long v;

		p += strspn(p, " \t");
		if (*p == '\n' || !*p)
			return 0;
		v = strtoul(p, &end, 10);
		if (end == p)
			return -EIO;
		if (c->n_groups == room) {
			uint32_t *g;

			room = room ? 2 * room : 16;
			g = reallocarray(c->groups, room, sizeof(*g));
			if (!g)
				return -ENOMEM;
			c->groups = g;
		}
		c->groups[c->n_groups++] = (uint32_t)v;
	}
}

int creds_parse(const char *status, Mspd__Creds *c)
{
	uint32_t u[4], g[4];
	uint64_t nnp;
	int r;

	r = ids(status, "Uid", u);
	if (!r)
		r = ids(status, "Gid", g);
	if (!r)
		r = groups(status, c);
	if (!r)
		r = hex(status, "CapInh", &c->cap_inheritable);
	if (!r)
		r = hex(status, "CapPrm", &c->cap_permitted);
	if (!r)
		r = hex(status, "CapEff", &c->cap_effective);
	if (!r)
		r = hex(status, "CapBnd", &c->cap_bounding);
	if (!r)
		r = hex(status, "CapAmb", &c->cap_ambient);
	if (!r)
		r = hex(status, "NoNewPrivs", &nnp);
	if (r)
		return r;
	c->uid = u[0];
	c->euid = u[1];
	c->suid = u[2];
	c->fsuid = u[3];
	c->gid = g[0];
	c->egid = g[1];
	c->sgid = g[2];
	c->fsgid = g[3];
	c->no_new_privs = nnp != 0;
	return 0;
}

bool creds_equal(const Mspd__Creds *a, const Mspd__Creds *b)
{
	return a->uid == b->uid && a->euid == b->euid && a->suid == b->suid &&
		a->fsuid == b->fsuid && a->gid == b->gid &&
		a->egid == b->egid && a->sgid == b->sgid &&
		a->fsgid == b->fsgid && a->n_groups == b->n_groups &&
		(!a->n_groups || !memcmp(a->groups, b->groups,
					 a->n_groups * sizeof(*a->groups))) &&
		a->cap_inheritable == b->cap_inheritable &&
		a->cap_permitted == b->cap_permitted &&
		a->cap_effective == b->cap_effective &&
		a->cap_bounding == b->cap_bounding &&
		a->cap_ambient == b->cap_ambient &&
		a->no_new_privs == b->no_new_privs;
}

static int creds_capture(struct capture *c, enum capture_when when,
			 Mspd__Image *img)
{
	const struct vasi_rec_process *rec = process_record(c);
	_cleanup_free_ char *status = NULL;
	Mspd__Creds *creds;
	int r;

	(void)when;
	if (!rec)
		return -EPROTO;
	r = procfile_read(c->proc, "status", &status, NULL);
	if (r)
		return r;
	creds = malloc(sizeof(*creds));
	if (!creds)
		return -ENOMEM;
	*creds = (Mspd__Creds)MSPD__CREDS__INIT;
	img->creds = creds;
	creds->securebits = rec->securebits;
	return creds_parse(status, creds);
}

static int read_status(int dir, const char *name, Mspd__Creds *ret)
{
	_cleanup_free_ char *status = NULL;
	int r = procfile_read(dir, name, &status, NULL);

	return r ? r : creds_parse(status, ret);
}

static int creds_target_check(const struct restore_options *opt,
			      const Mspd__Image *early, struct findings *f)
{
	Mspd__Creds own = MSPD__CREDS__INIT;
	const Mspd__Creds *want = early->creds;
	uint64_t missing;
	int r;

	(void)opt;
	if (!want)
		return 0;
	r = read_status(AT_FDCWD, "/proc/self/status", &own);
	if (r)
		return r;
	missing = (want->cap_bounding | want->cap_permitted |
		   want->cap_inheritable) &
		~(own.cap_bounding & own.cap_permitted);
	if (missing)
		finding_add(f, FINDING_ERROR, "creds.capabilities", "mspd",
			    "the target's mspd lacks capabilities that the guest has (mask %llx); let it run with all",
			    (unsigned long long)missing);
	if (own.no_new_privs && !want->no_new_privs)
		finding_add(f, FINDING_ERROR, "creds.no-new-privs", "mspd",
			    "the target's mspd runs with no_new_privs, which the guest would inherit; start it without");
	free(own.groups);
	return 0;
}

/**
 * struct change - calls that make one set of credentials another
 * @r: the guest
 * @tid: its thread, here
 * @err: first error
 */
struct change {
	struct restore *r;
	pid_t tid;
	int err;
};

#define CALL(ch, what, ...) do { \
	if (!(ch)->err) \
		(ch)->err = remote_queue(&(ch)->r->remote, (ch)->tid, what, \
					 __VA_ARGS__); \
} while (0)

static void set_groups(struct change *ch, const Mspd__Creds *want,
		       const Mspd__Creds *have)
{
	uint64_t addr = 0;

	if (want->n_groups == have->n_groups &&
	    (!want->n_groups || !memcmp(want->groups, have->groups,
					want->n_groups * sizeof(uint32_t))))
		return;
	if (want->n_groups) {
		addr = remote_copy(&ch->r->remote, want->groups,
				   want->n_groups * sizeof(uint32_t));
		if (!addr)
			ch->err = -ENOMEM;
	}
	CALL(ch, "setgroups", SYS_setgroups, want->n_groups, addr);
}

static void set_ids(struct change *ch, const Mspd__Creds *want)
{
	CALL(ch, "setresgid", SYS_setresgid, want->gid, want->egid, want->sgid);
	if (want->fsgid != want->egid)
		CALL(ch, "setfsgid", SYS_setfsgid, want->fsgid);
	/* or the change of user takes the capabilities that are still needed */
	CALL(ch, "securebits", SYS_prctl, PR_SET_SECUREBITS,
	     SECBIT_NO_SETUID_FIXUP);
	CALL(ch, "setresuid", SYS_setresuid, want->uid, want->euid, want->suid);
	if (want->fsuid != want->euid)
		CALL(ch, "setfsuid", SYS_setfsuid, want->fsuid);
}

static void set_caps(struct change *ch, uint64_t effective, uint64_t permitted,
		     uint64_t inheritable)
{
	struct {
		struct __user_cap_header_struct header;
		struct __user_cap_data_struct data[2];
	} v = {
		.header = { .version = _LINUX_CAPABILITY_VERSION_3 },
		.data = {
			{ (uint32_t)effective, (uint32_t)permitted,
			  (uint32_t)inheritable },
			{ (uint32_t)(effective >> 32),
			  (uint32_t)(permitted >> 32),
			  (uint32_t)(inheritable >> 32) },
		},
	};
	uint64_t addr = remote_copy(&ch->r->remote, &v, sizeof(v));

	if (!addr)
		ch->err = -ENOMEM;
	CALL(ch, "capset", SYS_capset, addr,
	     addr + __builtin_offsetof(__typeof__(v), data));
}

static void change_all(struct change *ch, const Mspd__Creds *want,
		       const Mspd__Creds *have)
{
	unsigned int cap;

	for (cap = 0; cap < 64; cap++)
		if (have->cap_bounding & ~want->cap_bounding & 1ULL << cap)
			CALL(ch, "bounding set", SYS_prctl, PR_CAPBSET_DROP,
			     cap);
	set_groups(ch, want, have);
	set_ids(ch, want);
	if (want->cap_ambient) {
		set_caps(ch, have->cap_effective, have->cap_permitted,
			 want->cap_inheritable);
		for (cap = 0; cap < 64; cap++)
			if (want->cap_ambient & 1ULL << cap)
				CALL(ch, "ambient set", SYS_prctl,
				     PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap);
	}
	CALL(ch, "securebits", SYS_prctl, PR_SET_SECUREBITS, want->securebits);
	set_caps(ch, want->cap_effective, want->cap_permitted,
		 want->cap_inheritable);
	if (want->no_new_privs)
		CALL(ch, "no_new_privs", SYS_prctl, PR_SET_NO_NEW_PRIVS, 1);
}

static int look_at(const struct restore *r, const struct restore_thread *t,
		   Mspd__Creds *ret)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", r->ns.pid,
		 t->host_tid);
	return read_status(AT_FDCWD, path, ret);
}

static int change_thread(struct restore *r, const struct restore_thread *t,
			 const Mspd__Creds *want, bool *ret_changed)
{
	struct change ch = { .r = r, .tid = t->host_tid };
	Mspd__Creds have = MSPD__CREDS__INIT;

	ch.err = look_at(r, t, &have);
	/* a new process has securebits only if the daemon has */
	have.securebits = (uint32_t)prctl(PR_GET_SECUREBITS);
	if (!ch.err && (!creds_equal(want, &have) ||
			want->securebits != have.securebits)) {
		*ret_changed = true;
		change_all(&ch, want, &have);
	}
	free(have.groups);
	return ch.err;
}

static int verify_thread(struct restore *r, const struct restore_thread *t,
			 const Mspd__Creds *want)
{
	Mspd__Creds have = MSPD__CREDS__INIT;
	int err = look_at(r, t, &have);

	if (!err && !creds_equal(want, &have))
		err = -EPERM;
	free(have.groups);
	return err;
}

static int creds_finish(struct restore *r, const Mspd__Image *final)
{
	const Mspd__Creds *want = final->creds;
	bool changed = false;
	size_t i;
	int err = 0;

	if (!want)
		return -EBADMSG;
	for (i = 0; !err && i < r->nr_threads; i++)
		err = change_thread(r, &r->threads[i], want, &changed);
	if (!err)
		err = remote_flush(&r->remote);
	for (i = 0; !err && changed && i < r->nr_threads; i++)
		err = verify_thread(r, &r->threads[i], want);
	if (err)
		return restore_fail(r, err, "creds", "process",
				    "identity and rights can't be restored exactly%s%s: %s",
				    r->remote.failed ? ", " : "",
				    r->remote.failed ? r->remote.failed : "",
				    strerror(-err));
	return 0;
}

const struct resource resource_creds = {
	.name = "creds",
	.capture = creds_capture,
	.target_check = creds_target_check,
	.finish = creds_finish,
};
