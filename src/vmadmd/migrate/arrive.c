/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Migration, the side the VM comes to. A creation like any other up to its definition; then its
 * QEMU is started waiting for memory, with a server for disks that are copied. The other side's
 * grant is written down before the VM is let go; without it nothing of the VM stays, whoever ends
 * or is cut off. docs/migration.md has the table.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "api/names.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "model/model.h"
#include "net/feed.h"
#include "net/http.h"
#include "store/catalog.h"
#include "vmadmd/auth.h"
#include "vmadmd/change/create.h"
#include "vmadmd/live/snapshot.h"
#include "vmadmd/migrate/migrate.h"

#define OFFER_VERSION 1
#define SIZE_MAX_I    (INT64_C(1) << 50)

struct arriving *arriving_new(void)
{
	struct arriving *a = xcalloc(1, sizeof(*a));

	a->listener = -1;
	a->images = json_array();
	return a;
}

void arriving_free(struct arriving *a)
{
	if (!a)
		return;
	if (a->waiting)
		arrive_unwatch(a->watch.ctx);
	sd_event_source_disable_unref(a->source);
	sd_event_source_disable_unref(a->limit);
	if (a->listener >= 0)
		(void)close(a->listener);
	json_decref(a->offer);
	json_decref(a->images);
	free(a);
}

/* --- the request --- */

void handle_arrive(struct http_request *req, void *ctx)
{
	struct vmadmd *d = ctx;
	const struct change_by by = {request_uid(d, req), "vmadm migrate"};
	AUTO_JSON json_t *body = NULL;
	const char *uuid = "", *session = "";
	struct err err = {0};
	struct live *l;
	size_t len;
	const char *text = http_body_text(req, &len);
	int r = auth_check(http_peer(req), NULL, true, "send VMs here", &err);

	if (r == 0)
		r = json_parse_object(text, len, "body", &body, &err);
	if (r == 0) {
		uuid = json_get_str(body, "uuid", "");
		session = json_get_str(body, "session", "");
	}
	if (r == 0 && json_get_int(body, "version", 0) != OFFER_VERSION)
		r = err_set(&err, EINVAL, "version: want %d: the two vmadmd differ too much",
			    OFFER_VERSION);
	if (r == 0 && (!uuid_valid(uuid) || !uuid_valid(session)))
		r = err_set(&err, EINVAL, "uuid, session: want a uuid each");
	if (r < 0) {
		http_reply_err(req, r, &err);
		return;
	}
	l = live_new();
	l->arriving = arriving_new();
	memcpy(l->arriving->session, session, UUID_LEN + 1);
	l->arriving->offer = json_incref(body);
	change_order(d, &change_arrive, uuid, &by, l, req);
}

/* --- judged --- */

static struct disk *disk_at(const struct vm *vm, const char *path)
{
	for (size_t i = 0; i < vm->ndisks; i++) {
		if (str_eq(vm->disks[i]->path, path))
			return vm->disks[i];
	}
	return NULL;
}

static int check_shared(const json_t *offer, const char *path, struct err *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return err_sys(err, errno,
			       "disk '%s' is not here: share it, or have it copied (--copy-disks)",
			       path);
	if (S_ISBLK(st.st_mode) && json_get_bool(offer, "block_device", false))
		return 0;
	if (json_get_int(offer, "inode", 0) == (json_int_t)st.st_ino)
		return 0;
	return err_set(err, EEXIST,
		       "disk '%s' is another file here: it is not shared, and would have to be "
		       "moved away to be copied",
		       path);
}

/* The same name below our own data directory, else the same path. */
static char *place_of(const struct change *c, const char *path)
{
	const char *data = json_get_str(c->live->arriving->offer, "data_dir", "");
	const char *name = path + strlen(data);

	if (!*data || !str_starts(path, data))
		return xstrdup(path);
	return strchr(name, '/') || !*name ? NULL : path_of_data(c->d->paths, c->uuid, name);
}

static int check_room(const char *path, json_int_t bytes, struct err *err)
{
	AUTO_FREE char *dir = xstrdup(path);
	char *slash = strrchr(dir, '/');
	struct statvfs fs;
	json_int_t have;

	*slash = '\0';
	while (*dir && statvfs(dir, &fs) < 0) /* the data directory is yet to be made */
		*strrchr(dir, '/') = '\0';
	have = *dir ? (json_int_t)fs.f_bavail * (json_int_t)fs.f_frsize : bytes;
	if (have >= bytes)
		return 0;
	return err_set(err, ENOSPC, "disk '%s': %lld MiB are needed, %lld are free", path,
		       (long long)(bytes >> 20), (long long)(have >> 20));
}

