// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "engine/fault.h"
#include "guest/choose.h"
#include "guest/guest.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "log.h"
#include "session/peer.h"
#include "session/recover.h"
#include "wire/control.h"
#include "wire/sock.h"

/* more than the module has streams */
#define SEALED_MAX	1024
#define DESTROY_MS	10000
#define LOCK_MS		3000
/* somebody may just look who has it */
#define PEEK_MS		200

__attribute__((format(printf, 3, 4)))
static int because(char why[RECOVER_TEXT], int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, RECOVER_TEXT, fmt, ap);
	va_end(ap);
	return err;
}

/* -- the copy of this host */

static const struct guest_access *access_of(const struct journal_record *r)
{
	for (size_t i = 0; guest_accesses[i]; i++)
		if (!strcmp(guest_accesses[i]->name, r->access))
			return guest_accesses[i];
	return NULL;
}

static uint32_t service_of(const struct journal_record *r)
{
	return r->role == JOURNAL_SOURCE ? VASI_SERVICE_SOURCE :
					   VASI_SERVICE_TARGET;
}

/*
 * COPY_*, 0: it is not there; -errno: who knows, and nothing may be done.
 * COPY_LEFT: the target has said that it runs there.
 */
#define COPY_SEALED	1
#define COPY_LEFT	2

static int copy_sealed(const struct journal_record *r, char why[RECOVER_TEXT])
{
	const struct guest_access *access = access_of(r);
	_cleanup_free_ struct vasi_stream_info *v = NULL;
	size_t n = 0;
	int err;

	if (journal_stale(r))
		return 0;
	if (!access)
		return because(why, -EINVAL, "guest access \"%s\" is unknown",
			       r->access);
	v = calloc(SEALED_MAX, sizeof(*v));
	if (!v)
		return because(why, -ENOMEM, "out of memory");
	err = access->sealed(v, SEALED_MAX, &n);
	if (err < 0)
		return because(why, err, "sealed guests cannot be listed: %s",
			       strerror(-err));
	for (size_t i = 0; i < n; i++) {
		if (v[i].stream_id == r->stream_id &&
		    v[i].service == service_of(r))
			return v[i].state == VASI_STATE_RESUMED ? COPY_LEFT :
								  COPY_SEALED;
	}
	return 0;
}

static int copy_resume(const struct journal_record *r, char why[RECOVER_TEXT])
{
	const struct guest_access *access = access_of(r);
	struct guest *g;
	int err = access->takeover(&g, service_of(r), r->stream_id);

	if (!err) {
		err = access->resume(g);
		if (err >= 0 && r->role == JOURNAL_TARGET)
			access->signal(g, VASI_SIGNAL_COMPLETE,
				       VASI_ENTITY_TARGET_MOVER << 24);
		access->close(g);
	}
	return err < 0 ? because(why, err, "it cannot be resumed: %s",
				 strerror(-err)) : 0;
}

static int copy_destroy(const struct journal_record *r, char why[RECOVER_TEXT])
{
	const struct guest_access *access = access_of(r);
	struct guest *g;
	int err = access->takeover(&g, service_of(r), r->stream_id);

	if (!err) {
		if (r->role == JOURNAL_SOURCE)
			access->signal(g, VASI_SIGNAL_RESUMED,
				       VASI_ENTITY_SOURCE_MOVER << 24);
		err = access->destroy(g, DESTROY_MS);
		access->close(g);
	}
	/* gone already: by itself, or by the operator's hand */
	if (err == -ENOENT || err == -ESRCH)
		return 0;
	return err < 0 ? because(why, err, "its copy cannot be ended: %s",
				 strerror(-err)) : 0;
}

/* -- asking */

static int ask(int fd, uint64_t stream_id, bool lost, int64_t deadline,
	       char why[RECOVER_TEXT])
{
	Mspd__Query query = MSPD__QUERY__INIT;
	struct control_versions v = { 0 };
	struct control_message msg;
	int err;

	query.stream_id = stream_id;
	query.has_lost = 1;
	query.lost = lost;
	err = control_preamble(fd, deadline, &v);
	if (err >= 0)
		err = control_send(fd, CONTROL_QUERY, &query.base, deadline);
	if (err >= 0)
		err = control_recv(fd, deadline, &msg);
	if (err < 0)
		return because(why, err, "%s", strerror(-err));
	if (msg.type == CONTROL_STATUS && msg.status->stream_id == stream_id &&
	    (msg.status->verdict == VERDICT_COMMITTED ||
	     msg.status->verdict == VERDICT_REFUSED))
		err = (int)msg.status->verdict;
	else if (msg.type == CONTROL_FAILED)
		err = because(why, -EAGAIN, "it says: %.300s",
			      msg.failed->text);
	else
		err = because(why, -EPROTO, "it answered by %s",
			      control_name(msg.type));
	control_free(&msg);
	return err;
}

