// SPDX-License-Identifier: GPL-2.0
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "lib/clock.h"
#include "session/drive.h"
#include "session/journal.h"
#include "session/session.h"
#include "session/world.h"
#include "tap.h"
#include "wire/sock.h"

static void keep_result(json_t *obj, char *error, bool *good)
{
	const char *text = json_string_value(json_object_get(obj, "error"));

	snprintf(error, 512, "%s", text ? text : "");
	*good = json_is_true(json_object_get(obj, "ok"));
}

static void keep_pause(json_t *obj)
{
	const json_t *pause = json_object_get(obj, "pause_ms"), *part;
	const char *name;

	world->pause_total = json_number_value(json_object_get(pause,
							       "total"));
	world->pause_sum = -world->pause_total;
	json_object_foreach((json_t *)pause, name, part)
		world->pause_sum += json_number_value(part);
}

static int number(const json_t *obj, const char *name)
{
	must(json_is_integer(json_object_get(obj, name)));
	return json_integer_value(json_object_get(obj, name));
}

static void source_event(struct reporter *r, json_t *obj)
{
	const char *event = json_string_value(json_object_get(obj, "event"));
	char *text = json_dumps(obj, JSON_COMPACT);

	(void)r;
	must(event && text);
	if (getenv("VERBOSE"))
		note("%s", text);
	if (!strcmp(event, "result")) {
		world->plain_bytes = number(obj, "plain_bytes");
		world->wire_bytes = number(obj, "bytes_sent");
		world->in_doubt = json_is_true(json_object_get(obj,
							       "in_doubt"));
		keep_result(obj, world->source_error, &world->source_ok);
		/* the target has none, and tells that at about the same time */
		keep_pause(obj);
	}
	if (!strcmp(event, "round") && number(obj, "round") > 1) {
		world->written_again += number(obj, "dirty_pages");
		world->sent_again += number(obj, "pages");
		world->equal_again += number(obj, "equal");
	}
	if (!strcmp(event, "round"))
		world->rounds++;
	if (!strcmp(event, "validate"))
		strncat(world->events, text,
			sizeof(world->events) - strlen(world->events) - 1);
	free(text);
	json_decref(obj);
}

static void target_event(struct reporter *r, json_t *obj)
{
	bool good;

	(void)r;
	if (!strcmp(json_string_value(json_object_get(obj, "event")),
		    "result")) {
		keep_result(obj, world->target_error, &good);
		world->target_ok = good;
	}
	json_decref(obj);
}

static int reserve(struct reporter *r, const char *name, const char *uuid)
{
	(void)r;
	must(!strcmp(name, "redis") && strlen(uuid) == 36);
	return world->plan.name_taken ? -EEXIST : 0;
}

static int arriving(struct reporter *r, const char *name, const char *uuid,
		    pid_t pid)
{
	(void)r;
	must(!strcmp(name, "redis") && strlen(uuid) == 36 && pid > 0);
	must(world->parked && !world->running);
	if (world->plan.fail_record)
		return -ENOSPC;
	world->recorded = true;
	return 0;
}

static void forget(struct reporter *r, const char *name)
{
	(void)r;
	must(!strcmp(name, "redis") && world->aborted);
	world->recorded = false;
}

static int adopted(struct reporter *r, const char *name, const char *uuid,
		   pid_t pid)
{
	(void)r;
	(void)name;
	(void)uuid;
	(void)pid;
	world->adopted = true;
	return 0;
}

static int left(struct reporter *r, const char *name, const char *uuid,
		pid_t pid)
{
	(void)r;
	(void)name;
	(void)uuid;
	must(world->destroyed && pid > 0);
	world->left = true;
	return 0;
}

static bool cancelled(struct reporter *r)
{
	(void)r;
	return world->plan.cancel_in_round &&
	       world->harvests >= world->plan.cancel_in_round;
}

/* what is promised, on both sides; anew for each world */
static const char *journal_dir(void)
{
	static char dir[] = "/tmp/session-journal.XXXXXX";
	static bool made;

	if (!made)
		must(mkdtemp(dir));
	made = true;
	return dir;
}

static void count_one(void *arg, enum journal_role role, uint64_t stream_id)
{
	struct journal j;

	must(!journal_open(&j, journal_dir(), role, stream_id, 1000));
	*(int *)arg += 1 << (j.last.type + 8 * j.last.role);
	journal_remove(&j);
}

int drive_journals(void)
{
	int found = 0;

	must(!journal_scan(journal_dir(), count_one, &found));
	return found;
}

void drive_end(void)
{
	drive_journals();
	rmdir(journal_dir());
}

static void target_main(int listener)
{
	struct target_config cfg = {
		.access = &world_access,
		.listen_host = "127.0.0.1",
		.handshake_ms = 2000,
		.idle_ms = 6000,
		.max_streams = 8,
	};
	struct reporter rep = {
		.event = target_event,
		.reserve = reserve,
		.arriving = arriving,
		.forget = forget,
		.adopted = adopted,
	};
	int fd = sock_accept(listener, deadline_in(10000));

	must(fd >= 0);
	snprintf(cfg.journal_dir, sizeof(cfg.journal_dir), "%s",
		 journal_dir());
	close(listener);
	target_run(fd, &cfg, &rep);
}

