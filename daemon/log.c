// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include "log.h"

static const struct {
	const char *text;
	int level;
} levels[] = {
	{ "error", LOG_ERR },
	{ "warning", LOG_WARNING },
	{ "notice", LOG_NOTICE },
	{ "info", LOG_INFO },
	{ "debug", LOG_DEBUG },
};

static char log_name[80] = "mspd";
static int log_max = LOG_INFO;
static bool log_journal;

void log_open(const char *name, int level)
{
	snprintf(log_name, sizeof(log_name), "%s", name);
	log_max = level;
	log_journal = getenv("JOURNAL_STREAM");
}

int log_level(void)
{
	return log_max;
}

int log_level_parse(const char *text)
{
	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
		if (!strcmp(levels[i].text, text))
			return levels[i].level;
	return -EINVAL;
}

void log_message(int level, const char *fmt, ...)
{
	char head[160], body[2048];
	int saved = errno, n, len;
	struct timespec now;
	struct tm tm;
	va_list ap;

	if (level > log_max)
		return;

	if (log_journal) {
		n = snprintf(head, sizeof(head), "<%d>", level);
	} else {
		clock_gettime(CLOCK_REALTIME, &now);
		localtime_r(&now.tv_sec, &tm);
		n = snprintf(head, sizeof(head), "%02d:%02d:%02d.%03ld %s: ",
			     tm.tm_hour, tm.tm_min, tm.tm_sec,
			     now.tv_nsec / 1000000, log_name);
	}

	va_start(ap, fmt);
	errno = saved;
	len = vsnprintf(body, sizeof(body) - 1, fmt, ap);
	va_end(ap);
	if (len < 0)
		len = 0;
	if (len > (int)sizeof(body) - 2)
		len = sizeof(body) - 2;
	for (int i = 0; i < len; i++)
		if (body[i] == '\n' || body[i] == '\r')
			body[i] = ' ';
	body[len++] = '\n';

	/* one write, so that lines of several processes do not mix */
	struct iovec iov[2] = { { head, n }, { body, len } };

	if (writev(STDERR_FILENO, iov, 2) < 0) {
		/* nowhere left to complain */
	}
	errno = saved;
}
