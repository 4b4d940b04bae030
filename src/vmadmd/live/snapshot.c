/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of a VM as one set, taken: requests, and the creation. Disks are qcow2 and keep it
 * inside; a running VM's memory goes into the first of them; the firmware's variables are copied.
 * Source: smartos facts 8.31; qemu facts, section 4.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "store/catalog.h"
#include "vmadmd/guest/agent.h"
#include "vmadmd/jobs.h"
#include "vmadmd/live/live.h"
#include "vmadmd/live/snapshot.h"

/* --- parts shared with snapshot_back.c --- */

char *snap_tag(const struct live *l)
{
	return xasprintf(SNAP_TAG "%s", l->name);
}

const json_t *snap_paths(const struct live *l)
{
	return json_object_get(l->entry, "disks");
}

/* qemu-img snapshot: -c, -a or -d; in a worker. */
int snap_image(const char *deed, const char *tag, const char *path, struct err *err)
{
	const char *const argv[] = {"qemu-img", "snapshot", "-q", deed, tag, path, NULL};

	return live_tool(argv, err);
}

/* QEMU's names of those disks of paths (NULL: all) that it has open. */
json_t *snap_nodes(const struct live *l, const json_t *paths)
{
	json_t *nodes = json_array(), *path;
	size_t i;

	for (i = 0; !paths && i < l->ndisks; i++)
		(void)json_array_append_new(nodes, json_string(l->disks[i].node));
	json_array_foreach (paths, i, path) {
		const struct live_disk *disk = live_disk_by_path(l, json_string_value(path));

		if (disk && disk->node[0])
			(void)json_array_append_new(nodes, json_string(disk->node));
	}
	return nodes;
}

json_t *snap_journal(struct change *c, const char *op)
{
	struct live *l = c->live;
	json_t *journal = json_object();
	char id[UUID_LEN + 1];

	uuid_random(id);
	(void)snprintf(l->qemu_job, sizeof(l->qemu_job), "drover-%s", id);
	json_put_str(journal, "op", op);
	json_put_str(journal, "name", l->name);
	json_put_str(journal, "qemu_job", l->qemu_job);
	json_put_str(journal, "command", c->command);
	json_put_int(journal, "uid", c->uid);
	json_put_bool(journal, "running", l->running);
	return journal;
}

int snap_step_entry(struct change *c, struct err *err)
{
	struct live *l = c->live;

	l->index = snap_index(c->d, c->uuid, err);
	if (!l->index)
		return -EIO;
	l->entry = snap_find(l->index, l->name);
	if (l->entry || l->again)
		return 0;
	return err_set(err, EINVAL, "VM %s has no snapshot '%s'", c->uuid, l->name);
}

static int write_index(struct change *c, struct err *err)
{
	return snap_index_write(c->d, c->uuid, c->live->index, err);
}

static int index_written(struct change *c, struct err *err)
{
	live_point("recorded");
	return 0;
}

int snap_record(struct change *c, struct err *err)
{
	char now[ISO_TIME_LEN];

	json_put_str(c->live->index, "changed", clock_iso(clock_wall_ms(), now, sizeof(now)));
	return change_work(c, write_index, index_written, err);
}

int snap_step_answer(struct change *c, struct err *err)
{
	AUTO_JSON json_t *out = json_object();

	log_info("vm=%s %s done name='%s' uid=%u", c->uuid, c->kind->verb, c->live->name, c->uid);
	json_put_str(out, "uuid", c->uuid);
	json_put_str(out, "name", c->live->name);
	json_put_bool(out, "memory", c->live->memory > 0);
	return change_answer(c, out, "rolled back");
}

/* --- creation --- */

static int check(struct change *c, struct err *err)
{
	struct live *l = c->live;
	const char *state = guest_state(c->d, c->uuid);
	int r = snap_name_check(l->name, err);

	if (r < 0)
		return r;
	if (!str_eq(state, "running") && !str_eq(state, "stopped") && !str_eq(state, "failed"))
		return err_set(err, EBUSY,
			       "Cannot snapshot vm from state \"%s\", must be \"running\" or "
			       "\"stopped\"",
			       state);
	l->index = snap_index(c->d, c->uuid, err);
	if (!l->index)
		return -EIO;
	if (snap_find(l->index, l->name))
		return err_set(err, EEXIST, "VM %s has a snapshot '%s' already", c->uuid, l->name);
	if (json_array_size(json_object_get(l->index, "snapshots")) >= SNAP_MAX)
		return err_set(err, ENOSPC, "VM %s has %d snapshots: delete some", c->uuid,
			       SNAP_MAX);
	return 0;
}

/* Disks and firmware variables have to agree where no memory is kept that has both. */
static bool must_stand_still(struct change *c)
{
	const struct live *l = c->live;
	const struct guest *g = live_guest(c);

	return l->running && l->memory == 0 && l->vars &&
	       str_eq(json_get_str(g->facts, "run_state", ""), "running");
}

