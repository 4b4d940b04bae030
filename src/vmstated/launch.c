/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start QEMU: what it inherits is ready before it exists (inherit.c), then the process, then its
 * first answer.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "qemu/qmp.h"
#include "store/write.h"
#include "vmstated/cgroup.h"
#include "vmstated/hardware.h"
#include "vmstated/neigh.h"
#include "vmstated/net.h"
#include "vmstated/parts.h"

#define LAUNCH_MS 60000u /* until QEMU's first answer; a host under load starts many at once */

/* QEMU removes its own when it ends in order and may; not after a kill. */
void guest_remove_sockets(struct guest *g)
{
	static const char *const names[] = {"vm.mon",   "vm.qmp", "vm.ttya",  "vm.ttyb",
					    "vm.agent", "vm.vnc", "events.in"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		AUTO_FREE char *path = path_of_run(&g->sup->paths, g->uuid, names[i]);

		(void)unlink(path);
	}
}

void launch_failed(struct guest *g, const struct err *err)
{
	g->hold = HOLD_NOT;
	g->end = (struct last_exit){
		.set = true, .cause = END_START_ERROR, .wall_ms = clock_wall_ms()};
	(void)snprintf(g->end.detail, sizeof(g->end.detail), "%.199s", err->msg);
	log_warn("vm=%s not started: %s", g->uuid, err->msg);
	guestlog_printf(g, "vmstated", "not started: %s", err->msg);
	guest_save_exit(g);
	guest_launch_cleanup(g);
	guest_remove_sockets(g);
	net_release(g);
	cgroup_release(g);
	(void)guest_dispatch(g, EV_EXIT, NULL);
}

void guest_launch_cleanup(struct guest *g)
{
	if (g->recorder_fd >= 0)
		(void)close(g->recorder_fd);
	g->recorder_fd = -1;
}

/* --- the process --- */

static void qemu_ended(void *ctx, const struct child_exit *how)
{
	struct guest *g = ctx;

	g->qemu = NULL;
	guest_ended(g, how);
}

int guest_watch_qemu(struct guest *g, pid_t pid, uint64_t start, struct err *err)
{
	int r = child_adopt(g->sup->event, pid, start, qemu_ended, g, &g->qemu, err);

	if (r < 0)
		return r;
	g->pid = pid;
	g->pid_start = start;
	return 0;
}

static int not_answering(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct guest *g = userdata;
	AUTO_FREE char *why = NULL;

	if (g->launched || !g->qemu)
		return 0;
	why = xasprintf("QEMU did not answer within %u s", LAUNCH_MS / 1000);
	guestlog_printf(g, "vmstated", "%s; killed", why);
	stop_put_down(g, END_START_ERROR, why);
	return 0;
}

/* The definition as started and the command, for people and for who takes over. */
static int write_started(struct guest *g, const struct argv *argv, struct err *err)
{
	AUTO_FREE char *path = path_of_run(&g->sup->paths, g->uuid, "started.json");
	AUTO_FREE char *text = once_definition(g->started);
	json_t *args = json_array();
	AUTO_JSON json_t *doc = json_pack("{s:o, s:s, s:o*}", "argv", args, "definition", text,
					  "qemu", accel_installed(g->sup));

	for (size_t i = 0; i < argv->count; i++)
		(void)json_array_append_new(args, json_string(argv->items[i]));
	json_put_str(doc, "file", g->started->file);
	json_put_str(doc, "dir", g->started->dir);
	if (g->once)
		(void)json_object_set(doc, "once", g->once);
	json_put_int(doc, "owner_uid", g->started->owner_uid);
	json_put_int(doc, "group_gid", g->started->group_gid);
	return state_write(path, 1, doc, FILE_NO_SYNC, err);
}

