/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The child's side of fork, from there to execve; see child.h. Everything that a program is not to
 * inherit is undone here. A step that fails is written to the report, which a successful execve
 * closes without a word.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "base/mem.h"
#include "daemon/child.h"
#include "daemon/child_private.h"

#define FIRST_FREE_FD 3

static void __attribute__((noreturn)) fail(int fd, enum step step)
{
	struct child_failure f = {(int)step, errno};

	(void)!write(fd, &f, sizeof(f));
	_exit(127);
}

static int set_stdio(const struct child_spec *spec)
{
	int fds[3] = {spec->in, spec->out, spec->errfd};

	/* Off 0..2 first, as one may be the other's target. */
	for (int i = 0; i < 3; i++) {
		if (fds[i] < 0)
			fds[i] = open("/dev/null", i ? O_WRONLY : O_RDONLY);
		if (fds[i] < 0)
			return -1;
		fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, FIRST_FREE_FD);
		if (fds[i] < 0)
			return -1;
	}
	for (int i = 0; i < 3; i++)
		if (dup2(fds[i], i) < 0)
			return -1;
	return 0;
}

static int set_fds(const struct child_spec *spec)
{
	if (set_stdio(spec) < 0)
		return -1;
	/* Others' code may open without O_CLOEXEC; the kernel before 5.11 refuses, then so be it.
	 */
	(void)close_range(FIRST_FREE_FD, ~0U, CLOSE_RANGE_CLOEXEC);
	for (size_t i = 0; i < spec->nkeep; i++)
		if (spec->keep[i] >= FIRST_FREE_FD && fcntl(spec->keep[i], F_SETFD, 0) < 0)
			return -1;
	return 0;
}

/* A place before others is for the daemon alone; a session has its own autogroup already. */
static void take_usual_place(void)
{
	if (getpriority(PRIO_PROCESS, 0) < 0)
		(void)setpriority(PRIO_PROCESS, 0, 0);
}

static void reset_signals(void)
{
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		(void)sigaction(sig, &dfl, NULL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static int join(const char *procs)
{
	int fd = open(procs, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	return fd >= 0 && write(fd, "0", 1) == 1 ? close(fd) : -1;
}

/* Beyond the hard limit only the privileged can. */
static void limit_locked(rlim_t bytes)
{
	struct rlimit limit = {.rlim_cur = bytes, .rlim_max = bytes};

	if (setrlimit(RLIMIT_MEMLOCK, &limit) == 0 || getrlimit(RLIMIT_MEMLOCK, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_MEMLOCK, &limit);
}

/* All but 0 to 2 and those kept: the end of the report tells the parent that all went well. */
static void __attribute__((noreturn)) run_here(const struct child_spec *spec)
{
	unsigned from = FIRST_FREE_FD;

	for (size_t i = 0; i < spec->nkeep; i++) { /* in rising order */
		if (spec->keep[i] > (int)from)
			(void)close_range(from, (unsigned)spec->keep[i] - 1, 0);
		from = (unsigned)spec->keep[i] + 1;
	}
	(void)close_range(from, ~0U, 0);
	_exit(spec->run(spec->arg));
}

void child_side(const struct child_spec *spec, int fd)
{
	fd = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
	if (fd < 0)
		_exit(127);
	if (spec->session ? setsid() < 0 : spec->group && setpgid(0, 0) < 0)
		fail(fd, STEP_SESSION);
	take_usual_place();
	if (set_fds(spec) < 0)
		fail(fd, STEP_FDS);
	if (spec->cwd && chdir(spec->cwd) < 0)
		fail(fd, STEP_CWD);
	if (spec->cgroup_procs && join(spec->cgroup_procs) < 0)
		fail(fd, STEP_CGROUP);
	if (spec->cpus && sched_setaffinity(0, sizeof(*spec->cpus), spec->cpus) < 0)
		fail(fd, STEP_CPUS);
	if (spec->memlock > 0)
		limit_locked(spec->memlock);
	if (spec->drop &&
	    (setgroups(0, NULL) < 0 || setresgid(spec->gid, spec->gid, spec->gid) < 0 ||
	     setresuid(spec->uid, spec->uid, spec->uid) < 0))
		fail(fd, STEP_UID);
	if (spec->dies_with_us && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		fail(fd, STEP_PRIVS);
	if (spec->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		fail(fd, STEP_PRIVS);
	if (spec->lock > 0 && child_process_lock(spec->lock) < 0)
		fail(fd, STEP_LOCK);
	if (spec->record > 0 && child_record_keep(spec->record) < 0)
		fail(fd, STEP_RECORD);
	reset_signals();
	if (spec->env)
		environ = (char **)(uintptr_t)spec->env;
	if (spec->run)
		run_here(spec);
	if (strchr(spec->argv[0], '/'))
		(void)execve(spec->argv[0], (char *const *)(uintptr_t)spec->argv, environ);
	else
		(void)execvp(spec->argv[0], (char *const *)(uintptr_t)spec->argv);
	fail(fd, STEP_EXEC);
}
