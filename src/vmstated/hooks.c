/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hooks: the executable named after the state, then those in STATE.d in order, one at a time per
 * VM. A hook's output goes through two FIFOs that it holds open itself, so that it outlives us
 * without SIGPIPE and a background process of it cannot keep us waiting: its own end is what
 * counts. Source: design 5, vmstated(8) "Hook Scripts".
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "vmstated/hardware.h"
#include "vmstated/parts.h"

#define HOOKS_MAX     64         /* files of one state */
#define HOOK_OUT_MAX  (1u << 20) /* bytes one hook may put into the log; the rest is counted */
#define HOOK_LINE_MAX 4096u

struct stream {
	struct hook_run *run;
	const char *tag;
	int fd;
	sd_event_source *source;
	struct strbuf line;
	size_t written, dropped;
};

struct hook_run {
	struct guest *guest;
	const char *hook; /* "start_network" */
	char event[24];
	char **files; /* full paths, in order */
	size_t count, at;
	struct child *child;
	uint64_t until_ms; /* clock_ms of its limit */
	struct stream out, errors;
};

static void stream_done(struct stream *s)
{
	sd_event_source_disable_unref(s->source);
	if (s->fd >= 0)
		(void)close(s->fd);
	strbuf_done(&s->line);
}

void hooks_free(struct guest *g)
{
	struct hook_run *run = g->hooks;

	if (!run)
		return;
	g->hooks = NULL;
	if (run->child)
		child_forget(run->child);
	stream_done(&run->out);
	stream_done(&run->errors);
	for (size_t i = 0; i < run->count; i++)
		free(run->files[i]);
	free(run->files);
	free(run);
}

