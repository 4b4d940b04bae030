/* SPDX-License-Identifier: Apache-2.0 */
/* Children and adopted processes, with a real loop and real processes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "daemon/child.h"
#include "daemon/daemon.h"

#define LIMIT_US 5000000u

struct seen {
	struct child_exit how;
	int count;
	char out[300], errors[300];
};

static sd_event *event;

static int setup(void **state)
{
	return sd_event_new(&event);
}

static int teardown(void **state)
{
	event = sd_event_unref(event);
	return 0;
}

static void on_done(void *ctx, const struct child_exit *how)
{
	struct seen *seen = ctx;

	seen->how = *how;
	seen->count++;
}

static void on_run(void *ctx, const struct child_exit *how, const char *out, const char *errors)
{
	struct seen *seen = ctx;

	on_done(ctx, how);
	(void)snprintf(seen->out, sizeof(seen->out), "%s", out);
	(void)snprintf(seen->errors, sizeof(seen->errors), "%s", errors);
}

static void wait_done(struct seen *seen)
{
	while (seen->count == 0)
		assert_true(sd_event_run(event, LIMIT_US) > 0);
	assert_int_equal(seen->count, 1);
}

static struct child_spec spec_of(const char *const *argv)
{
	return (struct child_spec){.argv = argv, .in = -1, .out = -1, .errfd = -1};
}

#define SH(script) ((const char *const[]){"sh", "-c", script, NULL})

static void statuses(void **state)
{
	static const struct {
		const char *script, *text;
	} cases[] = {
		{"exit 0", "exited with status 0"},
		{"exit 3", "exited with status 3"},
		{"kill -9 $$", "killed by signal 9 (Killed)"},
		{"ulimit -c 0; kill -TERM $$", "killed by signal 15 (Terminated)"},
	};
	char text[96];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct child_spec spec = spec_of(SH(cases[i].script));
		struct seen seen = {0};

		assert_int_equal(child_start(event, &spec, on_done, &seen, NULL, NULL), 0);
		wait_done(&seen);
		assert_string_equal(child_exit_text(&seen.how, text, sizeof(text)), cases[i].text);
	}
}

static void failing_to_execute(void **state)
{
	struct child_spec spec = spec_of((const char *const[]){"/nonexistent/tool", NULL});
	struct err err = {0};

	assert_int_equal(child_start(event, &spec, on_done, NULL, NULL, &err), -ENOENT);
	assert_string_equal(err.msg,
			    "cannot execute '/nonexistent/tool': No such file or directory");
	spec = spec_of((const char *const[]){"/etc/passwd", NULL});
	assert_int_equal(child_start(event, &spec, on_done, NULL, NULL, &err), -EACCES);
	spec = spec_of(SH("true"));
	spec.cwd = "/nonexistent";
	assert_int_equal(child_start(event, &spec, on_done, NULL, NULL, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "cannot change to directory '/nonexistent'"));
}

/* As on a file system that is dead: what the child opens never opens. */
static void stuck_before_it_executes(void **state)
{
	char dir[] = "/tmp/drover-child-XXXXXX", path[40];
	struct child_spec spec = spec_of(SH("true"));
	struct err err = {0};

	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/fifo", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	spec.cgroup_procs = path;
	assert_int_equal(child_start(event, &spec, on_done, NULL, NULL, &err), -ETIMEDOUT);
	assert_string_equal(err.msg, "'sh' did not start within 5 s");
	assert_true(waitpid(-1, NULL, 0) > 0); /* killed */
	assert_int_equal(waitpid(-1, NULL, 0), -1);
	(void)unlink(path);
	(void)rmdir(dir);
}

static void run_collects(void **state)
{
	struct child_spec spec = spec_of(SH("echo out; echo err >&2; pwd; echo $A; exit 4"));
	struct seen seen = {0};

	spec.cwd = "/";
	spec.env = (const char *const[]){"A=b", "PATH=/bin:/usr/bin", NULL};
	assert_int_equal(child_run(event, &spec, 1000, on_run, &seen, NULL, NULL), 0);
	wait_done(&seen);
	assert_int_equal(seen.how.status, 4);
	assert_string_equal(seen.out, "out\n/\nb\n");
	assert_string_equal(seen.errors, "err\n");
}

static void run_is_bounded(void **state)
{
	struct child_spec spec = spec_of(SH("head -c 300000 /dev/zero | tr '\\0' x"));
	struct seen seen = {0};

	assert_int_equal(child_run(event, &spec, 100, on_run, &seen, NULL, NULL), 0);
	wait_done(&seen);
	assert_int_equal(strlen(seen.out), 100);
}

