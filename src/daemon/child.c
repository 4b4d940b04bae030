/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes by pidfd; see child.h. A child is reaped only after its done() returned, so until
 * then neither its pid nor its group can be another's. fork() and not vfork(): our daemons are
 * small, and the child sets up much before execve. What fails there is sent through a
 * close-on-exec pipe, so the caller learns it from child_start().
 */
#include "daemon/child.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "daemon/child_private.h"
#include "daemon/daemon.h"

/* Kernel 6.13, exit code 6.15; our headers are older. */
struct pidfd_info_v0 {
	uint64_t mask, cgroupid;
	uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
	int32_t exit_code;
};

#define GET_INFO     _IOWR(0xFF, 11, struct pidfd_info_v0)
#define INFO_EXIT    (1u << 3)
#define EXEC_MS      5000u /* from fork to the program */
#define LATE_REAP_MS 5000  /* how long a zombie of another parent may hide its status */

/* Fields of /proc/PID/stat, counted from 1. */
#define STAT_STATE     3
#define STAT_START     22
#define STAT_EXIT_CODE 52

struct child {
	pid_t pid;
	uint64_t start_time;
	int pidfd;
	bool group;   /* leads one */
	bool adopted; /* not ours to reap */
	bool timed_out, in_done;
	bool forgotten; /* the loop owns io, and io owns this */
	child_done done;
	void *ctx;
	void (*drop)(void *ctx); /* frees ctx when the child is forgotten; may be NULL */
	sd_event_source *io, *timer;
};

static int failure_to_err(const struct child_spec *spec, const struct child_failure *f,
			  struct err *err)
{
	switch ((enum step)f->step) {
	case STEP_FDS:
		return err_sys(err, f->code, "%s: cannot pass descriptors", spec->argv[0]);
	case STEP_SESSION:
		return err_sys(err, f->code, "%s: cannot make a process group", spec->argv[0]);
	case STEP_CWD:
		return err_sys(err, f->code, "%s: cannot change to directory '%s'", spec->argv[0],
			       spec->cwd);
	case STEP_CGROUP:
		return err_sys(err, f->code, "%s: cannot join the control group of '%s'",
			       spec->argv[0], spec->cgroup_procs);
	case STEP_CPUS:
		return err_sys(err, f->code, "%s: cannot run on the CPUs asked for", spec->argv[0]);
	case STEP_UID:
		return err_sys(err, f->code, "%s: cannot become uid %u gid %u", spec->argv[0],
			       (unsigned)spec->uid, (unsigned)spec->gid);
	case STEP_PRIVS:
		return err_sys(err, f->code, "%s: cannot give up privileges", spec->argv[0]);
	case STEP_LOCK:
		return err_sys(err, f->code, "%s: cannot take its lock", spec->argv[0]);
	case STEP_RECORD:
		return err_sys(err, f->code, "%s: cannot claim its record", spec->argv[0]);
	case STEP_EXEC:
		break;
	}
	return err_sys(err, f->code, "cannot execute '%s'", spec->argv[0]);
}

struct stat_fields {
	char state;
	uint64_t start_time;
	int wait_status; /* of a zombie; 0 when we may not see it */
};

static int read_stat(pid_t pid, struct stat_fields *ret)
{
	char path[40], text[1024];
	AUTO_FD int fd = -1;
	const char *p;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -ESRCH;
	n = read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return -ESRCH;
	text[n] = '\0';
	*ret = (struct stat_fields){0};
	/* The command, in brackets, may hold anything; fields go on after its last bracket. */
	p = strrchr(text, ')');
	for (int field = 3; p && (p = strchr(p, ' ')) != NULL; field++) {
		p++;
		if (field == STAT_STATE)
			ret->state = *p;
		else if (field == STAT_START)
			ret->start_time = strtoull(p, NULL, 10);
		else if (field == STAT_EXIT_CODE)
			ret->wait_status = (int)strtol(p, NULL, 10);
	}
	return 0;
}

uint64_t process_start_time(pid_t pid)
{
	struct stat_fields seen;

	return read_stat(pid, &seen) == 0 ? seen.start_time : 0;
}

static void child_free(struct child *c)
{
	bool forgotten = c->forgotten;

	(void)sd_event_source_disable_unref(c->timer);
	(void)sd_event_source_disable_unref(c->io);
	if (forgotten) /* free_forgotten() frees it */
		return;
	if (c->pidfd >= 0)
		(void)close(c->pidfd);
	free(c);
}

/* The loop lets go of a forgotten child's source: it was reaped, or the loop ends. */
static void free_forgotten(void *ctx)
{
	struct child *c = ctx;

	(void)close(c->pidfd);
	free(c);
}

static void from_siginfo(const siginfo_t *si, struct child_exit *how)
{
	how->known = true;
	how->code = si->si_code;
	how->status = si->si_status;
}

void child_from_wait_status(int status, struct child_exit *how)
{
	how->known = true;
	if (WIFEXITED(status)) {
		how->code = CLD_EXITED;
		how->status = WEXITSTATUS(status);
	} else {
		how->code = WCOREDUMP(status) ? CLD_DUMPED : CLD_KILLED;
		how->status = WTERMSIG(status);
	}
}

