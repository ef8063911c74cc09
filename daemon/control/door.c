// SPDX-License-Identifier: GPL-2.0
#include <string.h>
#include "control/door.h"
#include "lib/clock.h"
#include "log.h"

#define STEP_NS		(NSEC_PER_SEC / DOOR_PER_S)
#define TELL_NS		(10 * NSEC_PER_SEC)

static struct door_host *find(struct door *d, const char *host)
{
	struct door_host *idle = &d->v[0];

	for (unsigned int i = 0; i < DOOR_HOSTS; i++) {
		if (!strcmp(d->v[i].host, host))
			return &d->v[i];
		if (d->v[i].full_ns < idle->full_ns)
			idle = &d->v[i];
	}
	memset(idle, 0, sizeof(*idle));
	strncpy(idle->host, host, sizeof(idle->host) - 1);
	return idle;
}

static void tell(struct door *d, const char *host, int64_t now)
{
	d->refused++;
	if (d->told_ns && now - d->told_ns < TELL_NS)
		return;
	log_warning("connections are closed unheard, %u since the last word of it; one of them from %s",
		    d->refused, host);
	d->told_ns = now;
	d->refused = 0;
}

bool door_open(struct door *d, const char *host, unsigned int same, int64_t now)
{
	struct door_host *h = find(d, host);

	if (h->full_ns < now)
		h->full_ns = now;
	if (same >= DOOR_PER_HOST ||
	    h->full_ns + STEP_NS - now > DOOR_BURST * STEP_NS) {
		tell(d, host, now);
		return false;
	}
	h->full_ns += STEP_NS;
	return true;
}
