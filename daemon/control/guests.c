// SPDX-License-Identifier: GPL-2.0
/*
 * Methods guest.*: the guests of this host
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "control/job.h"
#include "control/recovery.h"
#include "control/registry.h"
#include "control/rpc.h"
#include "control/server.h"
#include "lib/cleanup.h"
#include "log.h"
#include "state/ns.h"

/* an array of texts as a vector that ends with NULL; free() frees it whole */
static char **vector(json_t *array)
{
	size_t n = json_array_size(array);
	char **v = calloc(n + 1, sizeof(*v));

	for (size_t i = 0; v && i < n; i++) {
		/* the texts belong to @array; exec only reads them */
		v[i] = (char *)json_string_value(json_array_get(array, i));
		if (!v[i]) {
			free(v);
			return NULL;
		}
	}
	return v;
}

static json_t *check_name(struct server *s, const char *name,
			  struct rpc_error *err)
{
	if (!registry_name_valid(name))
		return rpc_fail(err, RPC_INVALID_PARAMS, 0,
				"\"%s\" is no name for a guest: 1 to 63 letters, digits, '.', '_', '-', the first a letter, digit or '_'",
				name);
	if (registry_find(&s->registry, name))
		return rpc_fail(err, RPC_FAILED, EEXIST,
				"the name \"%s\" is taken on this host", name);
	return json_true();
}

static json_t *guest_run(struct client *c, json_t *params,
			 struct rpc_error *err)
{
	const char *name, *cwd = "/", *output = NULL, *what = NULL;
	_cleanup_free_ char **argv = NULL, **envp = NULL;
	struct ns_guest g = NS_GUEST_INIT;
	json_t *args, *env = NULL;
	struct server *s = c->server;
	char uuid[37], cgroup[600];
	json_error_t at;
	struct entry *e;
	int r;

	if (json_unpack_ex(params, &at, 0, "{s:s, s:o, s?o, s?s, s?s !}",
			   "name", &name, "argv", &args, "env", &env, "cwd",
			   &cwd, "output", &output) < 0)
		return rpc_fail(err, RPC_INVALID_PARAMS, 0, "guest.run: %s",
				at.text);
	if (!check_name(s, name, err))
		return NULL;
	argv = vector(args);
	envp = vector(env);
	if (!argv || !argv[0] || !envp)
		return rpc_fail(err, RPC_INVALID_PARAMS, 0,
				"guest.run: argv and env are lists of texts, argv is not empty");
	if (cwd[0] != '/' || (output && output[0] != '/'))
		return rpc_fail(err, RPC_INVALID_PARAMS, 0,
				"guest.run: cwd and output are absolute paths");

	struct ns_command cmd = {
		.argv = argv,
		.envp = envp,
		.cwd = cwd,
		.output = output,
		.cgroup = server_cgroup(s, name, cgroup, sizeof(cgroup)),
		.uid = c->uid,
		.gid = c->gid,
		.groups = c->groups,
		.nr_groups = c->nr_groups,
	};
	r = ns_spawn(&cmd, &g, &what);
	if (r < 0) {
		server_sweep_cgroups(s);
		return rpc_fail(err, RPC_FAILED, r, "%s does not start: %s: %s",
				argv[0], what ?: "?", strerror(-r));
	}
	uuid_random(uuid);
	r = registry_add(&s->registry, name, uuid, g.pid, &e);
	if (r < 0) {
		/* nobody would know of it any more */
		ns_kill(&g);
		server_sweep_cgroups(s);
		if (r == -ESRCH)
			return rpc_fail(err, RPC_FAILED, r,
					"%s ended at once", argv[0]);
		return rpc_fail(err, RPC_FAILED, r,
				"the registry does not take \"%s\": %s", name,
				strerror(-r));
	}
	ns_release(&g);
	log_notice("guest %s started, PID %d", name, e->pid);
	return entry_to_json(e);
}

/**
 * struct status - what /proc/PID/status says
 * @tgid: its process
 * @ppid: its parent
 * @nspid: its PID in its own, innermost, namespace
 * @uid: its real user
 * @kthread: it has no memory: a kernel thread or a zombie
 */
struct status {
	int tgid, ppid, nspid;
	unsigned int uid;
	bool kthread;
};

static int read_status(pid_t pid, struct status *ret)
{
	struct status st = { .kthread = true };
	_cleanup_fclose_ FILE *f = NULL;
	char path[32], line[512];
	char *last;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT ? -ESRCH : -errno;
	while (fgets(line, sizeof(line), f)) {
		sscanf(line, "Tgid: %d", &st.tgid);
		sscanf(line, "PPid: %d", &st.ppid);
		sscanf(line, "Uid: %u", &st.uid);
		if (!strncmp(line, "VmSize:", 7))
			st.kthread = false;
		if (!strncmp(line, "NSpid:", 6)) {
			last = strrchr(line, '\t');
			st.nspid = last ? atoi(last) : 0;
		}
	}
	*ret = st;
	return 0;
}

static bool is_ancestor(pid_t pid)
{
	struct status st = { .ppid = getpid() };

	while (st.ppid > 0) {
		if (st.ppid == pid)
			return true;
		if (read_status(st.ppid, &st) < 0)
			return false;
	}
	return false;
}