int recover_ask(const char *host, uint16_t port,
		const struct keys_place *keys, uint64_t stream_id, bool lost,
		unsigned int ms, char why[RECOVER_TEXT])
{
	int64_t deadline = deadline_in(ms);
	struct failure failure = { 0 };
	struct peer p = {
		.fd = sock_connect(host, port, deadline),
		.name = "its mspd", .failure = &failure, .guest_fd = -1,
	};
	int err;

	if (p.fd < 0)
		return because(why, p.fd, "%s", strerror(-p.fd));
	/* the answer is final: it must be from who can give it */
	err = peer_secure(&p, keys, TLS_CONNECT, deadline);
	if (err)
		because(why, err, "%.390s", failure.text);
	else
		err = ask(p.fd, stream_id, lost, deadline, why);
	peer_release(&p);
	return err;
}

/* -- answering */

/* of a stream that this host never heard of, or has forgotten: none is here */
static int refuse_unknown(const char *dir, uint64_t stream_id,
			  char why[RECOVER_TEXT])
{
	struct journal_record r = {
		.role = JOURNAL_TARGET, .type = JOURNAL_REFUSED,
		.stream_id = stream_id,
	};
	struct journal j;
	int err = journal_create(&j, dir, &r);

	if (err)
		return because(why, err, "the refusal is not durable: %s",
			       strerror(-err));
	journal_close(&j);
	return VERDICT_REFUSED;
}

/* the source has none any more, and said that it never takes it back */
static int take_over(struct journal *j, char why[RECOVER_TEXT])
{
	int err = journal_append(j, JOURNAL_COMMIT);

	if (err)
		return because(why, err, "the journal: %s", strerror(-err));
	err = copy_resume(&j->last, why);
	return err ? err : VERDICT_COMMITTED;
}

static int refuse(struct journal *j, bool sealed, char why[RECOVER_TEXT])
{
	int err = 0;

	if (j->last.type != JOURNAL_REFUSED)
		err = journal_append(j, JOURNAL_REFUSED);
	if (err)
		return because(why, err, "the refusal is not durable: %s",
			       strerror(-err));
	fault_die("refused");
	if (sealed)
		err = copy_destroy(&j->last, why);
	return err ? err : VERDICT_REFUSED;
}

static int answer(struct journal *j, bool lost, char why[RECOVER_TEXT])
{
	int sealed;

	/* if it is sealed even so, it is about to be resumed */
	if (j->last.type == JOURNAL_COMMIT || j->last.type == JOURNAL_FORCED)
		return VERDICT_COMMITTED;
	sealed = *j->last.access ? copy_sealed(&j->last, why) : 0;
	if (sealed < 0)
		return sealed;
	if (lost && sealed && j->last.type == JOURNAL_PREPARED)
		return take_over(j, why);
	return refuse(j, sealed, why);
}

int recover_answer(const char *dir, uint64_t stream_id, bool lost,
		   char why[RECOVER_TEXT])
{
	struct journal j;
	int err = journal_open(&j, dir, JOURNAL_TARGET, stream_id, LOCK_MS);

	if (err == -ENOENT)
		return refuse_unknown(dir, stream_id, why);
	if (err == -EBUSY)
		return because(why, err, "its mover is at work here still");
	if (err)
		return because(why, err, "the journal here: %s",
			       strerror(-err));
	err = answer(&j, lost, why);
	journal_close(&j);
	return err;
}

/* -- settling */

static enum recovered later(const struct recover *r, const struct journal *j)
{
	log_message(r->again ? LOG_DEBUG : LOG_NOTICE,
		    "guest %s, stream %016" PRIx64 ", %s: %s", j->last.guest,
		    r->stream_id, journal_name(j->last.type), r->why);
	return RECOVERED_LATER;
}

/* the target may have a copy of what runs here: it has to know */
static enum recovered tell(struct recover *r, struct journal *j)
{
	const struct journal_record *l = &j->last;
	int verdict = recover_ask(l->host, l->port, r->keys, l->stream_id, false, r->ms,
				  r->why);

	if (verdict == VERDICT_COMMITTED)
		log_error("guest %s runs here, and %s says that it runs there, too (stream %016" PRIx64 ")",
			  l->guest, l->host, l->stream_id);
	else if (verdict < 0)
		return later(r, j);
	journal_remove(j);
	return RECOVERED_HERE;
}

static enum recovered take_back(struct recover *r, struct journal *j,
				enum journal_type as)
{
	/* what is forced is on record first, else what has happened */
	if (as == JOURNAL_FORCED && journal_append(j, as)) {
		because(r->why, -EIO, "the journal does not take it");
		return later(r, j);
	}
	if (copy_resume(&j->last, r->why))
		return later(r, j);
	if (as == JOURNAL_RETURNED && journal_append(j, as))
		log_error("guest %s: the journal does not take that it runs again",
			  j->last.guest);
	log_notice("guest %s runs here again%s", j->last.guest,
		   as == JOURNAL_FORCED ? ", by force" : "");
	return RECOVERED_HERE;
}

