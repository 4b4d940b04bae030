/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk images: what a header says (read, never spawned), and qemu-img argument vectors. Running
 * them is the caller's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct argv;
struct err;
struct disk;

enum image_format { IMAGE_RAW, IMAGE_QCOW2, IMAGE_OTHER };

struct image_info {
	enum image_format format;
	uint64_t virtual_size;   /* bytes the guest sees */
	uint64_t allocated_size; /* bytes on the host */
	bool has_backing, has_data_file;
	char backing[1024]; /* as written in the header */
	bool block_device;
};

/* -ENOENT, -EACCES, ...; -EINVAL for a qcow2 header that cannot be. */
int image_probe(const char *path, struct image_info *ret, struct err *err);

/* Where the backing file of the image at path is, a relative name resolved; caller frees. */
char *image_backing_path(const char *path, const struct image_info *info);

/* Has the qcow2 image an internal snapshot of this name? 1, 0, or -EINVAL, -ENOENT, ... */
int image_has_snapshot(const char *path, const char *name, struct err *err);

/*
 * qemu-img's vector for a disk with a path: of size_mib, or made from base (may be NULL): qcow2
 * (and auto) becomes an overlay on base, raw a whole copy, which keeps base's size: enlarge it then
 * with "qemu-img resize". base is looked at for its format.
 */
void image_create_argv(const struct disk *disk, const char *base, struct argv *ret);

/*
 * A new qcow2 image of size bytes, on base unless NULL, mode 0600, not synced: what
 * image_create_argv would have made, without a process. base is looked at for its format. -EEXIST:
 * a file is there, untouched. A raw disk, or one laid out ahead, needs qemu-img.
 */
int image_create(const char *path, uint64_t size, const char *base, struct err *err);
bool image_needs_tool(const struct disk *disk);

/* Is path of the form "nbd:", "rbd:", "iscsi:" and so on? Then its protocol's name, else NULL. */
const char *image_protocol(const char *path);
