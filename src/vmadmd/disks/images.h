/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image store as vmadmd serves it: requests in images.c, the work of an import, done in a
 * worker, in imagecopy.c.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/file.h"
#include "base/uuid.h"

struct err;
struct http_request;
struct vm;
struct vmadmd;

#define SHA256_HEX 64

/* --- imagecopy.c --- */
struct image_copy {
	const char *lib, *name;
	char uuid[UUID_LEN + 1];
	char want[SHA256_HEX + 1]; /* the checksum it must have, "": any */
	char *temp;                /* in the store; owned by who made it */
	bool framed;               /* the source is a pipe of frames, see below */
	enum file_sync sync;
};

/*
 * A pipe's end looks alike whether the writer is done or dead, so what comes through one is in
 * frames: a length of four bytes, big-endian, at most IMAGE_FRAME_MAX, and as many bytes; a length
 * of 0 is the end.
 */
#define IMAGE_FRAME_MAX (1u << 20)

/*
 * Copy what is open as WORKER_FD into the store: the bytes, their checksum, the format as the
 * header tells, the record, the name. Nothing is listed before all of it is on disk. -EINVAL for
 * what is no image we serve, -EPROTO for a stream cut short or another checksum, -ENOSPC, -EEXIST.
 */
int image_copy(const struct image_copy *c, struct err *err);
/* At our start: what imports cut short have left. */
void images_clean(const char *lib);

/* --- images.c --- */
/*
 * May disks be made from the image at path now? -EBUSY while it is being deleted.
 */
int image_usable(const struct vmadmd *d, const char *path, struct err *err);
void images_free(struct vmadmd *d);

void handle_images(struct http_request *req, void *ctx);
void handle_image(struct http_request *req, void *ctx);
void handle_image_import(struct http_request *req, void *ctx);
void handle_image_delete(struct http_request *req, void *ctx);
