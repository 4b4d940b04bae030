/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state table. A state is entered, written down and published, then its hooks run; their end
 * is the event that leads on. Every pair that is not in the table is refused with a reason.
 * Source: vmstated(8) states and hooks, design 5.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "store/catalog.h"
#include "vmstated/hardware.h"
#include "vmstated/net.h"
#include "vmstated/parts.h"

typedef void (*step_fn)(struct guest *g);

bool guest_is_up(const struct guest *g)
{
	return g->pid > 0 && g->launched;
}

void guest_fail(struct guest *g, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	log_warn("vm=%s failing reason=\"%s\"", g->uuid, text);
	guestlog_printf(g, "vmstated", "failing: %s", text);
	if (g->failed)
		free(text); /* the first reason is the one to mend */
	else
		g->failed = text;
}

void guest_enter(struct guest *g, enum sup_state state, const char *event)
{
	g->state = state;
	g->settled = false;
	g->hooks_due = sup_states[state].hook;
	(void)snprintf(g->event, sizeof(g->event), "%s", event);
	log_info("vm=%s state=%s name=%s", g->uuid, sup_states[state].label, g->name);
	guest_save(g);
	if (state == SUP_FAILED || state == SUP_INIT)
		guest_save_failed(g);
	guest_publish(g);
	hooks_run(g, sup_states[state].hook, event);
}

/* --- steps --- */

static void to_start_network(struct guest *g)
{
	guest_enter(g, SUP_START_NETWORK, "start");
}

static void to_start_storage(struct guest *g)
{
	if (g->target != TARGET_NONE) /* a stop came while the hook ran */
		guest_enter(g, SUP_STOP_NETWORK, "stop");
	else
		guest_enter(g, SUP_START_STORAGE, "start");
}

static void launch(struct guest *g)
{
	if (g->target != TARGET_NONE)
		guest_enter(g, SUP_STOP_STORAGE, "stop");
	else
		guest_launch(g);
}

/* Undo the network part, also when only half of it was done. */
static void network_failed(struct guest *g)
{
	guest_enter(g, SUP_STOP_NETWORK, "failure");
}

static void storage_failed(struct guest *g)
{
	guest_enter(g, SUP_STOP_STORAGE, "failure");
}

static void now_running(struct guest *g)
{
	g->boot_ms = clock_ms();
	g->boot_wall_ms = clock_wall_ms();
	g->last_reset_ms = 0;
	g->first_resets = 0;
	if (g->target != TARGET_NONE) { /* a stop came first: it never ran, nothing is lost */
		stop_at_once(g);
		return;
	}
	monitor_let_go(g);
	if (g->restarting)
		guest_enter(g, SUP_RESTARTED, "restart");
	else
		guest_enter(g, SUP_RUNNING, "start");
}

static void to_stopping(struct guest *g);
static void ended(struct guest *g);

/* A stop or an end that came while the hook ran waited for it: one hook at a time. */
static bool put_off(struct guest *g)
{
	if (g->pid <= 0)
		ended(g);
	else if (g->target != TARGET_NONE)
		to_stopping(g);
	else
		return false;
	return true;
}

static void restarted(struct guest *g)
{
	if (put_off(g))
		return;
	g->restarting = false;
	guest_enter(g, SUP_RUNNING, "restart");
}

static void running_settled(struct guest *g)
{
	if (put_off(g))
		return;
	g->settled = true;
	guest_save(g);
	waiters_check(g);
}

/* The `running` hook failed: a guest nobody prepared for must not go on; it gets its time. */
static void running_hook_failed(struct guest *g)
{
	(void)guest_stop(g, TARGET_FAILED, guest_vm(g)->stoptimeout_ms, false, "hook", NULL);
	if (g->state == SUP_RUNNING || g->state == SUP_RESTARTED) /* a stop was under way */
		to_stopping(g);
}

static void to_stopping(struct guest *g)
{
	if (g->hooks)
		return; /* their end leads on */
	guest_enter(g, SUP_STOPPING, "stop");
}

/* QEMU ended by itself: the same walk, or the restart chain when it is to come back at once. */
static void ended(struct guest *g)
{
	if (g->hooks) { /* their end leads on */
		guest_save(g);
		guest_publish(g);
		return;
	}
	if (g->restarting)
		guest_enter(g, SUP_PRESTOP_BEFORE_RESTART, "reboot");
	else
		guest_enter(g, SUP_STOPPING, "exit");
}

