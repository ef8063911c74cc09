// SPDX-License-Identifier: GPL-2.0
/*
 * vasistat: state and traffic of the streams of /dev/vasi
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "mspctl.h"
#include "stats.h"

static const struct {
	const char *key, *label;
} counters[VASI_COUNT_MAX] = {
	[VASI_COUNT_HARVESTS] = { "harvests", "Harvests" },
	[VASI_COUNT_REPORTED] = { "reported", "Pages Reported" },
	[VASI_COUNT_DIRTY] = { "dirty", "  Dirty" },
	[VASI_COUNT_EVENT] = { "event", "  By Event Alone" },
	[VASI_COUNT_FOLIO] = { "folio", "  By Kernel Write" },
	[VASI_COUNT_PINNED] = { "pinned", "  Pinned" },
	[VASI_COUNT_MARKED] = { "marked", "Pages Given Back" },
	[VASI_COUNT_FLUSHES] = { "flushes", "TLB Flushes" },
	[VASI_COUNT_HARVEST_NS] = { "harvest_ns", "Harvest Time (ns)" },
	[VASI_COUNT_READ_BYTES] = { "read_bytes", "Bytes Read" },
	[VASI_COUNT_WRITE_BYTES] = { "write_bytes", "Bytes Written" },
	[VASI_COUNT_SUSPENDS] = { "suspends", "Suspends" },
	[VASI_COUNT_SUSPEND_FAILS] = { "suspend_fails", "Suspends Failed" },
	[VASI_COUNT_SUSPEND_NS] = { "suspend_ns", "Suspend Time (ns)" },
	[VASI_COUNT_EVENTS] = { "events", "Mapping Events" },
	[VASI_COUNT_ERRORS] = { "errors", "Errors" },
};

static const char * const states[] = {
	[VASI_STATE_INVALID] = "Invalid",
	[VASI_STATE_ENABLED] = "Enabled",
	[VASI_STATE_ABORTED] = "Aborted",
	[VASI_STATE_SUSPENDING] = "Suspending",
	[VASI_STATE_SUSPENDED] = "Suspended",
	[VASI_STATE_RESUMED] = "Resumed",
	[VASI_STATE_COMPLETED] = "Completed",
	[VASI_STATE_FAILOVER] = "Failover",
};

/**
 * struct options - what was asked for
 * @one: only @stream_id
 * @stream_id: with @one
 * @json: one stream per line
 * @reset: counters to zero after they were shown
 * @interval_ms: between two looks, 0 = look once
 * @count: looks, 0 = without end
 */
struct options {
	bool one;
	uint64_t stream_id;
	bool json;
	bool reset;
	unsigned long interval_ms;
	unsigned long count;
};

static const char *state_name(uint32_t state)
{
	return state < ARRAY_SIZE(states) ? states[state] : "?";
}

static const char *service_name(uint32_t service)
{
	return service == VASI_SERVICE_SOURCE ? "Source Mover" :
	       service == VASI_SERVICE_TARGET ? "Target Mover" : "?";
}

static void print_text(const struct vasi_info *info)
{
	const struct vasi_stream_info *s = &info->out_stream;

	printf("STREAM STATISTICS (vasi0) :\n"
	       "Stream ID: 0x%016" PRIx64 "\n"
	       "Service: %s\n"
	       "State: %s%s\n"
	       "Reason: 0x%08x\n"
	       "Process: %d\n"
	       "Threads: %u\n"
	       "Opens: %u\n"
	       "Bytes Left: %" PRIu64 "\n"
	       "Suspended (ns): %" PRIu64 "\n"
	       "\n",
	       (uint64_t)s->stream_id, service_name(s->service),
	       state_name(s->state),
	       s->flags & VASI_STREAM_SEALED ? " (sealed)" : "", s->reason,
	       s->pid, s->threads, s->opens, (uint64_t)s->bytes_left,
	       (uint64_t)s->suspended_ns);
	for (int i = 0; i < VASI_COUNT_MAX; i++)
		printf("%s: %" PRIu64 "\n", counters[i].label,
		       (uint64_t)info->out_count[i]);
	putchar('\n');
}

