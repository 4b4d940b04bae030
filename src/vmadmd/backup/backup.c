/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backup: a whole VM as a stream (store/stream.h) to a socket the caller listens on, while it runs
 * or stopped, when it is kept stopped meanwhile. Its steps are those of backup_copy.c and
 * backup_send.c; what is left by a sudden end is in the journal, and removed.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "model/model.h"
#include "model/rows.h"
#include "net/http.h"
#include "qemu/image.h"
#include "store/catalog.h"
#include "vmadmd/backup/backup.h"
#include "vmadmd/jobs.h"
#include "vmadmd/live/live.h"
#include "vmadmd/live/save.h"
#include "vmadmd/live/snapshot.h"
#include "vmadmd/worker.h"

#define BACKUP_FORMAT 1

void handle_backup(struct http_request *req, void *ctx)
{
	save_begin(req, ctx, &change_backup);
}

/* --- what goes into it --- */

unsigned long long backup_bytes(const struct image_info *info)
{
	struct image_info base = {0};
	unsigned long long bytes = info->block_device ? info->virtual_size : info->allocated_size;

	if (info->has_backing && image_probe(info->backing, &base, NULL) == 0)
		bytes += base.allocated_size;
	return bytes < info->virtual_size ? bytes : info->virtual_size;
}

/* About how much the disks are, without zeros and with the images they are on. */
static unsigned long long bytes_of(const struct live *l)
{
	unsigned long long sum = 0;
	struct image_info info;

	for (size_t i = 0; i < l->ndisks; i++) {
		if (image_probe(l->disks[i].path, &info, NULL) == 0)
			sum += backup_bytes(&info);
	}
	return sum;
}

/* What a dataset at the other end is made with. */
static json_t *dataset_words(const struct vm *vm)
{
	json_t *words = json_object();

	json_put_str(words, "zpool", vm->zpool);
	json_put_str(words, "compression", vm->zfs_root_compression);
	if (VM_GIVEN(vm, quota_gib))
		json_put_int(words, "quota", vm->quota_gib);
	return words;
}

static json_t *head_of(struct change *c, const struct vm *vm)
{
	json_t *head = json_object();
	char now[ISO_TIME_LEN];

	json_put_str(head, "kind", "backup");
	json_put_int(head, "format", BACKUP_FORMAT);
	json_put_str(head, "uuid", c->uuid);
	json_put_str(head, "name", vm->name);
	json_put_str(head, "created_at", clock_iso(clock_wall_ms(), now, sizeof(now)));
	json_put_str(head, "program", "vmadmd " DROVER_VERSION);
	json_put_bool(head, "running", c->live->running);
	json_put_int(head, "bytes", (json_int_t)bytes_of(c->live));
	(void)json_object_set_new(head, "object", vm_to_json(vm, NULL, true));
	if (VM_GIVEN(vm, zpool))
		(void)json_object_set_new(head, "zfs", dataset_words(vm));
	return head;
}

static int prepare(struct change *c, struct err *err)
{
	const struct catalog_entry *e = change_entry(c, err);
	struct live *l = c->live;

	if (!e)
		return -ENOENT;
	for (size_t i = 0; i < l->ndisks; i++) {
		if (l->disks[i].path[0] != '/')
			return err_set(err, ENOTSUP,
				       "VM %s: disk '%.60s' is no file or device here", c->uuid,
				       l->disks[i].path);
	}
	l->saving->head = head_of(c, e->vm);
	l->memory = 0;
	l->journal = snap_journal(c, "backup");
	json_put_int(l->journal, "disks", (json_int_t)l->ndisks);
	return l->running ? backup_room(c, bytes_of(l), err) : 0;
}

/* --- out --- */

int backup_connect(const struct saving *s, struct err *err)
{
	struct sock_peer peer = {0};
	int fd = -1;
	int r = sock_connect(s->file, &fd, err);

	if (r == 0)
		r = sock_peer(fd, &peer, err);
	if (r == 0 && peer.uid != s->who.uid && s->who.uid != 0)
		r = err_set(err, EPERM, "'%s' is listened on by uid %u, not by who asked", s->file,
			    peer.uid);
	if (r == 0 && fcntl(fd, F_SETFL, 0) < 0)
		r = err_sys(err, errno, "cannot use '%s'", s->file);
	sock_peer_done(&peer);
	if (r == 0)
		return fd;
	if (fd >= 0)
		(void)close(fd);
	return r;
}

static void on_worked(void *ctx, int r, const struct err *err)
{
	struct change *c = ctx;

	c->worker = NULL;
	c->live->cancellable = false;
	if (c->ended)
		change_fail(c, c->ended, &c->end_why);
	else if (r < 0)
		change_fail(c, r, err);
	else
		change_next(c);
}

/* Work that takes its time: at our end it is killed. It has no use of its descriptor. */
int backup_work(struct change *c, int (*fn)(void *change, struct err *err), struct err *err)
{
	const struct worker_task task = {.fn = fn, .arg = c, .fd = 0, .done = on_worked, .ctx = c};
	int r = worker_run_fd(c->d, &task, &c->worker, err);

	c->live->cancellable = r == 0;
	return r < 0 ? r : STEP_WAIT;
}

static int send_stream(struct change *c, struct err *err)
{
	if (!c->live->running)
		live_point("taken");
	live_point("copied");
	return backup_work(c, backup_send_all, err);
}

int backup_cancel(struct change *c, int r, const struct err *why, struct err *err)
{
	c->ended = r;
	c->end_why = *why;
	if (c->worker)
		worker_kill(c->worker);
	else
		backup_copy_cancel(c);
	return 0;
}

static int answer(struct change *c, struct err *err)
{
	AUTO_JSON json_t *out = json_object();

	log_info("vm=%s backup done uid=%u", c->uuid, c->uid);
	json_put_str(out, "uuid", c->uuid);
	c->confirmed = true; /* nothing to be seen */
	return change_answer(c, out, "backed up");
}

static const change_step steps[] = {
	live_step_lock,
	live_step_nodes,
	prepare,
	live_step_job,
	live_step_mark,
	backup_copy_targets,
	backup_copy_attach,
	live_step_freeze,
	backup_copy_begin,
	live_step_thaw,
	backup_copy_await,
	backup_copy_detach,
	send_stream,
	backup_copy_remove,
	live_step_unmark,
	answer,
};

const struct change_kind change_backup = {"backup", steps,     ARRAY_SIZE(steps),
					  NULL,     live_undo, backup_cancel};
