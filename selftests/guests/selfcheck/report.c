// SPDX-License-Identifier: GPL-2.0
/* What the guest says about itself: errors, gaps, the status and the report. */
#include <stdlib.h>

#include "check.h"

#define MAX_ERRORS 32
#define MAX_GAPS 64
#define ERROR_LEN 200
/* so that one thread's flood leaves room for what the others find */
#define MAX_TOLD 2
#define TEXT_LEN 65536

struct gap {
	uint64_t at_ns, ns;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char errors[MAX_ERRORS][ERROR_LEN];
static unsigned int n_texts;
static _Atomic unsigned long n_errors;
static _Atomic unsigned long n_stop_eintr;
/* the largest gaps seen, largest first */
static struct gap gaps[MAX_GAPS];
static unsigned int n_gaps;
static uint64_t max_gap_ns;
static unsigned long status_seq, report_seq;
static int status_fd = -1;

void fail(struct worker *w, const char *fmt, ...)
{
	struct timespec a_while = { .tv_nsec = 20 * NSEC_PER_MSEC };
	char text[ERROR_LEN];
	unsigned long n;
	bool flood;
	va_list ap;
	char *c;
	int used;

	used = snprintf(text, sizeof(text), "%s: ", w ? w->check->name : "main");
	va_start(ap, fmt);
	vsnprintf(text + used, sizeof(text) - (size_t)used, fmt, ap);
	va_end(ap);
	/* one line of text that is also a JSON string */
	for (c = text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == '"' || *c == '\\')
			*c = '_';

	pthread_mutex_lock(&lock);
	n = atomic_load(&n_errors);
	flood = w && w->told >= MAX_TOLD;
	if (!flood && n_texts < MAX_ERRORS) {
		memcpy(errors[n_texts++], text, sizeof(text));
		if (w)
			w->told++;
	}
	atomic_store(&n_errors, n + 1);
	pthread_mutex_unlock(&lock);
	if (flood)
		nanosleep(&a_while, NULL);
}

/* signal(7): these return EINTR after a stop signal and SIGCONT */
bool interrupted_by_stop(const char *call)
{
	static const char *const calls[] = { "epoll_wait", "sigtimedwait" };
	unsigned int i;

	if (!options.stop_signals)
		return false;
	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		if (strcmp(call, calls[i]) == 0) {
			atomic_fetch_add(&n_stop_eintr, 1);
			return true;
		}
	}
	return false;
}

/* errno says why @call failed; an EINTR is the failure this guest looks for */
void fail_call(struct worker *w, const char *call)
{
	int err = errno;

	if (err == EINTR && interrupted_by_stop(call))
		return;
	fail(w, "%s: %s", call,
	     err == EINTR ? "visible EINTR" : strerrorname_np(err));
}

unsigned long error_count(void)
{
	return atomic_load(&n_errors);
}

void first_error(char *buf, size_t size)
{
	pthread_mutex_lock(&lock);
	snprintf(buf, size, "%s", errors[0]);
	pthread_mutex_unlock(&lock);
}

void note_gap(uint64_t at_ns, uint64_t gap_ns)
{
	unsigned int i;

	pthread_mutex_lock(&lock);
	if (gap_ns > max_gap_ns)
		max_gap_ns = gap_ns;
	if (n_gaps < MAX_GAPS)
		n_gaps++;
	else if (gaps[MAX_GAPS - 1].ns >= gap_ns)
		goto out;
	for (i = n_gaps - 1; i && gaps[i - 1].ns < gap_ns; i--)
		gaps[i] = gaps[i - 1];
	gaps[i] = (struct gap){ at_ns, gap_ns };
out:
	pthread_mutex_unlock(&lock);
}

uint64_t take_max_gap(void)
{
	uint64_t ns;

	pthread_mutex_lock(&lock);
	ns = max_gap_ns;
	max_gap_ns = 0;
	pthread_mutex_unlock(&lock);
	return ns;
}

int status_open(void)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/status", options.dir) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	status_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (status_fd < 0)
		return -errno;
	return keep_fd(status_fd);
}

struct text {
	size_t len;
	char s[TEXT_LEN];
};

__attribute__((format(printf, 2, 3)))
static void add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->s + t->len, sizeof(t->s) - t->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		t->len += (size_t)n;
	if (t->len >= sizeof(t->s))
		t->len = sizeof(t->s) - 1;
}

/* seq pid monotonic_ns name=loops,... errors=N max_gap_us=N OK|FAIL reason */
void status_line(struct worker *workers, unsigned int n)
{
	/* only the main thread writes; too large for its stack's taste */
	static struct text t;
	char reason[ERROR_LEN];
	unsigned int i;

	t.len = 0;
	add(&t, "%lu %d %llu ", ++status_seq, getpid(),
	    (unsigned long long)now_ns());
	for (i = 0; i < n; i++)
		add(&t, "%s%s=%llu", i ? "," : "", workers[i].check->name,
		    (unsigned long long)atomic_load(&workers[i].loops));
	add(&t, " errors=%lu max_gap_us=%llu ", error_count(),
	    (unsigned long long)(take_max_gap() / NSEC_PER_USEC));
	if (error_count()) {
		first_error(reason, sizeof(reason));
		add(&t, "FAIL %s\n", reason);
	} else {
		add(&t, "OK\n");
	}
	if (write(status_fd, t.s, t.len) != (ssize_t)t.len)
		fail_call(NULL, "write status");
}

int report_write(struct worker *workers, unsigned int n, const char *why)
{
	static struct text t;
	char path[PATH_MAX];
	unsigned long n_err;
	unsigned int i;
	int r;

	pthread_mutex_lock(&lock);
	n_err = atomic_load(&n_errors);
	t.len = 0;
	add(&t, "{\"ok\": %s, \"why\": \"%s\", \"report\": %lu, \"pid\": %d, ",
	    n_err ? "false" : "true", why, ++report_seq, getpid());
	add(&t, "\"monotonic_ns\": %llu, \"status_lines\": %lu, ",
	    (unsigned long long)now_ns(), status_seq);
	add(&t, "\"eintr_after_stop\": %lu,\n \"error_count\": %lu, \"errors\": [",
	    atomic_load(&n_stop_eintr), n_err);
	for (i = 0; i < n_texts; i++)
		add(&t, "%s\n  \"%s\"", i ? "," : "", errors[i]);
	add(&t, "],\n \"gaps\": [");
	for (i = 0; i < n_gaps; i++)
		add(&t, "%s{\"at_ns\": %llu, \"us\": %llu}", i ? ", " : "",
		    (unsigned long long)gaps[i].at_ns,
		    (unsigned long long)(gaps[i].ns / NSEC_PER_USEC));
	add(&t, "],\n \"loops\": {");
	for (i = 0; i < n; i++)
		add(&t, "%s\"%s\": %llu", i ? ", " : "", workers[i].check->name,
		    (unsigned long long)atomic_load(&workers[i].loops));
	add(&t, "}}\n");
	pthread_mutex_unlock(&lock);

	if (snprintf(path, sizeof(path), "%s/report", options.dir) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	pthread_rwlock_rdlock(&fd_table_lock);
	r = write_whole(path, t.s, t.len);
	pthread_rwlock_unlock(&fd_table_lock);
	return r;
}
