/* SPDX-License-Identifier: Apache-2.0 */
/* Work that waits for a disk, in a process of its own; see worker.c. */
#pragma once

struct err;
struct vmadmd;
struct worker;

/* Runs in a fork: what it changes in memory is lost, r and err come back. */
typedef int (*worker_fn)(void *arg, struct err *err);
typedef void (*worker_done)(void *ctx, int r, const struct err *err);
/* done runs once, from the loop; *ret is dead then. Only workers_finish ends it early. */
int worker_run(struct vmadmd *d, worker_fn fn, void *arg, worker_done done, void *ctx,
	       struct worker **ret, struct err *err);
/*
 * As worker_run, and fn finds a copy of fd open as WORKER_FD. Such work may take its time: at our
 * end it is killed, and worker_kill does so at any moment (done then tells of an early end).
 */
#define WORKER_FD 4
struct worker_task {
	worker_fn fn;
	void *arg;
	int fd;
	worker_done done;
	void *ctx;
};
int worker_run_fd(struct vmadmd *d, const struct worker_task *t, struct worker **ret,
		  struct err *err);
void worker_kill(struct worker *w);
/*
 * For a child of ours that writes to disk: a descriptor to be kept open in it (child_spec.keep), so
 * that our next start waits for its end as for a worker's. -errno.
 */
int worker_lock(const struct vmadmd *d, struct err *err);
/* At our start: wait for one a killed vmadmd left in its last system call. */
int workers_await(const struct vmadmd *d, struct err *err);
/* At our end: let them finish; their done does not run. */
void workers_finish(struct vmadmd *d);
