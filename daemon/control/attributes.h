/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The attributes of one migration ("-i name=value,..."): pure
 */
#ifndef MSPD_CONTROL_ATTRIBUTES_H
#define MSPD_CONTROL_ATTRIBUTES_H

#include <jansson.h>
#include "config.h"
#include "session/session.h"

/* the defaults of the configuration */
void attributes_init(struct migration *m, const struct config *c);
/*
 * Applies a JSON object {name: value}, values being texts or numbers. -EINVAL:
 * @err says which name or value and what would be right.
 */
int attributes_apply(struct migration *m, json_t *obj, char *err, size_t len);

#endif /* MSPD_CONTROL_ATTRIBUTES_H */
