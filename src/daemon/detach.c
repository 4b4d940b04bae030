/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Going to the background and telling the truth about it. The calling process becomes a
 * subreaper, forks twice, and stays: the grandchild is the daemon and writes its pid, then (from
 * daemon_ready) one byte, into a pipe. Byte: the caller exits 0. Pipe closed without it: the
 * caller reaps the daemon and exits with its status. Until then the daemon's stderr is the
 * caller's, so its message reaches the person; afterwards it is a log file beside the VMs' logs.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>

#include "api/status.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"

/* What daemon_ready(), which has no arguments, finishes; set once, by daemon_detach(). */
static struct {
	int pipe;
	int log; /* becomes stderr */
} pending = {-1, -1};

static ssize_t read_all(int fd, void *data, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(fd, (char *)data + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static int reap(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return status;
}

/* The calling process: wait for the truth, then exit with it. */
static void __attribute__((noreturn)) wait_for_daemon(const char *program, pid_t child, int fd)
{
	int status = reap(child);
	pid_t daemon = 0;
	char ready;

	if (status != 0) /* the second fork failed, and it was said */
		_exit(EXIT_FAILED);
	if (read_all(fd, &daemon, sizeof(daemon)) != sizeof(daemon) || daemon <= 0) {
		fprintf(stderr, "%s: ended before it began\n", program);
		_exit(EXIT_FAILED);
	}
	if (read_all(fd, &ready, 1) == 1)
		_exit(EXIT_OK);
	status = reap(daemon);
	if (status >= 0 && WIFEXITED(status)) {
		/* A daemon that leaves before it serves has failed, whatever it says. */
		_exit(WEXITSTATUS(status) ? WEXITSTATUS(status) : EXIT_FAILED);
	}
	if (status >= 0 && WIFSIGNALED(status))
		fprintf(stderr, "%s: killed by signal %d (%s) during the start\n", program,
			WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		fprintf(stderr, "%s: ended during the start\n", program);
	_exit(EXIT_FAILED);
}

/* <root>/var/log/PROGRAM.log, or /dev/null where that cannot be. */
static int open_log(const struct daemon_options *o)
{
	const char *root = o->paths.root ? o->paths.root : "/";
	AUTO_FREE char *dir = path_join(strcmp(root, "/") == 0 ? "" : root, "var/log");
	AUTO_FREE char *path = xasprintf("%s/%s.log", dir, o->program);
	int fd;

	(void)dir_make(dir, 0755, NULL);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
	return fd >= 0 ? fd : open("/dev/null", O_WRONLY | O_CLOEXEC);
}

static int stdio_to_null(struct err *err)
{
	AUTO_FD int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0)
		return err_sys(err, errno, "cannot use /dev/null");
	return 0;
}

/* In the intermediate process: only the grandchild returns. */
static int become_daemon(const struct daemon_options *o, int fd, struct err *err)
{
	pid_t pid;

	if (setsid() < 0)
		return err_sys(err, errno, "cannot make a session");
	pid = fork();
	if (pid < 0) {
		fprintf(stderr, "%s: cannot fork: %s\n", o->program, strerror(errno));
		_exit(EXIT_FAILED);
	}
	if (pid > 0)
		_exit(0);
	pid = getpid();
	if (write(fd, &pid, sizeof(pid)) != sizeof(pid))
		return err_sys(err, errno, "cannot tell the calling process");
	pending.pipe = fd;
	pending.log = open_log(o);
	return stdio_to_null(err);
}

/* The pipe's ends must not be 0, 1 or 2, should the caller have those closed. */
static int fill_stdio(struct err *err)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
		if (fd < 0)
			return err_sys(err, errno, "cannot open /dev/null");
	} while (fd <= 2);
	(void)close(fd);
	return 0;
}

int daemon_detach(const struct daemon_options *o, struct err *err)
{
	int ends[2], r;
	pid_t pid;

	if (o->foreground)
		return 0;
	r = fill_stdio(err);
	if (r < 0)
		return r;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_sys(err, errno, "cannot make a pipe");
	(void)fflush(NULL);
	if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
		return err_sys(err, errno, "cannot become a subreaper");
	pid = fork();
	if (pid < 0)
		return err_sys(err, errno, "cannot fork");
	if (pid > 0) {
		(void)close(ends[1]); /* else we would never see its end */
		wait_for_daemon(o->program, pid, ends[0]);
	}
	(void)close(ends[0]);
	return become_daemon(o, ends[1], err);
}

void daemon_ready(void)
{
	(void)sd_notify(0, "READY=1");
	if (pending.log >= 0) {
		(void)dup2(pending.log, 2);
		(void)close(steal_fd(&pending.log));
	}
	if (pending.pipe >= 0) {
		(void)!write(pending.pipe, "", 1);
		(void)close(steal_fd(&pending.pipe));
	}
}
