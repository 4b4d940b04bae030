/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the disks' headers say: size, format, backing file, allocated bytes, or that there is no
 * such disk. Read when a disk is first named and when somebody has closed it after writing; the
 * scan finds the rest. A guest's own writes are not followed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct disks;
struct lookout;
struct seen_disk;

struct disk_look {
	int error;                /* 0, ENOENT: there is none, or why it cannot be read */
	uint64_t size, allocated; /* bytes */
	uint64_t file_size;       /* of the file itself: the size of a raw disk */
	const char *format;       /* "raw", "qcow2", "other" */
	char *backing;            /* NULL: none */
	int64_t failed_wall_ms;   /* since when it cannot be read */
};

/* changed runs when a disk is another than it was; inside lookout_sync and disks_scan. */
struct disks *disks_new(struct lookout *lookout, void (*changed)(void *ctx, struct seen_disk *d),
			void *ctx);
void disks_free(struct disks *s); /* after all were given back, before the lookout */

/* Counted; NULL for a disk that is no file ("nbd:..."). */
struct seen_disk *disks_get(struct disks *s, const char *path);
void disks_put(struct disks *s, struct seen_disk *d);
const struct disk_look *disk_look(const struct seen_disk *d);
/* Look again now; no call of changed. Whether it is another. */
bool disk_look_again(struct seen_disk *d);
/* Look at the next count disks; returns how many were another. */
size_t disks_scan(struct disks *s, size_t count);
size_t disks_count(const struct disks *s);
