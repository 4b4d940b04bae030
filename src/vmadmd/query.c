/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET /vm/:id: all queries go out at once on the VM's monitor; the answer is sent when the last
 * one is in. A query QEMU refuses is null; a QEMU that does not answer is an error that names it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "store/catalog.h"
#include "vmadmd/guest.h"
#include "vmadmd/info.h"
#include "vmadmd/vmadmd.h"

struct info;

struct info_query {
	struct info *info;
	size_t type;
	struct info_query *next; /* in line for the same answer */
};

/*
 * A query on its way, and all who wait for its answer: QEMU answers in order, so what comes is
 * newer than anything that was finished when the last of them asked.
 */
struct shared_query {
	struct guest *g;
	size_t type;
	struct info_query *first;
};

struct info {
	struct http_request *req; /* NULL: the client left */
	struct guest *g;
	char *name;
	bool secrets;
	struct info_query queries[INFO_TYPE_COUNT];
	json_t *members[INFO_TYPE_COUNT];
	size_t waiting;
	int r; /* the first failure of the whole */
	struct err err;
};

static void info_end(struct info *info)
{
	AUTO_JSON json_t *out = json_object();
	AUTO_FREE char *text = NULL;

	for (size_t i = 0; i < INFO_TYPE_COUNT; i++) {
		if (info->members[i])
			json_object_set_new(out, info_types[i].name, info->members[i]);
	}
	if (info->req && info->r < 0) {
		http_reply_err(info->req, info->r, &info->err);
	} else if (info->req) {
		text = json_pretty(out);
		http_reply(info->req, 200, HTTP_JSON, text, strlen(text));
	}
	free(info->name);
	free(info);
}

static void info_fail(struct info *info, int r, const char *command, const struct err *err)
{
	if (info->r < 0)
		return;
	if (r == -ETIMEDOUT)
		info->r = err_set(&info->err, ETIMEDOUT,
				  "QEMU of VM %s does not answer: no reply to %s within %u s",
				  info->name, command, QMP_ANSWER_MS / 1000);
	else
		info->r = err_set(&info->err, -r, "Unable to get info for VM %s: %s", info->name,
				  err_text(err, r));
}

static void on_answer(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct shared_query *shared = ctx;
	size_t type = shared->type;
	AUTO_JSON json_t *member = info_map(type, r == 0 ? value : NULL);
	struct info_query *query;

	shared->g->queries[type] = NULL;
	while ((query = shared->first) != NULL) {
		struct info *info = query->info;

		shared->first = query->next;
		if (r < 0 && r != -EREMOTEIO)
			info_fail(info, r, info_types[type].command, err);
		info->members[type] = json_incref(member);
		if (--info->waiting == 0)
			info_end(info);
	}
	free(shared);
}

/* On failure the query is not waited for. */
static int ask_qemu(struct info *info, size_t type, struct err *err)
{
	struct guest *g = info->g;
	struct shared_query *shared = g->queries[type];
	int r;

	if (!shared) {
		shared = xcalloc(1, sizeof(*shared));
		*shared = (struct shared_query){.g = g, .type = type};
		r = monitor_send(g, info_types[type].command, NULL, -1, on_answer, shared, err);
		if (r < 0) {
			free(shared);
			return r;
		}
		g->queries[type] = shared;
	}
	info->queries[type].next = shared->first;
	shared->first = &info->queries[type];
	info->waiting++;
	return 0;
}

static void on_gone(struct http_request *req, void *ctx)
{
	((struct info *)ctx)->req = NULL;
}

static json_t *vnc_member(const struct guest *g, bool secrets)
{
	json_t *out = vnc_info(g);

	if (secrets && json_object_size(out) > 0 && g->vnc.password)
		json_put_str(out, "password", g->vnc.password);
	return out;
}

static void on_vnc_settled(void *ctx)
{
	struct info_query *query = ctx;
	struct info *info = query->info;

	info->members[query->type] = vnc_member(info->g, info->secrets);
	if (--info->waiting == 0)
		info_end(info);
}

/* QEMU answers: the listener is there, or about to be. */
static void on_vnc_ready(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct info_query *query = ctx;

	if (r < 0)
		info_fail(query->info, r, "query-vnc", err);
	if (r == 0)
		vnc_reload(query->info->g, on_vnc_settled, query);
	else
		on_vnc_settled(query);
}

/* The listener is ours, but it opens only when QEMU answers: right after a start, wait for it. */
static void ask_vnc(struct info *info, size_t type)
{
	struct info_query *query = &info->queries[type];
	struct err err = {0};

	info->waiting++;
	if (monitor_ready(info->g))
		vnc_reload(info->g, on_vnc_settled, query);
	else if (monitor_send(info->g, "query-vnc", NULL, -1, on_vnc_ready, query, &err) < 0)
		on_vnc_settled(query);
}

static void info_start(struct info *info, unsigned mask)
{
	struct err err = {0};

	info->waiting = 1; /* ours, so that nothing ends before all are sent */
	for (size_t i = 0; i < INFO_TYPE_COUNT && info->r == 0; i++) {
		info->queries[i] = (struct info_query){info, i, NULL};
		if (!(mask & 1u << i))
			continue;
		if (!info_types[i].command) {
			ask_vnc(info, i);
			continue;
		}
		if (ask_qemu(info, i, &err) < 0)
			info_fail(info, -EIO, info_types[i].command, &err);
	}
	if (--info->waiting == 0)
		info_end(info);
}

void handle_info(struct http_request *req, void *ctx)
{
	struct vmadmd *d = ctx;
	const char *types = http_query(req, "types");
	struct target target;
	struct err err = {0};
	const char *state;
	struct guest *g;
	unsigned mask;
	struct info *info;

	if (!target_find(d, req, false, &target))
		return;
	if (info_parse(types ? types : http_query(req, "type"), &mask, &err) < 0) {
		http_reply_err(req, -EINVAL, &err);
		return;
	}
	state = guest_state(d, target.uuid);
	g = guest_find(d, target.uuid);
	if (!g || (!str_eq(state, "running") && !str_eq(state, "stopping"))) {
		err_set(&err, EBUSY,
			"Unable to get info for vm from state \"%s\", must be \"running\" or "
			"\"stopping\".",
			state);
		http_reply_err(req, -EBUSY, &err);
		return;
	}
	info = xcalloc(1, sizeof(*info));
	info->req = req;
	info->g = g;
	info->secrets = target.secrets;
	info->name = xstrdup(target.vm ? target.vm->name : target.uuid);
	http_on_gone(req, on_gone, info);
	info_start(info, mask);
}
