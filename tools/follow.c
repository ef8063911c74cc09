// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "follow.h"
#include "lib/cleanup.h"

/**
 * struct view - one migration being shown
 * @self: for messages
 * @f: how
 * @id: of the migration
 * @terminal: stdout is one
 * @open_line: the cursor stands behind a progress line
 */
struct view {
	const struct command *self;
	const struct follow *f;
	int id;
	bool terminal;
	bool open_line;
};

static volatile sig_atomic_t interrupts;

static void on_interrupt(int sig)
{
	(void)sig;
	interrupts++;
}

/* ends a progress line before something else is printed */
static void end_line(struct view *v)
{
	if (v->open_line)
		fputs("\r\033[K", stdout);
	v->open_line = false;
}

static double real(const json_t *obj, const char *name)
{
	return json_number_value(json_object_get(obj, name));
}

static long long integer(const json_t *obj, const char *name)
{
	return (long long)json_number_value(json_object_get(obj, name));
}

static const char *text(const json_t *obj, const char *name)
{
	return json_string_value(json_object_get(obj, name)) ?: "";
}

/* the prediction, for as long as there is one */
static const char *predicted(const json_t *e, char *buf, size_t len)
{
	if (json_is_number(json_object_get(e, "predicted_pause_ms")))
		snprintf(buf, len, "pause ~%.0f ms",
			 real(e, "predicted_pause_ms"));
	else
		snprintf(buf, len, "pause not known yet");
	return buf;
}

static void show_progress(struct view *v, const json_t *e)
{
	char left[32], rate[32], pause[32];

	if (!v->terminal)
		return;
	printf("\r\033[Kround %lld  %3.0f %%  %s left  %.0f dirty pages/s  %s/s  %s",
	       integer(e, "round"), real(e, "percent"),
	       human_bytes(real(e, "remaining_bytes"), left, sizeof(left)),
	       real(e, "dirty_pages_per_s"),
	       human_bytes(real(e, "goodput_Bps"), rate, sizeof(rate)),
	       predicted(e, pause, sizeof(pause)));
	fflush(stdout);
	v->open_line = true;
}

/* how much of what was sent was compressed, and how; empty if nothing was */
static const char *encoded(const json_t *e, char *buf, size_t len)
{
	json_t *obj = json_object_get(e, "encoding"), *value;
	double all = 0;
	const char *name;
	size_t at = 0;

	*buf = '\0';
	json_object_foreach(obj, name, value)
		all += json_number_value(value);
	json_object_foreach(obj, name, value)
		if (strcmp(name, "none") && at < len)
			at += snprintf(buf + at, len - at, ", %s %.0f %%",
				       name, 100 * json_number_value(value) /
				       all);
	return buf;
}

static void show_round(struct view *v, const json_t *e)
{
	char sent[32], rate[32], pause[32], how[64];

	end_line(v);
	printf("round %lld: %lld pages (%lld zero, %lld equal), %s in %.0f ms%s, %s/s, %.0f dirty pages/s, %s: %s%s%s\n",
	       integer(e, "round"), integer(e, "pages"), integer(e, "zero"),
	       integer(e, "equal"),
	       human_bytes(real(e, "bytes"), sent, sizeof(sent)),
	       real(e, "ns") / 1e6, encoded(e, how, sizeof(how)),
	       human_bytes(real(e, "goodput_Bps"), rate, sizeof(rate)),
	       real(e, "dirty_pages_per_s"), predicted(e, pause, sizeof(pause)),
	       text(e, "decision"), *text(e, "why") ? ", " : "",
	       text(e, "why"));
	fflush(stdout);
}

static void show_findings(struct view *v, const json_t *e)
{
	const char *level, *object;
	enum detail needs;
	json_t *f;
	size_t i;

	json_array_foreach(json_object_get(e, "findings"), i, f) {
		level = text(f, "level");
		needs = !strcmp(level, "error") ? DETAIL_ERRORS :
			!strcmp(level, "warning") ? DETAIL_WARNINGS :
			DETAIL_ALL;
		if (needs > v->f->detail)
			continue;
		end_line(v);
		object = text(f, "object");
		fprintf(needs == DETAIL_ALL ? stdout : stderr,
			"%s: %s: %s%s%s%s%s\n", level, text(f, "check"), object,
			*object ? ": " : "", text(f, "text"),
			*text(f, "side") ? " on the " : "", text(f, "side"));
	}
}

static void show_pause(const json_t *pause)
{
	const char *name, *sep = "";
	json_t *value;

	printf("pause %.1f ms (", real(pause, "total"));
	json_object_foreach((json_t *)pause, name, value) {
		if (!strcmp(name, "total"))
			continue;
		printf("%s%s %.1f", sep, name, json_number_value(value));
		sep = ", ";
	}
	printf(")");
}