static void print_stream_json(const struct vasi_info *info)
{
	const struct vasi_stream_info *s = &info->out_stream;
	json_t *obj, *count = json_object();
	char id[17];

	snprintf(id, sizeof(id), "%016" PRIx64, (uint64_t)s->stream_id);
	for (int i = 0; i < VASI_COUNT_MAX; i++)
		json_object_set_new(count, counters[i].key,
				    json_integer(info->out_count[i]));
	obj = json_pack("{s:s, s:s, s:s, s:I, s:b, s:i, s:i, s:i, s:I, s:I, s:o}",
			"stream_id", id, "service",
			s->service == VASI_SERVICE_SOURCE ? "source" : "target",
			"state", state_name(s->state), "reason",
			(json_int_t)s->reason, "sealed",
			!!(s->flags & VASI_STREAM_SEALED), "pid", s->pid,
			"threads", s->threads, "opens", s->opens, "bytes_left",
			(json_int_t)s->bytes_left, "suspended_ns",
			(json_int_t)s->suspended_ns, "count", count);
	print_json(obj);
	json_decref(obj);
}

static int look(const struct command *self, struct stats *st,
		const struct options *o)
{
	_cleanup_free_ struct vasi_info *v = NULL;
	size_t n = 0, shown = 0;
	int r;

	r = stats_dump(st, &v, &n);
	if (r < 0)
		return failed(self, "%s", strerror(-r));
	for (size_t i = 0; i < n; i++) {
		if (o->one && v[i].out_stream.stream_id != o->stream_id)
			continue;
		shown++;
		if (o->json)
			print_stream_json(&v[i]);
		else
			print_text(&v[i]);
		if (!o->reset)
			continue;
		r = stats_reset(st, v[i].out_stream.stream_id,
				v[i].out_stream.service);
		if (r < 0 && r != -ENOENT)	/* it may have ended */
			return failed(self, "reset: %s", strerror(-r));
	}
	fflush(stdout);
	if (o->one && !shown)
		return failed(self, "no stream 0x%016" PRIx64, o->stream_id);
	if (!shown && !o->json)
		puts("no stream is open");
	return DONE;
}

static int parse(const struct command *self, int argc, char **argv,
		 struct options *o)
{
	static const struct option longs[] = {
		{ "all", no_argument, NULL, 'a' },
		{ "stream", required_argument, NULL, 's' },
		{ "interval", required_argument, NULL, 'n' },
		{ "count", required_argument, NULL, 'c' },
		{ "reset", no_argument, NULL, 'r' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	bool all = false;
	double seconds;
	char *end;
	int c;

	/* -all and --all: as on the system this comes from */
	while ((c = getopt_long_only(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'a':
			all = true;
			break;
		case 's':
			errno = 0;
			o->stream_id = strtoull(optarg, &end, 16);
			if (errno || *end || end == optarg || !o->stream_id)
				return misuse(self, "-stream takes a stream ID in hexadecimal");
			o->one = true;
			break;
		case 'n':
			seconds = strtod(optarg, &end);
			if (*end || end == optarg || !(seconds >= 0.001) ||
			    seconds > 86400)
				return misuse(self, "-interval takes seconds, 0.001 to 86400");
			o->interval_ms = seconds * 1000;
			break;
		case 'c':
			if (parse_number(optarg, 1, 1000000000, &o->count) < 0)
				return misuse(self, "-count takes a number from 1");
			break;
		case 'r':
			o->reset = true;
			break;
		case 'j':
			o->json = true;
			break;
		case 'h':
			help(self);
			return -1;
		default:
			return MISUSE;
		}
	}
	if (optind != argc)
		return misuse(self, "what is \"%s\"?", argv[optind]);
	if (all && o->one)
		return misuse(self, "-all or -stream, not both");
	if (o->count && !o->interval_ms)
		return misuse(self, "-count needs -interval");
	return DONE;
}

static int vasistat(const struct command *self, int argc, char **argv)
{
	struct options o = { 0 };
	struct stats st;
	int r;

	r = parse(self, argc, argv, &o);
	if (r)
		return r < 0 ? DONE : r;
	r = stats_open(&st);
	if (r == -ENOENT)
		return failed(self, "the netlink family \"vasi\" is not there; load vasi.ko (modprobe vasi)");
	if (r < 0)
		return failed(self, "netlink: %s", strerror(-r));
	for (unsigned long i = 1;; i++) {
		r = look(self, &st, &o);
		if (r != DONE || !o.interval_ms || i == o.count)
			break;
		sleep_ms(o.interval_ms);
	}
	stats_close(&st);
	return r;
}

const struct command command_vasistat = {
	.name = "vasistat",
	.args = "[-all | -stream ID] [OPTION]...",
	.text = "Show state and traffic of the streams of /dev/vasi",
	.options =
	"  -all               every stream (default)\n"
	"  -stream ID         one stream, its ID in hexadecimal\n"
	"  -interval S        look again every S seconds\n"
	"  -count N           so many times, with -interval; default: without end\n"
	"  -reset             set the counters to zero after showing them\n"
	"  -json              one stream per line as JSON\n"
	"  -help              this text\n",
	.run = vasistat,
};