static int spawn(struct guest *g, const struct argv *argv, const struct inherited *inherited,
		 struct err *err)
{
	AUTO_FREE char *dir = path_of_run(&g->sup->paths, g->uuid, NULL);
	AUTO_FD int log = guestlog_open(g, err);
	int keep[INHERITED_MAX];
	AUTO_FREE char *procs = NULL;
	cpu_set_t cpus;
	struct child_spec spec = {
		.argv = (const char *const *)argv->items,
		.cwd = dir,
		.in = -1,
		.out = log,
		.errfd = log,
		.keep = keep,
		.nkeep = inherited_list(inherited, keep),
		.lock = inherited->fds.lock,
		.session = true,
		.no_new_privs = true,
	};
	int r;

	if (log < 0)
		return log;
	owner_apply(g, &spec);
	r = cgroup_prepare(g, &procs, err);
	if (r == 0 && g->started->cpu_affinity) {
		r = cgroup_cpus(g->started, &cpus, err);
		spec.cpus = &cpus;
	}
	spec.cgroup_procs = procs;
	spec.memlock = (rlim_t)g->started->max_locked_memory_mib << 20;
	if (r < 0)
		return r;
	r = child_start(g->sup->event, &spec, qemu_ended, g, &g->qemu, err);
	if (r < 0)
		return r;
	g->pid = child_pid(g->qemu);
	g->pid_start = child_start_time(g->qemu);
	return 0;
}

static int start_process(struct guest *g, struct err *err)
{
	struct inherited inherited;
	struct argv argv = {0};
	int r = inherited_prepare(g, &inherited, err);

	if (r == 0)
		r = owner_prepare(g, str_eq(g->accel, "kvm"), err);
	if (r == 0)
		r = hardware_argv(g, &inherited.fds, &argv, err);
	if (r == 0 && g->hold == HOLD_INCOMING) {
		argv_add(&argv, "-incoming");
		argv_add(&argv, "defer");
	}
	if (r == 0)
		r = write_started(g, &argv, err);
	g->log_mark = guestlog_size(g);
	if (r == 0)
		r = spawn(g, &argv, &inherited, err);
	argv_done(&argv);
	inherited_done(&inherited);
	return r;
}

void launch_watch(struct guest *g)
{
	(void)timer_set(g->sup->event, &g->launch_timer, LAUNCH_MS, not_answering, g);
}

static bool uses_kvm(const struct guest *g)
{
	return g->started->accel == ACCEL_KVM ||
	       (g->started->accel == ACCEL_AUTO && g->sup->caps.kvm);
}

void launch_process(struct guest *g)
{
	net_prepare(g);
}

void launch_ready(struct guest *g)
{
	struct err err = {0};

	if (g->target != TARGET_NONE) { /* a stop came while disks or taps were made */
		net_release(g);
		(void)guest_dispatch(g, EV_EXIT, NULL);
		return;
	}
	(void)snprintf(g->accel, sizeof(g->accel), "%s", uses_kvm(g) ? "kvm" : "tcg");
	g->reboot_is_shutdown = g->put_down = false;
	g->oom_kills = host_oom_kills();
	if (start_process(g, &err) < 0) {
		launch_failed(g, &err);
		return;
	}
	guest_mark_running(g, true);
	guest_save(g);
	guest_publish(g);
	if (monitor_open(g, &err) < 0 || console_open(g, true, &err) < 0)
		log_warn("vm=%s %s", g->uuid, err.msg);
	launch_watch(g);
	neigh_refresh(g->sup);
}

static void launch_known(void *ctx)
{
	struct guest *g = ctx;
	struct err err = {0};
	int r = 0;

	if (!g->sup->caps_known)
		r = err_set(&err, ENOENT, "%s", g->sup->caps_error);
	else if (g->hold != HOLD_INCOMING)
		r = guest_kept_away(g, &err);
	if (r == 0)
		r = hardware_check_host(g, &err);
	if (r < 0)
		launch_failed(g, &err);
	else if (g->bhyve)
		launch_process(g);
	else
		disks_prepare(g);
}

void guest_launch(struct guest *g)
{
	accel_when_known(g->sup, launch_known, g);
}
