/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hooks: the executable named after the state, then those in STATE.d in order, one at a time per
 * VM. Each runs exactly once, whenever we are killed: its ticket is in the state file before it
 * is started, and the record of that ticket (child.h) says whether it was claimed, runs, or how
 * it ended. Its own end is what counts, not that of what it left behind.
 * Source: design 5, vmstated(8) "Hook Scripts".
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
#include "base/problems.h"
#include "base/strbuf.h"
#include "vmstated/hardware.h"
#include "vmstated/parts.h"

#define HOOKS_MAX 64 /* files of one state */

struct hook_run {
	struct guest *guest;
	const char *hook; /* "start_network" */
	char event[24];
	char **files; /* full paths, in order */
	size_t count, at;
	struct child *child;
	uint64_t until_ms; /* clock_ms of its limit */
	bool unrecorded;   /* there was no space for its record */
};

/* Before QEMU is there: nothing is lost by not going on. */
static bool prepares(const struct guest *g)
{
	return g->state == SUP_START_NETWORK || g->state == SUP_START_STORAGE ||
	       g->state == SUP_PRESTART_AFTER_RESTART || g->state == SUP_START_AFTER_RESTART;
}

void hooks_free(struct guest *g)
{
	struct hook_run *run = g->hooks;

	if (!run)
		return;
	g->hooks = NULL;
	if (run->child)
		child_forget(run->child);
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

	if (!dir)
		return;
	if (!str_eq(run->hook, HOOKS_OF_RESET)) {
		add_state(run, dir, run->hook);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(reset_chain); i++)
		add_state(run, dir, sup_states[reset_chain[i]].hook);
}

static int hook_check(const char *path, struct err *err)
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

/* Whoever names a folder of hooks has some: without them no network would be made, say. */
static int folder_check(const struct vm *vm, struct err *err)
{
	DIR *d = vm->scriptpath ? opendir(vm->scriptpath) : NULL;

	if (vm->scriptpath && !d)
		return err_sys(err, errno, "scriptpath '%s'", vm->scriptpath);
	if (d)
		(void)closedir(d);
	return 0;
}

void hooks_check(const struct vm *vm, struct problems *p)
{
	const char *dir = vm->scriptpath ? vm->scriptpath : vm->dir;
	struct err err = {0};

	if (folder_check(vm, &err) < 0)
		problems_add(p, PROBLEM_BAD_VALUE, NULL, NULL, "%s", err.msg);
	for (int s = 0; dir && s < SUP_STATE_COUNT; s++) {
		char *files[HOOKS_MAX];
		struct hook_run run = {.files = files};

		if (sup_states[s].hook)
			add_state(&run, dir, sup_states[s].hook);
		for (size_t i = 0; i < run.count; i++) {
			if (hook_check(files[i], &err) < 0)
				problems_add(p, PROBLEM_BAD_VALUE, "scriptpath", NULL, "%s",
					     err.msg);
			free(files[i]);
		}
	}
}

struct environment {
	char *items[24];
	size_t count;
};

static void env_add(struct environment *e, const char *name, const char *value)
{
	e->items[e->count++] = xasprintf("%s=%s", name, value ? value : "");
}

/*
 * The taps of all NICs. Those the definition names are made by a start_network hook and removed by
 * stop_network; those of a bridge are ours, made after start_storage.
 */
