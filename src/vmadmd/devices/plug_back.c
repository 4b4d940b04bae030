/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal of a change of a running machine, and its taking up after a sudden end: the
 * definition says which side it was on. One that is written stands: vmstated is told, and the
 * files of disks that left are removed. One that is not: what the machine has taken of it is taken
 * back, and the images made for it are removed. Room a disk was given cannot be taken back: then
 * the definition follows.
 */
#include <errno.h>
#include <string.h>

#include "api/names.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "qemu/image.h"
#include "store/catalog.h"
#include "store/write.h"
#include "vmadmd/change/update.h"
#include "vmadmd/devices/plug.h"
#include "vmadmd/guest.h"
#include "vmadmd/jobs.h"
#include "vmadmd/live/live.h"

#define MIB       (UINT64_C(1) << 20)
#define TRIES_MAX 3 /* a guest may let go at the second asking, and QEMU answer at the third */

/* --- written --- */

static int journaled(struct change *c, struct err *err)
{
	live_point("plug-marked");
	return 0;
}

int step_plug_mark(struct change *c, struct err *err)
{
	json_t *j;

	if (!c->plug || plug_empty(c->plug))
		return 0;
	c->live = live_new();
	c->live->journal = j = plug_journal(c->plug);
	json_put_str(j, "op", "plug");
	json_put_str(j, "job", job_id(c->job));
	json_put_str(j, "command", c->command);
	json_put_int(j, "uid", c->uid);
	(void)json_object_set_new(j, "old", vm_to_json(c->old, NULL, true));
	(void)json_object_set_new(j, "new", vm_to_json(c->new, NULL, true));
	c->live->marked = c->touched = true;
	return change_work(c, live_journal_write, journaled, err);
}

/* --- taken up --- */

static struct vm *vm_of(const struct change *c, const char *side)
{
	AUTO_FREE char *data = path_of_data(c->d->paths, c->uuid, NULL);
	AUTO_PROBLEMS struct problems ignored = {0}; /* it was judged when it was written */

	return vm_from_object(json_object_get(c->live->journal, side), data, &ignored);
}

static bool has_path(const struct vm_changes *changes, const char *path)
{
	for (size_t i = 0; i < changes->count; i++) {
		if (str_eq(changes->items[i].path, path))
			return true;
	}
	return false;
}

/* All that was to be changed is in vm as it was to be. */
static bool is_written(const struct change *c, const struct vm *vm)
{
	AUTO_VM struct vm *old = vm_of(c, "old"), *new = vm_of(c, "new");
	struct vm_changes meant = {0}, missing = {0};
	bool written = true;

	vm_changes_of(old, new, &meant);
	vm_changes_of(vm, new, &missing);
	for (size_t i = 0; i < meant.count && written; i++)
		written = !has_path(&missing, meant.items[i].path);
	vm_changes_done(&meant);
	vm_changes_done(&missing);
	return written;
}

/* Still the machine of then? */
static bool same_machine(const struct change *c)
{
	const struct guest *g = guest_find(c->d, c->uuid);

	return c->live->running && g &&
	       json_get_int(g->facts, FACT_ZONEID, -1) ==
		       json_get_int(c->live->journal, FACT_ZONEID, -2);
}

static int look_back(struct change *c, struct err *err)
{
	struct catalog_entry *e = change_entry(c, err);
	struct live *l = c->live;

	if (!e)
		return -ENOENT;
	if (e->error)
		return err_set(err, EBUSY, "the definition of VM %s is broken: %.300s", c->uuid,
			       e->error);
	if (l->running && !guest_runs(guest_find(c->d, c->uuid)))
		return err_set(err, EBUSY, "VM %s: what vmstated knows of it is under way",
			       c->uuid);
	c->old = vm_copy(e->vm);
	l->done = is_written(c, c->old);
	l->undone = !l->done;
	return 0;
}

/* --- the machine --- */

