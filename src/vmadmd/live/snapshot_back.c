/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots: back to one. A rollback that was cut short is done again from its beginning: each step
 * may be repeated.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/image.h"
#include "store/catalog.h"
#include "vmadmd/jobs.h"
#include "vmadmd/live/live.h"
#include "vmadmd/live/snapshot.h"

/* The VM was stopped, and is to go on with the snapshot's memory: it is started held. */
static bool is_held(const struct live *l)
{
	return json_get_bool(l->journal, "held", false);
}

/* That came to nothing, c->start_error says why: it is to be stopped again. */
static bool gave_up(const struct change *c)
{
	return is_held(c->live) && c->start_error;
}

/* --- rollback: may it be? --- */

static int same_disks(struct change *c, struct err *err)
{
	const struct live *l = c->live;
	const json_t *path;
	size_t i;

	json_array_foreach (snap_paths(l), i, path) {
		if (!live_disk_by_path(l, json_string_value(path)))
			return err_set(err, EBUSY,
				       "snapshot '%s' has disk '%s', which VM %s has not any "
				       "more: attach it first",
				       l->name, json_string_value(path), c->uuid);
	}
	if (l->ndisks == json_array_size(snap_paths(l)))
		return 0;
	for (size_t k = 0; k < l->ndisks; k++) {
		bool found = false;

		json_array_foreach (snap_paths(l), i, path)
			found = found || str_eq(json_string_value(path), l->disks[k].path);
		if (!found)
			return err_set(err, EBUSY,
				       "disk '%s' of VM %s came after snapshot '%s': take it out "
				       "first",
				       l->disks[k].path, c->uuid, l->name);
	}
	return 0;
}

/* What QEMU has loaded of the images' headers says whether every disk has the tag: a load of one
 * that is missing somewhere would leave the guest stopped. */
static bool node_has_tag(const json_t *blocks, const char *node, const char *tag)
{
	const json_t *block, *one;
	size_t i, k;

	json_array_foreach (blocks, i, block) {
		const json_t *in = json_object_get(block, "inserted");

		if (!str_eq(json_get_str(in, "node-name", NULL), node))
			continue;
		json_array_foreach (json_object_get(json_object_get(in, "image"), "snapshots"), k,
				    one) {
			if (str_eq(json_get_str(one, "name", NULL), tag))
				return true;
		}
	}
	return false;
}

static int has_tags(struct change *c, struct err *err)
{
	const struct live *l = c->live;
	AUTO_FREE char *tag = snap_tag(l);

	for (size_t i = 0; l->running && i < l->ndisks; i++) {
		if (!node_has_tag(l->blocks, l->disks[i].node, tag))
			return err_set(err, EIO,
				       "disk '%s' of VM %s has no snapshot '%s' any more: somebody "
				       "removed it",
				       l->disks[i].path, c->uuid, l->name);
	}
	return 0;
}

/* A machine that is not there yet has no type: newest may be another by its start. */
static int check_machine(struct change *c, struct err *err)
{
	AUTO_JSON json_t *was = json_deep_copy(json_object_get(c->live->entry, "machine"));
	const struct catalog_entry *e = catalog_by_uuid(c->d->catalog, c->uuid);
	AUTO_JSON json_t *now = NULL;

	if (!c->live->memory)
		return 0;
	if (c->live->running)
		now = snap_machine(c->d, c->uuid, err);
	else
		now = e ? snap_machine_of(e->vm) : NULL;
	if (!now)
		return -EIO;
	if (!c->live->running)
		(void)json_object_del(was, "machine");
	return err_wrap(err, snap_same_machine(was, now, err), "snapshot '%s'", c->live->name);
}

/* Memory as asked for, or as the snapshot has it. */
static int choose_memory(struct live *l, struct err *err)
{
	bool has = json_get_bool(l->entry, "memory", false);

	if (!l->again && l->memory > 0 && !has)
		return err_set(err, EINVAL, "snapshot '%s' has no memory: it is of the disks alone",
			       l->name);
	if (l->again)
		l->memory = json_get_bool(l->journal, "memory", l->running && has);
	else if (l->memory < 0)
		l->memory = has;
	return 0;
}