/* why @pid can be no guest, NULL: it can */
static const char *unadoptable(const struct client *c, pid_t pid,
			       const struct status *st)
{
	const struct job *j;

	if (st->tgid != pid)
		return "it is a thread; name its process";
	if (st->kthread)
		return "it is a kernel thread or a zombie";
	if (st->nspid == 1)
		return "it is PID 1 of its namespace, which nothing survives";
	if (is_ancestor(pid))
		return "it is mspd itself or one of its ancestors";
	for (j = c->server->jobs; j; j = j->next)
		if (j->pid == pid)
			return "it is a worker of mspd";
	if (c->uid && c->uid != st->uid)
		return "it belongs to another user";
	return NULL;
}

static json_t *guest_adopt(struct client *c, json_t *params,
			   struct rpc_error *err)
{
	struct server *s = c->server;
	const char *name, *why;
	char uuid[37];
	struct status st;
	json_error_t at;
	struct entry *e;
	int pid, r;

	if (json_unpack_ex(params, &at, 0, "{s:s, s:i !}", "name", &name,
			   "pid", &pid) < 0)
		return rpc_fail(err, RPC_INVALID_PARAMS, 0, "guest.adopt: %s",
				at.text);
	if (!check_name(s, name, err))
		return NULL;
	r = pid > 0 ? read_status(pid, &st) : -ESRCH;
	if (r < 0)
		return rpc_fail(err, RPC_FAILED, r, "PID %d: %s", pid,
				strerror(-r));
	why = unadoptable(c, pid, &st);
	if (why)
		return rpc_fail(err, RPC_FAILED, EINVAL,
				"PID %d can be no guest: %s", pid, why);
	e = registry_find_pid(&s->registry, pid);
	if (e)
		return rpc_fail(err, RPC_FAILED, EEXIST,
				"PID %d is guest \"%s\" already", pid, e->name);
	uuid_random(uuid);
	r = registry_add(&s->registry, name, uuid, pid, &e);
	if (r < 0)
		return rpc_fail(err, RPC_FAILED, r,
				"the registry does not take \"%s\": %s", name,
				strerror(-r));
	log_notice("guest %s adopted, PID %d", name, e->pid);
	return entry_to_json(e);
}

static json_t *guest_list(struct client *c, json_t *params,
			  struct rpc_error *err)
{
	json_t *list = json_array();
	struct entry *e;

	(void)params;
	(void)err;
	for (e = c->server->registry.entries; e; e = e->next)
		json_array_append_new(list, entry_to_json(e));
	return json_pack("{s:s, s:o}", "tls",
			 tls_words[c->server->config.tls], "guests", list);
}

static json_t *guest_release(struct client *c, json_t *params,
			     struct rpc_error *err)
{
	struct server *s = c->server;
	const char *name;
	json_error_t at;
	struct entry *e;

	if (json_unpack_ex(params, &at, 0, "{s:s !}", "name", &name) < 0)
		return rpc_fail(err, RPC_INVALID_PARAMS, 0, "guest.release: %s",
				at.text);
	e = registry_find(&s->registry, name);
	if (!e)
		return rpc_fail(err, RPC_FAILED, ENOENT,
				"no guest \"%s\" on this host", name);
	if (e->state != ENTRY_RUNNING)
		return rpc_fail(err, RPC_FAILED, EBUSY,
				"guest \"%s\" is in a migration%s", name,
				e->state == ENTRY_IN_DOUBT ?
				", and in doubt" : "");
	log_notice("guest %s (PID %d) is no guest any more", name, e->pid);
	registry_remove(&s->registry, e);
	return json_object();
}

static json_t *guest_recover(struct client *c, json_t *params,
			     struct rpc_error *err)
{
	struct server *s = c->server;
	const char *name;
	int force = 0, r;
	json_error_t at;
	struct entry *e;

	if (json_unpack_ex(params, &at, 0, "{s:s, s?b !}", "name", &name,
			   "force", &force) < 0)
		return rpc_fail(err, RPC_INVALID_PARAMS, 0, "guest.recover: %s",
				at.text);
	e = registry_find(&s->registry, name);
	if (!e)
		return rpc_fail(err, RPC_FAILED, ENOENT,
				"no guest \"%s\" on this host", name);
	if (e->state != ENTRY_IN_DOUBT)
		return rpc_fail(err, RPC_FAILED, EINVAL,
				"guest \"%s\" is not in doubt", name);
	if (force)
		log_warning("guest %s is to be recovered by force", name);
	r = recovery_start(s, e, force);
	if (r == -ENOENT)
		return rpc_fail(err, RPC_FAILED, ENOENT,
				"no journal tells of guest \"%s\" (PID %d): was --state-dir another one?",
				name, e->pid);
	if (r == -EAGAIN)
		return rpc_fail(err, RPC_FAILED, EAGAIN,
				"%s is being asked about guest \"%s\" right now",
				e->doubt.remote, name);
	if (r == -EBUSY)
		return rpc_fail(err, RPC_FAILED, EBUSY,
				"guest \"%s\" waits, complete, for the word of %s, which asks when it is up again; if that host is lost for ever, --force makes the guest run here",
				name, e->doubt.remote);
	return entry_to_json(e);
}

const struct rpc_method guest_methods[] = {
	{ "guest.run", guest_run },
	{ "guest.adopt", guest_adopt },
	{ "guest.list", guest_list },
	{ "guest.release", guest_release },
	{ "guest.recover", guest_recover },
	{ NULL, NULL },
};