static void leftovers_do_not_hold_the_end(void **state)
{
	struct child_spec spec = spec_of(SH("sleep 4 & echo $!"));
	struct seen seen = {0};

	assert_int_equal(child_run(event, &spec, 100, on_run, &seen, NULL, NULL), 0);
	wait_done(&seen);
	assert_int_equal(seen.how.status, 0);
	assert_int_equal(kill((pid_t)atoi(seen.out), SIGKILL), 0);
}

static void time_limit_kills_the_group(void **state)
{
	struct child_spec spec = spec_of(SH("sleep 100 & wait"));
	struct seen seen = {0};
	char text[96];

	spec.group = true;
	spec.timeout_ms = 50;
	assert_int_equal(child_start(event, &spec, on_done, &seen, NULL, NULL), 0);
	wait_done(&seen);
	assert_true(seen.how.timed_out);
	assert_string_equal(child_exit_text(&seen.how, text, sizeof(text)),
			    "timed out, killed by signal 9 (Killed)");
}

static void descriptors_and_signals(void **state)
{
	int leak = open("/dev/null", O_RDONLY); /* not close-on-exec, on purpose */
	int keep = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct child_spec spec =
		/* The status of grep itself: a shell blocks signals while it waits. */
		spec_of(SH("ls -l /proc/$$/fd | grep -c null; ls /proc/$$/fd; "
			   "exec grep -E 'SigBlk|SigIgn' /proc/self/status"));
	struct seen seen = {0};
	char number[16];
	const char *at;
	sigset_t set, old;

	assert_true(leak > 2 && keep > 2);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &set, &old);
	(void)signal(SIGPIPE, SIG_IGN);
	spec.keep = &keep;
	spec.nkeep = 1;
	assert_int_equal(child_run(event, &spec, 1000, on_run, &seen, NULL, NULL), 0);
	wait_done(&seen);
	(void)sigprocmask(SIG_SETMASK, &old, NULL);
	(void)snprintf(number, sizeof(number), "\n%d\n", keep);
	assert_non_null(strstr(seen.out, number));
	(void)snprintf(number, sizeof(number), "\n%d\n", leak);
	assert_null(strstr(seen.out, number));
	assert_int_equal(seen.out[0], '2'); /* stdin and the kept one */
	assert_non_null(strstr(seen.out, "SigBlk:\t0000000000000000"));
	at = strstr(seen.out, "SigIgn:\t");
	assert_non_null(at);
	/* Not 32 and 33: make's children have them ignored, and the C library keeps them its own.
	 */
	assert_int_equal(strtoull(at + strlen("SigIgn:\t"), NULL, 16) & ~UINT64_C(0x180000000), 0);
	(void)close(leak);
	(void)close(keep);
}

static void crossed_descriptors(void **state)
{
	int ends[2];
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC), saved;
	struct child_spec spec = spec_of(SH("echo a; echo b >&2"));
	struct seen seen = {0};
	char buf[16] = "";

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	saved = dup(2);
	(void)dup2(null, 2);
	spec.out = 2; /* ours */
	spec.errfd = ends[1];
	assert_int_equal(child_start(event, &spec, on_done, &seen, NULL, NULL), 0);
	wait_done(&seen);
	assert_int_equal(read(ends[0], buf, sizeof(buf)), 2);
	assert_string_equal(buf, "b\n");
	(void)dup2(saved, 2);
	(void)close(saved);
	(void)close(null);
	(void)close(ends[0]);
	(void)close(ends[1]);
}

static void pid_is_ours_inside_done(void **state)
{
	struct child_spec spec = spec_of(SH("exit 0"));
	struct seen seen = {0};
	struct child *c;
	pid_t pid;

	assert_int_equal(child_start(event, &spec, on_done, &seen, &c, NULL), 0);
	pid = child_pid(c);
	assert_int_equal(child_start_time(c), process_start_time(pid));
	assert_true(child_start_time(c) > 0);
	wait_done(&seen);
	assert_int_equal(kill(pid, 0), -1); /* reaped */
}

static void forgotten(void **state)
{
	struct child_spec spec = spec_of(SH("exit 0"));
	struct seen seen = {0};
	struct child *c, *run;
	pid_t pid;

	assert_int_equal(child_start(event, &spec, on_done, &seen, &c, NULL), 0);
	pid = child_pid(c);
	child_forget(c);
	while (kill(pid, 0) == 0) /* the loop still reaps it */
		assert_true(sd_event_run(event, LIMIT_US) > 0);
	spec = spec_of(SH("exec sleep 20"));
	assert_int_equal(child_run(event, &spec, 10, on_run, &seen, &run, NULL), 0);
	pid = child_pid(run);
	child_forget(run);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(seen.count, 0);
}

