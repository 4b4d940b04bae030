/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stream that saved states, backups and sent VMs are written as: self-describing, checked from
 * the first byte to the last, readable from a pipe. A line "DROVER-STREAM-1\n", then records: type
 * (4 letters), length of the content (8 bytes, little-endian), content, and 32 bytes of SHA-256
 * over the 32 bytes before the record (of the line: its SHA-256) and the record. So a flipped byte,
 * a record that is missing or moved, and a cut are all found. First HEAD (JSON: kind, format, what
 * it is of), then per member MEMB (JSON: name and more) and DATA records, last DONE (JSON). All
 * calls block: for workers and tools. docs/live-operations.md.
 */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define STREAM_SUM      32
#define STREAM_DATA_MAX (1u << 20) /* of one DATA record */
#define STREAM_JSON_MAX (4u << 20) /* of the others */

struct stream {
	int fd; /* borrowed */
	uint8_t sum[STREAM_SUM];
	uint64_t bytes; /* so far */
	char *buffer;   /* of the record read last, owned */
};

void stream_done(struct stream *s);
#define AUTO_STREAM __attribute__((cleanup(stream_done)))

/* --- writing; -errno with err, also -EPIPE when the reader is gone (SIGPIPE ignored) --- */
int stream_begin(struct stream *s, int fd, const json_t *head, struct err *err);
int stream_member(struct stream *s, const json_t *member, struct err *err);
int stream_data(struct stream *s, const void *data, size_t len, struct err *err);
/* All that in gives until its end, as DATA records; *ret_bytes may be NULL. */
int stream_copy_in(struct stream *s, int in, uint64_t *ret_bytes, struct err *err);
int stream_end(struct stream *s, const json_t *done, struct err *err);
/* Take up a file that lacks its DONE alone, at its end; only good after stream_begin wrote it. */
int stream_append(struct stream *s, int fd, struct err *err);

/* --- reading --- */
enum stream_record { STREAM_MEMBER, STREAM_DATA, STREAM_DONE };

struct stream_item {
	enum stream_record type;
	json_t *json;     /* of MEMB and DONE; the caller's */
	const void *data; /* of DATA; good until the next call */
	size_t len;
};

/* *ret_head is the caller's. -EBADMSG: no such stream, damaged or cut; -ENOTSUP: a later version */
int stream_open(struct stream *s, int fd, json_t **ret_head, struct err *err);
/* The next record, whole and checked. Nothing may follow DONE but the end of the file. */
int stream_next(struct stream *s, struct stream_item *ret, struct err *err);
