/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a QEMU and what follows: why it ended, the record of it, the restart budget, and the
 * decision between staying stopped, starting again and failure mode.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "qemu/qmp.h"
#include "qemu/recorder.h"
#include "store/catalog.h"
#include "vmstated/cgroup.h"
#include "vmstated/hardware.h"
#include "vmstated/neigh.h"
#include "vmstated/net.h"
#include "vmstated/parts.h"

#define EARLY_RESET_MS 10000u /* a reset sooner than this after the last counts in the budget */

/* What a SHUTDOWN reason means when nobody of ours asked. Source: vmstated facts, section 7. */
static const struct {
	const char *reason;
	enum end_cause cause;
} reasons[] = {
	{"guest-shutdown", END_GUEST}, {"guest-reset", END_GUEST},
	{"guest-panic", END_PANIC},    {"host-qmp-quit", END_OUTSIDE},
	{"host-signal", END_OUTSIDE},  {"host-qmp-system-reset", END_OUTSIDE},
	{"host-error", END_CRASH},
};

static enum end_cause cause_of_reason(const char *reason)
{
	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++) {
		if (str_eq(reasons[i].reason, reason))
			return reasons[i].cause;
	}
	return END_UNKNOWN;
}

/* A QEMU that never answered: what it said on stderr is the reason. */
static void start_error(struct guest *g, const char *how)
{
	AUTO_FREE char *said = guestlog_tail(g, g->log_mark);

	g->end.cause = END_START_ERROR;
	(void)snprintf(g->end.detail, sizeof(g->end.detail), "%.199s", said && *said ? said : how);
}

static void judge_recorded(struct guest *g, const struct recorder_end *rec, const char *how)
{
	enum end_cause cause = cause_of_reason(rec->reason);

	if (rec->panicked)
		cause = END_PANIC;
	if (g->target != TARGET_NONE && cause == END_OUTSIDE)
		cause = g->forced && !g->asked ? END_ADMIN
			: g->forced            ? END_TIMEOUT_FORCED
					       : END_ADMIN;
	else if (g->target != TARGET_NONE && cause == END_GUEST)
		cause = END_ADMIN;
	if (g->target == TARGET_FAILED && g->hook_failed)
		cause = END_HOOK;
	if (g->for_shutdown && cause == END_ADMIN)
		cause = END_HOST_SHUTDOWN;
	g->end.cause = cause;
	(void)snprintf(g->end.detail, sizeof(g->end.detail), "%s, %s", rec->reason, how);
}

static void judge_silent(struct guest *g, const struct child_exit *how, const char *text)
{
	bool killed = how->known && how->code != CLD_EXITED;

	if (g->target == TARGET_FAILED && g->hook_failed)
		g->end.cause = END_HOOK;
	else if (g->forced && killed && how->status == SIGKILL)
		g->end.cause = g->asked ? END_TIMEOUT_FORCED : END_ADMIN;
	else if (killed && how->status == SIGKILL)
		g->end.cause = oom_killed(g) ? END_OUT_OF_MEMORY : END_OUTSIDE;
	else
		g->end.cause = how->known ? END_CRASH : END_UNKNOWN;
	(void)snprintf(g->end.detail, sizeof(g->end.detail), "%s without a word", text);
}

static void judge_put_down(struct guest *g, const char *how)
{
	g->put_down = false;
	g->forced = false;
	g->force_step = 0;
	g->end.cause = g->put_down_as;
	(void)snprintf(g->end.detail, sizeof(g->end.detail), "%s; %s", g->put_down_why, how);
}

static void judge(struct guest *g, const struct child_exit *how)
{
	AUTO_FREE char *dir = path_of_run(&g->sup->paths, g->uuid, NULL);
	struct recorder_end rec = {0};
	char text[64];

	(void)child_exit_text(how, text, sizeof(text));
	(void)recorder_read(dir, &rec, NULL);
	g->end = (struct last_exit){.set = true, .wall_ms = clock_wall_ms()};
	if (how->known) {
		g->end.has_status = true;
		g->end.signal = how->code == CLD_EXITED ? 0 : how->status;
		g->end.status = how->code == CLD_EXITED ? how->status : 128 + how->status;
	}
	if (g->put_down)
		judge_put_down(g, text);
	else if (rec.shutdown)
		judge_recorded(g, &rec, text);
	else if (!g->launched && !(g->target != TARGET_NONE && g->forced))
		start_error(g, text);
	else
		judge_silent(g, how, text);
	/* A guest reset that ends QEMU was asked for: the reboot action had been switched. */
	g->restarting = rec.shutdown && str_eq(rec.reason, "guest-reset") &&
			g->target == TARGET_NONE && g->launched;
}

static void qemu_gone(struct guest *g)
{
	monitor_close(g);
	console_close(g);
	guest_launch_cleanup(g);
	guest_remove_sockets(g);
	net_release(g);
	neigh_forget(g);
	cgroup_release(g);
	timer_stop(g->launch_timer);
	timer_stop(g->monitor_timer);
	timer_stop(g->ready_timer);
	timer_stop(g->stop_timer);
	timer_stop(g->again_timer);
	g->qemu = NULL;
	g->pid = 0;
	g->pid_start = 0;
	g->launched = g->apart = false;
	g->ready = false;
	g->run_state[0] = '\0';
	g->qmp_silent_since = g->busy_until_ms = 0;
	g->hold = HOLD_NOT;
}

