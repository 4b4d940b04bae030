/* SPDX-License-Identifier: Apache-2.0 */
/* Options, the lock, and what the caller of a daemon is told; each start in a process of its own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"

struct mine {
	char *dir;
	bool flag;
};

static int set_dir(void *ctx, const char *value, struct err *err)
{
	struct mine *m = ctx;

	if (value[0] != '/')
		return err_set(err, EINVAL, "'%s' is not absolute", value);
	replace_str(&m->dir, xstrdup(value));
	return 0;
}

static int set_bool(void *ctx, const char *value, struct err *err)
{
	((struct mine *)ctx)->flag = true;
	return 0;
}

static const struct daemon_flag flags[] = {
	{'c', "dir", "DIR", set_dir, "Where."},
	{0, "autostart", NULL, set_bool, "Start."},
	{'v', NULL, NULL, set_bool, "Ours, not the common one."},
};

static int parse(struct daemon_options *o, struct mine *m, const char *const *words)
{
	char *argv[10] = {(char[]){"prog"}};
	int argc = 1;

	*o = (struct daemon_options){.program = "prog"};
	*m = (struct mine){0};
	for (; words[argc - 1]; argc++)
		argv[argc] = (char *)(uintptr_t)words[argc - 1];
	return daemon_options(o, argc, argv, flags, ARRAY_SIZE(flags), m);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void good_options(void **state)
{
	struct daemon_options o;
	struct mine m;

	assert_int_equal(parse(&o, &m, WORDS("-f", "--root", "/tmp/x", "-c", "/d", "--log=json")),
			 1);
	assert_true(o.foreground);
	assert_string_equal(o.paths.root, "/tmp/x");
	assert_string_equal(m.dir, "/d");
	assert_int_equal(o.format, LOG_JSON);
	assert_int_equal(o.level, LOG_LEVEL_INFO);
	free(m.dir);
	daemon_options_done(&o);

	assert_int_equal(parse(&o, &m, WORDS("--autostart", "--verbose")), 1);
	assert_true(m.flag);
	assert_int_equal(o.level, LOG_LEVEL_DEBUG);
	daemon_options_done(&o);
	assert_int_equal(parse(&o, &m, WORDS("-v")), 1); /* the program's row wins */
	assert_true(m.flag);
	assert_int_equal(o.level, LOG_LEVEL_INFO);
	daemon_options_done(&o);
}

static void bad_options(void **state)
{
	struct daemon_options o;
	struct mine m;
	int null = open("/dev/null", O_WRONLY), saved = dup(2);

	(void)dup2(null, 2);
	assert_int_equal(parse(&o, &m, WORDS("-x")), -EINVAL);
	assert_int_equal(parse(&o, &m, WORDS("--what")), -EINVAL);
	assert_int_equal(parse(&o, &m, WORDS("-c")), -EINVAL);
	assert_int_equal(parse(&o, &m, WORDS("operand")), -EINVAL);
	assert_int_equal(parse(&o, &m, WORDS("--log", "xml")), -EINVAL);
	daemon_options_done(&o);
	assert_int_equal(parse(&o, &m, WORDS("-c", "relative")), -EINVAL);
	daemon_options_done(&o);
	(void)dup2(saved, 2);
	(void)close(null);
	(void)close(saved);
}

static void lock_is_exclusive(void **state)
{
	char dir[] = "/tmp/daemon-XXXXXX";
	AUTO_FREE char *path = NULL, *text = NULL, *want = NULL;
	struct err err = {0};
	int fd, other;

	assert_non_null(mkdtemp(dir));
	path = path_join(dir, "x.pid");
	assert_int_equal(file_write(path, "999999999\n", 10, 0644, FILE_NO_SYNC, NULL), 0);
	assert_int_equal(daemon_lock("prog", path, &fd, &err), 0);
	assert_int_equal(file_read(path, 100, &text, NULL, NULL, NULL), 0);
	want = xasprintf("%d\n", (int)getpid());
	assert_string_equal(text, want);
	assert_int_equal(daemon_lock("prog", path, &other, &err), -EALREADY);
	want[strlen(want) - 1] = '\0';
	assert_non_null(strstr(err.msg, "prog is already running (pid "));
	assert_non_null(strstr(err.msg, want));
	(void)close(fd);
	assert_int_equal(daemon_lock("prog", path, &fd, &err), 0);
	(void)close(fd);
	assert_int_equal(dir_remove_tree(dir, NULL), 0);
}

