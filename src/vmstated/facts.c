/* SPDX-License-Identifier: Apache-2.0 */
/* What vmstated knows of a guest, as JSON: for the feed, and for status. */
#include <stdlib.h>
#include <string.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "net/feed.h"
#include "qemu/bhyve.h"
#include "store/catalog.h"
#include "vmstated/neigh.h"
#include "vmstated/order.h"
#include "vmstated/parts.h"
#include "vmstated/routes.h"

static void put_time(json_t *j, const char *key, int64_t wall_ms)
{
	char buf[ISO_TIME_LEN];

	if (wall_ms > 0)
		json_put_str(j, key, clock_iso(wall_ms, buf, sizeof(buf)));
}

static void put_end(json_t *j, const struct guest *g)
{
	json_t *end;

	if (!g->end.set)
		return;
	end = json_pack("{s:s, s:s}", "cause", end_cause_names[g->end.cause], "detail",
			g->end.detail);
	put_time(end, "time", g->end.wall_ms);
	if (g->end.has_status) {
		json_put_int(end, "status", g->end.status);
		json_put_int(j, FACT_EXIT_STATUS, g->end.status);
	}
	if (g->end.signal)
		json_put_int(end, "signal", g->end.signal);
	put_time(j, FACT_EXIT_TIMESTAMP, g->end.wall_ms);
	(void)json_object_set_new(j, FACT_LAST_EXIT, end);
}

static void put_transition(json_t *j, const struct guest *g)
{
	if (g->target != TARGET_STOPPED && g->target != TARGET_START)
		return;
	json_put_str(j, FACT_TRANSITION_TO, g->target == TARGET_START ? "start" : "stopped");
	json_put_int(j, FACT_TRANSITION_EXPIRE, g->expire_wall_ms);
}

/* What a configfile says of members that the definition leaves open. */
static void put_hardware(json_t *j, const struct guest *g)
{
	const struct bhyve_info *info = g->bhyve ? bhyve_info(g->bhyve) : NULL;

	if (!info)
		return;
	json_put_int(j, "ram", info->ram_mib);
	json_put_int(j, "vcpus", info->vcpus);
	if (info->vnc.address)
		(void)json_object_set_new(j, FACT_FBUF,
					  json_pack("{s:s, s:i}", "address", info->vnc.address,
						    "port", (int)info->vnc.port));
}

static void put_running(json_t *j, const struct guest *g)
{
	if (g->pid <= 0)
		return;
	put_hardware(j, g);
	json_put_int(j, FACT_PID, g->pid);
	json_put_int(j, FACT_ZONEID, g->zoneid);
	if (!g->launched)
		return;
	if (g->seen)
		(void)json_object_set_new(j, FACT_NEIGHBOURS, neigh_facts(g));
	put_time(j, FACT_BOOT_TIMESTAMP, g->boot_wall_ms);
	json_put_bool(j, FACT_READY, g->ready);
	json_put_str(j, FACT_RUN_STATE, g->run_state[0] ? g->run_state : NULL);
	json_put_str(j, FACT_ACCEL, g->accel);
	if (g->qmp_silent_since || g->busy_until_ms)
		json_put_str(j, FACT_QMP, g->busy_until_ms ? "busy" : "unresponsive");
	if (g->pending)
		json_put_bool(j, FACT_PENDING, true);
}

static void put_definition(json_t *j, const struct guest *g)
{
	if (!g->def) {
		json_put_str(j, FACT_DEFINITION, "missing");
	} else if (g->def->error) {
		json_put_str(j, FACT_DEFINITION, "broken");
		json_put_str(j, FACT_DEFINITION_ERROR, g->def->error);
	}
}

json_t *guest_facts(const struct guest *g)
{
	const struct sup_state_row *row = &sup_states[g->state];
	json_t *j = json_pack("{s:s, s:s, s:s}", FACT_ZONE_STATE, row->zone_state, FACT_STATE,
			      row->state, FACT_SUPERVISOR_STATE, row->label);

	/* A walk through STOPPED is not over before its hook is; only then it is stopped. */
	if (g->state == SUP_FAILED)
		json_put_str(j, FACT_FAILED, g->failed ? g->failed : "");
	put_running(j, g);
	put_transition(j, g);
	put_end(j, g);
	put_definition(j, g);
	if (g->resets) {
		json_put_int(j, FACT_RESETS, g->resets);
		put_time(j, FACT_LAST_RESET, g->last_reset_wall_ms);
	}
	if (g->restarts)
		json_put_int(j, FACT_INIT_RESTARTS, g->restarts);
	return j;
}

json_t *guest_object(const struct guest *g)
{
	const struct vm *vm = guest_vm(g);
	json_t *j = json_pack("{s:s, s:s, s:s}", "name", g->name, "uuid", g->uuid, "code",
			      sup_states[g->state].code);
	AUTO_JSON json_t *facts = guest_facts(g);
	const char *hook = hooks_running(g);

	if (vm) {
		json_put_str(j, "alias", vm->alias);
		json_put_str(j, "owner", vm->owner);
		json_put_str(j, "group", vm->group);
		json_put_str(j, "description", vm->description);
		json_put_str(j, "os", vm->os);
		json_put_str(j, "osversion", vm->osversion);
		json_put_str(j, "file", vm->file);
	}
	json_put_str(j, "hook", hook);
	json_put_str(j, "asked_by", g->asked_by[0] ? g->asked_by : NULL);
	(void)json_object_update(j, facts);
	return j;
}

void guest_publish(struct guest *g)
{
	AUTO_JSON json_t *facts = NULL;
	char *text;

	if (!g->sup->feed)
		return;
	facts = guest_facts(g);
	text = json_text(facts);
	if (str_eq(text, g->published)) {
		free(text);
	} else {
		replace_str(&g->published, text);
		(void)feed_vm(g->sup->feed, g->uuid, facts);
	}
	waiters_check(g);
	order_check(g->sup);
	shutdown_check(g->sup);
}

static void add_problem(json_t *list, const char *file, const char *name, const char *text)
{
	json_t *one = json_pack("{s:s, s:s}", "file", file, "text", text);

	json_put_str(one, "name", name);
	(void)json_array_append_new(list, one);
}

/* No error of the definition, which may come first; a start would be refused. */
static void add_missing(json_t *list, const struct vm *vm)
{
	AUTO_FREE char *text = xasprintf("%s:%d: configfile: '%s' does not exist", vm->file,
					 vm->line, vm->configfile);

	add_problem(list, vm->file, vm->name, text);
}

json_t *definition_problems(const struct supervisor *sup, bool of_known)
{
	const struct catalog_problem *list;
	size_t n = catalog_problems(sup->catalog, &list);
	json_t *j = json_array();

	for (size_t i = 0; i < n; i++)
		add_problem(j, list[i].file, list[i].name, list[i].text);
	for (size_t i = 0; of_known && i < catalog_count(sup->catalog); i++) {
		const struct catalog_entry *e = catalog_at(sup->catalog, i);

		if (e->error)
			add_problem(j, e->vm->file, e->vm->name, e->error);
		else if (e->vm->configfile && !file_exists(e->vm->configfile))
			add_missing(j, e->vm);
	}
	return j;
}
