/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receive: a VM out of a stream that the caller gives on a socket he listens on. A creation like
 * any other: the data directory appears with its mark, the stream goes into it and is checked to
 * its end, then the VM is announced, written and installed. A cut or damaged stream, or our own
 * sudden end, leaves nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "net/http.h"
#include "qemu/image.h"
#include "store/catalog.h"
#include "store/stream.h"
#include "store/write.h"
#include "vmadmd/auth.h"
#include "vmadmd/backup/backup.h"
#include "vmadmd/change/create.h"
#include "vmadmd/disks/zfs_dataset.h"
#include "vmadmd/live/live.h"
#include "vmadmd/live/save.h"
#include "vmadmd/worker.h"

#define RECEIVED_VERSION 1
#define RECEIVED         "received.json" /* what the worker found: {head, disks: {OLD: NEW}} */
#define IMAGE_MODE       0600
#define ZERO_UNIT        4096u
#define SYNC_UNIT        (8 << 20)

static int check(struct change *c, struct err *err)
{
	AUTO_FREE char *data = path_of_data(c->d->paths, c->uuid, NULL);

	if (!uuid_valid(c->uuid))
		return err_set(err, EINVAL, "uuid: '%.40s' is not a uuid", c->uuid);
	if (catalog_by_uuid(c->d->catalog, c->uuid) || file_exists(data))
		return err_set(err, EEXIST, "VM with UUID %s already exists", c->uuid);
	return 0;
}

static int job(struct change *c, struct err *err)
{
	return change_job(c, NULL, err);
}

static int mark_files(struct change *c, struct err *err)
{
	AUTO_JSON json_t *content = json_pack("{s:[]}", "images");

	json_put_str(content, MARK_DATASET, c->dataset);
	return mark_new(c->d, c->uuid, content, err);
}

static int marked(struct change *c, struct err *err)
{
	c->touched = c->data_made = true;
	live_point("marked");
	return 0;
}

static int mark(struct change *c, struct err *err)
{
	return change_work(c, mark_files, marked, err);
}

/* --- in: the worker --- */

struct intake {
	const struct change *c;
	struct stream in;
	json_t *disks;  /* old path: new path */
	int fd;         /* of the file being written, -1: none */
	char *file;     /* its path when it is a disk, else NULL; owned */
	off_t at, told; /* written so far; the kernel was told to begin with */
};

/* What a stranger's image reads from is not his to choose. */
static int judge_disk(const char *path, struct err *err)
{
	struct image_info info;
	int r = image_probe(path, &info, err);

	if (r < 0)
		return r;
	if (info.format != IMAGE_QCOW2)
		return err_set(err, EBADMSG, "it has a disk that is no qcow2 image");
	if (info.has_backing || info.has_data_file)
		return err_set(err, EBADMSG, "it has a disk that names another file ('%.100s')",
			       info.has_backing ? info.backing : "external data");
	return 0;
}

static int close_file(struct intake *t, struct err *err)
{
	int r = 0;

	if (t->fd >= 0 && (ftruncate(t->fd, t->at) < 0 || fsync(t->fd) < 0))
		r = err_sys(err, errno, "cannot write what was received");
	if (t->fd >= 0)
		(void)close(t->fd);
	t->fd = -1;
	if (r == 0 && t->file)
		r = judge_disk(t->file, err);
	replace_str(&t->file, NULL);
	return r;
}

static bool is_zero(const char *data, size_t len)
{
	len = len < ZERO_UNIT ? len : ZERO_UNIT;
	return data[0] == '\0' && memcmp(data, data + 1, len - 1) == 0;
}

static int write_at(const struct intake *t, const char *data, size_t len)
{
	if (lseek(t->fd, t->at, SEEK_SET) < 0)
		return -errno;
	return fd_write_all(t->fd, data, len);
}

