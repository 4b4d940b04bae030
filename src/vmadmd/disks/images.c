/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests about images: list, look, import as a job, delete when no disk reads from it. What takes
 * a while runs in a worker; an import is killed there at its deadline, on a cancel and at our end,
 * and leaves nothing. Export is the caller's: an image is a file.
 */
#include "vmadmd/disks/images.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "model/vm.h"
#include "qemu/image.h"
#include "qemu/imagestore.h"
#include "store/catalog.h"
#include "vmadmd/auth.h"
#include "vmadmd/change/change.h"
#include "vmadmd/jobs.h"
#include "vmadmd/vmadmd.h"
#include "vmadmd/worker.h"

#define PROGRESS_MS 300u
#define IMPORT_MS   86400000u /* a slow line may feed it */
#define NAMED_MAX   5         /* VMs named in a refusal */

/* One import or deletion under way. */
struct image_work {
	struct vmadmd *d;
	struct http_request *req; /* NULL: answered, or the client left */
	struct image_copy copy;   /* of an import */
	char *name, *path;        /* path: of a deletion */
	uint64_t total;           /* bytes of the source, 0: not known */
	struct job *job;
	struct worker *worker;
	sd_event_source *progress;
	int ended; /* why it is to end, 0: it is not */
	struct err why;
	struct image_work *next;
};

static bool admitted(struct vmadmd *d, struct http_request *req, bool look)
{
	struct err err = {0};
	int r = auth_check(http_peer(req), NULL, true, look ? "look at images" : "change images",
			   &err);

	if (r < 0 && look && auth_may_look(http_peer(req), d->has_reader ? d->reader : (uid_t)-1))
		r = 0;
	if (r < 0) {
		log_warn("images: request refused uid=%u: %s", request_uid(d, req), err.msg);
		http_reply_err(req, r, &err);
	}
	return r == 0;
}

/* --- who uses an image --- */

/* By its definition: a qcow2 disk stays an overlay on what it was made from. */
static bool disk_names(const struct vmadmd *d, const struct disk *disk, const char *path)
{
	const char *name = disk->image ? disk->image : disk->image_uuid;
	AUTO_FREE char *base =
		name && disk->format != FORMAT_RAW ? image_find(d->paths->lib, name) : NULL;

	return base && str_eq(base, path);
}

static bool vm_uses(const struct vmadmd *d, const struct vm *vm, const char *path, bool look)
{
	for (size_t i = 0; i < vm->ndisks; i++) {
		const struct disk *disk = vm->disks[i];

		if (disk_names(d, disk, path) || (disk->path && str_eq(disk->path, path)))
			return true;
		if (look && disk->path && !image_protocol(disk->path) &&
		    image_reads_from(disk->path, path))
			return true;
	}
	return false;
}

static json_t *users(const struct vmadmd *d, const char *path)
{
	json_t *list = json_array();

	for (size_t i = 0; i < catalog_count(d->catalog); i++) {
		const struct catalog_entry *e = catalog_at(d->catalog, i);

		if (vm_uses(d, e->vm, path, false))
			(void)json_array_append_new(list, json_string(e->uuid));
	}
	return list;
}

static void with_users(const struct vmadmd *d, json_t *image)
{
	(void)json_object_set_new(image, "used_by", users(d, json_get_str(image, "path", "")));
}

/* --- looking --- */

void handle_images(struct http_request *req, void *ctx)
{
	struct vmadmd *d = ctx;
	AUTO_JSON json_t *list = NULL;
	json_t *image;
	size_t i;

	if (!admitted(d, req, true))
		return;
	list = images_list(d->paths->lib);
	json_array_foreach (list, i, image)
		with_users(d, image);
	http_reply_json(req, 200, list);
}

/* The image of the request, in the store: its path and description, or it has been answered. */
static bool find(struct vmadmd *d, struct http_request *req, char **ret_path, json_t **ret)
{
	const char *id = http_param(req, "id");
	AUTO_FREE char *path = id && *id != '/' ? image_find(d->paths->lib, id) : NULL;
	struct err err = {0};
	int r = -ENOENT;

	if (path)
		r = image_describe(d->paths->lib, strrchr(path, '/') + 1, ret, &err);
	else
		err_set(&err, ENOENT, "no image '%.80s'", id ? id : "");
	if (r < 0)
		http_reply_err(req, r, &err);
	else
		*ret_path = steal_ptr(path);
	return r == 0;
}