/* All is known now: what is it to be, and can it be? */
static int fit(struct change *c, struct err *err)
{
	struct live *l = c->live;
	char now[ISO_TIME_LEN];
	json_t *disks = json_array(), *machine;
	int r = live_qcow2_only(c, err);

	l->entry = json_object();
	l->own_entry = true;
	(void)json_object_set_new(l->entry, "disks", disks);
	if (r < 0)
		return r;
	if (l->memory > 0 && !l->running)
		return err_set(err, EBUSY, "VM %s does not run: it has no memory to keep", c->uuid);
	if (l->memory < 0)
		l->memory = l->running;
	json_put_str(l->entry, "name", l->name);
	json_put_str(l->entry, "created_at", clock_iso(clock_wall_ms(), now, sizeof(now)));
	json_put_bool(l->entry, "memory", l->memory);
	json_put_bool(l->entry, "vars", l->vars != NULL);
	for (size_t i = 0; i < l->ndisks; i++)
		(void)json_array_append_new(disks, json_string(l->disks[i].path));
	if (l->memory) {
		machine = snap_machine(c->d, c->uuid, err);
		if (!machine)
			return -EIO;
		(void)json_object_set_new(l->entry, "machine", machine);
	}
	l->journal = snap_journal(c, "snapshot");
	json_put_bool(l->journal, "pauses", must_stand_still(c));
	(void)json_object_set(l->journal, "entry", l->entry);
	return 0;
}

int snap_step_busy(struct change *c, struct err *err)
{
	live_point("before");
	return c->live->running ? live_busy(c, LIVE_JOB_MS) : 0;
}

int snap_step_calm(struct change *c, struct err *err)
{
	return c->live->running ? live_busy(c, 0) : 0;
}

/* --- it stands still, where it must --- */

static void on_paused(struct change *c, const json_t *value)
{
	c->live->paused = true;
	live_point("paused");
	change_next(c);
}

static int stand_still(struct change *c, struct err *err)
{
	const struct live *l = c->live;

	if (!json_get_bool(l->journal, "pauses", false))
		return 0;
	return live_ask(c, "stop", NULL, on_paused, err);
}

static void on_going(struct change *c, const json_t *value)
{
	c->live->paused = false;
	change_next(c);
}

static int go_on(struct change *c, struct err *err)
{
	return c->live->paused ? live_ask(c, "cont", NULL, on_going, err) : 0;
}

/* --- taken --- */

static int take_images(struct change *c, struct err *err)
{
	const struct live *l = c->live;
	AUTO_FREE char *tag = snap_tag(l);
	int r = 0;

	for (size_t i = 0; r == 0 && i < l->ndisks; i++) {
		(void)snap_image("-d", tag, l->disks[i].path, NULL); /* a leftover */
		r = snap_image("-c", tag, l->disks[i].path, err);
		live_point_worker("image");
	}
	return r;
}

static int taken(struct change *c, struct err *err)
{
	live_point("taken");
	return 0;
}

static int take_memory(struct change *c, struct err *err)
{
	AUTO_FREE char *tag = snap_tag(c->live);
	json_t *args =
		json_pack("{s:s, s:s, s:s, s:o}", "job-id", c->live->qemu_job, "tag", tag,
			  "vmstate", c->live->disks[0].node, "devices", snap_nodes(c->live, NULL));
	int r = live_job(c, "snapshot-save", args, NULL, err);

	live_point("asked");
	return r;
}

static void on_taken(struct change *c, const json_t *value)
{
	live_point("taken");
	change_next(c);
}

int snap_take_disks(struct change *c, struct err *err)
{
	AUTO_FREE char *tag = snap_tag(c->live);
	json_t *actions = json_array();

	for (size_t i = 0; i < c->live->ndisks; i++)
		(void)json_array_append_new(
			actions,
			json_pack("{s:s, s:{s:s, s:s}}", "type", "blockdev-snapshot-internal-sync",
				  "data", "device", c->live->disks[i].node, "name", tag));
	return live_ask(c, "transaction", json_pack("{s:o}", "actions", actions), on_taken, err);
}

static int take(struct change *c, struct err *err)
{
	if (!c->live->running)
		return change_work(c, take_images, taken, err);
	return c->live->memory ? take_memory(c, err) : snap_take_disks(c, err);
}

static int copy_vars(struct change *c, struct err *err)
{
	AUTO_FREE char *to = snap_vars_path(c->live->vars, c->live->name);

	return live_copy(c->live->vars, to, err);
}

static int vars_copied(struct change *c, struct err *err)
{
	live_point("vars");
	return 0;
}

static int keep_vars(struct change *c, struct err *err)
{
	return c->live->vars ? change_work(c, copy_vars, vars_copied, err) : 0;
}

/* --- and known --- */

