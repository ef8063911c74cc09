/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One line per message on stderr: with a priority prefix when the journal
 * reads it, with the time of day when a person does
 */
#ifndef MSPD_LOG_H
#define MSPD_LOG_H

#include <syslog.h>

/* @name stands at the head of every line, e.g. "mspd" or "mspd[web]" */
void log_open(const char *name, int level);
int log_level(void);
/* "error", "warning", "notice", "info", "debug"; -EINVAL for others */
int log_level_parse(const char *text);
void log_message(int level, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#define log_error(...)		log_message(LOG_ERR, __VA_ARGS__)
#define log_warning(...)	log_message(LOG_WARNING, __VA_ARGS__)
#define log_notice(...)		log_message(LOG_NOTICE, __VA_ARGS__)
#define log_info(...)		log_message(LOG_INFO, __VA_ARGS__)
#define log_debug(...)		log_message(LOG_DEBUG, __VA_ARGS__)

#endif /* MSPD_LOG_H */
