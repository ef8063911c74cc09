/* SPDX-License-Identifier: GPL-2.0 */
/* The target's half of resource_files */
#ifndef MSPD_STATE_FILES_TARGET_H
#define MSPD_STATE_FILES_TARGET_H

#include "state/files.h"

int files_target_check(const struct restore_options *opt,
		       const Mspd__Image *early, struct findings *f);
int files_prepare(struct restore *r, const Mspd__Image *early);
int files_finish(struct restore *r, const Mspd__Image *final);
void files_done(struct restore *r, bool alive);

#endif /* MSPD_STATE_FILES_TARGET_H */
