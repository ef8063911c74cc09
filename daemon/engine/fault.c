// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "engine/fault.h"

/**
 * struct bit - one bit that is to be changed
 * @round: in it, or as soon as there is something behind it; 0 = never
 * @at: which bit of what there is, -1 = the first one of its last byte
 * @done: it was
 */
struct bit {
	unsigned int round;
	long long at;
	atomic_flag done;
};

static const char * const bit_names[] = {
	[FAULT_FLIP] = "flip",
	[FAULT_SPOIL] = "spoil",
	[FAULT_DECAY] = "decay",
};

static struct {
	bool rotate, nobarrier, digest, plain, nodrop;
	unsigned int delay_round, delay_ms, stall, close;
	atomic_flag delayed;
	struct bit bit[FAULT_BITS];
	char kill[24], killall[24], journal[32];
} fault;

static bool bit_parse(const char *word)
{
	for (int i = 0; i < FAULT_BITS; i++) {
		size_t len = strlen(bit_names[i]);
		struct bit *b = &fault.bit[i];

		if (strncmp(word, bit_names[i], len) || word[len] != '=')
			continue;
		b->at = -1;
		return sscanf(word + len, "=%u:%lld", &b->round, &b->at) >= 1;
	}
	return false;
}

static void fault_parse(const char *word)
{
	if (!strcmp(word, "rotate"))
		fault.rotate = true;
	else if (!strcmp(word, "nobarrier"))
		fault.nobarrier = true;
	else if (!strcmp(word, "digest"))
		fault.digest = true;
	else if (!strcmp(word, "plain"))
		fault.plain = true;
	else if (!strcmp(word, "nodrop"))
		fault.nodrop = true;
	else if (sscanf(word, "killall=%23s", fault.killall) != 1 &&
		 sscanf(word, "kill=%23s", fault.kill) != 1 &&
		 sscanf(word, "journal=%31s", fault.journal) != 1 &&
		 sscanf(word, "delay=%u:%u", &fault.delay_round,
			&fault.delay_ms) != 2 &&
		 sscanf(word, "stall=%u", &fault.stall) != 1 &&
		 sscanf(word, "close=%u", &fault.close) != 1 &&
		 !bit_parse(word))
		fprintf(stderr, "MSPD_FAULT: unknown fault point \"%s\"\n",
			word);
}

void fault_init(void)
{
	const char *env = getenv("MSPD_FAULT");
	char copy[256], *save = NULL;

	memset(&fault, 0, sizeof(fault));
	if (!env)
		return;
	snprintf(copy, sizeof(copy), "%s", env);
	for (char *w = strtok_r(copy, ",", &save); w;
	     w = strtok_r(NULL, ",", &save))
		fault_parse(w);
}

bool fault_rotate(void)
{
	return fault.rotate;
}

bool fault_nobarrier(void)
{
	return fault.nobarrier;
}

bool fault_digest(void)
{
	return fault.digest;
}

bool fault_plain(void)
{
	return fault.plain;
}

bool fault_nodrop(void)
{
	return fault.nodrop;
}

unsigned int fault_delay(uint32_t round)
{
	if (!fault.delay_round || round != fault.delay_round ||
	    atomic_flag_test_and_set(&fault.delayed))
		return 0;
	return fault.delay_ms;
}

bool fault_bit(enum fault_bit which, uint32_t round, uint64_t bytes,
	       uint64_t *ret_bit)
{
	struct bit *b = &fault.bit[which];

	if (!b->round || round < b->round || !bytes ||
	    atomic_flag_test_and_set(&b->done))
		return false;
	*ret_bit = b->at < 0 ? (bytes - 1) * 8 :
		   (uint64_t)b->at % (bytes * 8);
	return true;
}

bool fault_stall(unsigned int type)
{
	return fault.stall && type == fault.stall;
}

bool fault_close(unsigned int type)
{
	return fault.close && type == fault.close;
}

void fault_die(const char *point)
{
	/* the supervisor first, that it does not see its worker's end */
	if (!strcmp(fault.killall, point))
		kill(getppid(), SIGKILL);
	if (!strcmp(fault.killall, point) || !strcmp(fault.kill, point))
		kill(getpid(), SIGKILL);
}

int fault_journal(const char *side, const char *type)
{
	size_t len = strlen(side);

	return strncmp(fault.journal, side, len) ||
	       fault.journal[len] != '.' ||
	       strcmp(fault.journal + len + 1, type) ? 0 : -ENOSPC;
}