static void finish(struct child *c, struct child_exit how, bool reap)
{
	siginfo_t si;

	how.timed_out = c->timed_out;
	(void)sd_event_source_set_enabled(c->io, SD_EVENT_OFF);
	timer_stop(c->timer);
	c->in_done = true;
	if (c->done)
		c->done(c->ctx, &how);
	if (reap)
		(void)waitid(P_PIDFD, (id_t)c->pidfd, &si, WEXITED | WNOHANG);
	child_free(c);
}

static int on_late(sd_event_source *source, uint64_t usec, void *ctx)
{
	finish(ctx, (struct child_exit){0}, false);
	return 0;
}

/* The rule of ptrace, by which the kernel shows an exit status. */
static bool may_see(pid_t pid)
{
	char path[32];
	struct stat st;

	(void)snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	return (stat(path, &st) == 0 && st.st_uid == geteuid()) ||
	       (geteuid() == 0 && prctl(PR_CAPBSET_READ, CAP_SYS_PTRACE) == 1);
}

/* What its parent has not reaped yet shows how it ended, to its own user and to root. */
static bool zombie_status(const struct child *c, struct child_exit *how)
{
	struct stat_fields seen;

	if (read_stat(c->pid, &seen) < 0 || seen.state != 'Z' || seen.start_time != c->start_time)
		return false;
	if (seen.wait_status == 0 && !may_see(c->pid)) /* 0 is also what strangers are shown */
		return false;
	child_from_wait_status(seen.wait_status, how);
	return true;
}

/* A process that is not our child: a zombie shows EPOLLIN, a reaped one EPOLLHUP. */
static void stranger_ended(struct child *c, uint32_t events)
{
	struct pidfd_info_v0 info = {.mask = INFO_EXIT};
	struct child_exit how = {0};
	int r = zombie_status(c, &how) ? 0 : ioctl(c->pidfd, GET_INFO, &info);
	bool old_kernel = r < 0 && errno != ESRCH && errno != EREMOTE;

	if (r == 0 && !how.known && (info.mask & INFO_EXIT))
		child_from_wait_status(info.exit_code, &how);
	if (how.known || old_kernel || (events & EPOLLHUP)) {
		finish(c, how, false);
		return;
	}
	/* The status comes when its parent reaps it; a parent that never does must not hang us. */
	(void)sd_event_source_set_io_events(c->io, 0);
	(void)timer_set(sd_event_source_get_event(c->io), &c->timer, LATE_REAP_MS, on_late, c);
}

static int on_pidfd(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct child_exit how = {0};
	struct child *c = ctx;
	siginfo_t si = {0};

	if (waitid(P_PIDFD, (id_t)fd, &si, WEXITED | WNOHANG | WNOWAIT) == 0) {
		if (si.si_pid == 0)
			return 0;
		from_siginfo(&si, &how);
		finish(c, how, true);
	} else if (c->adopted) {
		stranger_ended(c, events);
	} else { /* somebody else reaped it */
		finish(c, how, false);
	}
	return 0;
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct child *c = ctx;

	c->timed_out = true;
	(void)child_kill(c, SIGKILL, true);
	return 0;
}

static int watch(sd_event *event, struct child *c, uint64_t timeout_ms, struct err *err)
{
	int r = sd_event_add_io(event, &c->io, c->pidfd, EPOLLIN, on_pidfd, c);

	if (r >= 0 && timeout_ms)
		r = timer_set(event, &c->timer, timeout_ms, on_timeout, c);
	return r < 0 ? err_sys(err, -r, "cannot watch process %d", (int)c->pid) : 0;
}

static void kill_and_reap(pid_t pid)
{
	siginfo_t si;

	(void)kill(pid, SIGKILL);
	while (waitid(P_PID, (id_t)pid, &si, WEXITED) < 0 && errno == EINTR)
		;
}

/*
 * What the child reports before its program takes its place; 0 bytes when that went well. Between
 * fork and execve it opens and asks nothing that waits but on file systems: a dead one of those
 * must not stop us with it.
 */
static ssize_t read_report(int fd, struct child_failure *ret)
{
	struct pollfd report = {.fd = fd, .events = POLLIN};
	uint64_t end = clock_ms() + EXEC_MS, now;
	int ready = 0;

	while (ready == 0 && (now = clock_ms()) < end) {
		ready = poll(&report, 1, (int)(end - now));
		if (ready < 0 && errno == EINTR)
			ready = 0;
	}
	if (ready <= 0) {
		errno = ETIMEDOUT;
		return -1;
	}
	return read(fd, ret, sizeof(*ret));
}

