/* SPDX-License-Identifier: Apache-2.0 */
/* What frames tell of addresses: real ones, and each cut off at every byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "vmstated/heard.h"

#define FRAME_MAX 700

static const uint8_t mac[6] = {0x52, 0x54, 0, 0, 0, 0xaa};

struct frame {
	uint8_t data[FRAME_MAX];
	size_t len;
};

static void put(struct frame *f, const void *data, size_t len)
{
	assert_true(f->len + len <= FRAME_MAX);
	if (len)
		memcpy(f->data + f->len, data, len);
	f->len += len;
}

#define PUT(f, ...)                                                                                \
	do {                                                                                       \
		const uint8_t bytes[] = {__VA_ARGS__};                                             \
		put(f, bytes, sizeof(bytes));                                                      \
	} while (0)

static void pad(struct frame *f, size_t len)
{
	static const uint8_t none[FRAME_MAX];

	put(f, none, len);
}

static void ip4_udp(struct frame *f, uint8_t from, uint8_t to)
{
	pad(f, 12);
	PUT(f, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2);
	PUT(f, 0, from, 0, to, 0, 0, 0, 0);
}

/* A message of this type about 10.0.0.5, ciaddr in a request and yiaddr in a reply. */
static void dhcp(struct frame *f, uint8_t op, uint8_t type)
{
	PUT(f, op, 1, 6, 0);
	pad(f, op == 1 ? 8 : 12);
	PUT(f, 10, 0, 0, 5);
	pad(f, op == 1 ? 12 : 8);
	put(f, mac, sizeof(mac));
	pad(f, 10 + 192);
	PUT(f, 99, 130, 83, 99, 0, 54, 4, 10, 0, 0, 1, 53, 1, type, 51, 4, 0, 0, 2, 88);
	PUT(f, 50, 4, 10, 0, 0, 6, 255);
}

static void ip6(struct frame *f, uint8_t protocol, uint8_t hops, const struct frame *payload)
{
	pad(f, 12);
	PUT(f, 0x86, 0xdd, 0x60, 0, 0, 0, (uint8_t)(payload->len >> 8), (uint8_t)payload->len,
	    protocol, hops);
	pad(f, 32);
	put(f, payload->data, payload->len);
}

/* None of its beginnings may be read beyond its end; how many tell anything is no matter. */
static size_t hear(const struct frame *f, bool to_guest, struct heard *out)
{
	for (size_t len = 0; len < f->len; len++) {
		AUTO_FREE uint8_t *copy = xmalloc(len + !len);

		memcpy(copy, f->data, len);
		(void)heard_in(copy, len, mac, to_guest, out);
	}
	return heard_in(f->data, f->len, mac, to_guest, out);
}

static void expect(const struct heard *h, uint8_t first, uint8_t last, uint8_t prefix,
		   uint32_t seconds)
{
	assert_int_equal(h->address[0], first);
	assert_int_equal(h->address[prefix / 8 - 1], last);
	assert_int_equal(h->prefix, prefix);
	assert_int_equal(h->v6, prefix > 32);
	assert_int_equal(h->seconds, seconds);
}