static void on_back(void *ctx, int r, const struct err *err)
{
	struct change *c = ctx;
	struct live *l = c->live;
	json_int_t tries = json_get_int(l->journal, "tries", 0) + 1;
	struct err text = *err;

	plug_free(c->plug);
	c->plug = NULL;
	if (r == 0) {
		live_point("plug-back");
		change_next(c);
		return;
	}
	json_put_int(l->journal, "tries", tries);
	if (r == -ECONNRESET || tries < TRIES_MAX) {
		if (live_journal_write(c, &text) == 0)
			text = *err;
		change_fail(c, r, &text); /* again, later */
		return;
	}
	log_error("vm=%s a change that was cut short is not wholly out of the machine: %s", c->uuid,
		  err_text(err, r));
	l->left_alone = true;
	c->end_why = *err;
	change_next(c);
}

static int take_back(struct change *c, struct err *err)
{
	if (c->live->done || !same_machine(c))
		return 0;
	c->plug = plug_cut_short(guest_find(c->d, c->uuid), c->live->journal, on_back, c);
	return STEP_WAIT;
}

/* --- the definition follows what cannot be taken back --- */

static struct disk *disk_of(const struct vm *vm, const char *path)
{
	for (size_t i = 0; i < vm->ndisks; i++) {
		if (str_eq(vm->disks[i]->path, path))
			return vm->disks[i];
	}
	return NULL;
}

static bool has_grown(const struct disk *before, const struct disk *d)
{
	struct image_info info;

	return before && d->media == MEDIA_DISK && d->size_mib > before->size_mib &&
	       image_probe(d->path, &info, NULL) == 0 && info.virtual_size >= d->size_mib * MIB;
}

static int look_grown(struct change *c, struct err *err)
{
	AUTO_VM struct vm *old = vm_of(c, "old"), *new = vm_of(c, "new");

	for (size_t i = 0; !c->live->done && i < new->ndisks; i++) {
		const struct disk *d = new->disks[i];
		struct disk *mine = d->path ? disk_of(c->old, d->path) : NULL;

		if (!mine || mine->size_mib >= d->size_mib || !has_grown(disk_of(old, d->path), d))
			continue;
		c->new = c->new ? c->new : vm_copy(c->old);
		disk_of(c->new, d->path)->size_mib = d->size_mib;
	}
	return c->new ? step_begin(c, err) : 0;
}

static int store_files(struct change *c, struct err *err)
{
	return store_update(c->d->paths, c->old, c->new, c->d->sync, err);
}

static int stored(struct change *c, struct err *err)
{
	catalog_sync(c->d->catalog);
	(void)catalog_verify(c->d->catalog, c->uuid);
	c->live->done = is_written(c, c->new); /* it was all there was */
	c->live->undone = !c->live->done;
	return 0;
}

static int store(struct change *c, struct err *err)
{
	return c->new ? change_work(c, store_files, stored, err) : 0;
}

static int commit(struct change *c, struct err *err)
{
	return c->begun ? step_commit(c, err) : 0;
}

/* --- files --- */

static int drop_files(struct change *c, struct err *err)
{
	const struct catalog_entry *e = catalog_by_uuid(c->d->catalog, c->uuid);
	AUTO_VM struct vm *old = vm_of(c, "old");

	if (c->live->done && e)
		disks_drop_removed(c->d, c->uuid, old, e->vm);
	mark_clean_update(c->d, c->uuid);
	return 0;
}

static int files(struct change *c, struct err *err)
{
	return change_work(c, drop_files, NULL, err);
}

static int tell_vmstated(struct change *c, struct err *err)
{
	const json_t *names = json_object_get(c->live->journal, "names");

	return c->live->done && same_machine(c) ? update_tell(c, names) : 0;
}

static int tell(struct change *c, struct err *err)
{
	AUTO_JSON json_t *out = json_pack("{s:s}", "uuid", c->uuid);

	if (c->live->done)
		return change_answer(c, out, "updated");
	if (c->live->left_alone)
		return err_set(err, ECONNRESET,
			       "vmadmd ended in the middle, and the machine keeps something of the "
			       "change until its next start: %s",
			       err_text(&c->end_why, -EIO));
	return err_set(err, ECONNRESET, "vmadmd ended in the middle: the change was taken back");
}

static const change_step steps[] = {
	step_lock, live_step_lock, look_back, live_step_job, take_back,        look_grown,
	store,     commit,         files,     tell_vmstated, live_step_unmark, live_step_publish,
	tell,
};

const struct change_kind change_plug_back = {"update", steps, ARRAY_SIZE(steps), NULL, live_undo};