static int fit(struct change *c, struct err *err)
{
	struct live *l = c->live;
	int r = choose_memory(l, err);

	if (r == 0)
		r = live_qcow2_only(c, err);
	if (r == 0)
		r = same_disks(c, err);
	if (r == 0)
		r = has_tags(c, err);
	if (r == 0 && !l->again)
		r = check_machine(c, err);
	if (r < 0 || l->again)
		return r;
	l->journal = snap_journal(c, "rollback");
	json_put_bool(l->journal, "memory", l->memory);
	json_put_bool(l->journal, "held", l->memory && !l->running);
	return 0;
}

/* A tag that is missing in an image is found before anything is touched. */
static int look_at_images(struct change *c, struct err *err)
{
	AUTO_FREE char *tag = snap_tag(c->live);

	for (size_t i = 0; i < c->live->ndisks; i++) {
		const char *path = c->live->disks[i].path;
		int r = image_has_snapshot(path, tag, err);

		if (r < 0)
			return r;
		if (r == 0)
			return err_set(err, EIO,
				       "disk '%s' of VM %s has no snapshot '%s' any more: somebody "
				       "removed it",
				       path, c->uuid, c->live->name);
	}
	return 0;
}

static int verify(struct change *c, struct err *err)
{
	return c->live->running ? SNAP_SKIP : change_work(c, look_at_images, NULL, err);
}

/* --- rollback: done --- */

static void leave_alone(struct change *c)
{
	log_error("vm=%s a rollback to '%s' was cut short, and the VM was started meanwhile: roll "
		  "back again",
		  c->uuid, c->live->name);
	c->live->left_alone = c->live->undone = true;
}

/* After a sudden end with the disks half back, a VM that runs was started by somebody: it is left
 * alone, since what it has written since would be lost. */
static int look_who_runs(struct change *c, struct err *err)
{
	struct live *l = c->live;

	if (!l->again || !l->running || l->memory || !json_get_bool(l->journal, "reverting", false))
		return 0;
	leave_alone(c);
	return 0;
}

/* One that was held goes on by our word alone, and that was written before. */
static void on_held_status(struct change *c, int r, const json_t *value, const struct err *err)
{
	bool runs = json_get_bool(value, "running", false);

	if (r < 0) {
		change_fail(c, r == -EREMOTEIO ? -EIO : r, err); /* again, later */
		return;
	}
	c->live->goes = runs && json_get_bool(c->live->journal, "going", false);
	c->live->done = c->live->goes;
	if (runs && !c->live->goes)
		leave_alone(c);
	change_next(c);
}

static int look_whether_held(struct change *c, struct err *err)
{
	if (!c->live->again || !c->live->running || !is_held(c->live))
		return SNAP_SKIP;
	return live_try(c, "query-status", NULL, -1, on_held_status, err);
}

/* Taken up again: our job in QEMU may still be at it, or have ended well. */
static void on_job_failed(struct change *c, int r, const struct err *err)
{
	c->live->done = false;
	if (r == -ENOENT || r == -EIO)
		change_next(c);
	else
		change_fail(c, r, err);
}

int snap_await_job(struct change *c, struct err *err)
{
	if (!c->live->again || !c->live->running || c->live->done)
		return SNAP_SKIP;
	c->live->done = true;
	return live_job(c, NULL, NULL, on_job_failed, err);
}

/* QEMU remembers the name of the one before. */
int snap_another_job(struct change *c, struct err *err)
{
	char id[UUID_LEN + 1];

	if (!c->live->again)
		return SNAP_SKIP;
	uuid_random(id);
	(void)snprintf(c->live->qemu_job, sizeof(c->live->qemu_job), "drover-%s", id);
	json_put_str(c->live->journal, "qemu_job", c->live->qemu_job);
	return 0;
}