const char *hooks_running(const struct guest *g)
{
	return g->hooks && g->hooks->at < g->hooks->count ? g->hooks->files[g->hooks->at] : NULL;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static void log_line(struct stream *s)
{
	const struct hook_run *run = s->run;
	AUTO_FREE char *tag = NULL;

	if (s->line.len == 0)
		return;
	if (s->written > HOOK_OUT_MAX) {
		s->dropped += s->line.len;
	} else {
		tag = xasprintf("%s/%s", base_name(run->files[run->at]), s->tag);
		guestlog_line(run->guest, tag, s->line.data, s->line.len);
	}
	s->written += s->line.len;
	s->line.len = 0;
}

/* At most 64 KiB a turn, so that a hook that writes for ever starves nobody. */
static void take_output(struct stream *s, bool all)
{
	char buf[4096];

	for (int i = 0; i < (all ? 256 : 16); i++) {
		ssize_t n = read(s->fd, buf, sizeof(buf));

		if (n <= 0)
			return;
		for (ssize_t k = 0; k < n; k++) {
			if (buf[k] == '\n' || s->line.len >= HOOK_LINE_MAX)
				log_line(s);
			if (buf[k] != '\n')
				strbuf_putc(&s->line, buf[k]);
		}
	}
}

static int on_output(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	take_output(userdata, false);
	return 0;
}

static void finish_stream(struct stream *s)
{
	take_output(s, true);
	log_line(s);
	if (s->dropped)
		guestlog_printf(s->run->guest, base_name(s->run->files[s->run->at]),
				"%zu more bytes were not logged", s->dropped);
	s->written = s->dropped = 0;
}

/* The FIFO is opened for reading and writing: no end of file, no waiting for the other side. */
static int open_stream(struct hook_run *run, struct stream *s, const char *name, const char *tag,
		       struct err *err)
{
	AUTO_FREE char *path = path_of_run(&run->guest->sup->paths, run->guest->uuid, name);
	int r;

	s->run = run;
	s->tag = tag;
	if (mkfifo(path, 0600) < 0 && errno != EEXIST)
		return err_sys(err, errno, "cannot make '%s'", path);
	s->fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (s->fd < 0)
		return err_sys(err, errno, "cannot open '%s'", path);
	r = sd_event_add_io(run->guest->sup->event, &s->source, s->fd, EPOLLIN, on_output, s);
	return r < 0 ? err_sys(err, -r, "cannot watch '%s'", path) : 0;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void add_folder(struct hook_run *run, const char *dir)
{
	size_t first = run->count;
	struct dirent *de;
	DIR *d = opendir(dir);

	if (!d)
		return;
	while ((de = readdir(d)) != NULL && run->count < HOOKS_MAX) {
		if (de->d_name[0] != '.' && !str_ends(de->d_name, "~"))
			run->files[run->count++] = path_join(dir, de->d_name);
	}
	(void)closedir(d);
	qsort(run->files + first, run->count - first, sizeof(*run->files), compare);
}

static void add_state(struct hook_run *run, const char *dir, const char *hook)
{
	AUTO_FREE char *single = path_join(dir, hook);
	AUTO_FREE char *folder = xasprintf("%s.d", single);

	if (run->count < HOOKS_MAX && file_exists(single))
		run->files[run->count++] = xstrdup(single);
	add_folder(run, folder);
}

/* The states whose hooks a reset in place runs: the restart chain, without leaving RUNNING. */
static const enum sup_state reset_chain[] = {
	SUP_PRESTOP_BEFORE_RESTART, SUP_RESTARTING,          SUP_RESTART_STOPPED,
	SUP_PRESTART_AFTER_RESTART, SUP_START_AFTER_RESTART, SUP_RESTARTED,
};

static void find_files(struct hook_run *run)
{
	const struct vm *vm = guest_vm(run->guest);
	const char *dir = vm->scriptpath ? vm->scriptpath : vm->dir;

	run->files = xcalloc(HOOKS_MAX, sizeof(*run->files));
	if (!dir)
		return;
	if (!str_eq(run->hook, HOOKS_OF_RESET)) {
		add_state(run, dir, run->hook);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(reset_chain); i++)
		add_state(run, dir, sup_states[reset_chain[i]].hook);
}

int hook_check(const char *path, struct err *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return err_sys(err, errno, "hook '%s'", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "hook '%s' is not a regular file", path);
	if (!(st.st_mode & S_IXUSR))
		return err_set(err, EACCES, "hook '%s' is not executable (chmod +x)", path);
	return file_check_trusted(&st, "hook", path, err);
}

struct environment {
	char *items[24];
	size_t count;
};

static void env_add(struct environment *e, const char *name, const char *value)
{
	e->items[e->count++] = xasprintf("%s=%s", name, value ? value : "");
}

/* The taps the definition names: a start_network hook makes them, stop_network removes them. */
static void env_taps(struct environment *e, const struct guest *g)
{
	AUTO_STRBUF struct strbuf sb = {0};

	for (size_t i = 0; i < VM_NICS_MAX; i++) {
		const char *tap = hardware_tap(g, i);

		if (tap)
			strbuf_printf(&sb, "%s%s", sb.len ? " " : "", tap);
	}
	env_add(e, "VM_TAPS", sb.data);
}

static void env_fill(struct environment *e, const struct hook_run *run)
{
	const struct guest *g = run->guest;
	const struct vm *vm = guest_vm(g);
	const char *path = getenv("PATH");
	char pid[16] = "";

	if (g->pid > 0)
		(void)snprintf(pid, sizeof(pid), "%d", (int)g->pid);
	env_add(e, "PATH",
		path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	env_add(e, "LANG", "C.UTF-8");
	env_add(e, "VM_NAME", g->name);
	env_add(e, "VM_UUID", g->uuid);
	env_add(e, "VM_STATE", sup_states[g->state].label);
	env_add(e, "VM_EVENT", run->event);
	env_add(e, "VM_HOOK", base_name(run->files[run->at]));
	env_add(e, "VM_CONFIG", vm->file);
	env_add(e, "VM_DIR", vm->dir);
	env_add(e, "VM_PID", pid);
	env_taps(e, g);
	e->items[e->count] = NULL;
}

static void next_hook(struct hook_run *run);

static void hook_ended(void *ctx, const struct child_exit *how)
{
	struct hook_run *run = ctx;
	struct guest *g = run->guest;
	const char *file = run->files[run->at];
	bool ok = !how->known || (how->code == CLD_EXITED && how->status == 0);
	char text[64];

	run->child = NULL;
	finish_stream(&run->out);
	finish_stream(&run->errors);
	if (how->timed_out) {
		guest_fail(g, "hook %s ran longer than %llu ms and was killed", file,
			   (unsigned long long)guest_vm(g)->hooktimeout_ms);
		ok = false;
	} else if (!ok) {
		guest_fail(g, "hook %s %s", file, child_exit_text(how, text, sizeof(text)));
	}
	if (ok) {
		run->at++;
		next_hook(run);
		return;
	}
	run->at = run->count; /* the rest of a failed state is not run */
	g->hook_failed = true;
	next_hook(run);
}

/* The hook's own open file: with ours, which does not block, a long output would fail in it. */
static int blocking_copy(int fd)
{
	char path[32];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDWR | O_CLOEXEC);
}

static int start_one(struct hook_run *run, const char *file, struct err *err)
{
	AUTO_FD int out = blocking_copy(run->out.fd);
	AUTO_FD int errors = blocking_copy(run->errors.fd);
	struct guest *g = run->guest;
	const struct vm *vm = guest_vm(g);
	const char *argv[] = {file, NULL};
	struct environment env = {0};
	struct child_spec spec = {
		.argv = argv,
		.env = (const char *const *)env.items,
		.cwd = vm->dir && file_exists(vm->dir) ? vm->dir : "/",
		.in = -1,
		.out = out,
		.errfd = errors,
		.session = true,
		.timeout_ms = vm->hooktimeout_ms,
	};
	int r = hook_check(file, err);

	if (r < 0)
		return r;
	env_fill(&env, run);
	run->until_ms = clock_ms() + vm->hooktimeout_ms;
	r = child_start(g->sup->event, &spec, hook_ended, run, &run->child, err);
	for (size_t i = 0; i < env.count; i++)
		free(env.items[i]);
	if (r == 0)
		log_debug("vm=%s hook=%s pid=%d", g->uuid, file, (int)child_pid(run->child));
	return r;
}

/* All done, or one failed: tell the state table. The run is freed first: the step may start a new
 * one. */
static void finish(struct hook_run *run, bool failed)
{
	struct guest *g = run->guest;
	bool quiet = str_eq(run->hook, sup_states[SUP_FAILED].hook);

	hooks_free(g);
	(void)guest_dispatch(g, failed && !quiet ? EV_HOOK_FAILED : EV_HOOK_DONE, NULL);
}

static void next_hook(struct hook_run *run)
{
	struct guest *g = run->guest;
	struct err err = {0};

	if (run->at >= run->count) {
		finish(run, g->hook_failed && run->count > 0);
		return;
	}
	if (start_one(run, run->files[run->at], &err) < 0) {
		guest_fail(g, "%s", err.msg);
		g->hook_failed = true;
		finish(run, true);
		return;
	}
	guest_save(g); /* which hook runs, for who takes over */
}

static struct hook_run *run_new(struct guest *g, const char *hook, const char *event)
{
	struct hook_run *run = xcalloc(1, sizeof(*run));

	run->guest = g;
	run->hook = hook;
	run->out.fd = run->errors.fd = -1;
	(void)snprintf(run->event, sizeof(run->event), "%s", event);
	g->hooks = run;
	return run;
}

static int open_streams(struct hook_run *run, struct err *err)
{
	AUTO_FREE char *dir = path_of_run(&run->guest->sup->paths, run->guest->uuid, NULL);
	int r = dir_make(dir, 0711, err);

	if (r == 0)
		r = open_stream(run, &run->out, "hook.out", "out", err);
	if (r == 0)
		r = open_stream(run, &run->errors, "hook.err", "err", err);
	return r;
}

void hooks_run(struct guest *g, const char *hook, const char *event)
{
	struct hook_run *run;
	struct err err = {0};

	if (!hook || !guest_vm(g)) {
		(void)guest_dispatch(g, EV_HOOK_DONE, NULL);
		return;
	}
	run = run_new(g, hook, event);
	find_files(run);
	if (run->count == 0) {
		finish(run, false);
		return;
	}
	if (open_streams(run, &err) < 0) {
		guest_fail(g, "cannot run hook %s: %s", hook, err.msg);
		g->hook_failed = true;
		finish(run, true);
		return;
	}
	next_hook(run);
}

json_t *hooks_state(const struct guest *g)
{
	const struct hook_run *run = g->hooks;
	json_t *files;

	if (!run || !run->child)
		return NULL;
	files = json_array();
	for (size_t i = run->at; i < run->count; i++)
		(void)json_array_append_new(files, json_string(run->files[i]));
	return json_pack("{s:s, s:s, s:i, s:I, s:I, s:o}", "hook", run->hook, "event", run->event,
			 "pid", (int)child_pid(run->child), "start",
			 (json_int_t)child_start_time(run->child), "until_ms",
			 (json_int_t)run->until_ms, "files", files);
}

/*
 * Take up the hook that ran when we were killed. Still there: wait for its end. Already gone: it
 * was run, so it is not run again; how it ended is not known and counts as done.
 */
void hooks_adopt(struct guest *g, const json_t *state)
{
	struct hook_run *run =
		run_new(g, sup_states[g->state].hook, json_get_str(state, "event", ""));
	const json_t *files = json_object_get(state, "files"), *file;
	uint64_t now = clock_ms();
	struct err err = {0};
	size_t i;

	run->files = xcalloc(HOOKS_MAX, sizeof(*run->files));
	json_array_foreach (files, i, file) {
		if (run->count < HOOKS_MAX && json_is_string(file))
			run->files[run->count++] = xstrdup(json_string_value(file));
	}
	if (run->count == 0 || open_streams(run, &err) < 0) {
		finish(run, false);
		return;
	}
	if (child_adopt(g->sup->event, (pid_t)json_get_int(state, "pid", 0),
			(uint64_t)json_get_int(state, "start", 0), hook_ended, run, &run->child,
			&err) < 0) {
		finish_stream(&run->out);
		finish_stream(&run->errors);
		run->at++;
		next_hook(run);
		return;
	}
	run->until_ms = (uint64_t)json_get_int(state, "until_ms", 0);
	if (run->until_ms)
		(void)child_limit(g->sup->event, run->child,
				  run->until_ms > now ? run->until_ms - now : 0);
}
