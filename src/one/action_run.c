/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A script with the message on its standard input, which is a file in memory: nobody waits for a
 * pipe. Its standard error is ours, so that what it says reaches the VM's log; a script that does
 * not end is killed with all it started.
 */
#include "one/action_run.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/action.h"

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
