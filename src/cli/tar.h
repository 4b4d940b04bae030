/* SPDX-License-Identifier: Apache-2.0 */
/* A tar archive (ustar, POSIX.1-1988) of regular files, made in memory. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct strbuf;

#define TAR_NAME_MAX 99 /* bytes; longer ones are cut */

/* Append a file, mode 0600, owner 0. mtime_s: seconds since 1970. */
void tar_add(struct strbuf *sb, const char *name, const void *data, size_t len, int64_t mtime_s);
/* The two empty blocks at the end. */
void tar_end(struct strbuf *sb);
