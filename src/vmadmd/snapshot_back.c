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
#include "vmadmd/jobs.h"
#include "vmadmd/live.h"
#include "vmadmd/snapshot.h"

static bool with_memory(const struct live *l)
{
	return l->running && json_get_bool(l->entry, "memory", false);
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

static int check_machine(struct change *c, struct err *err)
{
	AUTO_JSON json_t *now = NULL;

	if (!with_memory(c->live))
		return 0;
	now = snap_machine(c->d, c->uuid, err);
	if (!now)
		return -EIO;
	return err_wrap(err,
			snap_same_machine(json_object_get(c->live->entry, "machine"), now, err),
			"snapshot '%s'", c->live->name);
}

static int fit(struct change *c, struct err *err)
{
	struct live *l = c->live;
	int r = live_qcow2_only(c, err);

	if (r == 0)
		r = same_disks(c, err);
	if (r == 0)
		r = has_tags(c, err);
	if (r == 0 && !l->again)
		r = check_machine(c, err);
	l->memory = with_memory(l);
	if (r < 0 || l->again)
		return r;
	l->journal = snap_journal(c, "rollback");
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

/* After a sudden end with the disks half back, a VM that runs was started by somebody: it is left
 * alone, since what it has written since would be lost. */
static int look_who_runs(struct change *c, struct err *err)
{
	struct live *l = c->live;

	if (!l->again || !l->running || l->memory || !json_get_bool(l->journal, "reverting", false))
		return 0;
	log_error("vm=%s a rollback to '%s' was cut short, and the VM was started meanwhile: roll "
		  "back again",
		  c->uuid, l->name);
	l->left_alone = l->undone = true;
	return 0;
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
	return c->live->memory ? snap_await_job(c, err) : SNAP_SKIP;
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

static int load(struct change *c, struct err *err)
{
	const struct live *l = c->live;
	AUTO_FREE char *tag = snap_tag(l);
	int r = live_job(c, "snapshot-load",
			 json_pack("{s:s, s:s, s:s, s:o}", "job-id", l->qemu_job, "tag", tag,
				   "vmstate", l->disks[0].node, "devices", snap_nodes(l, NULL)),
			 NULL, err);

	live_point("asked");
	return r;
}

static int revert(struct change *c, struct err *err)
{
	if (c->live->left_alone || (c->live->memory && c->live->done))
		return SNAP_SKIP;
	return c->live->memory ? load(c, err) : change_work(c, revert_images, reverted, err);
}

/* The monitors were silent for the load. */
static int busy(struct change *c, struct err *err)
{
	return c->live->memory ? live_busy(c, LIVE_JOB_MS) : SNAP_SKIP;
}

static int not_busy(struct change *c, struct err *err)
{
	return c->live->memory ? live_busy(c, 0) : SNAP_SKIP;
}

static int record_current(struct change *c, struct err *err)
{
	if (c->live->left_alone)
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
	await_load,
	snap_another_job,
	live_step_mark,
	stop,
	keep_stopped,
	mark_reverting,
	busy,
	revert,
	not_busy,
	record_current,
	live_step_unmark,
	start,
	live_step_publish,
	snap_step_answer,
};

const struct change_kind change_rollback = {"rollback-snapshot", rollback_steps,
					    ARRAY_SIZE(rollback_steps), NULL, live_undo};