/* Zeros are left out, and the disk begins to write at once: the fsync at the end is short. */
static int write_part(struct intake *t, const char *data, size_t len)
{
	int r = 0;

	while (len > 0 && r == 0) {
		bool zero = is_zero(data, len);
		size_t part = 0;

		while (part < len && is_zero(data + part, len - part) == zero)
			part += len - part < ZERO_UNIT ? len - part : ZERO_UNIT;
		r = zero ? 0 : write_at(t, data, part);
		t->at += (off_t)part;
		data += part;
		len -= part;
	}
	if (t->at - t->told >= SYNC_UNIT) {
		(void)sync_file_range(t->fd, t->told, t->at - t->told, SYNC_FILE_RANGE_WRITE);
		t->told = t->at;
	}
	return r;
}

/* Names of ours alone, whatever the stream calls its members. */
static int open_member(struct intake *t, const json_t *member, struct err *err)
{
	const char *path = json_get_str(member, "path", NULL);
	size_t number = json_object_size(t->disks);
	AUTO_FREE char *name =
		path ? xasprintf("%sdisk%zu.qcow2", t->c->dataset ? DATASET_DISKS "/" : "", number)
		     : xstrdup("nvram.fd");
	AUTO_FREE char *file = path_of_data(t->c->d->paths, t->c->uuid, name);
	int r = close_file(t, err);

	if (r < 0)
		return r;
	if (!path && !str_eq(json_get_str(member, "name", NULL), "nvram"))
		return err_set(err, EBADMSG, "it has a member of no known kind '%.40s'",
			       json_get_str(member, "name", ""));
	if (number >= VM_DISKS_MAX)
		return err_set(err, E2BIG, "it has more than %d disks", VM_DISKS_MAX);
	t->fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, IMAGE_MODE);
	if (t->fd < 0)
		return err_sys(err, errno, "cannot make '%s'", file);
	t->at = t->told = 0;
	if (path)
		json_put_str(t->disks, path, file);
	t->file = path ? steal_ptr(file) : NULL;
	return 0;
}

static int take_item(struct intake *t, const struct stream_item *item, struct err *err)
{
	int r = 0;

	if (item->type == STREAM_MEMBER)
		return open_member(t, item->json, err);
	if (item->type == STREAM_DATA && t->fd < 0)
		return err_set(err, EBADMSG, "it has data of no member");
	if (item->type == STREAM_DATA)
		r = write_part(t, item->data, item->len);
	return r < 0 ? err_sys(err, -r, "cannot write what is received") : 0;
}

static int check_head(const struct change *c, const json_t *head, struct err *err)
{
	if (!str_eq(json_get_str(head, "kind", ""), "backup"))
		return err_set(err, EINVAL, "it holds a %.40s, not a VM as a whole",
			       json_get_str(head, "kind", "stream"));
	if (!str_eq(json_get_str(head, "uuid", ""), c->uuid))
		return err_set(err, EINVAL, "it is of VM %.40s", json_get_str(head, "uuid", ""));
	return json_is_object(json_object_get(head, "object"))
		       ? 0
		       : err_set(err, EBADMSG, "its head has no object");
}

/* A dataset where one is asked for: before the first byte, so that it is written compressed. */
static int make_dataset(const struct change *c, const json_t *head, struct err *err)
{
	const json_t *words = json_object_get(head, "zfs");
	json_int_t quota = json_get_int(words, "quota", 0);

	if (!c->dataset)
		return 0;
	return dataset_make(c->d, c->dataset, c->uuid,
			    quota > 0 && quota < UINT32_MAX ? (uint32_t)quota : 0,
			    json_get_str(words, "compression", NULL), err);
}

static int take_all(struct intake *t, struct err *err)
{
	AUTO_FREE char *path = path_of_data(t->c->d->paths, t->c->uuid, RECEIVED);
	AUTO_JSON json_t *head = NULL, *found = json_object();
	struct stream_item item = {0};
	int r = stream_open(&t->in, t->in.fd, &head, err);

	if (r == 0)
		r = check_head(t->c, head, err);
	if (r == 0)
		r = make_dataset(t->c, head, err);
	while (r == 0 && item.type != STREAM_DONE) {
		r = stream_next(&t->in, &item, err);
		if (r == 0)
			r = take_item(t, &item, err);
		json_decref(item.json);
		item.json = NULL;
		live_point_worker("receiving");
	}
	if (r == 0)
		r = close_file(t, err);
	(void)json_object_set(found, "head", head);
	(void)json_object_set(found, "disks", t->disks);
	return r == 0 ? state_write(path, RECEIVED_VERSION, found, FILE_SYNC, err) : r;
}

