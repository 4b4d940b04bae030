/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An update: the payload is applied to a copy, judged whole, and written as one change. Nothing
 * is written when nothing differs. What applies to a running VM at once is applied before the
 * answer; the rest waits for its next start. Also how start and stop keep autoboot.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "net/feed.h"
#include "store/catalog.h"
#include "store/write.h"
#include "vmadmd/change/change.h"
#include "vmadmd/change/create.h"
#include "vmadmd/change/update.h"
#include "vmadmd/devices/plug.h"
#include "vmadmd/disks/disks.h"
#include "vmadmd/disks/zfs.h"
#include "vmadmd/disks/zfs_dataset.h"
#include "vmadmd/guest.h"
#include "vmadmd/jobs.h"
#include "vmadmd/live/live.h"

static int check(struct change *c, struct err *err)
{
	struct catalog_entry *e;
	bool moved;
	int r;

	e = change_entry(c, err);
	if (!e)
		return -ENOENT;
	if (e->error)
		return err_set(err, EBUSY,
			       "the definition of VM %s is broken, repair it first: %.300s",
			       c->uuid, e->error);
	c->old = vm_copy(e->vm);
	/* Somebody may have set the dataset's properties by hand. */
	if (json_object_get(c->payload, "quota"))
		c->old->quota_gib = zfs_quota(c->d, c->uuid, c->old->quota_gib);
	if (json_object_get(c->payload, ZFS_COMPRESSION) && zfs_compression(c->d, c->uuid))
		replace_str(&c->old->zfs_root_compression, xstrdup(zfs_compression(c->d, c->uuid)));
	if (c->how && c->how->drive) {
		r = update_medium(c, err);
		if (r < 0)
			return r;
	} else {
		c->new = vm_update(c->old, c->payload, guest_state(c->d, c->uuid), &c->changes,
				   &c->problems);
	}
	r = change_problems(c, err);
	if (r < 0)
		return r;
	if (!c->new)
		return err_set(err, EINVAL, "the payload cannot be applied");
	if (c->changes.count == 0) {
		c->seq = feed_seq(c->d->feed);
		c->confirmed = true; /* nothing to be seen */
		return STEP_LAST;
	}
	moved = dataset_place(c);
	if (create_avoid_macs(c) || moved) {
		vm_changes_done(&c->changes);
		vm_changes_of(c->old, c->new, &c->changes);
	}
	r = update_is_live(c) ? live_nothing_waits(c, err) : 0;
	if (r == 0)
		r = change_conflicts(c, err);
	return r < 0 ? r : disks_plan(c, err);
}

static int mark_files(struct change *c, struct err *err)
{
	AUTO_FREE char *data = path_of_data(c->d->paths, c->uuid, NULL);
	AUTO_JSON json_t *content = json_object();
	int r;

	json_object_set_new(content, "images", disks_paths(c));
	r = dir_make(data, 0700, err); /* a VM written by hand may have none yet */
	return r < 0 ? r : mark_write(c->d, c->uuid, MARK_UPDATE, content, err);
}

static int mark(struct change *c, struct err *err)
{
	if (c->njobs == 0)
		return 0;
	c->touched = c->marked = true;
	return change_work(c, mark_files, NULL, err);
}

/* --- what applies at once, before it is written: a refusal then leaves no trace --- */

static void on_staged(void *ctx)
{
	struct change *c = ctx;
	struct guest *g = guest_find(c->d, c->uuid);
	struct err err = {0};
	int r = g ? vnc_staged(g, c->new, &err) : 0;

	if (r < 0)
		change_fail(c, r, &err);
	else
		change_next(c);
}

static int apply(struct change *c, struct err *err)
{
	struct guest *g = guest_find(c->d, c->uuid);
	int r = g ? vnc_stage(g, c->new, on_staged, c, err) : 0;

	return r > 0 ? STEP_WAIT : r;
}

static void dataset_told(struct change *c, int r, const struct err *err)
{
	c->child = NULL;
	if (r < 0)
		change_fail(c, r, err);
	else
		change_next(c);
}

static void on_quota(void *ctx, const struct child_exit *how, const char *out, const char *errors)
{
	struct change *c = ctx;
	struct err err = {0};
	int r = zfs_was_set(c->d->zfs, c->uuid, "quota", json_integer(c->new->quota_gib), how,
			    errors, &err);

	dataset_told(c, r, &err);
}

