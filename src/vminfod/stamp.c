/* SPDX-License-Identifier: Apache-2.0 */
/* Times as text; see stamp.h. */
#include "vminfod/stamp.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define NS_PER_SEC 1000000000u

char *stamp_text(uint64_t ns, char *buf, size_t size)
{
	(void)snprintf(buf, size, "%" PRIu64 ".%09" PRIu64, ns / NS_PER_SEC, ns % NS_PER_SEC);
	return buf;
}

/* Two decimals at most, without trailing zeros. hundredths: the value times 100. */
static void put_short(uint64_t hundredths, const char *unit, char *buf, size_t size)
{
	unsigned rest = (unsigned)(hundredths % 100);

	if (rest == 0)
		(void)snprintf(buf, size, "%" PRIu64 "%s", hundredths / 100, unit);
	else if (rest % 10 == 0)
		(void)snprintf(buf, size, "%" PRIu64 ".%u%s", hundredths / 100, rest / 10, unit);
	else
		(void)snprintf(buf, size, "%" PRIu64 ".%02u%s", hundredths / 100, rest, unit);
}

/* value / unit, rounded to hundredths. */
static uint64_t in_hundredths(uint64_t value, uint64_t unit)
{
	return (value * 100 + unit / 2) / unit;
}

/* Days, hours and minutes come from whole seconds, seconds from whole milliseconds. */
static void short_text(uint64_t ns, char *buf, size_t size)
{
	static const struct {
		uint64_t seconds;
		const char *unit;
	} big[] = {{86400, "d"}, {3600, "h"}, {60, "m"}};
	static const struct {
		uint64_t ns;
		const char *unit;
	} small[] = {{1000000, "ms"}, {1000, "us"}, {1, "ns"}};
	uint64_t seconds = ns / NS_PER_SEC;

	for (size_t i = 0; i < ARRAY_SIZE(big); i++) {
		if (seconds < big[i].seconds)
			continue;
		put_short(in_hundredths(seconds, big[i].seconds), big[i].unit, buf, size);
		return;
	}
	if (seconds > 0) {
		put_short(in_hundredths(ns / 1000000, 1000), "s", buf, size);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(small); i++) {
		if (ns < small[i].ns)
			continue;
		put_short(in_hundredths(ns, small[i].ns), small[i].unit, buf, size);
		return;
	}
	(void)snprintf(buf, size, "0ns");
}

char *duration_text(uint64_t ns, char *buf, size_t size)
{
	char stamp[STAMP_LEN], small[STAMP_LEN];

	short_text(ns, small, sizeof(small));
	(void)snprintf(buf, size, "%ss (%s)", stamp_text(ns, stamp, sizeof(stamp)), small);
	return buf;
}
