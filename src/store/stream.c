/* SPDX-License-Identifier: Apache-2.0 */
/* Writer and reader of the stream; see stream.h. Lengths are judged before room is made for them.
 */
#include "store/stream.h"

#include <endian.h>
#include <errno.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#define MAGIC     "DROVER-STREAM-1\n"
#define MAGIC_LEN (sizeof(MAGIC) - 1)
#define VERSIONED 14 /* of the magic: what every version has */
#define TYPE_LEN  4

_Static_assert(SHA256_DIGEST_SIZE == STREAM_SUM, "the sum is a SHA-256");

struct header {
	char type[TYPE_LEN];
	uint64_t len_le;
} __attribute__((packed));

void stream_done(struct stream *s)
{
	free(s->buffer);
	s->buffer = NULL;
}

static void magic_sum(struct stream *s)
{
	struct sha256_ctx ctx;

	sha256_init(&ctx);
	sha256_update(&ctx, MAGIC_LEN, (const uint8_t *)MAGIC);
	sha256_digest(&ctx, sizeof(s->sum), s->sum);
}

/* The sum that follows a record. */
static void next_sum(struct stream *s, const struct header *h, const void *data, size_t len)
{
	struct sha256_ctx ctx;

	sha256_init(&ctx);
	sha256_update(&ctx, sizeof(s->sum), s->sum);
	sha256_update(&ctx, sizeof(*h), (const uint8_t *)h);
	sha256_update(&ctx, len, data);
	sha256_digest(&ctx, sizeof(s->sum), s->sum);
}

/* --- writing --- */

static int put(struct stream *s, const void *data, size_t len, struct err *err)
{
	int r = fd_write_all(s->fd, data, len);

	s->bytes += len;
	return r < 0 ? err_sys(err, -r, "cannot write the stream") : 0;
}

static int put_record(struct stream *s, const char *type, const void *data, size_t len,
		      struct err *err)
{
	struct header h = {.len_le = htole64(len)};
	int r;

	memcpy(h.type, type, TYPE_LEN);
	next_sum(s, &h, data, len);
	r = put(s, &h, sizeof(h), err);
	if (r == 0)
		r = put(s, data, len, err);
	return r == 0 ? put(s, s->sum, sizeof(s->sum), err) : r;
}

static int put_json(struct stream *s, const char *type, const json_t *json, struct err *err)
{
	AUTO_FREE char *text = json_text(json);
	size_t len = strlen(text);

	if (len > STREAM_JSON_MAX)
		return err_set(err, E2BIG, "a description of %zu bytes is too long for the stream",
			       len);
	return put_record(s, type, text, len, err);
}

int stream_begin(struct stream *s, int fd, const json_t *head, struct err *err)
{
	int r;

	*s = (struct stream){.fd = fd};
	magic_sum(s);
	r = put(s, MAGIC, MAGIC_LEN, err);
	return r == 0 ? put_json(s, "HEAD", head, err) : r;
}

int stream_member(struct stream *s, const json_t *member, struct err *err)
{
	return put_json(s, "MEMB", member, err);
}

int stream_data(struct stream *s, const void *data, size_t len, struct err *err)
{
	const char *at = data;

	while (len > 0) {
		size_t part = len < STREAM_DATA_MAX ? len : STREAM_DATA_MAX;
		int r = put_record(s, "DATA", at, part, err);

		if (r < 0)
			return r;
		at += part;
		len -= part;
	}
	return 0;
}

int stream_copy_in(struct stream *s, int in, uint64_t *ret_bytes, struct err *err)
{
	uint64_t bytes = 0;
	ssize_t n;
	int r = 0;

	if (!s->buffer)
		s->buffer = xmalloc(STREAM_DATA_MAX);
	do {
		n = fd_read_full(in, s->buffer, STREAM_DATA_MAX);
		if (n < 0)
			return err_sys(err, (int)-n, "cannot read what the stream is made of");
		if (n > 0)
			r = put_record(s, "DATA", s->buffer, (size_t)n, err);
		bytes += (size_t)n;
	} while (r == 0 && n == (ssize_t)STREAM_DATA_MAX);
	if (r == 0 && ret_bytes)
		*ret_bytes = bytes;
	return r;
}

