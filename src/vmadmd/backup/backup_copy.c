/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The point in time of a backup while its VM runs: QEMU copies all disks, of whatever format, by
 * blockdev-backup jobs that begin in one transaction, into qcow2 images of ours. Before the guest
 * overwrites what is not copied yet, QEMU copies it. Order: images made, opened by QEMU, the jobs
 * begun, awaited, images closed; when they are sent, removed. After a sudden end the journal has
 * the jobs cancelled, and all of it removed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "qemu/image.h"
#include "vmadmd/backup/backup.h"
#include "vmadmd/disks/disks.h"
#include "vmadmd/live/live.h"

#define NODE_LEN 40

char *backup_copy_path(const struct change *c, size_t i)
{
	AUTO_FREE char *name = xasprintf(BACKUP_COPY, i);

	return path_of_data(c->d->paths, c->uuid, name);
}

static const char *node_name(size_t i, char buf[static NODE_LEN])
{
	(void)snprintf(buf, NODE_LEN, "drover-backup%zu", i);
	return buf;
}

static bool copied(const struct change *c)
{
	return c->live->running && c->live->ndisks > 0;
}

int backup_room(const struct change *c, unsigned long long bytes, struct err *err)
{
	AUTO_FREE char *part = path_of_data(c->d->paths, c->uuid, BACKUP_PART);
	AUTO_FREE char *data = path_of_data(c->d->paths, c->uuid, NULL);
	unsigned long long room = disks_room_at(part);

	if (bytes <= room)
		return 0;
	return err_set(err, ENOSPC,
		       "no space in '%s' for a copy of the disks of VM %s: it takes up to %llu "
		       "bytes, %llu are free",
		       data, c->uuid, bytes, room);
}

/* --- images --- */

static uint64_t size_of_node(const struct live *l, const char *node)
{
	const json_t *block;
	size_t i;

	json_array_foreach (l->blocks, i, block) {
		const json_t *in = json_object_get(block, "inserted");

		if (str_eq(json_get_str(in, "node-name", NULL), node))
			return (uint64_t)json_get_int(json_object_get(in, "image"), "virtual-size",
						      0);
	}
	return 0;
}

static int make_targets(struct change *c, struct err *err)
{
	const struct live *l = c->live;
	int r = 0;

	for (size_t i = 0; r == 0 && i < l->ndisks; i++) {
		AUTO_FREE char *path = backup_copy_path(c, i);

		(void)unlink(path);
		r = image_create(path, size_of_node(l, l->disks[i].node), NULL, err);
		if (r == 0)
			disks_give(live_guest(c), path);
	}
	return r;
}

int backup_copy_targets(struct change *c, struct err *err)
{
	return copied(c) ? change_work(c, make_targets, NULL, err) : 0;
}

static void on_attached(struct change *c, const json_t *value)
{
	change_again(c);
}

int backup_copy_attach(struct change *c, struct err *err)
{
	AUTO_FREE char *path = backup_copy_path(c, c->live->targets);
	char node[NODE_LEN];
	json_t *args;

	if (!copied(c) || c->live->targets == c->live->ndisks)
		return 0;
	args = json_pack("{s:s, s:s, s:s, s:s, s:{s:b, s:b}, s:{s:s, s:s, s:s}}", "driver", "qcow2",
			 "node-name", node_name(c->live->targets, node), "discard", "unmap",
			 "detect-zeroes", "unmap", "cache", "direct", 0, "no-flush", 1, "file",
			 "driver", "file", "filename", path, "discard", "unmap");
	c->live->targets++;
	return live_ask(c, "blockdev-add", args, on_attached, err);
}

/* --- the copying --- */

static void on_taken(struct change *c, const json_t *value)
{
	live_point("taken");
	change_next(c);
}