/* Fork; 0 once the program runs, an error when it does not. */
static int spawn(const struct child_spec *spec, pid_t *ret_pid, struct err *err)
{
	struct child_failure f;
	AUTO_FD int report = -1;
	int ends[2];
	ssize_t n;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_sys(err, errno, "cannot make a pipe");
	report = ends[0];
	pid = fork();
	if (pid == 0)
		child_side(spec, ends[1]);
	(void)close(ends[1]);
	if (pid < 0)
		return err_sys(err, errno, "cannot fork for '%s'", spec->argv[0]);
	n = read_report(report, &f);
	if (n < 0 && errno == ETIMEDOUT) {
		(void)kill(pid, SIGKILL); /* a file system may keep it: it is not waited for, ... */
		(void)kill(-pid, SIGKILL); /* ... nor is one that it forked as the program */
		return err_set(err, ETIMEDOUT, "'%s' did not start within %u s", spec->argv[0],
			       EXEC_MS / 1000);
	}
	if (n != 0) {
		kill_and_reap(pid);
		if (n != sizeof(f))
			return err_set(err, EIO, "'%s' did not start", spec->argv[0]);
		return failure_to_err(spec, &f, err);
	}
	*ret_pid = pid;
	return 0;
}

int child_start(sd_event *event, const struct child_spec *spec, child_done done, void *ctx,
		struct child **ret, struct err *err)
{
	struct child *c;
	pid_t pid = 0;
	int r = spawn(spec, &pid, err);

	if (r < 0)
		return r;
	c = xcalloc(1, sizeof(*c));
	*c = (struct child){.pid = pid,
			    .pidfd = pidfd_open(pid, 0),
			    .start_time = process_start_time(pid),
			    .group = spec->group || spec->session,
			    .done = done,
			    .ctx = ctx};
	r = c->pidfd < 0 ? err_sys(err, errno, "cannot watch '%s'", spec->argv[0])
			 : watch(event, c, spec->timeout_ms, err);
	if (r < 0) {
		kill_and_reap(pid);
		child_free(c);
		return r;
	}
	if (ret)
		*ret = c;
	return 0;
}

/* After a program executed itself anew its children are still its own, and its to reap. */
static bool is_our_child(int pidfd)
{
	siginfo_t info = {0};

	return waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

int child_adopt(sd_event *event, pid_t pid, uint64_t start_time, child_done done, void *ctx,
		struct child **ret, struct err *err)
{
	AUTO_FD int fd = pid > 0 ? pidfd_open(pid, 0) : -1;
	uint64_t now_there;
	struct child *c;
	bool adopted;
	int r;

	if (fd < 0)
		return err_set(err, ESRCH, "process %d is gone", (int)pid);
	now_there = process_start_time(pid);
	if (now_there == 0 || (start_time && now_there != start_time))
		return err_set(err, ESRCH, "process %d is another one by now", (int)pid);
	c = xcalloc(1, sizeof(*c));
	adopted = !is_our_child(fd);
	*c = (struct child){.pid = pid,
			    .pidfd = steal_fd(&fd),
			    .start_time = now_there,
			    .group = getpgid(pid) == pid,
			    .adopted = adopted,
			    .done = done,
			    .ctx = ctx};
	r = watch(event, c, 0, err);
	if (r < 0) {
		child_free(c);
		return r;
	}
	if (ret)
		*ret = c;
	return 0;
}

int child_limit(sd_event *event, struct child *c, uint64_t timeout_ms)
{
	return timer_set(event, &c->timer, timeout_ms, on_timeout, c);
}

pid_t child_pid(const struct child *c)
{
	return c->pid;
}

uint64_t child_start_time(const struct child *c)
{
	return c->start_time;
}

int child_kill(struct child *c, int sig, bool group)
{
	/* An adopted process may be reaped at any time: its pid counts only while it is there. */
	bool by_pid =
		group && c->group && (!c->adopted || process_start_time(c->pid) == c->start_time);
	int r = by_pid ? kill(-c->pid, sig) : pidfd_send_signal(c->pidfd, sig, NULL, 0);

	return r < 0 ? -errno : 0;
}

void child_forget(struct child *c)
{
	if (!c || c->in_done)
		return;
	c->done = NULL;
	if (c->drop)
		c->drop(c->ctx);
	c->drop = NULL;
	if (c->adopted) {
		child_free(c);
		return;
	}
	/* Still our child: the loop goes on to own the source, and reaps it one day. */
	c->forgotten = true;
	c->timer = sd_event_source_disable_unref(c->timer);
	(void)sd_event_source_set_destroy_callback(c->io, free_forgotten);
	(void)sd_event_source_set_floating(c->io, true);
	(void)sd_event_source_unref(c->io);
}

void child_on_forget(struct child *c, void (*drop)(void *ctx))
{
	c->drop = drop;
}

const char *child_exit_text(const struct child_exit *how, char *buf, size_t size)
{
	const char *late = how->timed_out ? "timed out, " : "";

	if (!how->known)
		(void)snprintf(buf, size, "%sended, status unknown", late);
	else if (how->code == CLD_EXITED)
		(void)snprintf(buf, size, "%sexited with status %d", late, how->status);
	else
		(void)snprintf(buf, size, "%skilled by signal %d (%s)%s", late, how->status,
			       strsignal(how->status),
			       how->code == CLD_DUMPED ? ", core dumped" : "");
	return buf;
}
