/* SPDX-License-Identifier: GPL-2.0 */
/* Checks of attributes that are verified or refused, and of room */
#ifndef MSPD_STATE_ATTRS_H
#define MSPD_STATE_ATTRS_H

#include "state/state.h"

int attrs_seccomp(struct capture *c);
int attrs_label(struct capture *c);
int attrs_loginuid(struct capture *c);
int attrs_namespaces(struct capture *c);
int attrs_session(struct capture *c);
int attrs_terminal(struct capture *c);
int attrs_cgroup(struct capture *c);
int attrs_mempolicy(struct capture *c);
int attrs_personality(struct capture *c);
int attrs_speculation(struct capture *c);
/* memory for the guest, its PID namespace's numbers */
int attrs_target_check(const struct restore_options *opt,
		       const Mspd__Image *early, struct findings *f);

#endif /* MSPD_STATE_ATTRS_H */
