/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by child.c, child_run.c and child_record.c only. */
#pragma once

struct child;
struct child_exit;

/* drop(ctx of done) runs from child_forget, which then will not run done. */
void child_on_forget(struct child *c, void (*drop)(void *ctx));

/* Lock the whole file for this process, over execve; -1 and errno, EALREADY when it is held. */
int child_process_lock(int fd);

/* waitid's words for a status of waitpid. */
void child_from_wait_status(int status, struct child_exit *how);

/*
 * In the child: claim the record (-1 and errno: EALREADY when it is claimed), then fork. Returns 0
 * in the process that is to become the program; the other waits for it and never returns.
 */
int child_record_keep(int record);