/* The hooks of STOPPING are through: ask the guest, or go on when it is gone. */
static void ask_or_go_on(struct guest *g)
{
	if (g->pid > 0)
		stop_ask(g);
	else
		guest_enter(g, SUP_STOP_STORAGE, "stop");
}

static void stopping_exit(struct guest *g)
{
	if (!g->hooks)
		guest_enter(g, SUP_STOP_STORAGE, "stop");
}

static void to_stop_storage(struct guest *g)
{
	guest_enter(g, SUP_STOP_STORAGE, "failure");
}

static void to_stop_network(struct guest *g)
{
	guest_enter(g, SUP_STOP_NETWORK, "stop");
}

static void to_stopped(struct guest *g)
{
	if (net_wait(g)) /* stopped means that nothing of it is left */
		return;
	guest_enter(g, SUP_STOPPED, "stop");
}

static void to_restarting(struct guest *g)
{
	guest_enter(g, SUP_RESTARTING, "reboot");
}

static void to_restart_stopped(struct guest *g)
{
	guest_enter(g, SUP_RESTART_STOPPED, "reboot");
}

static void to_prestart(struct guest *g)
{
	if (g->target != TARGET_NONE)
		guest_enter(g, SUP_STOP_STORAGE, "stop");
	else
		guest_enter(g, SUP_PRESTART_AFTER_RESTART, "reboot");
}

/* A reboot by a new process is where what was pending applies; what cannot be had changes nothing.
 */
static void to_start_after_restart(struct guest *g)
{
	struct err err = {0};
	int r = g->def && !g->def->error ? guest_take_definition(g, NULL, &err) : 0;

	if (r == 0)
		r = hardware_load(g, &err);
	if (r < 0)
		log_warn("vm=%s restarted: %s", g->uuid, err.msg);
	guest_enter(g, SUP_START_AFTER_RESTART, "reboot");
}

static void failed_settled(struct guest *g)
{
	g->settled = true;
	guest_save(g);
	waiters_check(g);
}

static void to_init(struct guest *g)
{
	g->nspent = 0;
	replace_str(&g->failed, NULL);
	guest_enter(g, SUP_INIT, "failreset");
}

static void init_settled(struct guest *g)
{
	g->settled = true;
	guest_save(g);
	waiters_check(g);
}

static void noted(struct guest *g)
{
	(void)g; /* the walk under way looks at g->target at its next step */
}

/* clang-format off */
static const step_fn steps[SUP_STATE_COUNT][GUEST_EVENT_COUNT] = {
	[SUP_INIT] = { [EV_START] = to_start_network, [EV_HOOK_DONE] = init_settled },
	[SUP_START_NETWORK] = {
		[EV_STOP] = noted, [EV_HOOK_DONE] = to_start_storage, [EV_HOOK_FAILED] = network_failed },
	[SUP_START_STORAGE] = {
		[EV_STOP] = noted, [EV_HOOK_DONE] = launch, [EV_HOOK_FAILED] = storage_failed,
		[EV_LAUNCHED] = now_running, [EV_EXIT] = to_stop_storage },
	[SUP_RUNNING] = {
		[EV_STOP] = to_stopping, [EV_HOOK_DONE] = running_settled,
		[EV_HOOK_FAILED] = running_hook_failed, [EV_EXIT] = ended },
	[SUP_STOPPING] = {
		[EV_STOP] = noted, [EV_HOOK_DONE] = ask_or_go_on, [EV_HOOK_FAILED] = ask_or_go_on,
		[EV_EXIT] = stopping_exit },
	[SUP_STOP_STORAGE] = {
		[EV_STOP] = noted, [EV_HOOK_DONE] = to_stop_network, [EV_HOOK_FAILED] = to_stop_network },
	[SUP_STOP_NETWORK] = {
		[EV_STOP] = noted, [EV_HOOK_DONE] = to_stopped, [EV_HOOK_FAILED] = to_stopped },
	[SUP_STOPPED] = {
		[EV_START] = to_start_network, [EV_STOP] = noted,
		[EV_HOOK_DONE] = guest_settle, [EV_HOOK_FAILED] = guest_settle },
	[SUP_FAILED] = {
		[EV_FAILRESET] = to_init,
		[EV_HOOK_DONE] = failed_settled, [EV_HOOK_FAILED] = failed_settled },
	[SUP_PRESTOP_BEFORE_RESTART] = {
		[EV_STOP] = noted, [EV_HOOK_DONE] = to_restarting, [EV_HOOK_FAILED] = to_stop_storage },
	[SUP_RESTARTING] = {
		[EV_STOP] = noted, [EV_HOOK_DONE] = to_restart_stopped, [EV_HOOK_FAILED] = to_stop_storage },
	[SUP_RESTART_STOPPED] = {
		[EV_STOP] = noted, [EV_HOOK_DONE] = to_prestart, [EV_HOOK_FAILED] = to_stop_storage },
	[SUP_PRESTART_AFTER_RESTART] = {
		[EV_STOP] = noted, [EV_HOOK_DONE] = to_start_after_restart,
		[EV_HOOK_FAILED] = to_stop_storage },
	[SUP_START_AFTER_RESTART] = {
		[EV_STOP] = noted, [EV_HOOK_DONE] = launch, [EV_HOOK_FAILED] = to_stop_storage,
		[EV_LAUNCHED] = now_running, [EV_EXIT] = to_stop_storage },
	[SUP_RESTARTED] = {
		[EV_STOP] = to_stopping, [EV_HOOK_DONE] = restarted,
		[EV_HOOK_FAILED] = running_hook_failed, [EV_EXIT] = ended },
};
/* clang-format on */

