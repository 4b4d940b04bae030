/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one stop engine. Target and deadline are written down before the request; the ACPI button
 * is pressed again every 10 s; at the deadline QEMU is told to quit, then killed. A later request
 * replaces the deadline, force is at once. Stops and reboots of every program end here.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "daemon/daemon.h"
#include "qemu/qmp.h"
#include "vmstated/parts.h"

#define AGAIN_MS   10000u /* between two presses of the button */
#define MONITOR_MS 300u
#define QUIT_MS    2000u /* for QEMU to end by itself after quit */
#define KILL_MS    1000u /* between further attempts */
#define ASK_MS     5000u /* for the answer to system_powerdown */

static int force(sd_event_source *source, uint64_t usec, void *userdata);

static const char *target_names[] = {
	[TARGET_NONE] = "none",
	[TARGET_STOPPED] = "stopped",
	[TARGET_START] = "start",
	[TARGET_FAILED] = "failed",
};

/* Steps of force: quit over QMP, then SIGKILL, again until the process is gone. */
static void force_now(struct guest *g)
{
	g->forced = true;
	if (g->pid <= 0)
		return;
	/* A monitor that is just being connected, by a start or by our own, gets a moment. */
	if (g->force_step == 0 && g->mon && !qmp_is_ready(g->mon)) {
		g->force_step = 1;
		(void)timer_set(g->sup->event, &g->stop_timer, MONITOR_MS, force, g);
		return;
	}
	if (g->force_step <= 1 && g->mon && qmp_is_ready(g->mon) &&
	    qmp_send(g->mon, "quit", NULL, -1, QUIT_MS, NULL, NULL) == 0) {
		log_info("vm=%s quit", g->uuid);
		g->force_step = 2;
		(void)timer_set(g->sup->event, &g->stop_timer, QUIT_MS, force, g);
		return;
	}
	log_warn("vm=%s killed pid=%d", g->uuid, (int)g->pid);
	g->force_step = 3;
	if (g->qemu)
		(void)child_kill(g->qemu, SIGKILL, false);
	(void)timer_set(g->sup->event, &g->stop_timer, KILL_MS, force, g);
}

void stop_at_once(struct guest *g)
{
	force_now(g);
}

void stop_put_down(struct guest *g, enum end_cause cause, const char *why)
{
	if (g->put_down || g->pid <= 0)
		return;
	g->put_down = true;
	g->put_down_as = cause;
	(void)snprintf(g->put_down_why, sizeof(g->put_down_why), "%s", why);
	log_warn("vm=%s put down: %s", g->uuid, why);
	force_now(g);
}

static int force(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct guest *g = userdata;

	if (!g->forced) {
		log_warn("vm=%s deadline passed, forcing", g->uuid);
		guestlog_printf(g, "vmstated", "the guest did not stop in time; forced");
	}
	force_now(g);
	guest_save(g);
	return 0;
}

static void arm_deadline(struct guest *g)
{
	uint64_t now = clock_ms();

	timer_stop(g->stop_timer);
	if (g->deadline_ms <= now)
		force_now(g);
	else
		(void)timer_set(g->sup->event, &g->stop_timer, g->deadline_ms - now, force, g);
}

static int press_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	stop_ask(userdata);
	return 0;
}

/* A paused guest cannot obey: let it run for its shutdown, unless it may run elsewhere. */
static void wake_paused(struct guest *g)
{
	bool paused = g->run_state[0] && strncmp(g->run_state, "ru", 2) != 0;

	if (g->mon && paused && g->hold == HOLD_NOT && guest_kept_away(g, NULL) == 0)
		(void)qmp_send(g->mon, "cont", NULL, -1, ASK_MS, NULL, NULL);
}

void stop_ask(struct guest *g)
{
	if (g->forced || g->pid <= 0 || g->deadline_ms <= clock_ms())
		return;
	if (!g->asked) { /* who comes after us is to know that it had its chance */
		g->asked = true;
		guest_save(g);
	}
	if (g->mon) {
		wake_paused(g);
		(void)qmp_send(g->mon, "system_powerdown", NULL, -1, ASK_MS, NULL, NULL);
	}
	log_info("vm=%s powerdown requested", g->uuid);
	(void)timer_set(g->sup->event, &g->again_timer, AGAIN_MS, press_again, g);
}

void stop_resume(struct guest *g)
{
	if (g->target == TARGET_NONE || g->pid <= 0)
		return;
	g->force_step = 0;
	g->forced = false;
	arm_deadline(g);
	if (!g->hooks && !g->forced)
		stop_ask(g);
}

void stop_done(struct guest *g)
{
	g->target = TARGET_NONE;
	g->deadline_ms = 0;
	g->forced = g->asked = g->for_shutdown = false;
	g->force_step = 0;
	timer_stop(g->stop_timer);
	timer_stop(g->again_timer);
}

static int stop_refused(struct guest *g, struct err *err)
{
	bool idle = g->state == SUP_INIT || (g->state == SUP_STOPPED && g->settled);

	if (idle || g->state == SUP_FAILED)
		return err_set(err, EALREADY, "VM %s is already not 'running' (currently: %s)",
			       g->uuid, sup_states[g->state].state);
	return 0;
}

/* Is a restart waiting for its turn? Then stopping means forgetting it. */
static bool cancel_restart(struct guest *g)
{
	int on = SD_EVENT_OFF;

	if (g->restart_timer)
		(void)sd_event_source_get_enabled(g->restart_timer, &on);
	if (g->state != SUP_STOPPED || on == SD_EVENT_OFF)
		return false;
	timer_stop(g->restart_timer);
	g->restart_at_ms = 0;
	guest_save(g);
	guest_publish(g);
	return true;
}

int guest_stop(struct guest *g, enum guest_target target, uint64_t grace_ms, bool now,
	       const char *by, struct err *err)
{
	bool first = g->target == TARGET_NONE;
	int r;

	if (target == TARGET_STOPPED && cancel_restart(g))
		return 0;
	r = stop_refused(g, err);
	if (r < 0)
		return r;
	guest_connect(g);
	if (now)
		grace_ms = 0;
	g->target = g->target == TARGET_FAILED ? TARGET_FAILED : target;
	g->deadline_ms = clock_ms() + grace_ms;
	g->expire_wall_ms = clock_wall_ms() + (int64_t)grace_ms;
	(void)snprintf(g->asked_by, sizeof(g->asked_by), "%s", by);
	log_info("vm=%s stop target=%s grace_ms=%llu by=\"%s\"", g->uuid, target_names[target],
		 (unsigned long long)grace_ms, by);
	guestlog_printf(g, "vmstated", "stop, then %s (%s)", target_names[target], by);
	guest_save(g);
	if (first)
		(void)guest_dispatch(g, EV_STOP, NULL);
	else
		guest_publish(g);
	if (g->pid > 0)
		arm_deadline(g);
	return 0;
}
