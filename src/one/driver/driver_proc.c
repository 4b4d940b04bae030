/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes of the driver; see driver_proc.h. posix_spawn, because the price of a start is paid
 * for every step of every action. The core blocked all signals for us; children start with none
 * blocked and none ignored.
 */
#include "one/driver/driver_proc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"

#define READ_SIZE   (16u << 10)
#define DRAIN_READS 64 /* at the end: more than a pipe holds */
#define TAIL        (CAPTURE_MAX / 4)

extern char **environ;

struct ends {
	int ours[3], theirs[3];
};

static int pipes_open(struct ends *e, struct err *err)
{
	*e = (struct ends){{-1, -1, -1}, {-1, -1, -1}};
	for (int i = 0; i < 3; i++) {
		int fds[2];

		if (pipe2(fds, O_CLOEXEC) < 0)
			return err_sys(err, errno, "cannot make a pipe");
		e->ours[i] = fds[i == 0];
		e->theirs[i] = fds[i != 0];
		if (fcntl(e->ours[i], F_SETFL, O_NONBLOCK) < 0)
			return err_sys(err, errno, "cannot set up a pipe");
	}
	return 0;
}

static void close_all(int fds[3])
{
	for (int i = 0; i < 3; i++)
		if (fds[i] >= 0)
			(void)close(fds[i]);
}

static int spawn(pid_t *pid, char *const argv[], const int fds[3])
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int r;

	(void)sigemptyset(&none);
	(void)sigfillset(&all);
	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawnattr_init(&attr);
	(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
						      POSIX_SPAWN_SETSIGDEF);
	(void)posix_spawnattr_setsigmask(&attr, &none);
	(void)posix_spawnattr_setsigdefault(&attr, &all);
	for (int i = 0; i < 3; i++)
		(void)posix_spawn_file_actions_adddup2(&actions, fds[i], i);
	r = posix_spawnp(pid, argv[0], &actions, &attr, argv, environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)posix_spawnattr_destroy(&attr);
	return r;
}

/* A script without "#!" is the shell's. */
static int spawn_script(pid_t *pid, char *const argv[], const int fds[3])
{
	AUTO_FREE char **by_shell = NULL;
	size_t n = 0;
	int r = spawn(pid, argv, fds);

	if (r != ENOEXEC)
		return r;
	while (argv[n])
		n++;
	by_shell = xcalloc(n + 2, sizeof(*by_shell));
	by_shell[0] = (char *)"/bin/sh";
	memcpy(by_shell + 1, argv, n * sizeof(*by_shell));
	return spawn(pid, by_shell, fds);
}

int proc_start(struct proc *p, char *const argv[], struct err *err)
{
	struct ends e;
	int r = pipes_open(&e, err);
	pid_t pid = 0;

	if (r == 0) {
		r = -spawn_script(&pid, argv, e.theirs);
		if (r < 0)
			(void)err_sys(err, -r, "cannot run %s", argv[0]);
	}
	close_all(e.theirs);
	if (r < 0) {
		close_all(e.ours);
		return r;
	}
	p->pidfd = pidfd_open(pid, 0);
	if (p->pidfd < 0) { /* without it nothing tells its end */
		r = err_sys(err, errno, "cannot watch %s", argv[0]);
		(void)kill(-pid, SIGKILL);
		(void)waitid(P_PID, (id_t)pid, NULL, WEXITED);
		close_all(e.ours);
		return r;
	}
	p->pid = pid;
	p->in = e.ours[0];
	p->out = e.ours[1];
	p->errors = e.ours[2];
	p->sent = 0;
	p->ended = p->cut = false;
	return 0;
}

void proc_close_input(struct proc *p)
{
	if (p->in >= 0)
		(void)close(p->in);
	p->in = -1;
	strbuf_done(&p->input);
	p->sent = 0;
}

size_t proc_polls(const struct proc *p, struct pollfd *fds)
{
	size_t n = 0;

	if (!p->pid || p->ended)
		return 0;
	if (p->in >= 0 && p->sent < p->input.len)
		fds[n++] = (struct pollfd){.fd = p->in, .events = POLLOUT};
	if (p->out >= 0)
		fds[n++] = (struct pollfd){.fd = p->out, .events = POLLIN};
	if (p->errors >= 0)
		fds[n++] = (struct pollfd){.fd = p->errors, .events = POLLIN};
	fds[n++] = (struct pollfd){.fd = p->pidfd, .events = POLLIN};
	return n;
}