int guest_dispatch(struct guest *g, enum guest_event ev, struct err *err)
{
	step_fn step = steps[g->state][ev];

	if (!step)
		return err_set(err, EBUSY, "not possible in state %s", sup_states[g->state].label);
	step(g);
	return 0;
}

static int start_refused(const struct guest *g, struct err *err)
{
	if (g->state == SUP_FAILED)
		return err_set(err, EBUSY,
			       "VM %s is in failure mode (%s); reset it first: vmstatedctl "
			       "failreset %s",
			       g->name, g->failed ? g->failed : "no reason recorded", g->name);
	if (g->state == SUP_RUNNING || g->state == SUP_RESTARTED)
		return err_set(err, EALREADY, "VM %s is already 'running'", g->uuid);
	if ((g->state != SUP_INIT && g->state != SUP_STOPPED) || !g->settled)
		return err_set(err, EBUSY,
			       "Cannot start vm from state \"%s\" (%s), must be \"stopped\".",
			       sup_states[g->state].state, sup_states[g->state].label);
	if (!g->def)
		return err_set(err, ENOENT, "VM %s has no definition any more", g->name);
	if (g->def->error)
		return err_set(err, EINVAL, "the definition of %s is broken: %s", g->name,
			       g->def->error);
	return 0;
}

int guest_start(struct guest *g, const json_t *once, const char *by, struct err *err)
{
	int r = start_refused(g, err);

	if (r == 0 && g->hold != HOLD_INCOMING)
		r = guest_kept_away(g, err);
	if (r < 0)
		return r;
	r = guest_take_definition(g, once, err);
	if (r < 0)
		return r;
	timer_stop(g->restart_timer);
	g->restart_at_ms = 0;
	r = hardware_load(g, err);
	if (r < 0) {
		vm_free(g->started);
		g->started = NULL;
		return r;
	}
	g->target = TARGET_NONE;
	g->forced = g->asked = g->hook_failed = g->restarting = false;
	g->zoneid++;
	g->ready = false;
	(void)snprintf(g->asked_by, sizeof(g->asked_by), "%s", by);
	guestlog_printf(g, "vmstated", "start (%s)", by);
	return guest_dispatch(g, EV_START, err);
}

int guest_start_held(struct guest *g, const json_t *once, const char *by, enum guest_hold hold,
		     struct err *err)
{
	int r = start_refused(g, err);

	if (r < 0)
		return r;
	g->hold = hold;
	r = guest_start(g, once, by, err);
	if (r < 0)
		g->hold = HOLD_NOT;
	return r;
}

int guest_failreset(struct guest *g, struct err *err)
{
	if (g->state != SUP_FAILED)
		return err_set(err, EALREADY, "VM %s is not in failure mode (state %s)", g->name,
			       sup_states[g->state].label);
	if (!g->settled)
		return err_set(err, EBUSY, "VM %s still runs its failed hook", g->name);
	return guest_dispatch(g, EV_FAILRESET, err);
}
