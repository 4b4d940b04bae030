/* SPDX-License-Identifier: Apache-2.0 */
/* Base64 in both directions, strict; see base64.h. */
#include "base/base64.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

#define BAD 0xff

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_encode(const void *data, size_t len)
{
	const unsigned char *in = data;
	char *text = xmalloc((len + 2) / 3 * 4 + 1), *out = text;

	for (size_t i = 0; i < len; i += 3) {
		size_t left = len - i;
		uint32_t v = (uint32_t)in[i] << 16;

		if (left > 1)
			v |= (uint32_t)in[i + 1] << 8;
		if (left > 2)
			v |= in[i + 2];
		*out++ = alphabet[v >> 18];
		*out++ = alphabet[v >> 12 & 63];
		*out++ = left > 1 ? alphabet[v >> 6 & 63] : '=';
		*out++ = left > 2 ? alphabet[v & 63] : '=';
	}
	*out = '\0';
	return text;
}

/* clang-format off */
/* One more than the value of '+' to 'z'; 0 is none. */
static const uint8_t values[] = {
	63, 0, 0, 0, 64, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 0, 0, 0, 0, 0,
	0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18,
	19, 20, 21, 22, 23, 24, 25, 26, 0, 0, 0, 0, 0, 0, 27, 28, 29, 30, 31, 32,
	33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52,
};
/* clang-format on */

static uint8_t value_of(char c)
{
	unsigned at = (unsigned char)c - (unsigned)'+';

	return (uint8_t)((at < sizeof(values) ? values[at] : 0) - 1);
}

static int refuse(char c, size_t at, struct err *err)
{
	if (isprint((unsigned char)c))
		return err_set(err, EINVAL, "bad base64: '%c' at byte %zu", c, at + 1);
	return err_set(err, EINVAL, "bad base64: 0x%02x at byte %zu", (unsigned char)c, at + 1);
}

int base64_decode_bare(const char *text, size_t len, char **ret, size_t *ret_len, struct err *err)
{
	AUTO_FREE char *data = xmalloc(len / 4 * 3 + 4);
	size_t n = 0;
	uint32_t v = 0;

	for (size_t i = 0; i < len; i++) {
		uint8_t six = value_of(text[i]);

		if (six == BAD)
			return refuse(text[i], i, err);
		v = v << 6 | six;
		if (i % 4)
			data[n++] = (char)(v >> (6 - i % 4 * 2) & 0xff);
	}
	if (len % 4 == 1)
		return err_set(err, EINVAL, "bad base64: cut short after %zu bytes", len);
	data[n] = '\0';
	*ret = steal_ptr(data);
	*ret_len = n;
	return 0;
}

int base64_decode(const char *text, size_t len, char **ret, size_t *ret_len, struct err *err)
{
	AUTO_FREE char *data = NULL;
	size_t digits = len;
	int r;

	while (digits && len - digits < 2 && text[digits - 1] == '=')
		digits--;
	r = base64_decode_bare(text, digits, &data, ret_len, err);
	if (r == 0 && len % 4)
		return err_set(err, EINVAL, "bad base64: cut short after %zu bytes", len);
	*ret = steal_ptr(data);
	return r;
}