/* A process whose parent is another one; that parent reaps it. */
static pid_t start_stranger(const char *script, int *ret_parent)
{
	int ends[2];
	pid_t pid = 0;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	*ret_parent = fork();
	if (*ret_parent == 0) {
		pid = fork();
		if (pid == 0) {
			(void)execlp("sh", "sh", "-c", script, (char *)NULL);
			_exit(127);
		}
		(void)!write(ends[1], &pid, sizeof(pid));
		(void)waitpid(pid, NULL, 0);
		_exit(0);
	}
	assert_int_equal(read(ends[0], &pid, sizeof(pid)), sizeof(pid));
	(void)close(ends[0]);
	(void)close(ends[1]);
	return pid;
}

static void adopted(void **state)
{
	struct seen seen = {0};
	struct child *c;
	int parent;
	pid_t pid = start_stranger("exec sleep 30", &parent);

	assert_int_equal(
		child_adopt(event, pid, process_start_time(pid) + 1, on_done, &seen, &c, NULL),
		-ESRCH);
	assert_int_equal(child_adopt(event, pid, process_start_time(pid), on_done, &seen, &c, NULL),
			 0);
	assert_int_equal(child_kill(c, SIGTERM, true), 0);
	wait_done(&seen);
	if (seen.how.known) { /* Linux 6.15 and later */
		assert_int_equal(seen.how.code, CLD_KILLED);
		assert_int_equal(seen.how.status, SIGTERM);
	}
	assert_int_equal(waitpid(parent, NULL, 0), parent);
	assert_int_equal(child_adopt(event, pid, 0, on_done, &seen, &c, NULL), -ESRCH);
	assert_int_equal(child_adopt(event, 0, 0, on_done, &seen, &c, NULL), -ESRCH);
}

static void adopted_and_forgotten(void **state)
{
	struct seen seen = {0};
	struct child *c;
	int parent;
	pid_t pid = start_stranger("exec sleep 30", &parent);

	assert_int_equal(child_adopt(event, pid, 0, on_done, &seen, &c, NULL), 0);
	child_forget(c);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(parent, NULL, 0), parent);
	assert_int_equal(seen.count, 0);
}

/* Its parent does not reap it yet: the end is known all the same, and at once. */
static void adopted_zombie(void **state)
{
	struct seen seen = {0};
	struct child *c;
	int ends[2];
	pid_t parent, pid = 0;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	parent = fork();
	if (parent == 0) {
		pid = fork();
		if (pid == 0) {
			(void)execlp("sh", "sh", "-c", "sleep 0.2; exit 7", (char *)NULL);
			_exit(127);
		}
		(void)!write(ends[1], &pid, sizeof(pid));
		(void)pause();
		_exit(0);
	}
	assert_int_equal(read(ends[0], &pid, sizeof(pid)), sizeof(pid));
	assert_int_equal(child_adopt(event, pid, 0, on_done, &seen, &c, NULL), 0);
	assert_true(sd_event_run(event, 2000000) > 0); /* sooner than any wait for the parent */
	assert_int_equal(seen.count, 1);
	assert_true(seen.how.known);
	assert_int_equal(seen.how.code, CLD_EXITED);
	assert_int_equal(seen.how.status, 7);
	assert_int_equal(kill(parent, SIGKILL), 0);
	assert_int_equal(waitpid(parent, NULL, 0), parent);
	(void)close(ends[0]);
	(void)close(ends[1]);
}

static void recorded(void **state)
{
	static const char path[] = "child-record-test";
	struct child_spec spec = spec_of(SH("sleep 0.1; trap : TERM; kill -TERM 0; exit 6"));
	struct child_exit how = {0};
	struct seen seen = {0};
	struct err err = {0};
	struct child *c;
	pid_t pid = 0;

	(void)unlink(path);
	assert_int_equal(child_record_look(path, 1, &pid, &how), RECORD_NONE);
	assert_int_equal(child_record_new(path, 1, &spec.record, &err), 0);
	assert_int_equal(child_record_look(path, 1, &pid, &how), RECORD_OPEN);
	spec.session = true;
	assert_int_equal(child_start(event, &spec, on_done, &seen, &c, &err), 0);
	assert_int_equal(child_record_look(path, 1, &pid, &how), RECORD_RUNS);
	assert_int_equal(pid, child_pid(c));
	assert_int_equal(child_start(event, &spec, on_done, &seen, NULL, &err), -EALREADY);
	wait_done(&seen);
	assert_int_equal(seen.how.status, 6);
	assert_int_equal(child_record_look(path, 1, &pid, &how), RECORD_ENDED);
	assert_int_equal(how.status, 6);
	assert_int_equal(child_record_look(path, 2, &pid, &how), RECORD_NONE);
	assert_int_equal(child_start(event, &spec, on_done, &seen, NULL, &err), -EALREADY);
	(void)close(spec.record);
	assert_int_equal(unlink(path), 0);
}

