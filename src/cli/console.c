/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console bridge; see console.h. One poll over stdin, stdout and the socket; what cannot be
 * written at once waits in one buffer per direction, and its source is not read until there is
 * room. Signals are blocked but while polling, so none can slip between test and wait.
 */
#include "cli/console.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/sock.h"

#define PIPE_SIZE 65536

struct pipe_dir {
	int from, to;
	size_t len;
	bool ended; /* nothing more will come */
	char data[PIPE_SIZE];
};

struct bridge {
	struct pipe_dir in;  /* stdin to the console */
	struct pipe_dir out; /* the console to stdout */
	bool raw, leave;
	struct termios saved;
};

static volatile sig_atomic_t caught, resumed;

static const int ending[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};

static void on_end(int sig)
{
	caught = sig;
}

static void on_cont(int sig)
{
	resumed = sig;
}

/* Handlers set, signals blocked; *ret_open is the mask to poll with. */
static void catch_signals(sigset_t *ret_open)
{
	struct sigaction end = {.sa_handler = on_end}, cont = {.sa_handler = on_cont};
	sigset_t blocked;

	(void)sigemptyset(&blocked);
	for (size_t i = 0; i < ARRAY_SIZE(ending); i++) {
		(void)sigaddset(&blocked, ending[i]);
		(void)sigaction(ending[i], &end, NULL);
	}
	(void)sigaddset(&blocked, SIGCONT);
	(void)sigaction(SIGCONT, &cont, NULL);
	(void)sigprocmask(SIG_BLOCK, &blocked, ret_open);
}

static void make_raw(struct bridge *b)
{
	struct termios raw = b->saved;

	cfmakeraw(&raw);
	(void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

static void restore(struct bridge *b)
{
	if (b->raw)
		(void)tcsetattr(STDIN_FILENO, TCSADRAIN, &b->saved);
	b->raw = false;
}

/* More bytes of a direction; its end is remembered. */
static int fill(struct pipe_dir *d)
{
	ssize_t n = read(d->from, d->data + d->len, sizeof(d->data) - d->len);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		d->ended = true;
	d->len += (size_t)n;
	return 0;
}

static int drain(struct pipe_dir *d)
{
	/* a pipe that is ready takes at least PIPE_BUF without blocking */
	ssize_t n = write(d->to, d->data, d->len < PIPE_BUF ? d->len : PIPE_BUF);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	d->len -= (size_t)n;
	memmove(d->data, d->data + n, d->len);
	return 0;
}

/* Keys from the terminal: everything before Ctrl-] still goes to the guest. */
static void look_for_leave(struct bridge *b, size_t from)
{
	char *at = memchr(b->in.data + from, CONSOLE_LEAVE, b->in.len - from);

	if (!b->raw || !at)
		return;
	b->in.len = (size_t)(at - b->in.data);
	b->in.ended = true;
	b->leave = true;
}

static int from_stdin(struct bridge *b)
{
	size_t before = b->in.len;
	int r = fill(&b->in);

	if (r == -EIO) { /* the terminal is gone */
		b->in.ended = true;
		b->leave = true;
		return 0;
	}
	look_for_leave(b, before);
	return r;
}

static int wait_events(struct bridge *b, struct pollfd *p, const sigset_t *open)
{
	bool want_in = !b->in.ended && b->in.len < PIPE_SIZE;
	bool want_out = !b->out.ended && b->out.len < PIPE_SIZE;
	int n;

	/* poll() ignores negative descriptors */
	p[0] = (struct pollfd){.fd = want_in ? b->in.from : -1, .events = POLLIN};
	p[1] = (struct pollfd){
		.fd = b->in.to,
		.events = (short)((want_out ? POLLIN : 0) | (b->in.len ? POLLOUT : 0))};
	if (!p[1].events)
		p[1].fd = -1;
	p[2] = (struct pollfd){.fd = b->out.len ? b->out.to : -1, .events = POLLOUT};
	n = ppoll(p, 3, NULL, open);
	if (n >= 0)
		return n;
	if (errno != EINTR)
		return -errno;
	if (resumed && b->raw)
		make_raw(b);
	resumed = 0;
	return 0;
}

static int step(struct bridge *b, const struct pollfd *p)
{
	int r = 0;

	if (p[0].revents)
		r = from_stdin(b);
	if (r == 0 && (p[1].revents & (POLLIN | POLLHUP | POLLERR)) && !b->out.ended &&
	    b->out.len < PIPE_SIZE)
		r = fill(&b->out);
	if (r == 0 && (p[1].revents & POLLOUT) && b->in.len)
		r = drain(&b->in);
	if (r == -EPIPE) { /* the console has ended; what it said is still to be written */
		b->in.ended = true;
		b->in.len = 0;
		r = 0;
	}
	if (r == 0 && p[2].revents)
		r = drain(&b->out);
	return r;
}

/* Until a signal, Ctrl-] with all keys before it sent, or the console's end with all written. */
static int run(struct bridge *b, const sigset_t *open)
{
	while (!caught) {
		struct pollfd p[3] = {0};
		int r;

		if (b->leave && b->in.len == 0)
			return 0;
		if (b->out.ended && b->out.len == 0)
			return 0;
		r = wait_events(b, p, open);
		if (r > 0)
			r = step(b, p);
		if (r == -ECONNRESET)
			b->out.ended = true;
		else if (r < 0)
			return r;
	}
	return 0;
}

static int connected(int fd, struct err *err)
{
	struct bridge *b = xcalloc(1, sizeof(*b));
	sigset_t open;
	int r, sig;

	b->in = (struct pipe_dir){.from = STDIN_FILENO, .to = fd};
	b->out = (struct pipe_dir){.from = fd, .to = STDOUT_FILENO};
	catch_signals(&open);
	b->raw = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &b->saved) == 0;
	if (b->raw)
		make_raw(b);
	r = run(b, &open);
	restore(b);
	free(b);
	sig = caught;
	if (sig) { /* end as it would have ended us */
		(void)signal(sig, SIG_DFL);
		(void)raise(sig);
		(void)sigprocmask(SIG_SETMASK, &open, NULL);
	}
	if (r == -EPIPE)
		return 0;
	return r < 0 ? err_sys(err, -r, "console") : 0;
}

int console_run(const char *path, struct err *err)
{
	AUTO_FD int fd = -1;
	int r = sock_connect(path, &fd, err);

	if (r < 0)
		return err_wrap(err, r, "cannot connect to console");
	return connected(fd, err);
}
