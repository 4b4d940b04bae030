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

static uint8_t value_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		return (uint8_t)(c - 'A');
	if (c >= 'a' && c <= 'z')
		return (uint8_t)(c - 'a' + 26);
	if (c >= '0' && c <= '9')
		return (uint8_t)(c - '0' + 52);
	return c == '+' ? 62 : c == '/' ? 63 : BAD;
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