static void test_dhcp(void **state)
{
	static const struct {
		uint8_t op, type;
		bool to_guest;
		size_t count;
		uint8_t last;
		uint32_t seconds;
	} cases[] = {
		{2, 5, true, 1, 5, 600}, {2, 2, true, 0, 0, 0},  {2, 6, true, 0, 0, 0},
		{2, 5, false, 0, 0, 0},  {1, 7, false, 1, 5, 0}, {1, 4, false, 1, 6, 0},
		{1, 3, false, 0, 0, 0},  {1, 7, true, 0, 0, 0},  {1, 5, true, 0, 0, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		bool server = cases[i].op == 2;
		struct heard out[HEARD_MAX];
		struct frame f = {0};

		ip4_udp(&f, server ? 67 : 68, server ? 68 : 67);
		dhcp(&f, cases[i].op, cases[i].type);
		assert_int_equal(hear(&f, cases[i].to_guest, out), cases[i].count);
		if (cases[i].count)
			expect(&out[0], 10, cases[i].last, 32, cases[i].seconds);
		/* Another's MAC, a fragment, another port. */
		f.data[14 + 20 + 8 + 28] ^= 1;
		assert_int_equal(hear(&f, cases[i].to_guest, out), 0);
		f.data[14 + 20 + 8 + 28] ^= 1;
		f.data[14 + 7] = 1;
		assert_int_equal(hear(&f, cases[i].to_guest, out), 0);
		f.data[14 + 7] = 0;
		f.data[14 + 20 + 1] = 66;
		assert_int_equal(hear(&f, cases[i].to_guest, out), 0);
	}
}

static void prefix(struct frame *f, uint8_t bits, uint8_t flags, uint8_t first)
{
	PUT(f, 3, 4, bits, flags, 0, 0, 2, 88, 0, 0, 1, 0, 0, 0, 0, 0);
	PUT(f, first, first == 0xfe ? 0x80 : 1, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0);
}

static void test_router(void **state)
{
	struct heard out[HEARD_MAX];
	struct frame f = {0}, far = {0}, payload = {0};

	PUT(&payload, 134, 0, 0, 0, 64, 0, 0, 0);
	pad(&payload, 8);
	PUT(&payload, 1, 1, 0x52, 0x54, 0, 0, 0, 1); /* its own address */
	prefix(&payload, 64, 0xc0, 0x20);
	prefix(&payload, 64, 0x80, 0x21); /* makes no addresses */
	prefix(&payload, 0, 0xc0, 0x22);
	prefix(&payload, 64, 0xc0, 0xfe);
	prefix(&payload, 64, 0x40, 0xfd);
	ip6(&f, 58, 255, &payload);
	assert_int_equal(hear(&f, true, out), 2);
	expect(&out[0], 0x20, 7, 64, 600);
	expect(&out[1], 0xfd, 7, 64, 600);
	assert_int_equal(hear(&f, false, out), 0);
	ip6(&far, 58, 254, &payload); /* came from beyond the link */
	assert_int_equal(hear(&far, true, out), 0);
}

static void dhcp6(struct frame *f, uint8_t type, bool server)
{
	PUT(f, 2, server ? 35 : 34, 2, server ? 34 : 35, 0, 0, 0, 0, type, 1, 2, 3);
	PUT(f, 0, 1, 0, 2, 9, 9);                                /* an option of no matter */
	PUT(f, 0, 3, 0, 40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0); /* IA_NA with an address */
	PUT(f, 0, 5, 0, 24, 0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9);
	PUT(f, 0, 0, 1, 0, 0, 0, 2, 88);
}

static void test_dhcp6(void **state)
{
	struct heard out[HEARD_MAX];
	struct frame reply = {0}, reply_in = {0}, release = {0}, release_in = {0}, ask = {0},
		     ask_in = {0};

	dhcp6(&reply_in, 7, true);
	ip6(&reply, 17, 1, &reply_in);
	assert_int_equal(hear(&reply, true, out), 1);
	expect(&out[0], 0x20, 9, 128, 600);
	assert_int_equal(hear(&reply, false, out), 0);
	dhcp6(&release_in, 8, false);
	ip6(&release, 17, 1, &release_in);
	assert_int_equal(hear(&release, false, out), 1);
	expect(&out[0], 0x20, 9, 128, 0);
	dhcp6(&ask_in, 3, false);
	ip6(&ask, 17, 1, &ask_in);
	assert_int_equal(hear(&ask, false, out), 0);
}

/* One frame may fill what it is told in, and no more. */
static void test_many(void **state)
{
	struct heard out[HEARD_MAX];
	struct frame f = {0}, payload = {0};

	PUT(&payload, 134, 0, 0, 0, 64, 0, 0, 0);
	pad(&payload, 8);
	for (size_t i = 0; i < HEARD_MAX + 1; i++)
		prefix(&payload, 64, 0xc0, 0x20);
	PUT(&payload, 3, 0);
	pad(&payload, 6);
	ip6(&f, 58, 255, &payload);
	assert_int_equal(heard_in(f.data, f.len, mac, true, out), HEARD_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dhcp), cmocka_unit_test(test_router),
		cmocka_unit_test(test_dhcp6), cmocka_unit_test(test_many)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