int stream_end(struct stream *s, const json_t *done, struct err *err)
{
	return put_json(s, "DONE", done, err);
}

int stream_append(struct stream *s, int fd, struct err *err)
{
	*s = (struct stream){.fd = fd};
	if (lseek(fd, -STREAM_SUM, SEEK_END) < 0)
		return err_sys(err, errno, "cannot go to the end of the stream");
	if (fd_read_full(fd, s->sum, sizeof(s->sum)) != STREAM_SUM)
		return err_set(err, EBADMSG, "the stream is cut off");
	return 0;
}

/* --- reading --- */

static int cut(struct err *err)
{
	return err_set(err, EBADMSG, "it is cut off: its end is missing");
}

static int get(struct stream *s, void *buf, size_t len, struct err *err)
{
	ssize_t n = fd_read_full(s->fd, buf, len);

	if (n < 0)
		return err_sys(err, (int)-n, "cannot read it");
	s->bytes += (size_t)n;
	return (size_t)n == len ? 0 : cut(err);
}

static int get_record(struct stream *s, struct header *h, size_t *ret_len, struct err *err)
{
	uint8_t sum[STREAM_SUM];
	uint64_t len, most;
	int r = get(s, h, sizeof(*h), err);

	if (r < 0)
		return r;
	len = le64toh(h->len_le);
	most = memcmp(h->type, "DATA", TYPE_LEN) == 0 ? STREAM_DATA_MAX : STREAM_JSON_MAX;
	if (len > most)
		return err_set(err, EBADMSG, "it is damaged: a record is too long");
	if (!s->buffer)
		s->buffer = xmalloc(STREAM_JSON_MAX + 1);
	r = get(s, s->buffer, len, err);
	if (r == 0)
		r = get(s, sum, sizeof(sum), err);
	if (r < 0)
		return r;
	next_sum(s, h, s->buffer, len);
	if (memcmp(sum, s->sum, sizeof(sum)) != 0)
		return err_set(err, EBADMSG, "it is damaged: a checksum is wrong");
	*ret_len = len;
	return 0;
}

int stream_open(struct stream *s, int fd, json_t **ret_head, struct err *err)
{
	char magic[MAGIC_LEN];
	struct header h;
	size_t len;
	int r;

	*s = (struct stream){.fd = fd};
	magic_sum(s);
	if (get(s, magic, sizeof(magic), NULL) < 0 || memcmp(magic, MAGIC, VERSIONED) != 0)
		return err_set(err, EBADMSG, "it is no stream of ours");
	if (memcmp(magic, MAGIC, sizeof(magic)) != 0)
		return err_set(err, ENOTSUP, "it is of a later version ('%.*s')",
			       (int)MAGIC_LEN - 1, magic);
	r = get_record(s, &h, &len, err);
	if (r < 0)
		return r;
	if (memcmp(h.type, "HEAD", TYPE_LEN) != 0)
		return err_set(err, EBADMSG, "it is damaged: it has no head");
	return json_parse_object(s->buffer, len, "its head", ret_head, err);
}

int stream_next(struct stream *s, struct stream_item *ret, struct err *err)
{
	static const char *const types[] = {
		[STREAM_MEMBER] = "MEMB", [STREAM_DATA] = "DATA", [STREAM_DONE] = "DONE"};
	struct header h;
	size_t len, i = 0;
	char more;
	int r = get_record(s, &h, &len, err);

	if (r < 0)
		return r;
	while (i < ARRAY_SIZE(types) && memcmp(h.type, types[i], TYPE_LEN) != 0)
		i++;
	if (i == ARRAY_SIZE(types))
		return err_set(err, EBADMSG, "it is damaged: a record of no known type");
	*ret = (struct stream_item){.type = (enum stream_record)i, .data = s->buffer, .len = len};
	if (ret->type == STREAM_DATA)
		return 0;
	if (ret->type == STREAM_DONE && fd_read_full(s->fd, &more, 1) != 0)
		return err_set(err, EBADMSG, "it is damaged: something follows its end");
	return json_parse_object(s->buffer, len, "its description", &ret->json, err);
}