int target_worker(uint16_t *ret_port, const char *fault, void (*peer)(int))
{
	int listener = sock_listen("127.0.0.1", 0, 0, ret_port);
	pid_t pid;

	must(listener >= 0);
	if (fault)
		setenv("MSPD_FAULT", fault, 1);
	else
		unsetenv("MSPD_FAULT");
	fflush(stdout);
	pid = fork();
	must(pid >= 0);
	if (!pid) {
		if (peer)
			peer(sock_accept(listener, deadline_in(10000)));
		else
			target_main(listener);
		_exit(0);
	}
	close(listener);
	return pid;
}

int target_wait(int pid)
{
	int64_t deadline = deadline_in(60000);
	int status = -1;

	while (!waitpid(pid, &status, WNOHANG)) {
		if (!deadline_left(deadline)) {
			note("the target worker hangs");
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
			return -1;
		}
		sleep_ms(10);
	}
	return status;
}

/* a process for the PID, which has to be a real one; with a child or without */
static pid_t dummy_start(const struct drive *d, int *ret_fd)
{
	int life[2], ready[2];
	pid_t pid;
	char c = 0;

	must(!pipe(life) && !pipe(ready));
	pid = fork();
	must(pid >= 0);
	if (!pid) {
		close(life[1]);
		signal(SIGCHLD, SIG_IGN);
		if (d->child && !fork())
			c = 1;
		if (!c && write(ready[1], &c, 1) != 1)
			_exit(1);
		if (c && d->child_ms) {
			sleep_ms(d->child_ms);
			_exit(0);
		}
		while (read(life[0], &c, 1) > 0)
			;
		_exit(0);
	}
	close(life[0]);
	must(read(ready[0], &c, 1) == 1);
	close(ready[0]);
	close(ready[1]);
	*ret_fd = life[1];	/* both end when it is closed */
	return pid;
}

int drive(const struct drive *d)
{
	struct migration m = {
		.name = "redis",
		.uuid = "01234567-89ab-cdef-0123-456789abcdef",
		.stream_id = 0x1122334455667788,
		.host = "127.0.0.1",
		.streams = d->streams ? d->streams : 2,
		.max_rounds = world->plan.max_rounds ? world->plan.max_rounds :
						       6,
		.pause_limit_ms = world->plan.pause_limit_ms,
		.suspend_ms = 1000,
		.pause_max_ms = world->plan.pause_max_ms,
		.child_wait_ms = world->plan.child_wait_ms,
		.reply_ms = d->reply_ms ? d->reply_ms : 10000,
		.validate_only = d->validate_only,
		.compression = d->compression,
	};
	struct reporter rep = {
		.event = source_event,
		.adopted = left,
		.cancelled = cancelled,
	};
	int fd, ret, status, target;

	drive_journals();
	snprintf(m.journal_dir, sizeof(m.journal_dir), "%s", journal_dir());
	target = target_worker(&m.port, d->fault, d->peer);
	m.pid = dummy_start(d, &fd);
	world_start();
	ret = source_run(&m, &world_access, &rep);
	world_stop();
	close(fd);
	waitpid(m.pid, NULL, 0);
	status = target_wait(target);
	if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
		note("the target worker died of signal %d", WTERMSIG(status));
	if (!d->peer && WIFEXITED(status) && WEXITSTATUS(status))
		note("the target worker ended with %d", WEXITSTATUS(status));
	return ret;
}

bool rolled_back(int ret, const char *text)
{
	bool good = ret < 0 && !world->source_ok && !world->in_doubt &&
		    !world->suspended && !world->sealed && !world->running &&
		    !world->destroyed && !world->adopted && !world->left;

	/* a target that was killed has left it to its guest's tracer's end */
	if (world->prepared && *world->target_error)
		good &= world->aborted && !world->released &&
			!world->recorded;
	if (!strstr(world->source_error, text))
		good = false;
	if (!good)
		note("%d \"%s\", target \"%s\" suspended %d sealed %d running %d destroyed %d aborted %d",
		     ret, world->source_error, world->target_error,
		     world->suspended, world->sealed, world->running,
		     world->destroyed, world->aborted);
	return good;
}

bool moved(int ret)
{
	int differences = world_differences();
	bool good = !ret && world->source_ok && world->target_ok &&
		    world->running && world->sealed && world->destroyed &&
		    world->released && !world->aborted && world->adopted &&
		    world->recorded && world->left && !differences;

	if (!good)
		note("%d \"%s\", target \"%s\" running %d destroyed %d, %d pages differ",
		     ret, world->source_error, world->target_error,
		     world->running, world->destroyed, differences);
	return good;
}
