// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "guest/choose.h"
#include "guest/track.h"
#include "guest/user.h"

const char *const access_words[] = { "auto", "vasi", "user", NULL };
const char *const tracker_words[] = {
	"auto", "dbit", "wpasync", "softdirty", NULL
};

const struct guest_access *const guest_accesses[] = {
	&guest_kmod, &guest_user, NULL
};

int word_index(const char *const *words, const char *text)
{
	for (int i = 0; words[i]; i++)
		if (!strcmp(words[i], text))
			return i;
	return -EINVAL;
}

const char *word_list(const char *const *words, char *buf, size_t len)
{
	size_t at = 0;

	*buf = '\0';
	for (size_t i = 0; words[i] && at < len; i++)
		at += snprintf(buf + at, len - at, "%s%s",
			       !i ? "" : words[i + 1] ? ", " : " or ",
			       words[i]);
	return buf;
}

static int try_vasi(struct vasi_query *ret_query, char *why, size_t len)
{
	int r = guest_kmod.probe(ret_query);

	if (r == -ENOENT || r == -ENXIO || r == -ENODEV)
		snprintf(why, len, "/dev/vasi is not there; load vasi.ko (modprobe vasi)");
	else if (r == -EPROTONOSUPPORT)
		snprintf(why, len, "/dev/vasi has another ABI than this mspd (%u); load the vasi.ko that was built with it",
			 VASI_ABI_VERSION);
	else if (r < 0)
		snprintf(why, len, "/dev/vasi: %s", strerror(-r));
	else
		snprintf(why, len, "through /dev/vasi, tracked by dirty bits");
	return r;
}

static int try_user(enum tracker_wish tracker, struct vasi_query *ret_query,
		    char *why, size_t len)
{
	const char *name = tracker == TRACKER_AUTO ? NULL :
						     tracker_words[tracker];
	int r = guest_user.probe(ret_query);
	char lacks[250];

	if (r < 0) {
		snprintf(why, len, "without the module: %s: %s",
			 user_probe_why(r), strerror(-r));
		return r;
	}
	r = track_choose(name, lacks, sizeof(lacks));
	if (r < 0)
		snprintf(why, len, "without the module: %s", lacks);
	else
		snprintf(why, len, "without the module, tracked by %s%s%s%s",
			 track_chosen()->name, *lacks ? " (" : "", lacks,
			 *lacks ? ")" : "");
	return r;
}

int access_choose(enum access_wish wish, enum tracker_wish tracker,
		  const struct guest_access **ret, struct vasi_query *ret_query,
		  char *why, size_t len)
{
	char vasi[200] = "", user[350] = "";
	const bool may_vasi = wish != ACCESS_USER && tracker <= TRACKER_DBIT;
	const bool may_user = wish != ACCESS_VASI && tracker != TRACKER_DBIT;
	int r = -EINVAL;

	if (!may_vasi && !may_user) {
		snprintf(why, len, "access=%s has no tracker %s",
			 access_words[wish], tracker_words[tracker]);
		return r;
	}
	if (may_vasi) {
		r = try_vasi(ret_query, vasi, sizeof(vasi));
		if (!r)
			*ret = &guest_kmod;
	}
	if (r && may_user) {
		r = try_user(tracker, ret_query, user, sizeof(user));
		if (!r)
			*ret = &guest_user;
	}
	if (!*user)
		snprintf(why, len, "%s", vasi);
	else if (!*vasi)
		snprintf(why, len, "%s", user);
	else
		snprintf(why, len, "%s; %s", user, vasi);
	return r;
}
