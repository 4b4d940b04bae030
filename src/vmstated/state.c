/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vmstated writes down. Under run/ the state of this boot, rewritten at each change, so that
 * a new vmstated takes up where a killed one was; under lib/ what must survive a power cut: the
 * last exit, failure mode, and the mark of a running VM with the boot's id.
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
#include "base/uuid.h"
#include "daemon/daemon.h"
#include "store/write.h"
#include "vmstated/parts.h"

#define STATE_VERSION 1
#define OWED_MS       1000u  /* until the first attempt to write again what could not be, ... */
#define OWED_MOST_MS  60000u /* ... doubled up to this */

/* What a guest may owe to the disk. */
#define OWED_STATE   (1u << 0)
#define OWED_EXIT    (1u << 1)
#define OWED_RUNNING (1u << 2)
#define OWED_FAILED  (1u << 3)

static json_t *spent_json(const struct guest *g)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < g->nspent; i++)
		(void)json_array_append_new(list, json_integer((json_int_t)g->spent[i]));
	return list;
}

static json_t *state_json(const struct guest *g)
{
	json_t *j = json_pack("{s:s, s:s, s:s, s:i, s:I, s:b, s:b, s:b}", "name", g->name, "state",
			      sup_states[g->state].label, "boot_id", g->sup->boot_id, "pid",
			      (int)g->pid, "pid_start", (json_int_t)g->pid_start, "launched",
			      g->launched, "settled", g->settled, "restarting", g->restarting);

	json_put_int(j, "target", g->target);
	json_put_int(j, "deadline_ms", (json_int_t)g->deadline_ms);
	json_put_int(j, "expire_wall_ms", g->expire_wall_ms);
	json_put_bool(j, "asked", g->asked);
	json_put_int(j, "restart_at_ms", (json_int_t)g->restart_at_ms);
	json_put_int(j, "oom_kills", (json_int_t)g->oom_kills);
	json_put_bool(j, "for_shutdown", g->for_shutdown);
	json_put_int(j, "hold", g->hold);
	json_put_bool(j, "hook_failed", g->hook_failed);
	json_put_bool(j, "ready", g->ready);
	json_put_str(j, "failed", g->failed);
	json_put_str(j, "asked_by", g->asked_by);
	json_put_str(j, "accel", g->accel);
	json_put_int(j, "zoneid", g->zoneid);
	json_put_int(j, "boot_wall_ms", g->boot_wall_ms);
	json_put_int(j, "boot_ms", (json_int_t)g->boot_ms);
	json_put_int(j, "resets", g->resets);
	json_put_int(j, "restarts", g->restarts);
	json_put_int(j, "last_reset_ms", (json_int_t)g->last_reset_ms);
	json_put_int(j, "last_reset_wall_ms", g->last_reset_wall_ms);
	(void)json_object_set_new(j, "spent", spent_json(g));
	json_put_str(j, "hooks_due", g->hooks_due);
	json_put_str(j, "event", g->event);
	json_put_int(j, "hook_ticket", (json_int_t)g->hook_ticket);
	(void)json_object_set_new(j, "hook", hooks_state(g));
	return j;
}

static int pay(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct supervisor *sup = userdata;
	bool left = false;

	for (struct guest *g = sup->guests; g; g = g->next) {
		if (g->owed & OWED_STATE)
			guest_save(g);
		if (g->owed & OWED_EXIT)
			guest_save_exit(g);
		if (g->owed & OWED_RUNNING)
			guest_mark_running(g, g->pid > 0);
		if (g->owed & OWED_FAILED)
			guest_save_failed(g);
		left |= g->owed != 0;
	}
	sup->owed_delay_ms = !left                                   ? 0
			     : sup->owed_delay_ms * 2 < OWED_MOST_MS ? sup->owed_delay_ms * 2
								     : OWED_MOST_MS;
	if (left)
		(void)timer_set(sup->event, &sup->owed_timer, sup->owed_delay_ms, pay, sup);
	return 0;
}

/* r of an attempt to write: on failure it is tried again until there is space. */
static void wrote(struct guest *g, unsigned what, int r, const struct err *err)
{
	struct supervisor *sup = g->sup;

	if (r >= 0) {
		if (g->owed & what)
			log_info("vm=%s written down after all", g->uuid);
		g->owed &= ~what;
		return;
	}
	if (!(g->owed & what))
		log_error("vm=%s state not written: %s; trying again", g->uuid, err_text(err, r));
	g->owed |= what;
	if (sup->owed_delay_ms == 0) {
		sup->owed_delay_ms = OWED_MS;
		(void)timer_set(sup->event, &sup->owed_timer, OWED_MS, pay, sup);
	}
}

