/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs that live operations run in a worker, and wait for: what they say is the reason when
 * they fail. See live.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "vmadmd/live/live.h"

#define TOOL_TEXT_MAX 4096u
#define COPY_MAX      (64u << 20)

static _Noreturn void become(const char *const *argv, unsigned limit_s, int out)
{
	int null = open("/dev/null", O_RDWR);
	sigset_t none;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)dup2(null, 0);
	(void)dup2(out, 1);
	(void)dup2(out, 2);
	(void)close_range(3, ~0u, 0);
	(void)signal(SIGALRM, SIG_DFL);
	(void)alarm(limit_s); /* outlives the exec */
	(void)execvp(argv[0], (char *const *)(uintptr_t)argv);
	_exit(127);
}

static void read_all(int fd, void *ctx)
{
	struct strbuf *text = ctx;
	char part[1024];
	ssize_t n;

	while ((n = read(fd, part, sizeof(part))) > 0 || (n < 0 && errno == EINTR)) {
		if (n > 0 && text->len < TOOL_TEXT_MAX)
			strbuf_add(text, part, (size_t)n);
	}
}

/* 1: it ended well. take reads what it says, both outputs, until their end. */
static int run_tool(const char *const *argv, unsigned limit_s, void (*take)(int fd, void *ctx),
		    void *ctx, struct err *err)
{
	int fds[2], status = 0;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_sys(err, errno, "cannot make a pipe");
	pid = fork();
	if (pid == 0)
		become(argv, limit_s, fds[1]);
	(void)close(fds[1]);
	if (pid > 0)
		take(fds[0], ctx);
	(void)close(fds[0]);
	if (pid < 0)
		return err_set(err, EAGAIN, "cannot start %s", argv[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int judge_tool(const char *const *argv, int r, const char *text, struct err *err)
{
	if (r != 0)
		return r > 0 ? 0 : r;
	return err_set(err, EIO, "%s %s: %.*s", argv[0], argv[1],
		       text ? (int)strcspn(text, "\n") : 0, text ? text : "it ended early");
}

int live_tool_text(const char *const *argv, unsigned limit_s, struct strbuf *text, struct err *err)
{
	int r = run_tool(argv, limit_s, read_all, text, err);

	return judge_tool(argv, r, text->data, err);
}

struct tool_lines {
	live_tool_line fn;
	void *ctx;
	int r;
	struct err why;
	char *odd; /* the first line that fn did not take, owned */
};

static void read_lines(int fd, void *ctx)
{
	struct tool_lines *t = ctx;
	AUTO_FREE char *line = NULL;
	AUTO_FILE FILE *in = fdopen(dup(fd), "re");
	size_t cap = 0;

	while (in && getline(&line, &cap, in) > 0) {
		if (t->r == 0)
			t->r = t->fn(t->ctx, line, &t->why);
		if (t->r < 0 && !t->odd)
			t->odd = xstrdup(line);
	}
}

int live_tool_lines(const char *const *argv, live_tool_line fn, void *ctx, struct err *err)
{
	struct tool_lines t = {.fn = fn, .ctx = ctx};
	int r = run_tool(argv, 0, read_lines, &t, err);

	r = judge_tool(argv, r, t.odd, err);
	free(t.odd);
	if (r == 0 && t.r < 0) {
		*err = t.why;
		r = t.r;
	}
	return r;
}

int live_tool(const char *const *argv, struct err *err)
{
	struct strbuf AUTO_STRBUF text = {0};

	return live_tool_text(argv, 0, &text, err);
}

int live_copy(const char *from, const char *to, struct err *err)
{
	AUTO_FREE char *data = NULL;
	size_t len;
	int r = file_read(from, COPY_MAX, &data, &len, NULL, err);

	return r < 0 ? r : file_write(to, data, len, 0600, FILE_SYNC, err);
}