static int check_copied(struct change *c, const json_t *offer, struct disk *disk, struct err *err)
{
	json_int_t size = json_get_int(offer, "size", 0), bytes = json_get_int(offer, "bytes", 0);
	const char *format = json_get_str(offer, "format", "");
	AUTO_FREE char *path = place_of(c, disk->path);
	int r;

	if (!path || path[0] != '/')
		return err_set(err, EINVAL, "disk '%s' is no path", disk->path);
	if ((!str_eq(format, "qcow2") && !str_eq(format, "raw")) || size <= 0 ||
	    size > SIZE_MAX_I || bytes < 0)
		return err_set(err, ENOTSUP, "disk '%s' cannot be copied: %.20s of %lld bytes",
			       path, format, (long long)size);
	if (json_get_bool(offer, "block_device", false))
		return err_set(err, ENOTSUP, "disk '%s' is a block device: it can be shared only",
			       path);
	if (file_exists(path))
		return err_set(err, EEXIST, "disk '%s' is here already", path);
	r = check_room(path, bytes, err);
	if (r < 0)
		return r;
	(void)json_array_append_new(
		c->live->arriving->images,
		json_pack("{s:s, s:s, s:I}", "path", path, "format", format, "size", size));
	if (!str_eq(path, disk->path)) {
		replace_str(&disk->path, xstrdup(path));
		disk_set_given(disk, "path", true);
	}
	return 0;
}

static int check_disks(struct change *c, struct err *err)
{
	const json_t *offer;
	size_t i;

	json_array_foreach (json_object_get(c->live->arriving->offer, "disks"), i, offer) {
		const char *path = json_get_str(offer, "path", "");
		struct disk *disk = disk_at(c->new, path);
		int r;

		if (!disk)
			return err_set(err, EINVAL, "disk '%.200s' is none of the VM's", path);
		r = json_get_bool(offer, "copy", false) ? check_copied(c, offer, disk, err)
							: check_shared(offer, path, err);
		if (r < 0)
			return r;
	}
	for (size_t k = 0; k < c->new->ndisks; k++) {
		const char *path = c->new->disks[k]->path;
		bool made = false;

		json_array_foreach (c->live->arriving->images, i, offer)
			made = made || str_eq(json_get_str(offer, "path", ""), path);
		if (!made && path && path[0] == '/' && !file_exists(path))
			return err_set(err, ENOENT, "disk '%s' is not here", path);
	}
	return 0;
}

static int check(struct change *c, struct err *err)
{
	AUTO_FREE char *data = path_of_data(c->d->paths, c->uuid, NULL);
	int r;

	if (catalog_by_uuid(c->d->catalog, c->uuid) || file_exists(data))
		return err_set(err, EEXIST, "VM with UUID %s already exists", c->uuid);
	c->new = vm_from_object(json_object_get(c->live->arriving->offer, "object"), data,
				&c->problems);
	r = change_problems(c, err);
	if (r == 0 && !str_eq(c->new->uuid, c->uuid))
		r = err_set(err, EINVAL, "uuid: the object is of another VM");
	if (r == 0)
		r = check_disks(c, err);
	if (r == 0 && json_object_get(c->live->arriving->offer, "snapshots"))
		r = snap_check_index(json_object_get(c->live->arriving->offer, "snapshots"), err);
	if (r < 0)
		return r;
	vm_validate(c->new, &c->problems);
	r = change_problems(c, err);
	return r < 0 ? r : change_conflicts(c, err);
}

/* --- made --- */

static int make_image(const json_t *image, struct err *err)
{
	AUTO_FREE char *size = xasprintf("%lld", (long long)json_get_int(image, "size", 0));
	const char *const argv[] = {"qemu-img",
				    "create",
				    "-q",
				    "-f",
				    json_get_str(image, "format", "raw"),
				    json_get_str(image, "path", ""),
				    size,
				    NULL};

	return live_tool(argv, err);
}

/* With its mark and its journal, before anything of it is made. */
static int make_files(struct change *c, struct err *err)
{
	AUTO_JSON json_t *images = json_array(), *content = json_object();
	const json_t *snapshots = json_object_get(c->live->arriving->offer, "snapshots"), *image;
	size_t i;
	int r;

	json_array_foreach (c->live->arriving->images, i, image)
		(void)json_array_append(images, json_object_get(image, "path"));
	(void)json_object_set(content, "images", images);
	r = mark_new(c->d, c->uuid, content, err);
	if (r == 0)
		r = live_journal_write(c, err);
	if (r == 0 && snapshots)
		r = snap_index_write(c->d, c->uuid, snapshots, err);
	json_array_foreach (c->live->arriving->images, i, image) {
		if (r == 0)
			r = make_image(image, err);
	}
	return r;
}