static void save_to(struct guest *g, unsigned what, const char *path, json_t *j)
{
	struct err err = {0};
	int r = state_write(path, STATE_VERSION, j, FILE_NO_SYNC, &err);

	wrote(g, what, r, &err);
	if (r >= 0 && what != OWED_STATE)
		sync_later(g->sup, path);
}

void guest_save(struct guest *g)
{
	AUTO_FREE char *dir = path_of_run(&g->sup->paths, g->uuid, NULL);
	AUTO_FREE char *path = path_of_run(&g->sup->paths, g->uuid, "vmstated.state");
	AUTO_JSON json_t *j = state_json(g);
	struct err err = {0};
	int r = dir_make(dir, 0711, &err);

	if (r < 0)
		wrote(g, OWED_STATE, r, &err);
	else
		save_to(g, OWED_STATE, path, j);
}

int guest_load(struct guest *g, json_t **ret, struct err *err)
{
	AUTO_FREE char *path = path_of_run(&g->sup->paths, g->uuid, "vmstated.state");
	const json_t *spent, *at;
	json_t *j;
	size_t i;
	int r = state_read(path, STATE_VERSION, &j, err);

	if (r < 0)
		return r;
	g->target = (enum guest_target)json_get_int(j, "target", TARGET_NONE);
	g->deadline_ms = (uint64_t)json_get_int(j, "deadline_ms", 0);
	g->expire_wall_ms = json_get_int(j, "expire_wall_ms", 0);
	g->asked = json_get_bool(j, "asked", false);
	g->restart_at_ms = (uint64_t)json_get_int(j, "restart_at_ms", 0);
	g->oom_kills = (uint64_t)json_get_int(j, "oom_kills", 0);
	g->for_shutdown = json_get_bool(j, "for_shutdown", false);
	g->hold = (enum guest_hold)json_get_int(j, "hold", HOLD_NOT);
	g->hook_failed = json_get_bool(j, "hook_failed", false);
	g->ready = json_get_bool(j, "ready", false);
	g->restarting = json_get_bool(j, "restarting", false);
	replace_str(&g->failed, xstrdup(json_get_str(j, "failed", NULL)));
	(void)snprintf(g->asked_by, sizeof(g->asked_by), "%s", json_get_str(j, "asked_by", ""));
	(void)snprintf(g->accel, sizeof(g->accel), "%s", json_get_str(j, "accel", ""));
	g->zoneid = (uint32_t)json_get_int(j, "zoneid", 0);
	g->boot_wall_ms = json_get_int(j, "boot_wall_ms", 0);
	g->boot_ms = (uint64_t)json_get_int(j, "boot_ms", 0);
	g->resets = (unsigned)json_get_int(j, "resets", 0);
	g->restarts = (unsigned)json_get_int(j, "restarts", 0);
	g->last_reset_ms = (uint64_t)json_get_int(j, "last_reset_ms", 0);
	g->last_reset_wall_ms = json_get_int(j, "last_reset_wall_ms", 0);
	g->hook_ticket = (uint64_t)json_get_int(j, "hook_ticket", 0);
	(void)snprintf(g->event, sizeof(g->event), "%s", json_get_str(j, "event", ""));
	spent = json_object_get(j, "spent");
	json_array_foreach (spent, i, at) {
		if (g->nspent < BUDGET_MAX)
			g->spent[g->nspent++] = (uint64_t)json_integer_value(at);
	}
	*ret = j;
	return 0;
}

/* --- what outlives the boot --- */

void guest_save_exit(struct guest *g)
{
	AUTO_FREE char *dir = path_of_data(&g->sup->paths, g->uuid, NULL);
	AUTO_FREE char *path = path_of_data(&g->sup->paths, g->uuid, "lastexited");
	AUTO_JSON json_t *j =
		json_pack("{s:s, s:s, s:I, s:i, s:i}", "cause", end_cause_names[g->end.cause],
			  "detail", g->end.detail, "time_ms", (json_int_t)g->end.wall_ms, "signal",
			  g->end.signal, "zoneid", (int)g->zoneid);

	if (!file_exists(dir)) { /* deleted under us */
		g->owed &= ~OWED_EXIT;
		return;
	}
	if (g->end.has_status)
		json_put_int(j, "status", g->end.status);
	save_to(g, OWED_EXIT, path, j);
}