enum fate { SERVES, FAILS, DIES, LEAVES };

static void __attribute__((noreturn)) be_a_daemon(const char *root, enum fate fate)
{
	struct daemon_options o = {.program = "prog"};
	AUTO_FREE char *path = path_join(root, "x.pid");
	struct err err = {0};
	int lock;

	(void)paths_init(&o.paths, root, NULL);
	if (daemon_detach(&o, &err) < 0)
		_exit(99);
	switch (fate) {
	case SERVES:
		if (daemon_lock("prog", path, &lock, NULL) < 0)
			_exit(98);
		daemon_ready();
		(void)pause(); /* until the test kills it */
		_exit(0);
	case FAILS:
		fprintf(stderr, "prog: no luck\n");
		_exit(5);
	case DIES:
		(void)raise(SIGKILL);
		_exit(0);
	case LEAVES:
		break;
	}
	_exit(0);
}

/* The caller's exit status and what it showed on stderr until the pipe closed. */
static int start(const char *root, enum fate fate, char *text, size_t size)
{
	int ends[2], status;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	(void)fflush(NULL);
	pid = fork();
	if (pid == 0) {
		(void)dup2(ends[1], 2);
		(void)close(ends[0]);
		(void)close(ends[1]);
		be_a_daemon(root, fate);
	}
	(void)close(ends[1]);
	while ((n = read(ends[0], text + len, size - 1 - len)) > 0)
		len += (size_t)n;
	text[len] = '\0';
	(void)close(ends[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void detach_tells_the_truth(void **state)
{
	char dir[] = "/tmp/daemon-XXXXXX", text[500];
	AUTO_FREE char *log = NULL, *pidfile = NULL, *content = NULL;

	assert_non_null(mkdtemp(dir));
	/* The pipe closes though the daemon goes on: $(prog 2>&1) must not hang. */
	assert_int_equal(start(dir, SERVES, text, sizeof(text)), 0);
	assert_string_equal(text, "");
	pidfile = path_join(dir, "x.pid");
	assert_int_equal(file_read(pidfile, 100, &content, NULL, NULL, NULL), 0);
	assert_int_equal(kill((pid_t)atoi(content), SIGKILL), 0);
	assert_int_equal(start(dir, FAILS, text, sizeof(text)), 5);
	assert_string_equal(text, "prog: no luck\n");
	assert_int_equal(start(dir, DIES, text, sizeof(text)), 1);
	assert_string_equal(text, "prog: killed by signal 9 (Killed) during the start\n");
	assert_int_equal(start(dir, LEAVES, text, sizeof(text)), 1);
	log = path_join(dir, "var/log/prog.log");
	assert_true(file_exists(log));
	assert_int_equal(dir_remove_tree(dir, NULL), 0);
}

static void on_reload(void *ctx)
{
	(*(int *)ctx)++;
	(void)raise(SIGTERM);
}

static void loop_and_signals(void **state)
{
	struct daemon_options o = {.program = "prog"};
	struct err err = {0};
	sd_event *event;
	int reloads = 0;

	log_setup(o.program, LOG_TEXT, LOG_LEVEL_ERROR);
	assert_int_equal(daemon_loop(&event, on_reload, &reloads, &err), 0);
	(void)raise(SIGHUP);
	assert_int_equal(sd_event_loop(event), 0);
	assert_int_equal(reloads, 1);
	event = sd_event_unref(event);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_options),      cmocka_unit_test(bad_options),
		cmocka_unit_test(lock_is_exclusive), cmocka_unit_test(detach_tells_the_truth),
		cmocka_unit_test(loop_and_signals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
