/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backup: a whole VM as a stream (store/stream.h) to a socket the caller listens on, while it runs.
 * The point in time is a snapshot of all disks at once, which nobody sees and which goes
 * afterwards; a VM that is stopped is kept stopped instead. Each disk is read from outside of
 * QEMU, flattened, and sent as a qcow2 image. What is left by a sudden end is what a creation of
 * a snapshot leaves, and its journal says so.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "net/http.h"
#include "qemu/image.h"
#include "store/catalog.h"
#include "store/stream.h"
#include "vmadmd/backup.h"
#include "vmadmd/jobs.h"
#include "vmadmd/live.h"
#include "vmadmd/save.h"
#include "vmadmd/snapshot.h"
#include "vmadmd/worker.h"

#define BACKUP_FORMAT 1

void handle_backup(struct http_request *req, void *ctx)
{
	save_begin(req, ctx, &change_backup);
}

/* --- what goes into it --- */

/* About how much the disks are, without zeros and with the images they are on. */
static json_int_t bytes_of(const struct live *l)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < l->ndisks; i++) {
		struct image_info info, base = {0};
		uint64_t bytes;

		if (image_probe(l->disks[i].path, &info, NULL) < 0)
			continue;
		if (info.has_backing)
			(void)image_probe(info.backing, &base, NULL);
		bytes = info.block_device ? info.virtual_size
					  : info.allocated_size + base.allocated_size;
		sum += bytes < info.virtual_size ? bytes : info.virtual_size;
	}
	return (json_int_t)sum;
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
	json_put_int(head, "bytes", bytes_of(c->live));
	(void)json_object_set_new(head, "object", vm_to_json(vm, NULL, true));
	return head;
}

static int prepare(struct change *c, struct err *err)
{
	const struct catalog_entry *e = change_entry(c, err);
	struct live *l = c->live;
	json_t *disks = json_array();
	char now[ISO_TIME_LEN];
	int r = l->running && l->ndisks > 0 ? live_qcow2_only(c, err) : 0;

	l->entry = json_object();
	l->own_entry = true;
	(void)json_object_set_new(l->entry, "disks", disks);
	if (!e)
		return -ENOENT;
	if (r < 0)
		return err_wrap(err, r,
				"to send it while it runs (a stopped VM may have any disk)");
	for (size_t i = 0; i < l->ndisks; i++) {
		if (l->disks[i].path[0] != '/')
			return err_set(err, ENOTSUP,
				       "VM %s: disk '%.60s' is no file or device here", c->uuid,
				       l->disks[i].path);
		(void)json_array_append_new(disks, json_string(l->disks[i].path));
	}
	l->saving->head = head_of(c, e->vm);
	l->memory = 0;
	l->journal = snap_journal(c, "snapshot");
	(void)snprintf(l->name, sizeof(l->name), "backup-%.8s", l->qemu_job + strlen("drover-"));
	json_put_str(l->entry, "name", l->name);
	json_put_str(l->entry, "created_at", clock_iso(clock_wall_ms(), now, sizeof(now)));
	json_put_str(l->journal, "name", l->name);
	(void)json_object_set(l->journal, "entry", l->entry);
	return 0;
}

/* --- the point in time: only QEMU moves on --- */

static int take(struct change *c, struct err *err)
{
	return c->live->running && c->live->ndisks > 0 ? snap_take_disks(c, err) : 0;
}

/* --- out --- */

static char *part_path(const struct change *c)
{
	return path_of_data(c->d->paths, c->uuid, BACKUP_PART);
}

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

/* An image of its own, without backing file and snapshots; -U: QEMU has the source open, but what
 * the snapshot holds does not change. */
static int flatten(const struct change *c, const struct live_disk *disk, const char *part,
		   struct err *err)
{
	AUTO_FREE char *tag = snap_tag(c->live);
	AUTO_FREE char *which = xasprintf("snapshot.name=%s", tag);
	const char *const live[] = {"qemu-img", "convert", "-q",    "-U",       "-f", "qcow2", "-l",
				    which,      "-O",      "qcow2", disk->path, part, NULL};
	const char *const still[] = {"qemu-img", "convert", "-q",       "-f", disk->format,
				     "-O",       "qcow2",   disk->path, part, NULL};

	(void)unlink(part);
	return live_tool(c->live->running ? live : still, err);
}

static int send_file(struct stream *out, const char *path, json_t *member, struct err *err)
{
	AUTO_JSON json_t *taken = member;
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(err, errno, "cannot open '%s'", path);
	json_put_int(taken, "bytes", st.st_size);
	r = stream_member(out, taken, err);
	return r == 0 ? stream_copy_in(out, fd, NULL, err) : r;
}

static int send_disk(const struct change *c, struct stream *out, size_t i, struct err *err)
{
	const struct live_disk *disk = &c->live->disks[i];
	AUTO_FREE char *part = part_path(c), *name = xasprintf("disk%zu", i);
	int r = flatten(c, disk, part, err);

	if (r == 0)
		r = send_file(out, part,
			      json_pack("{s:s, s:s, s:s}", "name", name, "path", disk->path,
					"format", "qcow2"),
			      err);
	(void)unlink(part);
	return r;
}

static int send_all(void *arg, struct err *err)
{
	const struct change *c = arg;
	const struct live *l = c->live;
	AUTO_JSON json_t *done = json_object();
	AUTO_STREAM struct stream out = {0};
	AUTO_FD int fd = backup_connect(l->saving, err);
	int r;

	if (fd < 0)
		return fd;
	r = stream_begin(&out, fd, l->saving->head, err);
	if (r == 0 && l->vars)
		r = send_file(&out, l->vars, json_pack("{s:s}", "name", "nvram"), err);
	for (size_t i = 0; r == 0 && i < l->ndisks; i++)
		r = send_disk(c, &out, i, err);
	json_put_int(done, "disks", (json_int_t)l->ndisks);
	return r == 0 ? stream_end(&out, done, err) : r;
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
	live_point("taken");
	return backup_work(c, send_all, err);
}

int backup_cancel(struct change *c, int r, const struct err *why, struct err *err)
{
	c->ended = r;
	c->end_why = *why;
	worker_kill(c->worker);
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
	live_step_freeze,
	take,
	live_step_thaw,
	send_stream,
	snap_drop_nodes,
	live_step_unmark,
	answer,
};

const struct change_kind change_backup = {"backup", steps,     ARRAY_SIZE(steps),
					  NULL,     live_undo, backup_cancel};