int backup_copy_begin(struct change *c, struct err *err)
{
	const struct live *l = c->live;
	json_t *actions = json_array();

	if (!copied(c)) {
		json_decref(actions);
		return 0;
	}
	for (size_t i = 0; i < l->ndisks; i++) {
		AUTO_FREE char *id = xasprintf("%s.%zu", l->qemu_job, i);
		char node[NODE_LEN];

		(void)json_array_append_new(
			actions,
			json_pack("{s:s, s:{s:s, s:s, s:s, s:s, s:b}}", "type", "blockdev-backup",
				  "data", "job-id", id, "device", l->disks[i].node, "target",
				  node_name(i, node), "sync", "full", "auto-dismiss", 0));
	}
	return live_ask(c, "transaction",
			json_pack("{s:o, s:{s:s}}", "actions", actions, "properties",
				  "completion-mode", "grouped"),
			on_taken, err);
}

static void on_copy_failed(struct change *c, int r, const struct err *err)
{
	c->live->cancellable = false;
	if (c->ended)
		change_fail(c, c->ended, &c->end_why);
	else
		change_fail(c, r, err);
}

int backup_copy_await(struct change *c, struct err *err)
{
	if (!copied(c))
		return 0;
	c->live->cancellable = true;
	return live_job(c, NULL, NULL, on_copy_failed, err);
}

/* An answer does not matter: what is not there cannot be in the way. */
static void on_detached(struct change *c, int r, const json_t *value, const struct err *err)
{
	change_again(c);
}

int backup_copy_detach(struct change *c, struct err *err)
{
	char node[NODE_LEN];

	c->live->cancellable = false;
	if (!c->live->running || c->live->targets == 0)
		return 0;
	c->live->targets--;
	return live_try(c, "blockdev-del",
			json_pack("{s:s}", "node-name", node_name(c->live->targets, node)), -1,
			on_detached, err);
}

static int remove_files(struct change *c, struct err *err)
{
	AUTO_FREE char *part = path_of_data(c->d->paths, c->uuid, BACKUP_PART);
	int r = unlink(part);

	for (size_t i = 0; i < VM_DISKS_MAX && (r == 0 || errno == ENOENT); i++) {
		AUTO_FREE char *path = backup_copy_path(c, i);

		r = unlink(path);
	}
	return r < 0 && errno != ENOENT ? err_sys(err, errno, "cannot remove a copy of a disk") : 0;
}

int backup_copy_remove(struct change *c, struct err *err)
{
	return change_work(c, remove_files, NULL, err);
}

/* --- what was cut short --- */

static int recall(struct change *c, struct err *err)
{
	c->live->undone = true;
	c->live->targets = (size_t)json_get_int(c->live->journal, "disks", 0);
	c->live->targets = c->live->targets < VM_DISKS_MAX ? c->live->targets : VM_DISKS_MAX;
	return 0;
}

static void on_gone(struct change *c, int r, const struct err *err)
{
	change_next(c);
}

/* Those that have begun come to an end; a QEMU that is silent has us try again. */
static int cancel_copies(struct change *c, struct err *err)
{
	if (!c->live->running)
		return 0;
	backup_copy_cancel(c);
	return live_job(c, NULL, NULL, on_gone, err);
}

void backup_copy_cancel(struct change *c)
{
	size_t jobs = c->live->again ? c->live->targets : c->live->ndisks;

	for (size_t i = 0; i < jobs; i++) {
		AUTO_FREE char *id = xasprintf("%s.%zu", c->live->qemu_job, i);

		live_send(live_guest(c), "job-cancel", json_pack("{s:s}", "id", id));
	}
}

static int tell_undone(struct change *c, struct err *err)
{
	return err_set(err, ECONNRESET,
		       "it ended in the middle, with vmadmd or QEMU: what there was of the backup "
		       "was removed");
}

static const change_step undo_steps[] = {
	recall,           live_step_lock,     live_step_job,
	cancel_copies,    backup_copy_detach, backup_copy_remove,
	live_step_unmark, tell_undone,
};

const struct change_kind change_backup_undo = {"backup", undo_steps, ARRAY_SIZE(undo_steps), NULL,
					       live_undo};
