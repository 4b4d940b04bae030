/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /vms/:id/applied: vmadmd has plugged disks, NICs and CPUs into the running machine, or out
 * of it, and written the definition. From now on the machine counts as started like that: nothing
 * of it is pending, and who takes over knows of it.
 */
#include <errno.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/model.h"
#include "model/props.h"
#include "net/http.h"
#include "store/catalog.h"
#include "store/write.h"
#include "vmstated/net.h"
#include "vmstated/once.h"
#include "vmstated/parts.h"
#include "vmstated/routes.h"

static void take(struct guest *g, const json_t *names, const struct prop_table *t)
{
	json_t *name;
	size_t i;

	json_array_foreach ((json_t *)names, i, name) {
		if (json_is_string(name))
			vm_take_element(g->started, g->def->vm, t, json_string_value(name));
	}
}

/* Its arguments stay those it was started with. */
static int rewrite_started(struct guest *g, struct err *err)
{
	AUTO_FREE char *path = path_of_run(&g->sup->paths, g->uuid, "started.json");
	AUTO_FREE char *text = once_definition(g->started);
	AUTO_JSON json_t *doc = NULL;
	int r = state_read(path, 1, &doc, err);

	if (r < 0)
		return r;
	json_object_del(doc, "format_version");
	json_put_str(doc, "definition", text);
	return state_write(path, 1, doc, FILE_NO_SYNC, err);
}

static int guest_applied(struct guest *g, const json_t *body, struct err *err)
{
	int r;

	if (!g->started || !g->def || g->pid <= 0)
		return err_set(err, EBUSY, "VM %s does not run by a definition", g->name);
	take(g, json_object_get(body, "disks"), &disk_props);
	take(g, json_object_get(body, "nics"), &nic_props);
	if (json_object_get(body, "vcpus"))
		g->started->vcpus = g->def->vm->vcpus;
	r = rewrite_started(g, err);
	net_applied(g);
	monitor_update_action(g);
	guest_publish(g);
	return r;
}

void route_applied(struct http_request *req, void *ctx)
{
	AUTO_JSON json_t *body = NULL, *out = NULL;
	struct err err = {0};
	struct guest *g;
	int r;

	if (routes_take(req, ctx, &g, &body) < 0)
		return;
	r = routes_for_vmadmd(req, &err);
	if (r == 0)
		r = guest_applied(g, body, &err);
	if (r < 0) {
		http_reply_err(req, r, &err);
		return;
	}
	out = json_pack("{s:s, s:s, s:b}", "uuid", g->uuid, "name", g->name, "accepted", 1);
	http_reply_json(req, 202, out);
}