/* The quota is the dataset's own where one backs the VM. */
static int quota(struct change *c, struct err *err)
{
	uint32_t gib = c->new->quota_gib;
	AUTO_FREE char *value = gib ? xasprintf("%" PRIu32 "G", gib) : xstrdup("none");

	if (c->old->quota_gib == gib)
		return 0;
	return zfs_set(c->d->zfs, c->uuid, &(struct zfs_setting){"quota", value, on_quota, c},
		       &c->child, err);
}

static void on_compression(void *ctx, const struct child_exit *how, const char *out,
			   const char *errors)
{
	struct change *c = ctx;
	struct err err = {0};
	const char *word = c->new->zfs_root_compression;
	int r = zfs_was_set(c->d->zfs, c->uuid, ZFS_COMPRESSION,
			    word ? json_string(word) : json_null(), how, errors, &err);

	dataset_told(c, r, &err);
}

/* What is written from now on; what lies there stays as it is. */
static int compression(struct change *c, struct err *err)
{
	const char *word = c->new->zfs_root_compression;
	int r;

	if (str_eq(c->old->zfs_root_compression, word))
		return 0;
	r = zfs_set(c->d->zfs, c->uuid,
		    &(struct zfs_setting){"compression", word, on_compression, c}, &c->child, err);
	return r != 0 ? r
		      : err_set(err, EINVAL,
				"zfs_root_compression: VM %s lies on no dataset (see zpool)",
				c->uuid);
}

static int store_files(struct change *c, struct err *err)
{
	int r = store_update(c->d->paths, c->old, c->new, c->d->sync, err);

	if (r < 0)
		return r;
	disks_drop_removed(c->d, c->uuid, c->old, c->new);
	if (c->marked)
		mark_remove(c->d, c->uuid, MARK_UPDATE);
	return 0;
}

static int stored(struct change *c, struct err *err)
{
	struct guest *g;

	c->stored = true;
	live_point("plug-stored");
	catalog_sync(c->d->catalog);
	(void)catalog_verify(c->d->catalog, c->uuid); /* not by the kernel's word alone */
	g = guest_find(c->d, c->uuid);
	if (g)
		vnc_stage_end(g);
	c->marked = c->touched = false;
	log_info("vm=%s updated changes=%zu uid=%u", c->uuid, c->changes.count, c->uid);
	return 0;
}

static int store(struct change *c, struct err *err)
{
	c->touched = true;
	return change_work(c, store_files, stored, err);
}

static void on_applied(void *ctx)
{
	change_next(ctx);
}

/* VNC settles: a listener elsewhere may have been opened, an older password told again. */
static int settle(struct change *c, struct err *err)
{
	struct guest *g = guest_find(c->d, c->uuid);

	c->seq = feed_seq(c->d->feed);
	if (!g || !monitor_ready(g) || !g->vnc.asking)
		return 0;
	vnc_reload(g, on_applied, c);
	return STEP_WAIT;
}

static json_t *value_of(const char *text)
{
	json_t *value = text ? json_loads(text, JSON_DECODE_ANY, NULL) : json_null();

	return value ? value : json_string(text);
}

static json_t *changes_json(const struct vm_changes *changes)
{
	json_t *list = json_array();

	for (size_t i = 0; i < changes->count; i++) {
		const struct vm_change *one = &changes->items[i];
		json_t *out = json_object();

		json_put_str(out, "path", one->path);
		json_object_set_new(out, "old", value_of(one->old_text));
		json_object_set_new(out, "new", value_of(one->new_text));
		json_put_bool(out, "live", one->live);
		json_array_append_new(list, out);
	}
	return list;
}

static int answer(struct change *c, struct err *err)
{
	AUTO_JSON json_t *out = json_object();

	json_put_str(out, "uuid", c->uuid);
	json_object_set_new(out, "changes", changes_json(&c->changes));
	return change_answer(c, out, "updated");
}

/* The journal last; it stays when the machine keeps something of the change. */
static int undo_files(struct change *c, struct err *err)
{
	(void)disks_undo_update(c, err);
	return c->live && !plug_half(c->plug) ? live_journal_remove(c, err) : 0;
}

static void undo(struct change *c)
{
	struct guest *g = guest_find(c->d, c->uuid);

	if (g)
		vnc_stage_end(g);
	if (plug_half(c->plug))
		live_repair(c->d, c->uuid, LIVE_AGAIN_MS);
}

static const change_step steps[] = {
	step_lock,      check,     step_job,    mark,   step_images, step_grow, step_plug_plan,
	step_plug_mark, step_plug, step_begin,  apply,  compression, quota,     store,
	step_commit,    step_tell, step_unmark, settle, step_seen,   answer,
};

const struct change_kind change_updating = {"update", steps, ARRAY_SIZE(steps), undo_files, undo};
