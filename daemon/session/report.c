// SPDX-License-Identifier: GPL-2.0
#include <inttypes.h>
#include <stdio.h>
#include "lib/clock.h"
#include "lib/digest.h"
#include "session/report.h"

static const char *const part_names[PAUSE_PARTS] = {
	[PAUSE_SUSPEND] = "suspend",
	[PAUSE_HARVEST] = "harvest",
	[PAUSE_PAGES] = "pages",
	[PAUSE_STATE] = "state",
	[PAUSE_RESTORE] = "restore",
	[PAUSE_DIGEST] = "digest",
	[PAUSE_JOURNAL] = "journal",
	[PAUSE_RESUME] = "resume",
};

static void send_event(struct reporter *rep, json_t *obj)
{
	if (obj)
		rep->event(rep, obj);
}

static json_t *number(uint64_t v)
{
	return json_integer((json_int_t)v);
}

static json_t *ms(uint64_t ns)
{
	return json_real((double)ns / NSEC_PER_MSEC);
}

/* null while nobody can know */
static json_t *predicted(uint64_t ns)
{
	return ns < POLICY_UNKNOWN_NS ? ms(ns) : json_null();
}

static uint64_t per_second(uint64_t n, uint64_t ns)
{
	return ns ? (uint64_t)((double)n * NSEC_PER_SEC / ns) : 0;
}

void report_phase(struct reporter *rep, const char *phase)
{
	send_event(rep, json_pack("{s:s, s:s}", "event", "phase",
				  "phase", phase));
}

static const char *level_name(enum finding_level level)
{
	switch (level) {
	case FINDING_PASS:
		return "pass";
	case FINDING_WARNING:
		return "warning";
	default:
		return "error";
	}
}

void report_findings(struct reporter *rep, const struct findings *f,
		     const char *side)
{
	json_t *list = json_array();

	for (size_t i = 0; i < f->n; i++) {
		const struct finding *v = &f->v[i];

		json_array_append_new(list, json_pack(
			"{s:s, s:s, s:s, s:s, s:s}",
			"level", level_name(v->level), "check", v->check,
			"object", v->object, "text", v->text, "side", side));
	}
	send_event(rep, json_pack("{s:s, s:s, s:o}", "event", "validate",
				  "side", side, "findings", list));
}

void report_progress(struct reporter *rep, uint32_t round, uint64_t total,
		     uint64_t left, const struct round_report *last,
		     uint64_t goodput, uint64_t predicted_ns)
{
	double percent = total ? 100.0 * (total - left) / total : 100;

	send_event(rep, json_pack(
		"{s:s, s:i, s:f, s:o, s:o, s:o, s:o}", "event", "progress",
		"round", (int)round, "percent", percent,
		"remaining_bytes", number(left << GUEST_PAGE_SHIFT),
		"dirty_pages_per_s",
		number(per_second(last->dirty_pages, last->since_ns)),
		"goodput_Bps", number(goodput),
		"predicted_pause_ms", predicted(predicted_ns)));
}

/* pages by how they were sent */
static json_t *encodings(const uint64_t *pages)
{
	json_t *obj = json_object();

	for (int i = 0; i < ENCODINGS; i++)
		if (pages[i])
			json_object_set_new(obj, encoding_names[i],
					    number(pages[i]));
	return obj;
}

void report_round(struct reporter *rep, const struct round_report *r,
		  json_t *rounds)
{
	const struct send_totals *t = &r->totals;
	json_t *streams = json_array(), *obj;

	for (unsigned int i = 0; i < SENDER_MAX_STREAMS; i++)
		if (t->stream[i].frames)
			json_array_append_new(streams, json_pack(
				"{s:i, s:o, s:o}", "stream", (int)i,
				"frames", number(t->stream[i].frames),
				"pages", number(t->stream[i].pages)));
	obj = json_pack(
		"{s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:s, s:o}",
		"event", "round", "round", (int)r->round,
		"pages", number(t->pages), "zero", number(t->zero),
		"holes", number(t->holes), "equal", number(t->equal),
		"unreadable", number(t->unreadable),
		"plain_bytes", number(t->pages << GUEST_PAGE_SHIFT),
		"bytes", number(t->bytes), "encoding", encodings(t->encoded),
		"remaining_bytes", number(r->remaining_bytes),
		"dirty_pages", number(r->dirty_pages),
		"ns", number(r->ns), "harvest_ns", number(r->harvest_ns),
		"read_ns", number(t->read_ns),
		"encode_ns", number(t->encode_ns),
		"send_ns", number(t->send_ns),
		"digest_ns", number(r->digest_ns),
		"dirty_pages_per_s",
		number(per_second(r->dirty_pages, r->since_ns)),
		"goodput_Bps",
		number(per_second(t->pages << GUEST_PAGE_SHIFT, r->ns)),
		"predicted_pause_ms", predicted(r->decision.predicted_ns),
		"decision", r->decision.action == POLICY_SWITCH ? "switch" :
								  "round",
		"why", r->decision.why, "streams", streams);
	if (!obj)
		return;
	json_array_append(rounds, obj);
	send_event(rep, obj);
}

static json_t *pause_parts(const struct summary *s)
{
	json_t *obj = json_object();
	uint64_t total = 0;

	for (int i = 0; i < PAUSE_PARTS; i++)
		total += s->pause_ns[i];
	json_object_set_new(obj, "total", ms(total));
	for (int i = 0; i < PAUSE_PARTS; i++)
		json_object_set_new(obj, part_names[i], ms(s->pause_ns[i]));
	return obj;
}

void report_summary(struct reporter *rep, const struct summary *s)
{
	char id[24];
	json_t *obj;

	snprintf(id, sizeof(id), "%016" PRIx64, s->stream_id);
	obj = json_pack("{s:s, s:b, s:b, s:b, s:s?, s:O, s:o, s:o, s:o, s:o, s:o}",
			"event", "result", "ok", s->ok,
			"in_doubt", s->in_doubt,
			"validate_only", s->validate_only,
			"error", s->error, "rounds", s->rounds,
			"plain_bytes", number(s->pages << GUEST_PAGE_SHIFT),
			"bytes_sent", number(s->bytes_sent),
			"encoding", encodings(s->encoded),
			"guest_bytes", number(s->guest_bytes),
			"goodput_Bps",
			number(per_second(s->pages << GUEST_PAGE_SHIFT,
					  s->copy_ns)));
	if (!obj)
		return;
	json_object_set_new(obj, "pause_ms", pause_parts(s));
	json_object_set_new(obj, "predicted_pause_ms",
			    predicted(s->predicted_ns));
	if (s->why)
		json_object_set_new(obj, "why", json_string(s->why));
	if (s->how && *s->how)
		json_object_set_new(obj, "how", json_string(s->how));
	if (s->tls)
		json_object_set_new(obj, "tls", json_string(s->tls));
	json_object_set_new(obj, "streams", json_integer(s->streams));
	json_object_set_new(obj, "stream_id", json_string(id));
	if (s->asked)
		json_object_set_new(obj, "asked", json_string(s->asked));
	if (s->ok && !s->validate_only && !s->asked)
		json_object_set_new(obj, "digest_equal", json_true());
	if (s->kernel[0] && s->kernel[1])
		json_object_set_new(obj, "kernel",
				    json_pack("{s:s, s:s}",
					      "source", s->kernel[0],
					      "target", s->kernel[1]));
	send_event(rep, obj);
}
