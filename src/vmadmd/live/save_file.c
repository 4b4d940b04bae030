/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of a saved VM, in a worker that has become who asked for it: so nobody reads or
 * replaces what he could not himself. The file is written beside its place and renamed when it is
 * whole; one without its last record is none.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "store/catalog.h"
#include "store/stream.h"
#include "vmadmd/live/live.h"
#include "vmadmd/live/save.h"
#include "vmadmd/live/snapshot.h"
#include "vmadmd/worker.h"

#define SAVE_MODE 0600
#define NSEC      1000000000ll

int caller_take(struct caller *who, const struct sock_peer *peer, struct err *err)
{
	if (geteuid() != 0 && peer->uid != geteuid())
		return err_set(err, EPERM,
			       "vmadmd does not run as root: it cannot open files for uid %u",
			       peer->uid);
	*who = (struct caller){.uid = peer->uid, .gid = peer->gid, .ngroups = peer->ngroups};
	who->groups = xcalloc(peer->ngroups + 1, sizeof(gid_t));
	if (peer->ngroups > 0)
		memcpy(who->groups, peer->groups, peer->ngroups * sizeof(gid_t));
	return 0;
}

int caller_become(const struct caller *who, struct err *err)
{
	if (who->uid == geteuid())
		return 0;
	if (setgroups(who->ngroups, who->groups) < 0 ||
	    setresgid(who->gid, who->gid, who->gid) < 0 ||
	    setresuid(who->uid, who->uid, who->uid) < 0)
		return err_sys(err, errno, "cannot become uid %u", who->uid);
	/* The kernel forgot it with the change. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	return 0;
}

/* What tells that a disk was written since. */
json_t *save_disks(const json_t *paths)
{
	json_t *list = json_array();
	const json_t *path;
	size_t i;

	json_array_foreach (paths, i, path) {
		struct stat st = {0};

		if (stat(json_string_value(path), &st) < 0)
			st.st_size = -1;
		(void)json_array_append_new(
			list,
			json_pack("{s:s, s:I, s:I}", "path", json_string_value(path), "size",
				  (json_int_t)st.st_size, "mtime_ns",
				  (json_int_t)(st.st_mtim.tv_sec * NSEC + st.st_mtim.tv_nsec)));
	}
	return list;
}

/* --- save --- */

int save_write_memory(void *arg, struct err *err)
{
	const struct change *c = arg;
	const struct saving *s = c->live->saving;
	AUTO_JSON json_t *member = json_pack("{s:s}", "name", "memory");
	AUTO_STREAM struct stream out = {0};
	AUTO_FD int fd = -1;
	int r = caller_become(&s->who, err);

	if (r < 0)
		return r;
	fd = open(s->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, SAVE_MODE);
	if (fd < 0)
		return err_sys(err, errno, "cannot make '%s'", s->temp);
	r = stream_begin(&out, fd, s->head, err);
	if (r == 0)
		r = stream_member(&out, member, err);
	if (r == 0)
		r = stream_copy_in(&out, WORKER_FD, NULL, err);
	if (r == 0 && fsync(fd) < 0)
		r = err_sys(err, errno, "cannot write '%s'", s->temp);
	return r < 0 ? err_wrap(err, r, "'%s'", s->file) : 0;
}

static int dir_sync(const char *path, struct err *err)
{
	AUTO_FREE char *dir = xstrndup(path, (size_t)(strrchr(path, '/') - path) + 1);
	AUTO_FD int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return err_sys(err, errno, "cannot write directory '%s'", dir);
	return 0;
}

/* QEMU is gone: the disks are as they will be found. */
int save_finish_file(struct change *c, struct err *err)
{
	const struct saving *s = c->live->saving;
	AUTO_JSON json_t *done = json_object();
	AUTO_STREAM struct stream out = {0};
	AUTO_FD int fd = -1;
	int r;

	(void)json_object_set_new(done, "disks", save_disks(s->disks));
	r = caller_become(&s->who, err);
	if (r < 0)
		return r;
	if (c->live->again && !file_exists(s->temp) && file_exists(s->file))
		return 0; /* renamed already */
	fd = open(s->temp, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return err_sys(err, errno, "cannot open '%s'", s->temp);
	/* What follows the memory was written by one who was killed. */
	if (ftruncate(fd, (off_t)json_get_int(c->live->journal, "size", 0)) < 0)
		return err_sys(err, errno, "cannot cut '%s'", s->temp);
	r = stream_append(&out, fd, err);
	if (r == 0)
		r = stream_end(&out, done, err);
	if (r == 0 && fsync(fd) < 0)
		r = err_sys(err, errno, "cannot write '%s'", s->temp);
	live_point_worker("written");
	if (r == 0 && rename(s->temp, s->file) < 0)
		r = err_sys(err, errno, "cannot name it '%s'", s->file);
	return r == 0 ? dir_sync(s->file, err) : r;
}

/* --- restore --- */

static int check_head(struct change *c, const json_t *head, struct err *err)
{
	const struct catalog_entry *e = catalog_by_uuid(c->d->catalog, c->uuid);
	AUTO_JSON json_t *now = NULL, *was = NULL;
	const char *uuid = json_get_str(head, "uuid", "");

	if (!str_eq(json_get_str(head, "kind", ""), "saved"))
		return err_set(err, EINVAL, "it holds a %.40s, not a saved VM",
			       json_get_str(head, "kind", "stream"));
	if (!str_eq(uuid, c->uuid))
		return err_set(err, EINVAL, "it is of VM %.40s ('%.80s')", uuid,
			       json_get_str(head, "name", ""));
	if (!e)
		return err_set(err, ENOENT, "VM %s not found", c->uuid);
	now = snap_machine_of(e->vm);
	was = json_deep_copy(json_object_get(head, "machine"));
	(void)json_object_del(was, "machine"); /* QEMU looks at that itself */
	return snap_same_machine(was, now, err);
}

static int check_disks(const struct saving *s, const json_t *done, struct err *err)
{
	const json_t *was = json_object_get(done, "disks"), *one;
	AUTO_JSON json_t *paths = json_array(), *now = NULL;
	size_t i;

	json_array_foreach (was, i, one)
		(void)json_array_append_new(paths, json_string(json_get_str(one, "path", "")));
	now = save_disks(paths);
	json_array_foreach (was, i, one) {
		if (!s->force && !json_equal(one, json_array_get(now, i)))
			return err_set(err, EBUSY,
				       "disk '%s' was written since: the memory does not fit it "
				       "any more (force takes it all the same)",
				       json_get_str(one, "path", ""));
	}
	return 0;
}

static int open_file(const struct saving *s, struct err *err)
{
	int fd = open(s->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return err_sys(err, errno, "cannot open '%s'", s->file);
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fd;
	(void)close(fd);
	return err_set(err, EINVAL, "'%s' is no regular file", s->file);
}

/* The stat of disks may need our rights, the file is opened with the caller's. */
static int verify(struct change *c, struct stream *in, struct err *err)
{
	AUTO_JSON json_t *head = NULL;
	struct stream_item item = {0};
	int r = stream_open(in, in->fd, &head, err);

	if (r == 0)
		r = check_head(c, head, err);
	while (r == 0 && item.type != STREAM_DONE) {
		json_decref(item.json);
		item.json = NULL;
		r = stream_next(in, &item, err);
	}
	if (r == 0)
		r = check_disks(c->live->saving, item.json, err);
	json_decref(item.json);
	return r;
}

static int open_as(const struct saving *s, struct err *err)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int fd, r;

	if (s->who.uid == uid)
		return open_file(s, err);
	if (setgroups(s->who.ngroups, s->who.groups) < 0 || setegid(s->who.gid) < 0 ||
	    seteuid(s->who.uid) < 0)
		return err_sys(err, errno, "cannot become uid %u", s->who.uid);
	fd = open_file(s, err);
	r = seteuid(uid) < 0 || setegid(gid) < 0 ? -1 : 0;
	if (r == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0)
		return fd;
	if (fd >= 0)
		(void)close(fd);
	return err_sys(err, errno, "cannot become uid %u again", uid);
}

int save_verify(struct change *c, struct err *err)
{
	const struct saving *s = c->live->saving;
	AUTO_STREAM struct stream in = {0};
	AUTO_FD int fd = open_as(s, err);
	int r;

	if (fd < 0)
		return fd;
	in.fd = fd;
	r = verify(c, &in, err);
	return r < 0 ? err_wrap(err, r, "'%s'", s->file) : 0;
}

int save_read_memory(void *arg, struct err *err)
{
	const struct change *c = arg;
	const struct saving *s = c->live->saving;
	AUTO_STREAM struct stream in = {0};
	AUTO_JSON json_t *head = NULL;
	AUTO_FD int fd = open_as(s, err);
	struct stream_item item = {0};
	int r;

	if (fd < 0)
		return fd;
	r = stream_open(&in, fd, &head, err);
	while (r == 0 && item.type != STREAM_DONE) {
		r = stream_next(&in, &item, err);
		if (r == 0 && item.type == STREAM_DATA)
			r = fd_write_all(WORKER_FD, item.data, item.len);
		json_decref(item.json);
		item.json = NULL;
	}
	return r < 0 ? err_wrap(err, r, "'%s'", s->file) : 0;
}
