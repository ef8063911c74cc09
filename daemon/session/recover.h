/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What becomes of a guest whose migration did not come to its end
 *
 * The journal of this side and what is sealed here decide; where the journal
 * does not, the target does: its answer to a Query is final, because it makes
 * it durable before it gives it. Runs in a process of its own, as it may wait.
 */
#ifndef MSPD_SESSION_RECOVER_H
#define MSPD_SESSION_RECOVER_H

#include <stdbool.h>
#include <stdint.h>
#include "session/journal.h"
#include "wire/keys.h"

/* the numbers are those of Status */
enum verdict {
	VERDICT_COMMITTED = 1,	/* the target owns it */
	VERDICT_REFUSED = 2,	/* the target never ran it, and has no copy */
};

/* exit codes of the process that ran recover_run() */
enum recovered {
	RECOVERED_HERE,		/* this side owns the guest, and it runs */
	RECOVERED_GONE,		/* there is no copy here any more */
	RECOVERED_LATER,	/* nothing has changed; try again */
	RECOVERED_LOST,		/* nobody knows what the journal says */
};

#define RECOVER_TEXT	400

/* enum verdict, or -errno with the reason in @why; @keys: NULL = without TLS */
int recover_ask(const char *host, uint16_t port,
		const struct keys_place *keys, uint64_t stream_id, bool lost,
		unsigned int ms, char why[RECOVER_TEXT]);
/*
 * The target's answer to that, which is made true and durable first; likewise.
 * What this host never heard of is refused, and stays so.
 */
int recover_answer(const char *dir, uint64_t stream_id, bool lost,
		   char why[RECOVER_TEXT]);

/**
 * struct recover - one journal to be settled
 * @dir: where it is
 * @role: side
 * @stream_id: the migration
 * @force: take the guest if nobody answers
 * @again: it was tried before, and said why not
 * @ms: how long to wait for the target
 * @keys: own key and whom to trust, NULL = without TLS
 * @why: reason if it is RECOVERED_LATER
 */
struct recover {
	const char *dir;
	enum journal_role role;
	uint64_t stream_id;
	bool force, again;
	unsigned int ms;
	const struct keys_place *keys;
	char why[RECOVER_TEXT];
};

enum recovered recover_run(struct recover *r);

#endif /* MSPD_SESSION_RECOVER_H */
