/* SPDX-License-Identifier: Apache-2.0 */
/* Files; see file.h. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"

static int read_fd(int fd, const char *path, size_t max, struct strbuf *sb, struct err *err)
{
	for (;;) {
		ssize_t n;

		strbuf_reserve(sb, 16384);
		n = read(fd, sb->data + sb->len, 16384);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, errno, "cannot read '%s'", path);
		if (n == 0)
			break;
		sb->len += (size_t)n;
		if (sb->len > max)
			return err_set(err, E2BIG, "'%s' is larger than %zu bytes", path, max);
	}
	sb->data[sb->len] = '\0';
	return 0;
}

int file_read(const char *path, size_t max, char **ret_data, size_t *ret_len, struct stat *ret_st,
	      struct err *err)
{
	AUTO_STRBUF struct strbuf sb = {0};
	/* O_NONBLOCK: a FIFO in the place of a file must not hang us. */
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	int r;

	if (fd < 0)
		return err_sys(err, errno, "cannot open '%s'", path);
	if (fstat(fd, &st) < 0)
		return err_sys(err, errno, "cannot stat '%s'", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, S_ISDIR(st.st_mode) ? EISDIR : EINVAL,
			       "'%s' is not a regular file", path);
	r = read_fd(fd, path, max, &sb, err);
	if (r < 0)
		return r;
	if (!ret_len && memchr(sb.data, '\0', sb.len))
		return err_set(err, EINVAL, "'%s' holds a NUL byte", path);
	if (ret_len)
		*ret_len = sb.len;
	if (ret_st)
		*ret_st = st;
	*ret_data = strbuf_steal(&sb);
	return 0;
}

static ssize_t read_full(int fd, void *buf, size_t len, bool placed, uint64_t at)
{
	size_t got = 0;

	while (got < len) {
		char *to = (char *)buf + got;
		ssize_t n = placed ? pread(fd, to, len - got, (off_t)(at + got))
				   : read(fd, to, len - got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return (ssize_t)got;
}

ssize_t fd_read_full(int fd, void *buf, size_t len)
{
	return read_full(fd, buf, len, false, 0);
}

ssize_t fd_read_full_at(int fd, void *buf, size_t len, uint64_t at)
{
	return read_full(fd, buf, len, true, at);
}

int fd_write_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len > 0) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int sync_parent(const char *path, struct err *err)
{
	AUTO_FREE char *dir = xstrdup(path);
	char *slash = strrchr(dir, '/');
	AUTO_FD int fd = -1;

	if (slash == dir)
		slash++;
	if (slash)
		*slash = '\0';
	fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return err_sys(err, errno, "cannot sync the directory of '%s'", path);
	return 0;
}

static int fill_temp(int fd, const char *path, const void *data, size_t len, mode_t mode,
		     enum file_sync sync, struct err *err)
{
	struct stat old;
	int r = fd_write_all(fd, data, len);

	if (r < 0)
		return err_sys(err, -r, "cannot write '%s'", path);
	if (fchmod(fd, mode) < 0)
		return err_sys(err, errno, "cannot set the mode of '%s'", path);
	if (geteuid() == 0 && stat(path, &old) == 0 && fchown(fd, old.st_uid, old.st_gid) < 0)
		return err_sys(err, errno, "cannot keep the owner of '%s'", path);
	if (sync == FILE_SYNC && fsync(fd) < 0)
		return err_sys(err, errno, "cannot sync '%s'", path);
	return 0;
}

int file_write(const char *path, const void *data, size_t len, mode_t mode, enum file_sync sync,
	       struct err *err)
{
	const char *slash = strrchr(path, '/');
	int dirlen = slash ? (int)(slash - path + 1) : 0;
	/* A dot file, so that nobody who scans the directory takes it for content. */
	AUTO_FREE char *temp = xasprintf("%.*s.%s.XXXXXX", dirlen, path, path + dirlen);
	AUTO_FD int fd = mkostemp(temp, O_CLOEXEC);
	int r;

	if (fd < 0)
		return err_sys(err, errno, "cannot make a file beside '%s'", path);
	r = fill_temp(fd, path, data, len, mode, sync, err);
	if (r == 0 && rename(temp, path) < 0)
		r = err_sys(err, errno, "cannot replace '%s'", path);
	if (r < 0) {
		(void)unlink(temp);
		return r;
	}
	return sync == FILE_SYNC ? sync_parent(path, err) : 0;
}

int dir_make(const char *path, mode_t mode, struct err *err)
{
	AUTO_FREE char *copy = xstrdup(path);
	struct stat st;

	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) /* nearly always */
		return 0;
	for (char *p = copy + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(copy, 0755) < 0 && errno != EEXIST)
			return err_sys(err, errno, "cannot make directory '%s'", copy);
		*p = '/';
	}
	if (mkdir(copy, mode) == 0)
		return 0;
	if (errno != EEXIST)
		return err_sys(err, errno, "cannot make directory '%s'", path);
	if (stat(path, &st) < 0)
		return err_sys(err, errno, "cannot look at '%s'", path);
	if (!S_ISDIR(st.st_mode))
		return err_set(err, ENOTDIR, "'%s' is not a directory", path);
	return 0;
}

static int remove_at(int parent, const char *name, int depth)
{
	AUTO_FD int fd = -1;
	struct dirent *de;
	DIR *dir;
	int r = 0;

	if (depth > 64)
		return -ELOOP;
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) {
		if (errno != ENOTDIR && errno != ELOOP)
			return errno == ENOENT ? 0 : -errno;
		return unlinkat(parent, name, 0) < 0 && errno != ENOENT ? -errno : 0;
	}
	dir = fdopendir(fd);
	if (!dir)
		return -errno;
	fd = -1; /* closedir's now */
	while (r == 0 && (de = readdir(dir)) != NULL) {
		if (!str_eq(de->d_name, ".") && !str_eq(de->d_name, ".."))
			r = remove_at(dirfd(dir), de->d_name, depth + 1);
	}
	(void)closedir(dir);
	if (r == 0 && unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		r = -errno;
	return r;
}

int dir_remove_tree(const char *path, struct err *err)
{
	int r = remove_at(AT_FDCWD, path, 0);

	return r < 0 ? err_sys(err, -r, "cannot remove '%s'", path) : 0;
}

char *path_join(const char *dir, const char *name)
{
	return xasprintf("%s%s%s", dir, str_ends(dir, "/") ? "" : "/", name);
}

bool file_exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

int file_check_trusted(const struct stat *st, const char *what, const char *path, struct err *err)
{
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return err_set(err, EPERM, "%s '%s' belongs to uid %u (want root%s)", what, path,
			       st->st_uid, geteuid() ? " or the suite's user" : "");
	if (st->st_mode & (S_IWGRP | S_IWOTH))
		return err_set(err, EPERM, "%s '%s' is writable by others (mode %04o; chmod go-w)",
			       what, path, (unsigned)(st->st_mode & 07777));
	return 0;
}