static void feed(struct proc *p, bool keep_input)
{
	while (p->in >= 0 && p->sent < p->input.len) {
		ssize_t n = write(p->in, p->input.data + p->sent, p->input.len - p->sent);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) { /* it does not read; how it ends will tell */
			proc_close_input(p);
			return;
		}
		p->sent += (size_t)n;
	}
	strbuf_done(&p->input);
	p->sent = 0;
	if (!keep_input)
		proc_close_input(p);
}

/*
 * Keep the beginning and the end. The end starts with a whole line, unless lines are so long that
 * the marks of the end could be lost by that.
 */
static void shorten(struct strbuf *sb)
{
	size_t head = CAPTURE_MAX - 2 * TAIL, tail = sb->len - TAIL;
	const char *line = memchr(sb->data + tail, '\n', TAIL / 2);

	if (line)
		tail = (size_t)(line + 1 - sb->data);
	sb->data[head - 1] = '\n';
	memmove(sb->data + head, sb->data + tail, sb->len - tail + 1);
	sb->len = head + sb->len - tail;
}

/* One read; what is over the bound goes from the middle. False when there is nothing now. */
static bool take(int *fd, struct strbuf *sb, bool *cut)
{
	char buf[READ_SIZE];
	ssize_t n = *fd >= 0 ? read(*fd, buf, sizeof(buf)) : -1;

	if (*fd < 0 || (n < 0 && errno != EINTR))
		return false;
	if (n == 0) {
		(void)close(*fd);
		*fd = -1;
		return false;
	}
	for (ssize_t i = 0; i < n; i++)
		if (!buf[i])
			buf[i] = '?'; /* so that the text stays a string */
	if (n > 0)
		strbuf_add(sb, buf, (size_t)n);
	if (sb->len > CAPTURE_MAX) {
		shorten(sb);
		*cut = true;
	}
	return true;
}

static void notice_end(struct proc *p)
{
	siginfo_t info = {.si_pid = 0};

	if (waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG) < 0) {
		p->code = 255; /* cannot be, but must not keep an action waiting */
	} else if (!info.si_pid) {
		return;
	} else {
		p->code = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
	}
	p->ended = true;
	for (int i = 0; i < DRAIN_READS && take(&p->out, &p->output, &p->cut); i++)
		;
	for (int i = 0; i < DRAIN_READS && take(&p->errors, &p->error_output, &p->cut); i++)
		;
}

void proc_io(struct proc *p, bool keep_input)
{
	if (!p->pid || p->ended)
		return;
	feed(p, keep_input);
	(void)take(&p->out, &p->output, &p->cut);
	(void)take(&p->errors, &p->error_output, &p->cut);
	notice_end(p);
}

/* All but the process itself. */
static void let_go(struct proc *p)
{
	int fds[3] = {-1, p->out, p->errors};

	proc_close_input(p);
	close_all(fds);
	strbuf_done(&p->output);
	strbuf_done(&p->error_output);
	p->out = p->errors = -1;
}

void bury(struct graveyard *g, struct proc *p, int signal, uint64_t patience_ms)
{
	if (!p->pid)
		return;
	if (p->ended) {
		let_go(p);
		(void)close(p->pidfd);
	} else {
		/* Its outputs stay open while it is only left alone: it must not die of them. */
		if (signal)
			(void)kill(-p->pid, signal);
		proc_close_input(p);
		p->kill_ms = patience_ms;
		g->procs = xrealloc(g->procs, (g->count + 1) * sizeof(*g->procs));
		g->procs[g->count++] = *p;
	}
	*p = (struct proc){.pid = 0};
}

uint64_t graveyard_turn(struct graveyard *g, uint64_t now_ms)
{
	uint64_t next = UINT64_MAX;
	size_t kept = 0;

	for (size_t i = 0; i < g->count; i++) {
		struct proc *p = &g->procs[i];

		proc_io(p, false);
		if (p->ended) {
			let_go(p);
			(void)close(p->pidfd);
			continue;
		}
		if (p->kill_ms && p->kill_ms <= now_ms) {
			(void)kill(-p->pid, SIGKILL);
			p->kill_ms = 0;
		}
		if (p->kill_ms && p->kill_ms < next)
			next = p->kill_ms;
		g->procs[kept++] = *p;
	}
	g->count = kept;
	return next;
}

void graveyard_done(struct graveyard *g)
{
	for (size_t i = 0; i < g->count; i++) {
		let_go(&g->procs[i]);
		(void)close(g->procs[i].pidfd);
	}
	free(g->procs);
	*g = (struct graveyard){.count = 0};
}
