/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deletion: the VM is stopped by force, QEMU's own lock is taken so that nobody starts it in
 * between, a mark says what must be finished if we are killed, then definition, metadata and the
 * disks in the data directory go as one change. What must refuse refuses before the stop.
 * Source: smartos facts 7.4, 8.37.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "api/names.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "store/catalog.h"
#include "store/write.h"
#include "vmadmd/change/change.h"
#include "vmadmd/change/delete.h"
#include "vmadmd/disks/zfs_dataset.h"
#include "vmadmd/guest.h"
#include "vmadmd/jobs.h"
#include "vmadmd/live/live.h"

/* A file written by hand that holds other VMs is not ours to cut; store_delete says so too late. */
int delete_check_alone(struct change *c, struct err *err)
{
	for (size_t i = 0; i < catalog_count(c->d->catalog); i++) {
		const struct catalog_entry *e = catalog_at(c->d->catalog, i);

		if (strcmp(e->uuid, c->uuid) != 0 && c->old->file &&
		    str_eq(e->vm->file, c->old->file))
			return err_set(err, ENOTSUP,
				       "'%s' defines VM '%s' too: remove the section '%s' by hand",
				       c->old->file, e->vm->name, c->old->name);
	}
	return 0;
}

static int check(struct change *c, struct err *err)
{
	struct catalog_entry *e;

	e = change_entry(c, err);
	if (!e)
		return -ENOENT;
	if (e->vm->indestructible_zoneroot)
		return err_set(err, EBUSY, "indestructible_zoneroot is set, cannot delete");
	if (e->vm->indestructible_delegated)
		return err_set(err, EBUSY, "indestructible_delegated is set, cannot delete");
	c->old = vm_copy(e->vm);
	if (c->old->made_by_us)
		return 0;
	if (e->error)
		return err_set(err, EBUSY,
			       "the definition of VM %s is broken, repair it first: %.300s",
			       c->uuid, e->error);
	return delete_check_alone(c, err);
}

static void on_stopped(void *ctx, int r, int status, const char *body, const struct err *err)
{
	struct change *c = ctx;
	struct err text = *err;

	if (r == 0 && status >= 300)
		r = ask_error(status, body, &text);
	/* Not running, not known to vmstated: what we want. No vmstated: the lock decides. */
	if (r < 0 && r != -EALREADY && r != -ENOENT && r != -ECONNREFUSED) {
		err_wrap(&text, r, "cannot stop VM %s to %s it", c->uuid, c->kind->verb);
		change_fail(c, r, &text);
		return;
	}
	change_next(c);
}

int step_stop(struct change *c, struct err *err)
{
	const char *state = guest_state(c->d, c->uuid);
	struct ask_spec spec = {.uuid = c->uuid, .verb = "stop", .uid = c->uid};

	if (str_eq(state, "stopped") || str_eq(state, "failed"))
		return 0;
	spec.command = c->command;
	spec.body = json_pack("{s:b, s:b}", "wait", 1, "force", 1);
	ask_start(c->d, &spec, on_stopped, c);
	return STEP_WAIT;
}

/* QEMU holds this lock while it lives; with it in our hands it is gone and cannot come back. */
int step_guest_lock(struct change *c, struct err *err)
{
	int r = guest_lock_take(c->d, c->uuid, &c->guest_lock, err);

	return r <= 0 ? r
		      : err_set(err, EBUSY, "VM %s still runs: its QEMU holds its lock", c->uuid);
}

static int mark_files(struct change *c, struct err *err)
{
	AUTO_JSON json_t *content = json_object();
	AUTO_FREE char *dataset = NULL;
	int r = dataset_of(c->d, c->old, &dataset, err);

	json_put_str(content, "file", c->old->file);
	json_put_str(content, MARK_DATASET, dataset);
	if (r == 0)
		r = mark_write(c->d, c->uuid, MARK_DELETE, content, err);
	return r == 0 && dataset ? dataset_unmount(dataset, err) : r;
}

int delete_mark(struct change *c, struct err *err)
{
	c->touched = c->marked = true;
	return change_work(c, mark_files, NULL, err);
}

int delete_announce(struct change *c, struct err *err)
{
	json_t *facts = json_object();

	json_put_str(facts, FACT_ZONE_STATE, "configured");
	json_put_str(facts, FACT_STATE, "configured");
	c->seq = guest_provisioning(guest_get(c->d, c->uuid), facts);
	return 0;
}

static int store_files(struct change *c, struct err *err)
{
	live_point_worker("unmounted");
	return store_delete(c->d->paths, c->old, err);
}

static int stored(struct change *c, struct err *err)
{
	c->stored = true;
	catalog_sync(c->d->catalog);
	(void)catalog_verify(c->d->catalog, c->uuid); /* not by the kernel's word alone */
	log_info("vm=%s deleted name='%s' uid=%u", c->uuid, c->old->name, c->uid);
	return 0;
}

int delete_store(struct change *c, struct err *err)
{
	return change_work(c, store_files, stored, err);
}

/* Of the run directory only what is ours; the directory itself when nothing else is left. */
static void clean_run(struct change *c)
{
	static const char *const ours[] = {"vmadmd.state", "vm.ppm", "vm.png"};
	AUTO_FREE char *dir = path_of_run(c->d->paths, c->uuid, NULL);

	for (size_t i = 0; i < ARRAY_SIZE(ours); i++) {
		AUTO_FREE char *path = path_of_run(c->d->paths, c->uuid, ours[i]);

		(void)unlink(path);
	}
	(void)rmdir(dir);
}

/* What cannot be destroyed now is so at our next start: the mark stays. */
static int forget_files(struct change *c, struct err *err)
{
	int r;

	live_point_worker("undefined");
	r = mark_dataset(c->d, c->uuid, MARK_DELETE, dataset_destroy, err);
	if (r < 0)
		return err_wrap(err, r, "VM %s is deleted, but not its dataset", c->uuid);
	clean_run(c);
	mark_remove(c->d, c->uuid, MARK_DELETE);
	return 0;
}

static int forgotten(struct change *c, struct err *err)
{
	c->seq = guest_provisioning(guest_get(c->d, c->uuid), NULL);
	return 0;
}

int delete_forget(struct change *c, struct err *err)
{
	return change_work(c, forget_files, forgotten, err);
}

static int answer(struct change *c, struct err *err)
{
	AUTO_JSON json_t *out = json_object();

	json_put_str(out, "uuid", c->uuid);
	return change_answer(c, out, "deleted");
}

static int undo_files(struct change *c, struct err *err)
{
	int r;

	if (!c->marked || c->stored)
		return 0;
	r = mark_dataset(c->d, c->uuid, MARK_DELETE, dataset_mount, err);
	if (r == 0)
		mark_remove(c->d, c->uuid, MARK_DELETE);
	return r;
}

static void undo(struct change *c)
{
	struct guest *g = guest_find(c->d, c->uuid);

	if (g && g->provisioning)
		(void)guest_provisioning(g, NULL);
}

static const change_step steps[] = {
	step_lock,   check,           step_job,  step_stop,  step_guest_lock,
	delete_mark, delete_announce, step_seen, step_begin, delete_store,
	step_commit, delete_forget,   step_seen, answer,
};

const struct change_kind change_delete = {"delete", steps, ARRAY_SIZE(steps), undo_files, undo};
