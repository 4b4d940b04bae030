/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmstated's monitor of a guest: what QEMU tells by events, whether it answers, and the switch of
 * its reboot action. Never blocks and never guesses: a monitor that is silent is `unresponsive`.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "qemu/qmp.h"
#include "store/catalog.h"
#include "vmstated/hardware.h"
#include "vmstated/parts.h"

#define ANSWER_MS 1000u /* silence after which a guest is named unresponsive */
#define PULSE_MS  1000u /* between two questions whether it answers */
#define HOLD_MS   50u   /* for their answers, which are then read together */
#define RETRY_MS  500u
#define READY_MS  30000u /* of running make a guest ready that says nothing itself */

static void set_silent(struct guest *g, bool silent)
{
	if ((g->qmp_silent_since != 0) == silent)
		return;
	g->qmp_silent_since = silent ? clock_ms() : 0;
	if (g->busy_until_ms)
		return; /* as announced */
	log_warn("vm=%s monitor %s", g->uuid, silent ? "does not answer" : "answers again");
	guest_publish(g);
}

void monitor_busy(struct guest *g, uint64_t ms)
{
	g->busy_until_ms = ms ? clock_ms() + ms : 0;
	guest_publish(g);
}

static void on_status(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct guest *g = ctx;

	if (r == -ETIMEDOUT) {
		set_silent(g, true);
		(void)qmp_send(g->mon, "query-status", NULL, -1, 60000, on_status, g);
		return;
	}
	if (r < 0)
		return;
	set_silent(g, false);
	(void)snprintf(g->run_state, sizeof(g->run_state), "%s", json_get_str(value, "status", ""));
	if (!g->launched) {
		g->launched = true;
		timer_stop(g->launch_timer);
		monitor_pulse(g->sup);
		guest_launch_cleanup(g);
		(void)guest_dispatch(g, EV_LAUNCHED, NULL);
		return;
	}
	if (str_eq(g->run_state, "internal-error")) {
		stop_put_down(g, END_CRASH,
			      str_eq(g->accel, "kvm") ? "QEMU gave up: internal error under KVM "
							"(accel = tcg would not need it)"
						      : "QEMU gave up: internal error");
		return;
	}
	/* The panic was while nobody listened. */
	if (str_eq(g->run_state, "guest-panicked")) {
		stop_put_down(g, END_PANIC, "the guest panicked");
		return;
	}
	/* Killed between RUNNING and cont: let it go now. */
	if (g->state == SUP_RUNNING && g->hold == HOLD_NOT && str_eq(g->run_state, "prelaunch"))
		monitor_let_go(g);
	guest_publish(g);
}

static void on_ready(void *ctx, struct qmp *q)
{
	struct guest *g = ctx;

	g->monitor_tries = 0;
	monitor_pulse(g->sup);
	(void)qmp_send(q, "query-status", NULL, -1, ANSWER_MS, on_status, g);
}

/* --- events: a row each --- */

static void on_run_state(struct guest *g, const json_t *data, const char *state)
{
	(void)snprintf(g->run_state, sizeof(g->run_state), "%s", state);
	if (g->launched)
		guest_publish(g);
}

static void on_stop(struct guest *g, const json_t *data)
{
	/* Why it stopped only QEMU can tell: paused, io-error, watchdog, ... */
	if (g->mon)
		(void)qmp_send(g->mon, "query-status", NULL, -1, ANSWER_MS, on_status, g);
}

static void on_resume(struct guest *g, const json_t *data)
{
	if (g->hold != HOLD_NOT) {
		g->hold = HOLD_NOT;
		guest_save(g);
	}
	on_run_state(g, data, "running");
}

/* The firmware resets the machine once or twice while it comes up, at power-on and after each
 * reboot: those are no reboot of the guest. */
static bool firmware_reset(struct guest *g)
{
	uint64_t last = g->last_reset_ms ? g->last_reset_ms : g->boot_ms;

	return clock_ms() - last <= BOOT_RESET_MS && g->first_resets++ < BOOT_RESETS;
}