void handle_image(struct http_request *req, void *ctx)
{
	struct vmadmd *d = ctx;
	AUTO_FREE char *path = NULL;
	AUTO_JSON json_t *image = NULL;

	if (!admitted(d, req, true) || !find(d, req, &path, &image))
		return;
	with_users(d, image);
	http_reply_json(req, 200, image);
}

/* --- works under way --- */

static void on_gone(struct http_request *req, void *ctx)
{
	((struct image_work *)ctx)->req = NULL;
}

static struct image_work *work_new(struct vmadmd *d, struct http_request *req)
{
	struct image_work *w = xcalloc(1, sizeof(*w));

	*w = (struct image_work){.d = d, .req = req, .next = d->images};
	d->images = w;
	http_on_gone(req, on_gone, w);
	return w;
}

static void work_free(struct image_work *w)
{
	for (struct image_work **at = &w->d->images; *at; at = &(*at)->next) {
		if (*at == w) {
			*at = w->next;
			break;
		}
	}
	sd_event_source_disable_unref(w->progress);
	free(w->copy.temp);
	free(w->name);
	free(w->path);
	free(w);
}

void images_free(struct vmadmd *d)
{
	while (d->images)
		work_free(d->images);
}

/* The end of it, told to whoever waits. */
static void work_end(struct image_work *w, int r, const struct err *err, const json_t *result)
{
	if (w->job && r == 0)
		job_result(w->job, result);
	if (w->job)
		job_end(w->job, r, err);
	if (w->req && r == 0)
		http_reply_json(w->req, 200, result);
	else if (w->req)
		http_reply_err(w->req, r, err);
	work_free(w);
}

int image_usable(const struct vmadmd *d, const char *path, struct err *err)
{
	for (const struct image_work *w = d->images; w; w = w->next) {
		if (w->path && str_eq(w->path, path))
			return err_set(err, EBUSY, "image '%s' is being deleted", w->name);
	}
	return 0;
}

/* --- import --- */

static int import_work(void *arg, struct err *err)
{
	return image_copy(&((struct image_work *)arg)->copy, err);
}

static void on_imported(void *ctx, int r, const struct err *err)
{
	struct image_work *w = ctx;
	AUTO_FREE char *path = NULL;
	AUTO_JSON json_t *image = NULL;
	struct err why = *err;

	w->worker = NULL;
	path = image_find(w->d->paths->lib, w->copy.uuid);
	if (r < 0 && w->ended && !path) {
		r = w->ended;
		why = w->why;
	} else if (path) { /* it has its name: it is there, whatever came then */
		r = image_describe(w->d->paths->lib, strrchr(path, '/') + 1, &image, &why);
	}
	if (r < 0)
		(void)unlink(w->copy.temp);
	if (r == 0)
		log_info("image imported name='%s' sha256=%s", w->name,
			 json_get_str(image, "sha256", ""));
	else
		log_info("image not imported name='%s': %s", w->name, err_text(&why, r));
	work_end(w, r, &why, image);
}

static int on_progress(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct image_work *w = ctx;
	struct stat st;
	uint64_t done = stat(w->copy.temp, &st) == 0 ? (uint64_t)st.st_size : 0;

	if (w->total == 0) {
		AUTO_FREE char *text =
			xasprintf("%s, %llu MiB", w->name, (unsigned long long)(done >> 20));

		job_progress(w->job, 0, text);
	} else {
		unsigned percent = (unsigned)(done * 100 / w->total);

		job_progress(w->job, percent > 99 ? 99 : percent, w->name);
	}
	(void)timer_set(w->d->event, &w->progress, PROGRESS_MS, on_progress, w);
	return 0;
}

static int import_cancel(void *ctx, int r, const struct err *why, struct err *err)
{
	struct image_work *w = ctx;

	w->ended = r;
	w->why = *why;
	worker_kill(w->worker);
	return 0;
}