static int await_load(struct change *c, struct err *err)
{
	return c->live->memory && !c->live->left_alone ? snap_await_job(c, err) : SNAP_SKIP;
}

static int stop(struct change *c, struct err *err)
{
	const struct live *l = c->live;

	return l->running && !l->memory && !l->left_alone ? live_vm_stop(c) : SNAP_SKIP;
}

/* From here nobody starts it. */
static int keep_stopped(struct change *c, struct err *err)
{
	int r = 0;

	if (c->live->memory || c->live->left_alone)
		return 0;
	if (c->guest_lock < 0)
		r = guest_lock_take(c->d, c->uuid, &c->guest_lock, err);
	if (r > 0)
		return err_set(err, EBUSY, "VM %s runs again already", c->uuid);
	c->live->running = false;
	return r;
}

static int mark_reverting(struct change *c, struct err *err)
{
	if (c->live->memory || c->live->left_alone)
		return SNAP_SKIP;
	json_put_bool(c->live->journal, "reverting", true);
	return live_step_mark(c, err);
}

static int revert_images(struct change *c, struct err *err)
{
	const struct live *l = c->live;
	AUTO_FREE char *tag = snap_tag(l);
	AUTO_FREE char *vars = l->vars ? snap_vars_path(l->vars, l->name) : NULL;
	int r = 0;

	for (size_t i = 0; r == 0 && i < l->ndisks; i++) {
		r = snap_image("-a", tag, l->disks[i].path, err);
		live_point_worker("image");
	}
	if (r == 0 && vars && file_exists(vars))
		r = live_copy(vars, l->vars, err);
	return r;
}

static int reverted(struct change *c, struct err *err)
{
	live_point("reverted");
	return 0;
}

static void give_up(struct change *c, const char *why)
{
	replace_str(&c->start_error, xstrdup(why));
	c->live->undone = true;
}

static void on_load_failed(struct change *c, int r, const struct err *err)
{
	if (!is_held(c->live)) {
		change_fail(c, r, err);
		return;
	}
	give_up(c, err_text(err, r));
	change_next(c);
}

static int load(struct change *c, struct err *err)
{
	const struct live *l = c->live;
	AUTO_FREE char *tag = snap_tag(l);
	int r = live_job(c, "snapshot-load",
			 json_pack("{s:s, s:s, s:s, s:o}", "job-id", l->qemu_job, "tag", tag,
				   "vmstate", l->disks[0].node, "devices", snap_nodes(l, NULL)),
			 on_load_failed, err);

	json_put_bool(l->journal, "loading", true);
	live_point("asked");
	return r;
}

static int revert(struct change *c, struct err *err)
{
	if (c->live->left_alone || gave_up(c) || (c->live->memory && c->live->done))
		return SNAP_SKIP;
	return c->live->memory ? load(c, err) : change_work(c, revert_images, reverted, err);
}

/* The monitors were silent for the load. */
static int busy(struct change *c, struct err *err)
{
	return c->live->memory && !gave_up(c) ? live_busy(c, LIVE_JOB_MS) : SNAP_SKIP;
}

static int not_busy(struct change *c, struct err *err)
{
	return c->live->memory && !gave_up(c) ? live_busy(c, 0) : SNAP_SKIP;
}

/* --- one that was stopped, and goes on with its memory --- */

static int start_held(struct change *c, struct err *err)
{
	if (!is_held(c->live) || c->live->running || c->live->left_alone)
		return SNAP_SKIP;
	if (c->guest_lock >= 0)
		(void)close(c->guest_lock);
	c->guest_lock = -1;
	return live_vm_try_held(c, "paused");
}

static int nodes_held(struct change *c, struct err *err)
{
	if (!is_held(c->live) || c->live->left_alone)
		return SNAP_SKIP;
	if (c->start_error) {
		c->live->undone = true;
		return SNAP_SKIP;
	}
	live_point("held");
	c->live->running = true;
	return live_step_nodes(c, err);
}

