/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers as people write them: sizes in 1024-based units, times, plain and hexadecimal numbers.
 * The text is judged as written, because UCL's own suffixes are 1000-based.
 */
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "model/value.h"

/* 10^12 * 10^9 * 2^50 stays below 2^127. */
#define WHOLE_MAX     1000000000000ll
#define FRACTION_MAX  9
#define TIME_MAX_SECS (365ll * 24 * 3600)

struct suffix {
	const char *text;
	int64_t factor;
};

static const struct suffix sizes[] = {
	{"b", 1},         {"k", 1ll << 10}, {"m", 1ll << 20},
	{"g", 1ll << 30}, {"t", 1ll << 40}, {"p", 1ll << 50},
};

/* In milliseconds. No "m": months, minutes and UCL's million would be too easily mixed up. */
static const struct suffix times[] = {
	{"ms", 1},
	{"s", 1000},
	{"sec", 1000},
	{"min", 60 * 1000},
	{"h", 3600 * 1000},
	{"d", 24 * 3600 * 1000},
	{"w", 7 * 24 * 3600 * 1000},
};

/* whole + fraction / scale, and what follows the digits. */
struct decimal {
	int64_t whole, fraction, scale;
	const char *rest;
};

static int decimal_parse(const char *text, struct decimal *d)
{
	*d = (struct decimal){.scale = 1};
	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	for (; isdigit((unsigned char)*text); text++) {
		d->whole = d->whole * 10 + (*text - '0');
		if (d->whole > WHOLE_MAX)
			return -ERANGE;
	}
	if (*text == '.') {
		if (!isdigit((unsigned char)*++text))
			return -EINVAL;
		for (int i = 0; isdigit((unsigned char)*text); text++, i++) {
			if (i >= FRACTION_MAX)
				return -ERANGE;
			d->fraction = d->fraction * 10 + (*text - '0');
			d->scale *= 10;
		}
	}
	while (*text == ' ')
		text++;
	d->rest = text;
	return 0;
}

/* d times factor in whole units of `unit`. */
static int scale(const struct decimal *d, int64_t factor, int64_t unit, int64_t *ret)
{
	__int128 value = ((__int128)d->whole * d->scale + d->fraction) * factor;
	__int128 divisor = (__int128)d->scale * unit;

	if (value % divisor != 0 || value / divisor > INT64_MAX)
		return -ERANGE;
	*ret = (int64_t)(value / divisor);
	return 0;
}

static int64_t unit_bytes(const struct prop *row)
{
	if (str_eq(row->unit, "MiB"))
		return 1ll << 20;
	if (str_eq(row->unit, "GiB"))
		return 1ll << 30;
	return str_eq(row->unit, "B") ? 1 : 0;
}

static bool size_suffix(const struct suffix *s, const char *text)
{
	if (strncasecmp(text, s->text, 1) != 0)
		return false;
	text++;
	if (s->factor == 1)
		return !*text;
	return !*text || strcasecmp(text, "b") == 0 || strcasecmp(text, "ib") == 0;
}

static int plain_parse(const char *text, int64_t *ret)
{
	struct decimal d;
	bool negative = *text == '-';
	char *end;
	int r;

	if (strncasecmp(text, "0x", 2) == 0 && isxdigit((unsigned char)text[2]) &&
	    strlen(text) <= 17) {
		*ret = (int64_t)strtoull(text, &end, 16);
		return *end ? -EINVAL : 0;
	}
	r = decimal_parse(text + negative, &d);
	if (r < 0)
		return r;
	if (*d.rest)
		return -EINVAL;
	r = scale(&d, 1, 1, ret);
	if (negative)
		*ret = -*ret;
	return r;
}

static int size_parse(const char *text, int64_t unit, int64_t *ret)
{
	struct decimal d;
	int r = decimal_parse(text, &d);

	if (r < 0)
		return r;
	if (!*d.rest)
		return scale(&d, unit, unit, ret);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		if (size_suffix(&sizes[i], d.rest))
			return scale(&d, sizes[i].factor, unit, ret);
	}
	return -EINVAL;
}

int number_parse(const struct prop *row, const char *text, int64_t *ret)
{
	int64_t unit = unit_bytes(row);

	while (*text == ' ')
		text++;
	if (unit && *text != '-' && strncasecmp(text, "0x", 2) != 0)
		return size_parse(text, unit, ret);
	return plain_parse(text, ret);
}

int time_parse(const struct prop *row, const char *text, uint64_t *ret_ms)
{
	int64_t max = row->max ? row->max : TIME_MAX_SECS, ms = -1;
	struct decimal d;
	int r;

	while (*text == ' ')
		text++;
	r = decimal_parse(text, &d);
	if (r == 0 && !*d.rest)
		r = scale(&d, 1000, 1, &ms);
	for (size_t i = 0; r == 0 && *d.rest && i < ARRAY_SIZE(times); i++) {
		if (strcasecmp(d.rest, times[i].text) == 0)
			r = scale(&d, times[i].factor, 1, &ms);
	}
	if (r < 0)
		return r;
	if (ms < 0)
		return -EINVAL;
	if (ms < row->min * 1000 || ms > max * 1000)
		return -ERANGE;
	*ret_ms = (uint64_t)ms;
	return 0;
}