static int receive(void *arg, struct err *err)
{
	const struct change *c = arg;
	AUTO_JSON json_t *disks = json_object();
	AUTO_FD int fd = backup_connect(c->live->saving, err);
	struct intake t = {.c = c, .in = {.fd = fd}, .disks = disks, .fd = -1};
	int r;

	if (fd < 0)
		return fd;
	r = take_all(&t, err);
	if (t.fd >= 0)
		(void)close(t.fd);
	free(t.file);
	stream_done(&t.in);
	return r < 0 ? err_wrap(err, r, "the stream") : 0;
}

static int take(struct change *c, struct err *err)
{
	return backup_work(c, receive, err);
}

/* --- and is a VM --- */

static void place_disks(struct vm *vm, const json_t *disks)
{
	for (size_t i = 0; i < vm->ndisks; i++) {
		struct disk *disk = vm->disks[i];
		const char *path = json_get_str(disks, disk->path ? disk->path : "", NULL);

		if (!path)
			continue;
		replace_str(&disk->path, xstrdup(path));
		disk->format = FORMAT_QCOW2;
		disk_set_given(disk, "path", true);
		disk_set_given(disk, "format", true);
	}
}

static int build(struct change *c, struct err *err)
{
	AUTO_FREE char *data = path_of_data(c->d->paths, c->uuid, NULL);
	AUTO_FREE char *path = path_of_data(c->d->paths, c->uuid, RECEIVED);
	AUTO_JSON json_t *found = NULL;
	json_t *object;
	int r = state_read(path, RECEIVED_VERSION, &found, err);

	if (r < 0)
		return r;
	(void)unlink(path);
	object = json_object_get(json_object_get(found, "head"), "object");
	if (json_object_get(c->payload, "zpool"))
		json_put_str(object, "zpool", json_get_str(c->payload, "zpool", NULL));
	c->new = vm_from_object(object, data, &c->problems);
	replace_str(&c->new->nvram, NULL); /* received into the data directory, as the disks */
	place_disks(c->new, json_object_get(found, "disks"));
	vm_validate(c->new, &c->problems);
	r = change_problems(c, err);
	return r == 0 ? change_conflicts(c, err) : r;
}

/* As of a creation that names one. */
static int look_at_pool(struct change *c, struct err *err)
{
	c->payload = json_incref(c->live->saving->head);
	return dataset_step_pool(c, err);
}

static const change_step steps[] = {
	look_at_pool,  check,           job,           mark,         take,        build,
	step_lock,     create_announce, step_begin,    create_store, step_commit, create_install,
	create_settle, step_seen,       create_answer,
};

const struct change_kind change_receive = {"receive",         steps,       ARRAY_SIZE(steps),
					   create_undo_files, create_undo, backup_cancel};

void handle_receive(struct http_request *req, void *ctx)
{
	struct vmadmd *d = ctx;
	const struct change_by by = {request_uid(d, req), "vmadm receive"};
	AUTO_JSON json_t *body = NULL;
	struct err err = {0};
	struct live *l;
	size_t len;
	const char *text = http_body_text(req, &len), *uuid = "";
	int r = auth_check(http_peer(req), NULL, true, "receive VMs", &err);

	if (r == 0)
		r = json_parse_object(text, len, "body", &body, &err);
	l = live_new();
	l->saving = saving_new();
	if (r == 0)
		r = save_take_file(body, l->saving, &err);
	if (r == 0)
		r = caller_take(&l->saving->who, http_peer(req), &err);
	l->saving->head = json_pack("{s:s*}", "zpool", json_get_str(body, "zpool", NULL));
	if (r == 0)
		uuid = json_get_str(body, "uuid", "");
	if (r == 0 && !uuid_valid(uuid))
		r = err_set(&err, EINVAL, "uuid: '%.40s' is not a uuid", uuid);
	if (r < 0) {
		http_reply_err(req, r, &err);
		live_free(l);
		return;
	}
	change_order(d, &change_receive, uuid, &by, l, req);
}