static enum recovered gone(struct journal *j, const char *what)
{
	log_notice("guest %s, stream %016" PRIx64 ": %s", j->last.guest,
		   j->last.stream_id, what);
	journal_remove(j);
	return RECOVERED_GONE;
}

/* a commit without an end: only the target knows */
static enum recovered source_committed(struct recover *r, struct journal *j,
				       int sealed)
{
	const struct journal_record *l = &j->last;
	bool stale = journal_stale(l);
	int verdict;

	/* its end is all that was not written down */
	if (!stale && !sealed)
		return gone(j, "its stopped copy is gone");
	verdict = sealed == COPY_LEFT ? VERDICT_COMMITTED :
		  recover_ask(l->host, l->port, r->keys, l->stream_id, stale, r->ms,
			      r->why);
	if (verdict == VERDICT_COMMITTED) {
		if (sealed && copy_destroy(l, r->why))
			return later(r, j);
		if (journal_append(j, JOURNAL_COMPLETED))
			log_warning("guest %s: the journal does not take its end",
				    l->guest);
		return gone(j, "it runs on the target");
	}
	if (verdict == VERDICT_REFUSED && !sealed)
		return gone(j, "this host lost it with its last boot, and the target had not got it");
	if (verdict == VERDICT_REFUSED) {
		enum recovered ret = take_back(r, j, JOURNAL_RETURNED);

		/* the target knows: it said so */
		if (ret == RECOVERED_HERE)
			journal_remove(j);
		return ret;
	}
	if (r->force && sealed) {
		log_warning("guest %s: resumed by force, though %s may run it: %s",
			    l->guest, l->host, r->why);
		return take_back(r, j, JOURNAL_FORCED);
	}
	return later(r, j);
}

static enum recovered recover_source(struct recover *r, struct journal *j)
{
	int sealed = copy_sealed(&j->last, r->why);

	if (sealed < 0)
		return later(r, j);
	switch (j->last.type) {
	case JOURNAL_COMMIT:
		return source_committed(r, j, sealed);
	case JOURNAL_COMPLETED:
		return gone(j, "it runs on the target");
	default:
		break;
	}
	if (sealed) {
		if (copy_resume(&j->last, r->why))
			return later(r, j);
		log_notice("guest %s runs here again: it was not handed over",
			   j->last.guest);
	}
	if (journal_stale(&j->last) && j->last.type == JOURNAL_BEGIN) {
		/* the last copy may be there, so nobody tells it to go */
		log_warning("guest %s was on its way to %s when this host went down, and was not handed over; a stopped copy may be there",
			    j->last.guest, j->last.host);
		journal_remove(j);
		return RECOVERED_GONE;
	}
	/* who forced it answers for what is there */
	if (j->last.type == JOURNAL_FORCED)
		return RECOVERED_HERE;
	if (j->last.type == JOURNAL_BEGIN &&
	    !journal_append(j, JOURNAL_RETURNED) && sealed)
		return RECOVERED_HERE;
	return tell(r, j);
}

static enum recovered recover_target(struct recover *r, struct journal *j)
{
	int sealed = *j->last.access ? copy_sealed(&j->last, r->why) : 0;

	if (sealed < 0)
		return later(r, j);
	switch (j->last.type) {
	case JOURNAL_BEGIN:
		if (sealed && copy_destroy(&j->last, r->why))
			return later(r, j);
		journal_remove(j);
		return RECOVERED_GONE;
	case JOURNAL_PREPARED:
		if (!sealed)
			return gone(j, "its stopped copy is gone");
		if (!r->force)
			return RECOVERED_LATER;
		log_warning("guest %s: resumed by force, though the source may run it",
			    j->last.guest);
		return take_back(r, j, JOURNAL_FORCED);
	case JOURNAL_REFUSED:
		if (sealed && copy_destroy(&j->last, r->why))
			return later(r, j);
		return RECOVERED_GONE;
	default:
		if (!sealed)
			return RECOVERED_HERE;
		if (copy_resume(&j->last, r->why))
			return later(r, j);
		log_notice("guest %s runs here: it was handed over",
			   j->last.guest);
		return RECOVERED_HERE;
	}
}

enum recovered recover_run(struct recover *r)
{
	enum recovered ret;
	struct journal j;
	int err = journal_open(&j, r->dir, r->role, r->stream_id, PEEK_MS);

	if (err == -ENOENT)
		return RECOVERED_GONE;
	if (err == -EBADMSG) {
		log_error("%s, stream %016" PRIx64 ": the journal was not written by this version; what it is about stays as it is",
			  r->dir, r->stream_id);
		return RECOVERED_LOST;
	}
	if (err)
		return RECOVERED_LATER;
	ret = r->role == JOURNAL_SOURCE ? recover_source(r, &j) :
					  recover_target(r, &j);
	journal_close(&j);
	return ret;
}