static void load_failed(struct guest *g)
{
	AUTO_FREE char *path = path_of_data(&g->sup->paths, g->uuid, "failed");
	AUTO_JSON json_t *j = NULL;

	if (state_read(path, STATE_VERSION, &j, NULL) < 0)
		return;
	replace_str(&g->failed, xstrdup(json_get_str(j, "reason", "no reason recorded")));
	g->state = SUP_FAILED;
}

void guest_load_exit(struct guest *g)
{
	AUTO_FREE char *path = path_of_data(&g->sup->paths, g->uuid, "lastexited");
	AUTO_JSON json_t *j = NULL;
	int cause;

	load_failed(g);
	if (state_read(path, STATE_VERSION, &j, NULL) < 0)
		return;
	cause = end_cause_from_name(json_get_str(j, "cause", ""));
	g->end.set = true;
	g->end.cause = cause < 0 ? END_UNKNOWN : (enum end_cause)cause;
	(void)snprintf(g->end.detail, sizeof(g->end.detail), "%s", json_get_str(j, "detail", ""));
	g->end.wall_ms = json_get_int(j, "time_ms", 0);
	g->end.signal = (int)json_get_int(j, "signal", 0);
	g->end.has_status = json_object_get(j, "status") != NULL;
	g->end.status = (int)json_get_int(j, "status", 0);
	g->zoneid = (uint32_t)json_get_int(j, "zoneid", g->zoneid);
}

void guest_save_failed(struct guest *g)
{
	AUTO_FREE char *dir = path_of_data(&g->sup->paths, g->uuid, NULL);
	AUTO_FREE char *path = path_of_data(&g->sup->paths, g->uuid, "failed");
	AUTO_JSON json_t *j = NULL;

	if (g->state != SUP_FAILED) {
		g->owed &= ~OWED_FAILED;
		(void)unlink(path);
		return;
	}
	if (dir_make(dir, 0700, NULL) < 0)
		return;
	j = json_pack("{s:s, s:I}", "reason", g->failed ? g->failed : "", "time_ms",
		      (json_int_t)clock_wall_ms());
	save_to(g, OWED_FAILED, path, j);
}

void guest_mark_running(struct guest *g, bool running)
{
	AUTO_FREE char *text = NULL;
	AUTO_FREE char *path = path_of_data(&g->sup->paths, g->uuid, "running");
	struct err err = {0};
	int r;

	if (!running) {
		g->owed &= ~OWED_RUNNING;
		(void)unlink(path);
		return;
	}
	text = xasprintf("%s %u\n", g->sup->boot_id, g->zoneid);
	r = file_write(path, text, strlen(text), 0600, FILE_NO_SYNC, &err);
	wrote(g, OWED_RUNNING, r, &err);
	if (r >= 0)
		sync_later(g->sup, path);
}

/* A mark of another boot: the host went down under the VM. */
void guest_check_mark(struct guest *g)
{
	AUTO_FREE char *path = path_of_data(&g->sup->paths, g->uuid, "running");
	AUTO_FREE char *boot = NULL;

	if (g->pid > 0 || file_read(path, 64, &boot, NULL, NULL, NULL) < 0)
		return;
	if (!str_starts(boot, g->sup->boot_id)) {
		if (strlen(boot) > UUID_LEN + 1) /* starts are counted on */
			g->zoneid = (uint32_t)strtoul(boot + UUID_LEN, NULL, 10);
		g->end = (struct last_exit){
			.set = true, .cause = END_HOST_CRASH, .wall_ms = clock_wall_ms()};
		(void)snprintf(g->end.detail, sizeof(g->end.detail),
			       "it ran when the host went down");
		log_warn("vm=%s ended cause=host-crash", g->uuid);
		guest_save_exit(g);
	}
	guest_mark_running(g, false);
}

/* The definition is gone and the guest at rest: nothing of it is left to know. */
void guest_forget_files(struct guest *g)
{
	AUTO_FREE char *dir = path_of_run(&g->sup->paths, g->uuid, NULL);

	(void)dir_remove_tree(dir, NULL);
}
