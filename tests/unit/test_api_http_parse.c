/* SPDX-License-Identifier: Apache-2.0 */
/* The reply reader: every framing, split at every byte, and what it must refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "api/http_parse.h"
#include "base/err.h"
#include "base/mem.h"

struct sample {
	const char *text, *body;
	int status;
	bool keep, eof; /* eof: complete only at the peer's close */
};

/* clang-format off */
static const struct sample good[] = {
	{ "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", 200, true, false },
	{ "HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", "", 200, true, false },
	{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n",
	  "hello!", 200, true, false },
	{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
	  "0123456789", 200, true, false },
	{ "HTTP/1.0 404 Not Found\r\n\r\nnothing", "nothing", 404, false, true },
	{ "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "ok", 200, false, false },
	{ "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Made\r\nContent-Length: 1\r\n\r\nx",
	  "x", 201, true, false },
	{ "HTTP/1.1 204\r\n\r\n", "", 204, true, false },
	{ "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "abc", 200, true, false },
};

static const struct { const char *text; int code; } bad[] = {
	{ "HTTP/2 200 OK\r\n\r\n", EPROTO },
	{ "HTTP/1.1 20 OK\r\n\r\n", EPROTO },
	{ "HTTP/1.1 2000 OK\r\n\r\n", EPROTO },
	{ "SSH-2.0-x\r\n\r\n", EPROTO },
	{ "HTTP/1.1 200 OK\n\r\n\r\n", EPROTO },
	{ "HTTP/1.1 200 OK\r\nnocolon\r\n\r\n", EPROTO },
	{ "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n", EPROTO },
	{ "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", EPROTO },
	{ "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", EPROTO },
	{ "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", EPROTO },
	{ "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", EPROTO },
	{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", EPROTO },
	{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", EPROTO },
	{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", EPROTO },
	{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", E2BIG },
	{ "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", E2BIG },
	{ "HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", E2BIG },
	{ "HTTP/1.1 101 Switching\r\n\r\n", EPROTO },
};
/* clang-format on */

static int feed(struct http_parse *p, const char *text, size_t len, size_t cut)
{
	struct err err = {0};
	int r = http_parse_feed(p, text, cut, &err);

	return r < 0 ? r : http_parse_feed(p, text + cut, len - cut, &err);
}

static void check(const struct sample *s, size_t cut)
{
	struct http_parse p;

	http_parse_init(&p, 1000, false);
	assert_int_equal(feed(&p, s->text, strlen(s->text), cut), 0);
	assert_int_equal(p.state == HTTP_PARSE_DONE, !s->eof);
	assert_int_equal(http_parse_eof(&p, NULL), 0);
	assert_int_equal(p.status, s->status);
	assert_int_equal(p.keep_alive, s->keep);
	assert_int_equal(p.body.len, strlen(s->body));
	if (p.body.len)
		assert_string_equal(p.body.data, s->body);
	assert_int_equal(p.in.len, 0);
	http_parse_done(&p);
}

static void split_at_every_byte(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		for (size_t cut = 0; cut <= strlen(good[i].text); cut++)
			check(&good[i], cut);
}

static void byte_by_byte(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct http_parse p;

		http_parse_init(&p, 1000, false);
		for (const char *c = good[i].text; *c; c++)
			assert_int_equal(http_parse_feed(&p, c, 1, NULL), 0);
		assert_int_equal(http_parse_eof(&p, NULL), 0);
		assert_int_equal(p.body.len, strlen(good[i].body));
		http_parse_done(&p);
	}
}

static void refusals(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct err err = {0};
		struct http_parse p;

		http_parse_init(&p, 1000, false);
		assert_int_equal(http_parse_feed(&p, bad[i].text, strlen(bad[i].text), &err),
				 -bad[i].code);
		assert_true(err.msg[0]);
		http_parse_done(&p);
	}
}

static void early_ends(void **state)
{
	static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

	for (size_t len = 0; len < sizeof(text) - 1; len++) {
		struct http_parse p;

		http_parse_init(&p, 1000, false);
		assert_int_equal(http_parse_feed(&p, text, len, NULL), 0);
		assert_int_equal(http_parse_eof(&p, NULL), -ECONNRESET);
		http_parse_done(&p);
	}
}

static void endless_head_and_body(void **state)
{
	char junk[1000];
	struct http_parse p;
	int r = 0;

	for (size_t i = 0; i < sizeof(junk); i++)
		junk[i] = 'a';
	http_parse_init(&p, 1000, false);
	for (int i = 0; i < 100 && r == 0; i++)
		r = http_parse_feed(&p, junk, sizeof(junk), NULL);
	assert_int_equal(r, -E2BIG);
	http_parse_done(&p);

	http_parse_init(&p, 1500, false);
	assert_int_equal(http_parse_feed(&p, "HTTP/1.1 200 OK\r\n\r\n", 19, NULL), 0);
	assert_int_equal(http_parse_feed(&p, junk, sizeof(junk), NULL), 0);
	assert_int_equal(http_parse_feed(&p, junk, sizeof(junk), NULL), -E2BIG);
	http_parse_done(&p);
}

static void head_has_no_body(void **state)
{
	struct http_parse p;

	http_parse_init(&p, 10, true);
	assert_int_equal(
		http_parse_feed(&p, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 38, NULL), 0);
	assert_int_equal(p.state, HTTP_PARSE_DONE);
	http_parse_done(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(split_at_every_byte),
		cmocka_unit_test(byte_by_byte),
		cmocka_unit_test(refusals),
		cmocka_unit_test(early_ends),
		cmocka_unit_test(endless_head_and_body),
		cmocka_unit_test(head_has_no_body),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
