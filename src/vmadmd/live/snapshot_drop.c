/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots: away with one, and the undoing of one that was cut short. A deletion that was cut
 * short is done again from its beginning: each step may be repeated.
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
#include "vmadmd/live/live.h"
#include "vmadmd/live/snapshot.h"

/* --- deletion: of a snapshot, and of what a creation cut short has left --- */

static int plan_delete(struct change *c, struct err *err)
{
	struct live *l = c->live;

	if (!l->again)
		l->journal = snap_journal(c, "delete-snapshot");
	if (!l->again)
		(void)json_object_set(l->journal, "entry", l->entry);
	if (!l->entry) { /* the index is written already, or never was */
		l->entry = json_incref(json_object_get(l->journal, "entry"));
		l->own_entry = true;
	}
	return 0;
}

int snap_drop_nodes(struct change *c, struct err *err)
{
	const struct live *l = c->live;
	AUTO_FREE char *tag = snap_tag(l);
	json_t *nodes;

	if (!l->running)
		return SNAP_SKIP;
	nodes = snap_nodes(l, snap_paths(l));
	if (json_array_size(nodes) == 0) {
		json_decref(nodes);
		return SNAP_SKIP;
	}
	return live_job(
		c, "snapshot-delete",
		json_pack("{s:s, s:s, s:o}", "job-id", l->qemu_job, "tag", tag, "devices", nodes),
		NULL, err);
}

/* Disks that QEMU does not have: all of them, or those that were taken out since. */
static int delete_images(struct change *c, struct err *err)
{
	const struct live *l = c->live;
	AUTO_FREE char *tag = snap_tag(l);
	AUTO_FREE char *nvram = live_vars_path(c);
	AUTO_FREE char *vars = snap_vars_path(nvram, l->name);
	const json_t *item;
	size_t i;
	int r = 0;

	json_array_foreach (snap_paths(l), i, item) {
		const char *path = json_string_value(item);
		const struct live_disk *disk = live_disk_by_path(l, path);

		if (r < 0 || (disk && disk->node[0]) || !file_exists(path))
			continue;
		r = image_has_snapshot(path, tag, err);
		if (r > 0)
			r = snap_image("-d", tag, path, err);
		live_point_worker("image");
	}
	if (r == 0 && unlink(vars) < 0 && errno != ENOENT)
		r = err_sys(err, errno, "cannot remove '%s'", vars);
	return r;
}

static int deleted(struct change *c, struct err *err)
{
	live_point("deleted");
	return 0;
}

static int drop_images(struct change *c, struct err *err)
{
	return change_work(c, delete_images, deleted, err);
}

/* First: without entry it is none any more, whatever happens to the tags. */
static int record_gone(struct change *c, struct err *err)
{
	struct live *l = c->live;

	if (!l->own_entry) {
		json_incref(l->entry);
		l->own_entry = true;
	}
	snap_remove(l->index, l->name);
	return snap_record(c, err);
}

static const change_step delete_steps[] = {
	snap_step_entry, live_step_lock,   live_step_nodes,   plan_delete,      live_step_job,
	live_step_mark,  record_gone,      snap_step_busy,    snap_drop_nodes,  snap_step_calm,
	drop_images,     live_step_unmark, live_step_publish, snap_step_answer,
};

const struct change_kind change_snapdelete = {"delete-snapshot", delete_steps,
					      ARRAY_SIZE(delete_steps), NULL, live_undo};

/* --- a creation that was cut short --- */

/* The entry is written: it was good, and only the journal was left. */
static int was_done(struct change *c, struct err *err)
{
	struct live *l = c->live;

	l->done = l->entry != NULL;
	l->undone = !l->done;
	if (!l->done) {
		l->entry = json_incref(json_object_get(l->journal, "entry"));
		l->own_entry = true;
	}
	return 0;
}

/* The guest may have been stopped by us for the blink of an eye. */
static void on_going(struct change *c, int r, const json_t *value, const struct err *err)
{
	change_next(c);
}

static int let_go(struct change *c, struct err *err)
{
	if (!c->live->running || !json_get_bool(c->live->journal, "pauses", false))
		return SNAP_SKIP;
	return live_try(c, "cont", NULL, -1, on_going, err);
}

/* It ends first, whatever its outcome: without an entry it is none. */
static int await_taking(struct change *c, struct err *err)
{
	bool done = c->live->done;
	int r = snap_await_job(c, err);

	c->live->done = done;
	return r;
}

static int undo_nodes(struct change *c, struct err *err)
{
	return c->live->done ? SNAP_SKIP : snap_drop_nodes(c, err);
}

static int undo_images(struct change *c, struct err *err)
{
	return c->live->done ? SNAP_SKIP : drop_images(c, err);
}

/* A qemu-img that died has lost clusters at most. */
static int mend_images(struct change *c, struct err *err)
{
	for (size_t i = 0; !c->live->running && i < c->live->ndisks; i++) {
		const char *const argv[] = {
			"qemu-img", "check", "-q", "-r", "leaks", c->live->disks[i].path, NULL};

		(void)live_tool(argv, NULL);
	}
	return 0;
}

static int mend(struct change *c, struct err *err)
{
	return change_work(c, mend_images, NULL, err);
}

static int tell_undone(struct change *c, struct err *err)
{
	if (c->live->done)
		return 0;
	return err_set(err, ECONNRESET,
		       "vmadmd or QEMU ended in the middle: what there was of snapshot '%s' was "
		       "removed",
		       c->live->name);
}

static const change_step undo_steps[] = {
	snap_step_entry,   was_done,    live_step_lock, live_step_nodes,
	live_step_job,     let_go,      await_taking,   snap_another_job,
	undo_nodes,        undo_images, mend,           live_step_unmark,
	live_step_publish, tell_undone,
};

const struct change_kind change_snapundo = {"create-snapshot", undo_steps, ARRAY_SIZE(undo_steps),
					    NULL, live_undo};
