/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transient VMs: those of an orchestrator, which keeps their definition and disks elsewhere. When
 * the guest has ended, by any cause, the VM is deleted as `vmadm delete` does, which touches no
 * file outside its run and data directories. Judged by vmstated's facts alone, whenever they
 * change and when they are told anew at our start, so that nothing needs to be remembered: a VM
 * that never started (it is to be restored, or received) has no end to tell of, and stays.
 */
#include "api/names.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "store/catalog.h"
#include "vmadmd/change/change.h"
#include "vmadmd/guest.h"
#include "vmadmd/live/live.h"

static bool has_ended(const struct guest *g)
{
	const char *state = json_get_str(g->facts, FACT_STATE, "");

	if (!str_eq(state, "stopped") && !str_eq(state, "failed"))
		return false;
	if (str_eq(json_get_str(g->facts, FACT_TRANSITION_TO, NULL), "start"))
		return false;
	return json_object_get(g->facts, FACT_LAST_EXIT) || str_eq(state, "failed");
}

static bool is_going(const struct guest *g)
{
	for (const struct change *c = g->d->changes; c; c = c->next)
		if (c->kind == &change_delete && str_eq(c->uuid, g->uuid))
			return true;
	return false;
}

void transient_look(struct guest *g)
{
	static const struct change_by by = {.uid = 0, .command = "transient"};
	const struct catalog_entry *e = catalog_by_uuid(g->d->catalog, g->uuid);

	if (!e || e->error || !e->vm->transient || !has_ended(g) || is_going(g))
		return;
	/* Its journal decides first whose it is; an end that follows is told again. */
	if (live_kept_away(g->d, g->uuid, NULL) < 0)
		return;
	log_info("vm=%s transient, and its guest has ended: removed", g->uuid);
	change_order(g->d, &change_delete, g->uuid, &by, NULL, NULL);
}
