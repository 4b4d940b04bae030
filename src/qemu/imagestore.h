/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image store, <lib>/images: files that disks are made from. What was imported has a record
 * beside it, .info/FILE.json, written before the file gets its name, so that an image is there
 * whole or not at all; a file put there by hand has none, and serves as well. Names that begin with
 * a dot are no images: one is being imported.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

struct err;

#define IMAGES_DIR     "images"
#define IMAGES_INFO    ".info"
#define IMAGES_PARTIAL ".import-" /* and the job's id */
#define IMAGE_NAME_MAX 64

/* A name for an image: letters, digits, '.', '_', '-', not first a dot or dash. */
bool image_name_ok(const char *name);

/* <lib>/images, and FILE or .info/FILE.json in it; caller frees. */
char *images_path(const char *lib, const char *file);
char *images_info_path(const char *lib, const char *file);

/*
 * The file of an image: an absolute path, or a name in the store with or without its suffix, or
 * the uuid of its record. NULL: none such; caller frees.
 */
char *image_find(const char *lib, const char *name);

/*
 * What is known of a file in the store: name, uuid, sha256 and imported where it has a record;
 * file, path, format, size (MiB, rounded up), bytes, allocated. New reference.
 */
int image_describe(const char *lib, const char *file, json_t **ret, struct err *err);
/* All that can be described, by name. New reference. */
json_t *images_list(const char *lib);

/* Does path, a disk's file, read from the file base, directly or through others? */
bool image_reads_from(const char *path, const char *base);