void guest_ended(struct guest *g, const struct child_exit *how)
{
	/* The socket may hold the last events; the recorder's file has them in any case. */
	if (g->mon)
		qmp_drain(g->mon);
	judge(g, how);
	qemu_gone(g);
	guest_mark_running(g, false);
	guest_save_exit(g);
	log_info("vm=%s ended cause=%s detail=\"%s\"", g->uuid, end_cause_names[g->end.cause],
		 g->end.detail);
	guestlog_printf(g, "vmstated", "ended: %s (%s)", end_cause_names[g->end.cause],
			g->end.detail);
	if (g->restarting && !budget_spend(g))
		guest_fail(g, "rebooted more than %u times within %u s", g->started->maxrestart,
			   (unsigned)(g->started->maxrestarttime_ms / 1000));
	if (g->failed)
		g->restarting = false;
	(void)guest_dispatch(g, EV_EXIT, NULL);
}

/* --- budget: a sliding window over automatic restarts --- */

static unsigned spent_in_window(const struct guest *g, uint64_t now)
{
	const struct vm *vm = guest_vm(g);
	unsigned n = 0;

	for (unsigned i = 0; i < g->nspent; i++)
		n += vm && g->spent[i] + vm->maxrestarttime_ms >= now;
	return n;
}

bool budget_spend(struct guest *g)
{
	const struct vm *vm = guest_vm(g);
	uint64_t now = clock_ms();
	unsigned keep = 0;

	/* A late reboot of a running guest is its own affair and costs nothing. */
	if (g->restarting && g->boot_ms && now - g->boot_ms > EARLY_RESET_MS)
		return true;
	for (unsigned i = 0; i < g->nspent; i++) {
		if (vm && g->spent[i] + vm->maxrestarttime_ms >= now)
			g->spent[keep++] = g->spent[i];
	}
	g->nspent = keep;
	if (!vm || g->nspent >= vm->maxrestart || g->nspent >= BUDGET_MAX)
		return false;
	g->spent[g->nspent++] = now;
	return true;
}

uint64_t budget_delay_ms(const struct guest *g)
{
	const struct vm *vm = guest_vm(g);
	unsigned n = spent_in_window(g, clock_ms());
	uint64_t delay = 1000ull << (n < 16 ? n : 16);
	uint64_t most = vm ? vm->maxrestarttime_ms / (vm->maxrestart + 2) : 0;

	return delay < most ? delay : most;
}

/* --- after the walk --- */

static int start_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct guest *g = userdata;
	struct err err = {0};

	g->restart_at_ms = 0;
	if (guest_start(g, NULL, "restart policy", &err) < 0) {
		guest_fail(g, "cannot be restarted: %s", err.msg);
		guest_enter(g, SUP_FAILED, "failure");
	}
	return 0;
}

void restart_resume(struct guest *g)
{
	uint64_t now = clock_ms();

	if (g->restart_at_ms == 0 || g->state != SUP_STOPPED)
		return;
	(void)timer_set(g->sup->event, &g->restart_timer,
			g->restart_at_ms > now ? g->restart_at_ms - now : 0, start_again, g);
}

static bool wants_restart(const struct guest *g)
{
	const struct vm *vm = guest_vm(g);
	enum end_cause c = g->end.cause;

	if (!vm || g->target != TARGET_NONE || g->hook_failed || !g->end.set)
		return false;
	return vm->onfailure == ON_FAILURE_RESTART &&
	       (c == END_CRASH || c == END_PANIC || c == END_OUT_OF_MEMORY || c == END_START_ERROR);
}

static void restart_or_fail(struct guest *g)
{
	const struct vm *vm = guest_vm(g);
	uint64_t delay = budget_delay_ms(g);

	if (!budget_spend(g)) {
		guest_fail(g, "%s; restarted %u times within %u s", g->end.detail, vm->maxrestart,
			   (unsigned)(vm->maxrestarttime_ms / 1000));
		guest_enter(g, SUP_FAILED, "failure");
		return;
	}
	g->restarts++;
	g->settled = true;
	log_info("vm=%s restart in_ms=%llu", g->uuid, (unsigned long long)delay);
	g->restart_at_ms = clock_ms() + delay;
	restart_resume(g);
	guest_save(g);
	guest_publish(g);
	if (g->end.cause == END_START_ERROR)
		waiters_fail(g, -EIO, "Unable to start VM %s: %s", g->uuid, g->end.detail);
}

static void stay(struct guest *g)
{
	const struct vm *vm = guest_vm(g);
	bool broken = vm && vm->onfailure == ON_FAILURE_FAIL && g->target == TARGET_NONE &&
		      (g->end.cause == END_CRASH || g->end.cause == END_START_ERROR ||
		       g->end.cause == END_PANIC);

	if (broken) {
		guest_fail(g, "%s", g->end.detail);
		guest_enter(g, SUP_FAILED, "failure");
		return;
	}
	g->settled = true;
	stop_done(g);
	hardware_free(g);
	vm_free(g->started);
	g->started = NULL;
	guest_save(g);
	guest_publish(g);
	waiters_check(g);
	if (!g->def)
		guest_drop(g);
}

void guest_settle(struct guest *g)
{
	struct err err = {0};

	if (g->failed || g->target == TARGET_FAILED) {
		if (!g->failed)
			guest_fail(g, "a hook failed");
		stop_done(g);
		guest_enter(g, SUP_FAILED, "failure");
		return;
	}
	if (g->target == TARGET_START && !g->sup->closing) {
		stop_done(g);
		g->settled = true;
		if (guest_start(g, NULL, "reboot", &err) < 0) {
			waiters_fail(g, -EIO, "%s", err.msg);
			stay(g);
		}
		return;
	}
	if (wants_restart(g))
		restart_or_fail(g);
	else
		stay(g);
}
