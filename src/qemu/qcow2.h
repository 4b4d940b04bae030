/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A qcow2 image written from front to back, into a pipe if need be: an empty one, an overlay on a
 * backing file, or one with the content that a map says lies in other files. So a new disk costs
 * a write, no process, and a disk is sent flattened without being copied first. Reading is
 * image.h's. Source: QEMU's docs/interop/qcow2.txt.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct err;

#define QCOW2_CLUSTER (64u << 10)

/* The guest's bytes [start, start + length) lie in file (an index) at offset. */
struct extent {
	uint64_t start, length, offset;
	uint32_t file;
};

/* All pointers are borrowed. What no extent covers reads as zeros, or from the backing file. */
struct qcow2 {
	uint64_t size;                /* bytes the guest sees */
	const struct extent *extents; /* ascending, not overlapping */
	size_t nextents;
	const int *files; /* descriptors, read at offsets */
	const char *backing, *backing_format;
};

/* Takes the next piece of the image; -errno with err ends the writing. */
typedef int (*qcow2_put)(void *ctx, const void *data, size_t len, struct err *err);

/* Bytes of the whole file. */
uint64_t qcow2_length(const struct qcow2 *q);
/* -E2BIG: too large a disk, or too long a backing name; else what put or a read says. */
int qcow2_write(const struct qcow2 *q, qcow2_put put, void *ctx, struct err *err);

/* Extents as `qemu-img map --output=json` prints them, a line each. */
struct extents {
	struct extent *items; /* owned */
	size_t count, cap;
	uint64_t size; /* end of the last one, data or not */
	uint32_t deepest;
};

#define EXTENTS_MAX (1u << 20)

void extents_done(struct extents *x);
#define AUTO_EXTENTS __attribute__((cleanup(extents_done)))
/*
 * Take one line. file of an extent is its depth in the chain of images. -ENOTSUP: it has data that
 * lies nowhere as such (compressed), or there are too many; -EBADMSG: no such line.
 */
int extents_add(struct extents *x, const char *line, struct err *err);
