/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work on files that waits for a disk, done by a fork of ours: the loop never waits for fsync,
 * and yet an order is answered only when it is durable. The child gets our memory as it was,
 * does its work, and sends back result and reason through a pipe; it has no other descriptor.
 * It dies with us. Since it may be in the middle of one last system call then, it holds a lock
 * that our next start waits for before it tidies up.
 */
#include "vmadmd/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "vmadmd/vmadmd.h"

#define VERDICT_FD 3
#define FREE_FD    10 /* above those with a meaning */

struct worker {
	struct vmadmd *d;
	pid_t pid;
	int pidfd, pipe;
	sd_event_source *source;
	worker_done done;
	void *ctx;
	bool killable;
	struct worker *next;
};

/* What comes through the pipe: shorter than PIPE_BUF, so whole or not at all. */
struct verdict {
	int r;
	struct err err;
};

_Static_assert(sizeof(struct verdict) <= 4096, "a verdict is written in one piece");

static char *lock_path(const struct vmadmd *d)
{
	const char *slash = strrchr(d->paths->vmadmd, '/');

	return xasprintf("%.*s/vmadmd.worker", (int)(slash - d->paths->vmadmd), d->paths->vmadmd);
}

int worker_lock(const struct vmadmd *d, struct err *err)
{
	AUTO_FREE char *path = lock_path(d);
	AUTO_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) < 0)
		return err_sys(err, errno, "cannot lock '%s'", path);
	return steal_fd(&fd);
}

int workers_await(const struct vmadmd *d, struct err *err)
{
	AUTO_FREE char *path = lock_path(d);
	AUTO_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r;

	if (fd < 0)
		return err_sys(err, errno, "cannot open '%s'", path);
	do
		r = flock(fd, LOCK_EX);
	while (r < 0 && errno == EINTR);
	return r < 0 ? err_sys(err, errno, "cannot lock '%s'", path) : 0;
}

/* In the child. The lock is opened here: a lock of its own, not one shared with the parent. */
static _Noreturn void work(const struct vmadmd *d, pid_t parent, const int fds[2], worker_fn fn,
			   void *arg)
{
	AUTO_FREE char *path = lock_path(d);
	struct verdict v = {0};
	int lock, out, in;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	out = fcntl(fds[0], F_DUPFD, FREE_FD);
	in = fds[1] >= 0 ? fcntl(fds[1], F_DUPFD, FREE_FD) : -1;
	if (out < 0 || dup2(out, VERDICT_FD) < 0 || (in >= 0 && dup2(in, WORKER_FD) < 0))
		_exit(1);
	(void)close_range(in >= 0 ? WORKER_FD + 1 : WORKER_FD, ~0u, 0);
	lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (lock < 0 || flock(lock, LOCK_SH) < 0)
		_exit(1);
	v.r = fn(arg, &v.err);
	_exit(write(VERDICT_FD, &v, sizeof(v)) == (ssize_t)sizeof(v) ? 0 : 1);
}

static void worker_free(struct worker *w)
{
	for (struct worker **at = &w->d->workers; *at; at = &(*at)->next) {
		if (*at == w) {
			*at = w->next;
			break;
		}
	}
	sd_event_source_disable_unref(w->source);
	(void)close(w->pidfd);
	(void)close(w->pipe);
	free(w);
}

static int on_ended(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct worker *w = ctx;
	worker_done done = w->done;
	void *done_ctx = w->ctx;
	struct verdict v = {0};
	ssize_t n = read(w->pipe, &v, sizeof(v));

	(void)waitid(P_PIDFD, (id_t)w->pidfd, &(siginfo_t){0}, WEXITED);
	if (n != (ssize_t)sizeof(v))
		v.r = err_set(&v.err, EIO, "the process that writes to disk ended early");
	worker_free(w);
	done(done_ctx, v.r, &v.err);
	return 0;
}

static void worker_watch(struct worker *w)
{
	w->pidfd = pidfd_open(w->pid, 0);
	if (w->pidfd < 0 ||
	    sd_event_add_io(w->d->event, &w->source, w->pidfd, EPOLLIN, on_ended, w) < 0)
		abort(); /* no descriptors or memory: a change must not go on unseen */
	w->next = w->d->workers;
	w->d->workers = w;
}

int worker_run_fd(struct vmadmd *d, const struct worker_task *t, struct worker **ret,
		  struct err *err)
{
	struct worker *w;
	pid_t parent = getpid(), pid;
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_sys(err, errno, "cannot make a pipe");
	pid = fork();
	if (pid == 0)
		work(d, parent, (const int[]){fds[1], t->fd}, t->fn, t->arg);
	(void)close(fds[1]);
	if (pid < 0) {
		(void)close(fds[0]);
		return err_sys(err, errno, "cannot start a process that writes to disk");
	}
	w = xcalloc(1, sizeof(*w));
	*w = (struct worker){.d = d, .pid = pid, .pipe = fds[0], .done = t->done, .ctx = t->ctx};
	w->killable = t->fd >= 0;
	worker_watch(w);
	*ret = w;
	return 0;
}

int worker_run(struct vmadmd *d, worker_fn fn, void *arg, worker_done done, void *ctx,
	       struct worker **ret, struct err *err)
{
	const struct worker_task task = {.fn = fn, .arg = arg, .fd = -1, .done = done, .ctx = ctx};

	return worker_run_fd(d, &task, ret, err);
}

void worker_kill(struct worker *w)
{
	(void)pidfd_send_signal(w->pidfd, SIGKILL, NULL, 0);
}

void workers_finish(struct vmadmd *d)
{
	while (d->workers) {
		if (d->workers->killable)
			worker_kill(d->workers);
		(void)waitid(P_PIDFD, (id_t)d->workers->pidfd, &(siginfo_t){0}, WEXITED);
		worker_free(d->workers);
	}
}