/* "fd=N": descriptor N of the process that asks, opened anew; "path=": a file of the host. */
static int open_source(struct http_request *req, struct image_work *w, int *ret, struct err *err)
{
	const struct sock_peer *peer = http_peer(req);
	const char *path = http_query(req, "path"), *number = http_query(req, "fd");
	AUTO_FREE char *name = NULL;
	AUTO_FD int fd = -1;
	struct stat st;

	if (!path == !number)
		return err_set(err, EINVAL, "want path=FILE or fd=NUMBER");
	if (path && *path != '/')
		return err_set(err, EINVAL, "path: '%.200s' is not absolute", path);
	if (number && (!*number || number[strspn(number, "0123456789")] || strlen(number) > 7))
		return err_set(err, EINVAL, "fd: '%.40s' is not a number", number);
	name = path ? xstrdup(path) : xasprintf("/proc/%d/fd/%s", peer->pid, number);
	/* A FIFO nobody writes to must not hang us. */
	fd = open(name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(err, errno, "cannot open '%s'", name);
	w->copy.framed = number && S_ISFIFO(st.st_mode);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode) && !w->copy.framed)
		return err_set(err, EINVAL, "'%s' is neither a file nor a block device", name);
	if (fcntl(fd, F_SETFL, 0) < 0)
		return err_sys(err, errno, "cannot open '%s'", name);
	w->total = S_ISBLK(st.st_mode) ? (uint64_t)lseek(fd, 0, SEEK_END) : (uint64_t)st.st_size;
	if (S_ISBLK(st.st_mode))
		(void)lseek(fd, 0, SEEK_SET);
	*ret = steal_fd(&fd);
	return 0;
}

static int take_words(struct vmadmd *d, struct http_request *req, struct image_work *w,
		      struct err *err)
{
	const char *name = http_query(req, "name"), *uuid = http_query(req, "uuid");
	const char *sum = http_query(req, "sha256");
	AUTO_FREE char *there = NULL;

	if (!name || !image_name_ok(name))
		return err_set(err, EINVAL,
			       "name: '%.80s' is no name for an image (want letters, digits, '.', "
			       "'_', '-', at most %d)",
			       name ? name : "", IMAGE_NAME_MAX);
	if (uuid && !uuid_valid(uuid))
		return err_set(err, EINVAL, "uuid: '%.80s' is not a uuid", uuid);
	if (sum && (strlen(sum) != SHA256_HEX || sum[strspn(sum, "0123456789abcdefABCDEF")]))
		return err_set(err, EINVAL, "sha256: '%.80s' is not a SHA-256 (want %d hex digits)",
			       sum, SHA256_HEX);
	w->name = xstrdup(name);
	w->copy.name = w->name;
	if (sum)
		memcpy(w->copy.want, sum, SHA256_HEX + 1);
	uuid_random(w->copy.uuid);
	for (size_t i = 0; uuid && i < UUID_LEN; i++)
		w->copy.uuid[i] = (char)tolower((unsigned char)uuid[i]);
	there = image_find(d->paths->lib, name);
	if (!there && uuid)
		there = image_find(d->paths->lib, w->copy.uuid);
	if (there)
		return err_set(err, EEXIST, "there is an image '%s' already",
			       uuid && !there ? uuid : name);
	for (const struct image_work *other = w->next; other; other = other->next) {
		if (str_eq(other->name, name))
			return err_set(err, EEXIST, "image '%s' is being worked on", name);
	}
	return 0;
}

static int import_begin(struct vmadmd *d, struct image_work *w, int fd, uid_t uid, struct err *err)
{
	const struct job_spec spec = {.kind = "import",
				      .uuid = w->copy.uuid,
				      .command = "vmadm image import",
				      .uid = uid,
				      .timeout_ms = IMPORT_MS,
				      .cancel = import_cancel,
				      .ctx = w};
	const struct worker_task task = {
		.fn = import_work, .arg = w, .fd = fd, .done = on_imported, .ctx = w};
	AUTO_FREE char *file = NULL;
	int r = job_begin(d, &spec, &w->job, err);

	if (r < 0)
		return r;
	file = xasprintf(IMAGES_PARTIAL "%s", job_id(w->job));
	w->copy.temp = images_path(d->paths->lib, file);
	w->copy.lib = d->paths->lib;
	w->copy.sync = d->sync;
	r = worker_run_fd(d, &task, &w->worker, err);
	if (r < 0)
		return r;
	(void)on_progress(NULL, 0, w);
	return 0;
}

