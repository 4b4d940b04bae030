/* SPDX-License-Identifier: Apache-2.0 */
/* Files: bounded reads, writes that are never half seen, directories. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct err;

/*
 * Read a whole regular file. max: bytes; larger is refused with -E2BIG.
 * *ret_data is NUL-terminated (NUL not counted) and the caller frees it; ret_len may be NULL,
 * then a NUL byte inside is -EINVAL. ret_st (may be NULL) is of the descriptor that was read.
 */
int file_read(const char *path, size_t max, char **ret_data, size_t *ret_len, struct stat *ret_st,
	      struct err *err);

enum file_sync { FILE_NO_SYNC, FILE_SYNC };

/*
 * Replace path with data: temporary file beside it, (fsync,) rename, (fsync of the directory).
 * A reader sees the old or the new content, never half. mode is exact, whatever the umask. When
 * path exists and we are root, its owner and group are kept.
 */
int file_write(const char *path, const void *data, size_t len, mode_t mode, enum file_sync sync,
	       struct err *err);

/* mkdir -p; a directory that exists is fine, anything else there is -ENOTDIR. */
int dir_make(const char *path, mode_t mode, struct err *err);

/* Remove a tree, not crossing symbolic links; nothing there is 0. */
int dir_remove_tree(const char *path, struct err *err);

/* dir + "/" + name; caller frees. */
char *path_join(const char *dir, const char *name);

bool file_exists(const char *path);

/*
 * Read until len bytes are there, or the end: fewer then. From the descriptor's position, or from
 * byte at, which leaves the position. -errno.
 */
ssize_t fd_read_full(int fd, void *buf, size_t len);
ssize_t fd_read_full_at(int fd, void *buf, size_t len, uint64_t at);

/* Write all of it to a descriptor that blocks; -errno. */
int fd_write_all(int fd, const void *data, size_t len);

/*
 * -EPERM with the reason when anybody but root or our own user could change the file: owner, or
 * write permission for group or others. what: how messages call it ("hook", "definition").
 */
int file_check_trusted(const struct stat *st, const char *what, const char *path, struct err *err);
