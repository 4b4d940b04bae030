/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A script with the message on its standard input, which is a file in memory: nobody waits for a
 * pipe. Its standard error is ours, so that what it says reaches the VM's log; a script that does
 * not end is killed with all it started.
 */
#include "one/host/action_run.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/driver/driver_proc.h"
#include "one/driver/driver_text.h"
#include "one/host/action.h"

#define SCRIPT_MS 3600000

static void child(const struct call *call, const char *path, int in)
{
	char **argv = xcalloc((size_t)call->argc + 2, sizeof(*argv));

	argv[0] = xstrdup(path);
	for (int i = 0; i < call->argc; i++)
		argv[i + 1] = call->argv[i];
	(void)setpgid(0, 0);
	if (dup2(in, STDIN_FILENO) >= 0 && dup2(STDERR_FILENO, STDOUT_FILENO) >= 0)
		(void)execv(path, argv);
	_exit(127);
}

static int wait_for(pid_t pid, const char *path, struct err *err)
{
	AUTO_FD int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int status = 0;

	if (fd < 0 || poll(&p, 1, SCRIPT_MS) != 1)
		(void)kill(-pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status))
		return err_set(err, EIO, "%s failed with exit code %d", path, WEXITSTATUS(status));
	return err_set(err, EIO, "%s was ended by signal %d", path, WTERMSIG(status));
}

static int run(const struct call *call, const char *path, struct err *err)
{
	AUTO_FD int in = memfd_create("message", MFD_CLOEXEC);
	pid_t pid;

	if (in < 0 || fd_write_all(in, call->input, call->input_len) < 0 ||
	    lseek(in, 0, SEEK_SET) < 0)
		return err_sys(err, errno, "cannot keep the message for %s", path);
	pid = fork();
	if (pid < 0)
		return err_sys(err, errno, "cannot run %s", path);
	if (pid == 0)
		child(call, path, in);
	return wait_for(pid, path, err);
}

int action_hook(struct call *call, const char *name, struct err *err)
{
	AUTO_FREE char *tm = call_value(call, "DATASTORE/TM_MAD|VM/TEMPLATE/TM_MAD_SYSTEM");
	AUTO_FREE char *path = NULL;

	if (!tm || !*tm || !*call->scripts || strchr(tm, '/'))
		return 0;
	path = xasprintf("%s/%s.%s", call->scripts, name, tm);
	if (access(path, X_OK) < 0)
		return 0;
	return run(call, path, err);
}

/* --- programs whose output counts --- */

#define MARK       "ERROR MESSAGE"
#define REASON_MAX 300

/* Of what it wrote to standard error the last line that says something. */
static char *reason_of(const char *text)
{
	struct strbuf clean = {0};
	AUTO_FREE char *found = NULL;

	while (text && *text) {
		size_t len = strcspn(text, "\r\n");

		if (len && strncmp(text, MARK, strlen(MARK)) != 0)
			replace_str(&found, xstrndup(text, len));
		text += len + strspn(text + len, "\r\n");
	}
	strbuf_puts(&clean, "");
	text_put_clean(&clean, found ? found : "it failed and did not say why", REASON_MAX);
	return strbuf_steal(&clean);
}

static int until_end(struct proc *p, const char *name, int limit_ms, struct err *err)
{
	uint64_t end = clock_ms() + (uint64_t)limit_ms;

	proc_io(p, false); /* an empty input ends at once */
	while (!p->ended) {
		struct pollfd fds[PROC_POLLS];
		uint64_t now = clock_ms();

		if (now >= end)
			return err_set(err, ETIMEDOUT, "%s did not end within %d s", name,
				       limit_ms / 1000);
		(void)poll(fds, proc_polls(p, fds), (int)(end - now));
		proc_io(p, false);
	}
	return 0;
}

int action_program(char *const argv[], const char *text, size_t len, int limit_ms,
		   struct strbuf *ret, struct err *err)
{
	struct graveyard dead = {0};
	struct proc p = {0};
	int r = proc_start(&p, argv, err);

	if (r < 0)
		return r;
	if (len)
		strbuf_add(&p.input, text, len);
	r = until_end(&p, argv[0], limit_ms, err);
	if (r == 0 && p.code != 0) {
		AUTO_FREE char *why = reason_of(p.error_output.data);

		r = err_set(err, EIO, "%.400s", why);
	}
	if (r == 0 && ret && p.output.data)
		strbuf_add(ret, p.output.data, p.output.len);
	bury(&dead, &p, SIGKILL, 0);
	graveyard_done(&dead);
	return r;
}

int action_remote(const char *host, const char *command, const char *text, size_t len, int limit_ms,
		  struct strbuf *ret, struct err *err)
{
	AUTO_FREE char *name = xstrdup(host), *line = xstrdup(command);
	char *const argv[] = {
		(char[]){"ssh"}, (char[]){"-o"}, (char[]){"BatchMode=yes"}, name, line, NULL};
	int r;

	if (!*host || *host == '-' || strpbrk(host, " \t\r\n"))
		return err_set(err, EINVAL, "'%.100s' is no name of a host", host);
	r = action_program(argv, text, len, limit_ms, ret, err);
	return r < 0 ? err_wrap(err, r, "%s", host) : 0;
}