static int undo_files(struct change *c, struct err *err)
{
	arrive_remove_images(c->live->arriving->images);
	return create_undo_files(c, err);
}

static int made(struct change *c, struct err *err)
{
	c->live->marked = true;
	live_point("made");
	return 0;
}

static int make(struct change *c, struct err *err)
{
	json_t *journal = snap_journal(c, "arrive");

	c->live->journal = journal;
	json_put_str(journal, MIGRATE_SESSION, c->live->arriving->session);
	json_put_str(journal, JOURNAL_KEEP_AWAY,
		     "it is on its way here from elsewhere, or was (vmadm jobs there)");
	(void)json_object_set(journal, "images", c->live->arriving->images);
	c->touched = c->data_made = true;
	return change_work(c, make_files, made, err);
}

static int installed(struct change *c, struct err *err)
{
	c->touched = false; /* from here on the journal undoes */
	return create_settle(c, err);
}

static int start_held(struct change *c, struct err *err)
{
	live_point("stored");
	return live_vm_start_held(c, "incoming");
}

static int started(struct change *c, struct err *err)
{
	const char *want =
		json_get_str(json_object_get(c->live->arriving->offer, "object"), "accel", "");
	const char *have;

	live_point("held");
	feed_client_drain(c->d->states);
	have = json_get_str(live_guest(c)->facts, FACT_ACCEL, "");
	c->live->running = true;
	if (!str_eq(want, have))
		return err_set(err, ENOTSUP, "it runs with %s, and would run with %s here", want,
			       have);
	return live_step_nodes(c, err);
}

static int capabilities(struct change *c, struct err *err)
{
	return migrate_capabilities(c, migrate_both, true, err);
}

/* --- the grant --- */

static int judge_come(struct change *c, const json_t *value, struct err *err)
{
	const char *status = json_get_str(value, "status", "");

	if (str_eq(status, "failed"))
		return err_set(err, EIO, "QEMU: its memory did not come whole");
	return str_eq(status, "completed");
}

static int whole(struct change *c, struct err *err)
{
	return live_until(c, "query-migrate", judge_come, err);
}

static int recorded(struct change *c, struct err *err)
{
	live_point("recorded");
	return 0;
}

static int record(struct change *c, struct err *err)
{
	live_point("whole");
	arrive_close(c);
	c->live->arriving->granting = true;
	return change_work(c, arrive_record, recorded, err);
}

static void on_running(struct change *c, int r, const json_t *value, const struct err *err)
{
	if (r == -EREMOTEIO) /* it did not: the word is taken back */
		arrive_forget(c->d, c->live->arriving->session);
	if (r < 0)
		change_fail(c, r, err);
	else
		change_next(c);
}

static int run(struct change *c, struct err *err)
{
	return live_try(c, "cont", NULL, -1, on_running, err);
}

static void reply(struct change *c, bool granted, const char *why)
{
	struct arriving *a = c->live->arriving;
	AUTO_JSON json_t *out = json_object();

	if (!a->order)
		return;
	json_put_bool(out, "granted", granted);
	json_put_str(out, "why", why);
	http_reply_json(a->order, 200, out);
	a->order = NULL;
}

static int answer(struct change *c, struct err *err)
{
	live_point("running");
	reply(c, true, NULL);
	migrate_capabilities_off(c);
	snapshots_read(c->d, c->uuid);
	c->seq = guest_publish(live_guest(c));
	c->live->undone = true;
	log_info("vm=%s arrived session=%s uid=%u", c->uuid, c->live->arriving->session, c->uid);
	return 0;
}

static int done(struct change *c, struct err *err)
{
	return 0;
}

/* Whether it was granted is what the record says; a "no" is only said where it lacks. */
static void undo(struct change *c)
{
	struct arriving *a = c->live->arriving;

	arrive_close(c);
	if (!a->granting)
		reply(c, false, c->failure.msg);
	else if (a->order)
		http_reply_err(a->order, -EIO, &c->failure);
	a->order = NULL;
	if (c->touched)
		create_undo(c);
	live_undo(c);
}

static const change_step steps[] = {
	check,
	make,
	step_lock,
	create_announce,
	step_begin,
	create_store,
	step_commit,
	create_install,
	installed,
	start_held,
	started,
	capabilities,
	arrive_step_export,
	arrive_step_listen,
	whole,
	record,
	run,
	answer,
	live_step_unmark,
	done,
};

const struct change_kind change_arrive = {"arrive", steps, ARRAY_SIZE(steps), undo_files, undo};