static int show_result(struct view *v, const json_t *e)
{
	bool ok = json_is_true(json_object_get(e, "ok"));
	char sent[32], whole[32], rate[32], how[64];

	end_line(v);
	if (!ok) {
		if (json_is_true(json_object_get(e, "in_doubt"))) {
			failed(v->self, "%s: in doubt who owns it: %s",
			       text(e, "guest"), text(e, "error"));
			return IN_DOUBT;
		}
		return failed(v->self, "%s: %s", text(e, "guest"),
			      *text(e, "error") ? text(e, "error") :
			      "failed without a reason");
	}
	if (v->f->validate) {
		printf("%s can be moved to %s\n", text(e, "guest"),
		       text(e, "peer"));
		return DONE;
	}
	printf("%s runs on %s: ", text(e, "guest"), text(e, "peer"));
	show_pause(json_object_get(e, "pause_ms"));
	printf(", %.1f predicted; %zu rounds, %s sent for %s in %.1f s%s, %s/s, %lld streams\n",
	       real(e, "predicted_pause_ms"),
	       json_array_size(json_object_get(e, "rounds")),
	       human_bytes(real(e, "bytes_sent"), sent, sizeof(sent)),
	       human_bytes(real(e, "guest_bytes"), whole, sizeof(whole)),
	       real(e, "elapsed_ms") / 1000, encoded(e, how, sizeof(how)),
	       human_bytes(real(e, "goodput_Bps"), rate, sizeof(rate)),
	       integer(e, "streams"));
	if (*text(e, "how"))
		printf("%s\n", text(e, "how"));
	return DONE;
}

/* -1: goes on, else the exit code */
static int show(struct view *v, const json_t *e)
{
	const char *event = text(e, "event");

	if (v->f->json) {
		print_json(e);
		if (strcmp(event, "result"))
			return -1;
		if (json_is_true(json_object_get(e, "ok")))
			return DONE;
		return json_is_true(json_object_get(e, "in_doubt")) ? IN_DOUBT :
		       FAILED;
	}
	if (!strcmp(event, "result"))
		return show_result(v, e);
	if (!strcmp(event, "progress"))
		show_progress(v, e);
	else if (!strcmp(event, "round"))
		show_round(v, e);
	else if (!strcmp(event, "validate"))
		show_findings(v, e);
	return -1;
}

/* the operator pressed ^C; true: once more, leave */
static bool interrupted(struct view *v, struct conn *c)
{
	if (interrupts > 1)
		return true;
	end_line(v);
	fprintf(stderr, "%s: cancelling, once more leaves it alone\n",
		v->self->name);
	conn_send(c, "migration.cancel", json_pack("{s:i}", "id", v->id));
	return false;
}

static int follow_events(struct view *v, struct conn *c)
{
	int seen = 0, error, code;
	json_t *obj, *params;

	for (;;) {
		obj = conn_next(c, &error);
		if (!obj && error == -EINTR) {
			if (interrupts == seen)
				continue;
			seen = interrupts;
			if (!interrupted(v, c))
				continue;
			end_line(v);
			fprintf(stderr, "%s: migration %d goes on: mspctl watch %d\n",
				v->self->name, v->id, v->id);
			return IN_DOUBT;
		}
		if (!obj) {
			end_line(v);
			fprintf(stderr, "%s: the connection to mspd is lost; what became of the guest is in mspctl list on both hosts\n",
				v->self->name);
			return IN_DOUBT;
		}
		params = json_object_get(obj, "params");
		code = -1;
		if (!strcmp(text(obj, "method"), "migration.event") &&
		    integer(params, "migration") == v->id)
			code = show(v, params);
		json_decref(obj);
		if (code >= 0)
			return code;
	}
}

int follow(const struct command *self, const char *method, json_t *params,
	   const struct follow *f)
{
	struct sigaction interrupt = { .sa_handler = on_interrupt };
	struct view v = {
		.self = self,
		.f = f,
		.terminal = isatty(STDOUT_FILENO),
	};
	json_t *job, *result;
	struct conn c;
	int code;

	if (conn_open(&c, self) != DONE) {
		json_decref(params);
		return FAILED;
	}
	sigaction(SIGINT, &interrupt, NULL);
	job = conn_call(&c, method, params);
	if (!job) {
		conn_close(&c);
		return FAILED;
	}
	v.id = integer(job, "id");
	result = json_object_get(job, "result");
	code = result ? show(&v, result) : follow_events(&v, &c);
	json_decref(job);
	conn_close(&c);
	return code;
}

int parse_attributes(const struct command *self, const char *text,
		     json_t *attributes)
{
	_cleanup_free_ char *copy = strdup(text);
	char *item, *value, *save = NULL;

	for (item = strtok_r(copy, ",", &save); item;
	     item = strtok_r(NULL, ",", &save)) {
		value = strchr(item, '=');
		if (!value || value == item)
			return misuse(self, "-i takes NAME=VALUE,..., not \"%s\"",
				      item);
		*value++ = '\0';
		/* mspd knows which there are */
		if (json_object_set_new(attributes, item,
					json_string(value)) < 0)
			return misuse(self, "\"%s\" is not valid UTF-8", item);
	}
	return DONE;
}