/* Before anything is touched: is it of the type it was? */
static int type_held(struct change *c, struct err *err)
{
	struct err text = {0};

	if (is_held(c->live) && !c->live->left_alone && !c->start_error && !c->live->done &&
	    check_machine(c, &text) < 0)
		give_up(c, text.msg);
	return 0;
}

static bool goes_on(const struct change *c)
{
	const struct live *l = c->live;

	return is_held(l) && !l->left_alone && !l->goes && !gave_up(c);
}

static int mark_going(struct change *c, struct err *err)
{
	if (!goes_on(c))
		return SNAP_SKIP;
	live_point("loaded");
	json_put_bool(c->live->journal, "going", true);
	return live_step_mark(c, err);
}

static void on_going(struct change *c, int r, const json_t *value, const struct err *err)
{
	if (r < 0)
		give_up(c, err_text(err, r));
	else
		live_point("going");
	change_next(c);
}

static int go_on(struct change *c, struct err *err)
{
	return goes_on(c) ? live_try(c, "cont", NULL, -1, on_going, err) : SNAP_SKIP;
}

static int end_held(struct change *c, struct err *err)
{
	return gave_up(c) && c->live->running ? live_vm_stop(c) : SNAP_SKIP;
}

static int keep_held_stopped(struct change *c, struct err *err)
{
	int r = gave_up(c) && c->guest_lock < 0
			? guest_lock_take(c->d, c->uuid, &c->guest_lock, err)
			: 0;

	return r > 0 ? err_set(err, EBUSY, "VM %s runs again already", c->uuid) : r;
}

/* The load may have set back some of the disks: then all of them are. */
static int revert_held(struct change *c, struct err *err)
{
	if (!gave_up(c) || !json_get_bool(c->live->journal, "loading", false))
		return SNAP_SKIP;
	return change_work(c, revert_images, reverted, err);
}

static int tell_held(struct change *c, struct err *err)
{
	bool loading = json_get_bool(c->live->journal, "loading", false);

	if (!gave_up(c))
		return SNAP_SKIP;
	return err_set(err, EIO,
		       "the memory of snapshot '%s' was not taken: %.300s; VM %s is stopped, its "
		       "disks are %s",
		       c->live->name, c->start_error, c->uuid,
		       loading ? "those of the snapshot" : "untouched");
}

/* --- and known --- */

static int record_current(struct change *c, struct err *err)
{
	if (c->live->left_alone ||
	    (gave_up(c) && !json_get_bool(c->live->journal, "loading", false)))
		return SNAP_SKIP;
	json_put_str(c->live->index, "current", c->live->name);
	return snap_record(c, err);
}

/* It ran: so it runs. */
static int start(struct change *c, struct err *err)
{
	if (c->live->left_alone)
		return err_set(err, EBUSY,
			       "vmadmd ended in the middle and the VM was started since: roll back "
			       "to '%s' again",
			       c->live->name);
	if (c->live->memory || !json_get_bool(c->live->journal, "running", false))
		return SNAP_SKIP;
	if (c->guest_lock >= 0)
		(void)close(c->guest_lock);
	c->guest_lock = -1;
	return live_vm_start(c);
}

static const change_step rollback_steps[] = {
	snap_step_entry,
	live_step_lock,
	live_step_nodes,
	fit,
	verify,
	live_step_job,
	look_who_runs,
	look_whether_held,
	await_load,
	snap_another_job,
	live_step_mark,
	stop,
	keep_stopped,
	mark_reverting,
	start_held,
	nodes_held,
	type_held,
	busy,
	revert,
	not_busy,
	mark_going,
	go_on,
	end_held,
	keep_held_stopped,
	revert_held,
	record_current,
	live_step_unmark,
	tell_held,
	start,
	live_step_publish,
	snap_step_answer,
};

const struct change_kind change_rollback = {"rollback-snapshot", rollback_steps,
					    ARRAY_SIZE(rollback_steps), NULL, live_undo};