static void record_of_one_that_was_killed(void **state)
{
	static const char path[] = "child-record-killed";
	struct child_spec spec = spec_of(SH("exec sleep 30"));
	struct child_exit how = {0};
	struct seen seen = {0};
	struct child *c;
	pid_t pid;

	assert_int_equal(child_record_new(path, 9, &spec.record, NULL), 0);
	spec.session = true;
	assert_int_equal(child_start(event, &spec, on_done, &seen, &c, NULL), 0);
	assert_int_equal(child_kill(c, SIGKILL, true), 0);
	wait_done(&seen);
	assert_int_equal(child_record_look(path, 9, &pid, &how), RECORD_LOST);
	(void)close(spec.record);
	assert_int_equal(unlink(path), 0);
}

static void lock_tells_its_holder(void **state)
{
	static const char path[] = "child-lock-test";
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct child_spec spec = spec_of(SH("exec sleep 30"));
	struct seen seen = {0};
	struct child *c;

	assert_true(fd > 2);
	spec.keep = &fd;
	spec.nkeep = 1;
	spec.lock = fd;
	assert_int_equal(child_lock_holder(path), 0);
	assert_int_equal(child_start(event, &spec, on_done, &seen, &c, NULL), 0);
	(void)close(fd);
	assert_int_equal(child_lock_holder(path), child_pid(c));
	assert_int_equal(child_kill(c, SIGKILL, false), 0);
	wait_done(&seen);
	assert_int_equal(child_lock_holder(path), 0);
	assert_int_equal(unlink(path), 0);
}

static int on_tick(sd_event_source *source, uint64_t usec, void *ctx)
{
	(*(int *)ctx)++;
	return 0;
}

static int on_other(sd_event_source *source, uint64_t usec, void *ctx)
{
	*(int *)ctx += 100;
	return 0;
}

static void timers(void **state)
{
	sd_event_source *source = NULL;
	uint64_t from, to;
	int ticks = 0;

	(void)sd_event_now(event, CLOCK_BOOTTIME, &from);
	assert_true(timer_set(event, &source, 30, on_tick, &ticks) >= 0);
	while (ticks == 0)
		assert_true(sd_event_run(event, LIMIT_US) > 0);
	(void)sd_event_now(event, CLOCK_BOOTTIME, &to);
	assert_in_range(to - from, 29000, 200000);
	assert_true(timer_set(event, &source, 1, on_tick, &ticks) >= 0);
	while (ticks == 1)
		assert_true(sd_event_run(event, LIMIT_US) > 0);
	assert_true(timer_set(event, &source, 1, on_tick, &ticks) >= 0);
	timer_stop(source);
	assert_int_equal(sd_event_run(event, 20000), 0);
	assert_int_equal(ticks, 2);
	/* Whoever arms it last is called, and nobody else. */
	assert_true(timer_set(event, &source, 1, on_tick, &ticks) >= 0);
	assert_true(timer_set(event, &source, 1, on_other, &ticks) >= 0);
	assert_true(sd_event_run(event, LIMIT_US) > 0);
	assert_int_equal(sd_event_run(event, 20000), 0);
	assert_int_equal(ticks, 102);
	(void)sd_event_source_disable_unref(source);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(statuses),
		CASE(failing_to_execute),
		CASE(stuck_before_it_executes),
		CASE(run_collects),
		CASE(run_is_bounded),
		CASE(leftovers_do_not_hold_the_end),
		CASE(time_limit_kills_the_group),
		CASE(descriptors_and_signals),
		CASE(crossed_descriptors),
		CASE(pid_is_ours_inside_done),
		CASE(forgotten),
		CASE(adopted),
		CASE(adopted_and_forgotten),
		CASE(adopted_zombie),
		CASE(recorded),
		CASE(record_of_one_that_was_killed),
		CASE(lock_tells_its_holder),
		CASE(timers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
