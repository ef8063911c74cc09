// SPDX-License-Identifier: GPL-2.0
/*
 * Weak definitions of the commands whose files have not landed yet
 */
#include "vasi_private.h"

#define UNSUPPORTED(fn) \
	int __weak fn(struct vasi_open *o, void *cmd) { return -EOPNOTSUPP; }

UNSUPPORTED(vasi_harvest)
UNSUPPORTED(vasi_objects)
UNSUPPORTED(vasi_pages_read)
UNSUPPORTED(vasi_pages_write)
UNSUPPORTED(vasi_suspend)
UNSUPPORTED(vasi_resume)
UNSUPPORTED(vasi_state)

void __weak vasi_harvest_undo(struct vasi_open *o, void *cmd) { }
void __weak vasi_objects_drop(struct vasi_stream *s) { }
bool __weak vasi_is_suspended(struct vasi_stream *s) { return false; }
void __weak vasi_resume_guest(struct vasi_stream *s) { }
void __weak vasi_suspension_free(struct vasi_stream *s) { }
u64 __weak vasi_suspended_ns(struct vasi_stream *s) { return 0; }
u32 __weak vasi_suspended_threads(struct vasi_stream *s) { return 0; }
int __weak vasi_suspend_init(void) { return 0; }
void __weak vasi_suspend_exit(void) { }
int __weak vasi_genl_init(void) { return 0; }
void __weak vasi_genl_exit(void) { }
void __weak vasi_genl_notify(struct vasi_stream *s) { }

int __weak vasi_uring_cmd(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	return -EOPNOTSUPP;
}