static void on_reset(struct guest *g, const json_t *data)
{
	uint64_t now = clock_ms(), before = g->last_reset_ms ? g->last_reset_ms : g->boot_ms;
	bool by_guest = json_get_bool(data, "guest", true);

	if (!g->launched || g->state != SUP_RUNNING || (by_guest && firmware_reset(g)))
		return;
	g->resets++;
	g->first_resets = 0;
	g->last_reset_ms = now;
	g->last_reset_wall_ms = clock_wall_ms();
	g->ready = false;
	monitor_wait_ready(g);
	guestlog_printf(g, "vmstated", "reset by the %s", by_guest ? "guest" : "host");
	if (by_guest && now - before < 10000 && !budget_spend(g)) {
		guest_fail(g, "the guest resets itself: more than %u times within %u s",
			   g->started->maxrestart,
			   (unsigned)(g->started->maxrestarttime_ms / 1000));
		(void)guest_stop(g, TARGET_FAILED, 0, true, "restart budget", NULL);
		return;
	}
	if (!g->hooks)
		g->hooks_due = HOOKS_OF_RESET;
	guest_save(g);
	guest_publish(g);
	if (!g->hooks)
		hooks_run(g, HOOKS_OF_RESET, "reset");
}

static void on_panic(struct guest *g, const json_t *data)
{
	guestlog_printf(g, "vmstated", "the guest panicked");
	log_warn("vm=%s panicked", g->uuid);
	on_run_state(g, data, "guest-panicked");
	stop_put_down(g, END_PANIC, "the guest panicked");
}

static void on_viewer(struct guest *g, const json_t *data)
{
	if (hardware_waits(g) == WAITS_VIEWER && str_eq(g->run_state, "prelaunch") && g->mon)
		(void)qmp_send(g->mon, "cont", NULL, -1, ANSWER_MS, NULL, NULL);
}

static const struct {
	const char *name;
	void (*fn)(struct guest *g, const json_t *data);
} qmp_events[] = {
	{"STOP", on_stop},
	{"RESUME", on_resume},
	{"RESET", on_reset},
	{"GUEST_PANICKED", on_panic},
	{"VNC_CONNECTED", on_viewer},
};

static void on_event(void *ctx, struct qmp *q, const char *name, const json_t *data, int64_t wall)
{
	struct guest *g = ctx;

	log_debug("vm=%s qmp event=%s", g->uuid, name);
	for (size_t i = 0; i < ARRAY_SIZE(qmp_events); i++) {
		if (str_eq(qmp_events[i].name, name)) {
			qmp_events[i].fn(g, data);
			return;
		}
	}
}

static int retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct guest *g = userdata;

	if (g->pid > 0 && !g->mon)
		(void)monitor_open(g, NULL);
	return 0;
}

static void on_closed(void *ctx, struct qmp *q, int r, const struct err *err)
{
	struct guest *g = ctx;

	qmp_free(q);
	g->mon = NULL;
	if (g->pid <= 0)
		return;
	/* QEMU closes when it ends; its pidfd tells that. If it lives on, try again. */
	log_debug("vm=%s monitor closed: %s", g->uuid, err_text(err, r));
	if (r == -ETIMEDOUT)
		set_silent(g, true);
	if (g->launched || g->monitor_tries++ < 60)
		(void)timer_set(g->sup->event, &g->monitor_timer, RETRY_MS, retry, g);
}

int monitor_open(struct guest *g, struct err *err)
{
	AUTO_FREE char *path = path_of_run(&g->sup->paths, g->uuid, "vm.mon");
	struct qmp_config config = {
		.ready = on_ready, .event = on_event, .closed = on_closed, .ctx = g};

	return qmp_open(g->sup->event, path, &config, &g->mon, err);
}

static int on_answers(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct supervisor *sup = userdata;

	for (struct guest *g = sup->guests, *next; g; g = next) {
		next = g->next; /* what is read may be its end */
		if (!g->mon || !qmp_is_ready(g->mon))
			continue;
		qmp_unhold(g->mon);
		qmp_drain(g->mon);
	}
	sup->pulsing = false;
	monitor_pulse(sup);
	return 0;
}

