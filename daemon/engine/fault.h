/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fault points, from the environment variable MSPD_FAULT
 *
 * A list with commas of the following; BIT counts from the first byte on, modulo
 * what there is, and is the lowest bit of the last byte if it is left out:
 *	rotate		batch i of round k goes over stream (i + k) mod N
 *	delay=K:MS	the first frame of round K on stream K mod N (with rotate:
 *			its lowest addresses) is applied MS late
 *	nobarrier	no round waits until the one before is applied
 *	flip=K[:BIT]	a bit of the first frame from round K on is changed on its
 *			way (source), header and all
 *	spoil=K[:BIT]	likewise a bit of the content of the first frame that has
 *			some, before it is written to the guest (target)
 *	decay=K[:BIT]	likewise, but in the guest's memory, before it is read back
 *	nodrop		the target drops no pages
 *	stall=TYPE	the target goes silent when message TYPE arrives
 *	close=TYPE	the target dies when message TYPE arrives
 *	digest		the target computes a wrong digest
 *	plain		the target knows no encoding of frames
 *	kill=POINT	SIGKILL for the worker, at a point of the switch-over. On the
 *			source: prepared, sealed, committed, sent, resumed, destroyed,
 *			completed. On the target: parked, recorded, prepared, ready,
 *			committed, resumed, told, adopted, refused
 *	killall=POINT	likewise for the daemon and its worker
 *	journal=SIDE.TYPE the disk is full when the source, or the target, writes a
 *			record of TYPE
 *
 * They exist to prove that the rules they break are needed and their breach is
 * noticed. None is active without the variable.
 */
#ifndef MSPD_ENGINE_FAULT_H
#define MSPD_ENGINE_FAULT_H

#include <stdbool.h>
#include <stdint.h>

/* a bit is changed there */
enum fault_bit { FAULT_FLIP, FAULT_SPOIL, FAULT_DECAY, FAULT_BITS };

/* reads the environment; before threads are started */
void fault_init(void);
bool fault_rotate(void);
bool fault_nobarrier(void);
bool fault_digest(void);
bool fault_plain(void);
bool fault_nodrop(void);
/* milliseconds, once; 0 for all other calls */
unsigned int fault_delay(uint32_t round);
/* true once: of so many bytes this bit is to be changed */
bool fault_bit(enum fault_bit which, uint32_t round, uint64_t bytes,
	       uint64_t *ret_bit);
bool fault_stall(unsigned int type);
bool fault_close(unsigned int type);
void fault_die(const char *point);
/* 0, or -ENOSPC for that record */
int fault_journal(const char *side, const char *type);

#endif /* MSPD_ENGINE_FAULT_H */
