/* SPDX-License-Identifier: Apache-2.0 */
/* Bare values that are no strings: numbers with their suffixes, times, booleans, null. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <strings.h>

#include "base/err.h"
#include "base/mem.h"
#include "ucl/parse.h"

#define NUMBER_MAX 64 /* characters of a number; longer ones are strings or out of range */

struct suffix {
	const char *name;
	enum { SCALE, BYTES, TIME } kind; /* BYTES: a fraction is cut before multiplying */
	int64_t times;
	int64_t over;
};

/* Source: libucl; `ks` and `gs` are what its reader makes of a multiplier before s. */
static const struct suffix suffixes[] = {
	{"k", SCALE, 1000, 1},
	{"m", SCALE, INT64_C(1000) * 1000, 1},
	{"g", SCALE, INT64_C(1000) * 1000 * 1000, 1},
	{"kb", BYTES, 1 << 10, 1},
	{"mb", BYTES, 1 << 20, 1},
	{"gb", BYTES, 1 << 30, 1},
	{"ms", TIME, 1, 1000},
	{"s", TIME, 1, 1},
	{"ks", TIME, 1000, 1},
	{"gs", TIME, INT64_C(1000) * 1000 * 1000, 1},
	{"min", TIME, 60, 1},
	{"h", TIME, INT64_C(60) * 60, 1},
	{"d", TIME, INT64_C(24) * 60 * 60, 1},
	{"w", TIME, INT64_C(7) * 24 * 60 * 60, 1},
	{"y", TIME, INT64_C(365) * 24 * 60 * 60, 1},
};

static const struct {
	const char *name;
	bool any_case;
	enum ucl_type type;
	bool boolean;
	double real;
} words[] = {
	{"true", true, UCL_BOOL, true},
	{"false", true, UCL_BOOL, false},
	{"yes", true, UCL_BOOL, true},
	{"no", true, UCL_BOOL, false},
	{"on", true, UCL_BOOL, true},
	{"off", true, UCL_BOOL, false},
	{"null", false, UCL_NULL},
	{"nan", false, UCL_FLOAT, .real = NAN},
	{"inf", false, UCL_FLOAT, .real = INFINITY},
};

/* A number without its suffix. */
struct number {
	bool real;
	bool beyond; /* the range */
	int64_t integer;
	double value;
};

/* The length of the number that text begins with; 0 when there is none. */
static size_t scan_number(const char *text, bool *ret_hex, bool *ret_real)
{
	const char *p = text + (*text == '-');
	const char *digits = p;

	*ret_hex = p[0] == '0' && (p[1] == 'x' || p[1] == 'X') && isxdigit((unsigned char)p[2]);
	*ret_real = false;
	if (*ret_hex) {
		for (p += 2; isxdigit((unsigned char)*p); p++)
			;
		return (size_t)(p - text);
	}
	while (isdigit((unsigned char)*p))
		p++;
	if (p == digits)
		return 0;
	if (*p == '.') {
		*ret_real = true;
		for (p++; isdigit((unsigned char)*p); p++)
			;
	}
	if (*p == 'e' || *p == 'E') {
		const char *exp = p + 1 + (p[1] == '+' || p[1] == '-');

		if (isdigit((unsigned char)*exp)) {
			*ret_real = true;
			for (p = exp; isdigit((unsigned char)*p); p++)
				;
		}
	}
	return (size_t)(p - text);
}

static struct number read_number(const char *text, bool hex, bool real)
{
	struct number n = {.real = real};
	char *end;

	errno = 0;
	if (real) {
		n.value = strtod(text, &end);
		n.beyond = !isfinite(n.value);
	} else {
		n.integer = strtoimax(text, &end, hex ? 16 : 10);
		n.beyond = errno == ERANGE;
		n.value = (double)n.integer;
	}
	return n;
}

/* Multiply; false when the result is beyond the range. */
static bool apply(const struct suffix *s, const struct number *n, struct ucl_value *v)
{
	if (s->kind == TIME) {
		v->type = UCL_TIME;
		v->real = n->value * (double)s->times / (double)s->over;
		return isfinite(v->real);
	}
	if (n->real && s->kind == SCALE) {
		v->type = UCL_FLOAT;
		v->real = n->value * (double)s->times;
		return isfinite(v->real);
	}
	v->type = UCL_INT;
	v->integer = n->integer;
	if (n->real) {
		if (!(fabs(n->value) < 9.2e18))
			return false;
		v->integer = (int64_t)n->value;
	}
	return !__builtin_mul_overflow(v->integer, s->times, &v->integer);
}

static int beyond(struct ucl_parser *ps, const char *text, size_t len)
{
	return ucl_fault(ps, EINVAL, text,
			 "numeric value out of range: %.*s (quote it for a string)",
			 len > 80 ? 80 : (int)len, text);
}

static int parse_number(struct ucl_parser *ps, const char *text, size_t len, struct ucl_value *v)
{
	static const struct suffix none = {"", SCALE, 1, 1};
	const struct suffix *s = NULL;
	char copy[NUMBER_MAX + 4] = {0}; /* so that looking three bytes ahead is fine */
	bool hex, real;
	struct number n;
	size_t taken;

	if (len > NUMBER_MAX) {
		/* Nothing but digits is a number all the same. */
		size_t i = *text == '-';

		while (i < len && isdigit((unsigned char)text[i]))
			i++;
		return i == len ? beyond(ps, text, len) : 0;
	}
	memcpy(copy, text, len);
	taken = scan_number(copy, &hex, &real);
	if (taken == 0)
		return 0;
	if (taken == len)
		s = &none;
	for (size_t i = 0; i < ARRAY_SIZE(suffixes) && !s; i++)
		if (strcasecmp(copy + taken, suffixes[i].name) == 0)
			s = &suffixes[i];
	if (!s)
		return 0;
	copy[taken] = '\0';
	n = read_number(copy, hex, real);
	if (n.beyond || !apply(s, &n, v))
		return beyond(ps, text, len);
	return 1;
}

static bool parse_named(const char *text, size_t len, struct ucl_value *v)
{
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strlen(words[i].name) != len ||
		    (words[i].any_case ? strncasecmp : strncmp)(text, words[i].name, len) != 0)
			continue;
		v->type = words[i].type;
		if (v->type == UCL_BOOL)
			v->boolean = words[i].boolean;
		else
			v->real = words[i].real;
		return true;
	}
	return false;
}

int ucl_parse_word(struct ucl_parser *ps, const char *text, size_t len, struct ucl_value *v)
{
	int r = 0;

	if (*text == '-' || isdigit((unsigned char)*text))
		r = parse_number(ps, text, len, v);
	else if (len <= 5 && parse_named(text, len, v))
		r = 1;
	if (r > 0)
		v->raw = ucl_strndup(ps->doc, text, len);
	return r;
}