static void env_taps(struct environment *e, const struct guest *g)
{
	AUTO_STRBUF struct strbuf sb = {0};

	for (size_t i = 0; i < VM_NICS_MAX; i++) {
		char tap[NIC_TAP_MAX];

		if (hardware_tap(g, i, tap))
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

static char *record_path(const struct guest *g)
{
	return path_of_run(&g->sup->paths, g->uuid, "hook.record");
}

/* The record knows better than the end of who kept it. */
static struct child_exit true_end(const struct hook_run *run, const struct child_exit *how)
{
	AUTO_FREE char *path = record_path(run->guest);
	struct child_exit end = {0};
	pid_t pid;

	if (child_record_look(path, run->guest->hook_ticket, &pid, &end) == RECORD_ENDED)
		return end;
	end = *how;
	if (!end.known) { /* it ended without a word: it was killed */
		end.known = true;
		end.code = CLD_KILLED;
		end.status = SIGKILL;
	}
	return end;
}

static void hook_ended(void *ctx, const struct child_exit *how)
{
	struct hook_run *run = ctx;
	struct guest *g = run->guest;
	const char *file = run->files[run->at];
	struct child_exit end = true_end(run, how);
	char text[64];

	run->child = NULL;
	hookout_end(g);
	run->at++;
	if (end.code != CLD_EXITED || end.status != 0) {
		if (end.timed_out)
			guest_fail(g, "hook %s ran longer than %llu ms and was killed", file,
				   (unsigned long long)guest_vm(g)->hooktimeout_ms);
		else
			guest_fail(g, "hook %s %s", file,
				   child_exit_text(&end, text, sizeof(text)));
		run->at = run->count; /* the rest of a failed state is not run */
		g->hook_failed = true;
	}
	next_hook(run);
}

/*
 * again: our predecessor made the record, and may have forked somebody who is to claim it.
 * Without space for a record a start is refused: were we killed, nobody could tell whether the
 * hook had run. What cleans up runs all the same, and counts as done for whoever takes it up.
 */
static int open_record(struct hook_run *run, bool again, int *ret_fd, struct err *err)
{
	struct guest *g = run->guest;
	AUTO_FREE char *path = record_path(g);
	struct err why = {0};
	int r;

	if (again) {
		*ret_fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
		return *ret_fd < 0 ? err_sys(err, errno, "cannot open '%s'", path) : 0;
	}
	r = child_record_new(path, g->hook_ticket, ret_fd, &why);
	if (r == 0)
		return 0;
	if (prepares(g))
		return err_set(err, -r, "hook '%s' not run: %s", run->files[run->at], why.msg);
	log_error("vm=%s hook without a record: %s", g->uuid, why.msg);
	run->unrecorded = true;
	guest_save(g);
	return 0;
}

static int start_one(struct hook_run *run, const char *file, bool again, struct err *err)
{
	AUTO_FD int out = -1, errors = -1, record = -1;
	struct guest *g = run->guest;
	const struct vm *vm = guest_vm(g);
	const char *argv[] = {file, NULL};
	struct environment env = {0};
	struct child_spec spec = {
		.argv = argv,
		.env = (const char *const *)env.items,
		.cwd = vm->dir && file_exists(vm->dir) ? vm->dir : "/",
		.in = -1,
		.session = true,
		.timeout_ms = vm->hooktimeout_ms,
	};
	int r = hook_check(file, err);

	if (r < 0)
		return r;
	if (!again) {
		run->until_ms = clock_ms() + vm->hooktimeout_ms;
		g->hook_ticket++;
		guest_save(g);
	}
	run->unrecorded = false;
	r = open_record(run, again, &record, err);
	if (r < 0)
		return r;
	hookout_begin(g, base_name(file), &out, &errors);
	spec.out = out;
	spec.errfd = errors;
	spec.record = record > 0 ? record : 0;
	env_fill(&env, run);
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
	hookout_rest(g);
	g->hooks_due = NULL;
	(void)guest_dispatch(g, failed && !quiet ? EV_HOOK_FAILED : EV_HOOK_DONE, NULL);
}

static void cannot_run(struct hook_run *run, const struct err *err)
{
	guest_fail(run->guest, "%s", err->msg);
	run->guest->hook_failed = true;
	finish(run, true);
}

static void next_hook(struct hook_run *run)
{
	struct guest *g = run->guest;
	struct err err = {0};

	if (run->at >= run->count)
		finish(run, g->hook_failed && run->count > 0);
	else if (start_one(run, run->files[run->at], false, &err) < 0)
		cannot_run(run, &err);
}

static struct hook_run *run_new(struct guest *g, const char *hook, const char *event)
{
	struct hook_run *run = xcalloc(1, sizeof(*run));

	run->guest = g;
	run->hook = hook;
	run->files = xcalloc(HOOKS_MAX, sizeof(*run->files));
	(void)snprintf(run->event, sizeof(run->event), "%s", event);
	g->hooks = run;
	return run;
}

/* Go on with the first hook, if there is any. */
static void begin(struct hook_run *run)
{
	struct err err = {0};

	if (prepares(run->guest) && folder_check(guest_vm(run->guest), &err) < 0)
		cannot_run(run, &err);
	else if (run->count == 0)
		finish(run, false);
	else if (hookout_open(run->guest, &err) < 0)
		cannot_run(run, &err);
	else
		next_hook(run);
}

void hooks_run(struct guest *g, const char *hook, const char *event)
{
	struct hook_run *run;

	if (!hook || !guest_vm(g)) {
		g->hooks_due = NULL;
		(void)guest_dispatch(g, EV_HOOK_DONE, NULL);
		return;
	}
	run = run_new(g, hook, event);
	find_files(run);
	begin(run);
}

json_t *hooks_state(const struct guest *g)
{
	const struct hook_run *run = g->hooks;
	json_t *files;

	if (!run || run->at >= run->count)
		return NULL;
	files = json_array();
	for (size_t i = run->at; i < run->count; i++)
		(void)json_array_append_new(files, json_string(run->files[i]));
	return json_pack("{s:s, s:s, s:b, s:I, s:o}", "hook", run->hook, "event", run->event,
			 "unrecorded", run->unrecorded, "until_ms", (json_int_t)run->until_ms,
			 "files", files);
}

/* --- taking up --- */

void hooks_take_up(struct guest *g, const json_t *state)
{
	const json_t *files = json_object_get(state, "files"), *file;
	struct hook_run *run;
	size_t i;

	if (!g->hooks_due || !guest_vm(g))
		return;
	run = run_new(g, g->hooks_due, json_get_str(state, "event", g->event));
	run->until_ms = (uint64_t)json_get_int(state, "until_ms", 0);
	run->unrecorded = json_get_bool(state, "unrecorded", false);
	json_array_foreach (files, i, file) {
		if (run->count < HOOKS_MAX && json_is_string(file))
			run->files[run->count++] = xstrdup(json_string_value(file));
	}
	if (!state) /* not one was started */
		find_files(run);
}

static enum child_record_state look(const struct hook_run *run, pid_t *ret_pid,
				    struct child_exit *ret_how)
{
	AUTO_FREE char *path = record_path(run->guest);

	return child_record_look(path, run->guest->hook_ticket, ret_pid, ret_how);
}

/* Wait for the process that keeps the record; false when it is not there any more. */
static bool wait_for(struct hook_run *run, pid_t pid)
{
	struct guest *g = run->guest;
	uint64_t now = clock_ms();
	struct child_exit how;
	pid_t again = 0;

	if (child_adopt(g->sup->event, pid, 0, hook_ended, run, &run->child, NULL) < 0)
		return false;
	/* Still the holder: so this is no other process of the same number. */
	if (look(run, &again, &how) != RECORD_RUNS || again != pid) {
		child_forget(run->child);
		run->child = NULL;
		return false;
	}
	(void)child_limit(g->sup->event, run->child, run->until_ms > now ? run->until_ms - now : 0);
	return true;
}

static void never_started(struct hook_run *run)
{
	struct err err = {0};
	int r = start_one(run, run->files[run->at], true, &err);

	/* Whom our predecessor had forked came first. */
	if (r == -EALREADY)
		hooks_resume(run->guest);
	else if (r < 0)
		cannot_run(run, &err);
}

void hooks_resume(struct guest *g)
{
	struct hook_run *run = g->hooks;
	struct child_exit how = {.known = true, .code = CLD_EXITED};
	struct err err = {0};
	pid_t pid = 0;

	if (!run)
		return;
	if (run->count == 0 || run->until_ms == 0) {
		begin(run);
		return;
	}
	if (hookout_open(g, &err) < 0)
		log_warn("vm=%s %s", g->uuid, err.msg);
	switch (run->unrecorded ? RECORD_ENDED : look(run, &pid, &how)) {
	case RECORD_NONE:
		next_hook(run);
		return;
	case RECORD_OPEN:
		never_started(run);
		return;
	case RECORD_RUNS:
		if (!wait_for(run, pid))
			hooks_resume(g);
		return;
	case RECORD_LOST:
		how = (struct child_exit){.timed_out = run->until_ms <= clock_ms()};
		break;
	case RECORD_ENDED:
		break;
	}
	hook_ended(run, &how);
}