void handle_image_import(struct http_request *req, void *ctx)
{
	struct vmadmd *d = ctx;
	const char *wait = http_query(req, "wait");
	AUTO_JSON json_t *out = json_object();
	struct err err = {0};
	AUTO_FD int fd = -1;
	struct image_work *w;
	int r;

	if (!admitted(d, req, false))
		return;
	w = work_new(d, req);
	r = take_words(d, req, w, &err);
	if (r == 0)
		r = open_source(req, w, &fd, &err);
	if (r == 0)
		r = import_begin(d, w, fd, request_uid(d, req), &err);
	if (r < 0) {
		work_end(w, r, &err, NULL);
		return;
	}
	if (!str_eq(wait, "0"))
		return;
	w->req = NULL;
	json_put_str(out, "job", job_id(w->job));
	json_put_str(out, "uuid", w->copy.uuid);
	http_reply_json(req, 202, out);
}

/* --- delete --- */

/* Names of those who use it, "" for none. In the worker: it reads the header of every disk. */
static char *named_users(const struct vmadmd *d, const char *path)
{
	AUTO_STRBUF struct strbuf sb = {0};
	size_t count = 0;

	for (size_t i = 0; i < catalog_count(d->catalog); i++) {
		const struct catalog_entry *e = catalog_at(d->catalog, i);

		if (!vm_uses(d, e->vm, path, true))
			continue;
		if (count++ < NAMED_MAX)
			strbuf_printf(&sb, "%s%s (%s)", count > 1 ? ", " : "", e->vm->name,
				      e->uuid);
	}
	for (const struct change *c = d->changes; c; c = c->next) {
		for (size_t i = 0; i < c->njobs; i++) {
			if (str_eq(c->jobs[i].base, path) && count++ < NAMED_MAX)
				strbuf_printf(&sb, "%s%s (%s, being made)", count > 1 ? ", " : "",
					      c->new->name, c->uuid);
		}
	}
	if (count > NAMED_MAX)
		strbuf_printf(&sb, " and %zu more", count - NAMED_MAX);
	return strbuf_steal(&sb);
}

static int delete_work(void *arg, struct err *err)
{
	const struct image_work *w = arg;
	AUTO_FREE char *info = images_info_path(w->d->paths->lib, strrchr(w->path, '/') + 1);
	AUTO_FREE char *names = named_users(w->d, w->path);

	if (*names)
		return err_set(err, EBUSY, "image '%s' is used by VM %s", w->name, names);
	/* The file first: a record without one is nothing, and goes at our next start. */
	if (unlink(w->path) < 0)
		return err_sys(err, errno, "cannot remove image '%s'", w->path);
	(void)unlink(info);
	return parent_sync(w->d, w->path, err);
}

static void on_deleted(void *ctx, int r, const struct err *err)
{
	struct image_work *w = ctx;
	AUTO_JSON json_t *out = json_object();

	json_put_str(out, "name", w->name);
	json_put_str(out, "uuid", *w->copy.uuid ? w->copy.uuid : NULL);
	if (r == 0)
		log_info("image deleted name='%s'", w->name);
	work_end(w, r, err, out);
}

void handle_image_delete(struct http_request *req, void *ctx)
{
	struct vmadmd *d = ctx;
	AUTO_FREE char *path = NULL;
	AUTO_JSON json_t *image = NULL;
	const char *uuid;
	struct err err = {0};
	struct image_work *w;
	int r;

	if (!admitted(d, req, false) || !find(d, req, &path, &image))
		return;
	r = image_usable(d, path, &err);
	if (r < 0) {
		http_reply_err(req, r, &err);
		return;
	}
	uuid = json_get_str(image, "uuid", "");
	w = work_new(d, req);
	w->name = xstrdup(json_get_str(image, "name", ""));
	w->path = steal_ptr(path);
	if (uuid_valid(uuid))
		memcpy(w->copy.uuid, uuid, UUID_LEN + 1);
	r = worker_run(d, delete_work, w, on_deleted, w, &w->worker, &err);
	if (r < 0)
		work_end(w, r, &err, NULL);
}