static json_int_t vm_state_size(const json_t *blocks, const char *tag)
{
	const json_t *block, *one;
	json_int_t size = 0;
	size_t i, k;

	json_array_foreach (blocks, i, block) {
		const json_t *image = json_object_get(json_object_get(block, "inserted"), "image");

		json_array_foreach (json_object_get(image, "snapshots"), k, one) {
			if (str_eq(json_get_str(one, "name", NULL), tag))
				size += json_get_int(one, "vm-state-size", 0);
		}
	}
	return size;
}

static void on_size(struct change *c, const json_t *value)
{
	AUTO_FREE char *tag = snap_tag(c->live);

	json_put_int(c->live->entry, "bytes", vm_state_size(value, tag));
	change_next(c);
}

/* It was still at rest when all was taken: the limit may have passed. */
static int look_frozen(struct change *c, struct err *err)
{
	json_put_bool(c->live->entry, "frozen", c->live->frozen && agent_frozen(live_guest(c)));
	return 0;
}

static int measure(struct change *c, struct err *err)
{
	return c->live->memory ? live_ask(c, "query-block", NULL, on_size, err) : 0;
}

static int record(struct change *c, struct err *err)
{
	c->live->own_entry = false;
	snap_add(c->live->index, c->live->entry);
	return snap_record(c, err);
}

static const change_step create_steps[] = {
	check,
	live_step_lock,
	live_step_nodes,
	fit,
	live_step_job,
	live_step_mark,
	snap_step_busy,
	live_step_freeze,
	stand_still,
	take,
	keep_vars,
	go_on,
	look_frozen,
	live_step_thaw,
	measure,
	snap_step_calm,
	record,
	live_step_unmark,
	live_step_publish,
	snap_step_answer,
};

const struct change_kind change_snapshot = {"create-snapshot", create_steps,
					    ARRAY_SIZE(create_steps), NULL, live_undo};

/* --- requests --- */

static int take_body(struct http_request *req, json_t **ret, struct err *err)
{
	size_t len;
	const char *text = http_body_text(req, &len);

	return json_parse_object(len ? text : "{}", len ? len : 2, "body", ret, err);
}

static int memory_of(const json_t *body, struct live *l, struct err *err)
{
	const json_t *memory = json_object_get(body, "memory");

	if (memory && !json_is_boolean(memory))
		return err_set(err, EINVAL, "memory: want true or false");
	l->memory = memory ? json_is_true(memory) : -1;
	return 0;
}

static void begin(struct http_request *req, void *ctx, const struct change_kind *kind,
		  const char *name, const json_t *body)
{
	struct vmadmd *d = ctx;
	AUTO_FREE char *command = xasprintf("vmadm %s", kind->verb);
	struct change_by by = {.command = command};
	struct live *l = live_new();
	struct target target;
	struct err err = {0};
	int r;

	if (!target_find(d, req, false, &target)) {
		live_free(l);
		return;
	}
	r = snap_name_check(name, &err);
	if (r == 0)
		r = memory_of(body, l, &err);
	if (r < 0) {
		http_reply_err(req, r, &err);
		live_free(l);
		return;
	}
	(void)snprintf(l->name, sizeof(l->name), "%s", name);
	by.uid = target.uid;
	change_order(d, kind, target.uuid, &by, l, req);
}

void handle_snapshot_create(struct http_request *req, void *ctx)
{
	AUTO_JSON json_t *body = NULL;
	struct err err = {0};
	int r = take_body(req, &body, &err);

	if (r < 0)
		http_reply_err(req, r, &err);
	else
		begin(req, ctx, &change_snapshot, json_get_str(body, "name", NULL), body);
}

void handle_snapshot_rollback(struct http_request *req, void *ctx)
{
	AUTO_JSON json_t *body = NULL;
	struct err err = {0};
	int r = take_body(req, &body, &err);

	if (r < 0)
		http_reply_err(req, r, &err);
	else
		begin(req, ctx, &change_rollback, http_param(req, "name"), body);
}

void handle_snapshot_delete(struct http_request *req, void *ctx)
{
	begin(req, ctx, &change_snapdelete, http_param(req, "name"), NULL);
}

void handle_snapshots(struct http_request *req, void *ctx)
{
	struct vmadmd *d = ctx;
	AUTO_JSON json_t *index = NULL, *out = NULL;
	struct target target;
	struct err err = {0};

	if (!target_find(d, req, false, &target))
		return;
	index = snap_index(d, target.uuid, &err);
	if (!index) {
		http_reply_err(req, -EIO, &err);
		return;
	}
	if (http_query(req, "index")) { /* what PUT takes */
		http_reply_json(req, 200, index);
		return;
	}
	out = json_object();
	json_put_str(out, "uuid", target.uuid);
	json_put_str(out, "current", json_get_str(index, "current", NULL));
	(void)json_object_set_new(out, "snapshots", snap_told(index, true));
	http_reply_json(req, 200, out);
}