static int on_pulse(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct supervisor *sup = userdata;

	for (struct guest *g = sup->guests; g; g = g->next) {
		uint64_t since;

		if (g->busy_until_ms && g->busy_until_ms <= clock_ms())
			monitor_busy(g, 0); /* whoever announced it was killed */
		if (!g->launched || !g->mon || !qmp_is_ready(g->mon) || qmp_pending(g->mon, &since))
			continue;
		(void)qmp_send(g->mon, "query-status", NULL, -1, ANSWER_MS, on_status, g);
		qmp_hold(g->mon);
	}
	(void)timer_set(sup->event, &sup->hold_timer, HOLD_MS, on_answers, sup);
	return 0;
}

void monitor_pulse(struct supervisor *sup)
{
	bool any = false;

	if (sup->pulsing)
		return;
	for (const struct guest *g = sup->guests; g && !any; g = g->next)
		any = g->launched;
	if (!any)
		return;
	sup->pulsing = true;
	(void)timer_set(sup->event, &sup->pulse_timer, PULSE_MS - HOLD_MS, on_pulse, sup);
}

void monitor_close(struct guest *g)
{
	if (g->mon)
		qmp_free(g->mon);
	g->mon = NULL;
}

static int long_enough(sd_event_source *source, uint64_t usec, void *userdata)
{
	guest_now_ready(userdata);
	return 0;
}

void guest_now_ready(struct guest *g)
{
	g->ready = true;
	log_info("vm=%s ready", g->uuid);
	guest_save(g);
	guest_publish(g);
	if (g->target != TARGET_NONE && g->asked)
		stop_ask(g); /* it could not hear the first request */
}

void monitor_wait_ready(struct guest *g)
{
	const struct vm *vm = guest_vm(g);
	uint64_t up = clock_ms() - g->boot_ms;

	if (g->ready || !vm || vm->readyline)
		return;
	(void)timer_set(g->sup->event, &g->ready_timer, up < READY_MS ? READY_MS - up : 0,
			long_enough, g);
}

/* The password of a configfile's frame buffer; the definition's own is vmadmd's to set. */
static void set_display_password(struct guest *g)
{
	const char *password = hardware_vnc_password(g);
	AUTO_JSON json_t *args = NULL;

	if (!password || !*password)
		return;
	args = json_pack("{s:s, s:s}", "protocol", "vnc", "password", password);
	(void)qmp_send(g->mon, "set_password", args, -1, ANSWER_MS, NULL, NULL);
}

void monitor_let_go(struct guest *g)
{
	monitor_wait_ready(g);
	set_display_password(g);
	if (g->hold != HOLD_NOT) {
		guestlog_printf(g, "vmstated", "paused until its state is loaded");
	} else if (hardware_waits(g) == WAITS_NOT) {
		(void)qmp_send(g->mon, "cont", NULL, -1, ANSWER_MS, NULL, NULL);
		(void)snprintf(g->run_state, sizeof(g->run_state), "running");
	} else {
		guestlog_printf(g, "vmstated", "paused until a %s comes, as the configfile says",
				hardware_waits(g) == WAITS_VIEWER ? "viewer" : "debugger");
	}
	monitor_update_action(g);
}

/* When something waits for a new process, the guest's own reboot becomes one. */
void monitor_update_action(struct guest *g)
{
	const struct vm *vm = guest_vm(g);
	AUTO_JSON json_t *args = NULL, *pending = NULL;
	bool want;

	if (!g->mon || !g->launched || !g->started)
		return;
	pending = guest_pending(g);
	g->pending = json_array_size(pending) > 0;
	want = g->pending || vm->onreboot == ON_REBOOT_RESTART;
	if (want == g->reboot_is_shutdown)
		return;
	args = json_pack("{s:s}", "reboot", want ? "shutdown" : "reset");
	if (qmp_send(g->mon, "set-action", args, -1, ANSWER_MS, NULL, NULL) == 0)
		g->reboot_is_shutdown = want;
}
