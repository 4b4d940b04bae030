/* SPDX-License-Identifier: Apache-2.0 */
/* Patterns of filters; see pattern.h. */
#include "base/pattern.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"

/*
 * The C library copies what an interval repeats and tries all ways to fill a back-reference: a
 * short expression may so take all memory or time. None of it is needed to find a VM.
 */
static const char *costly(const char *re)
{
	bool in_class = false;

	for (const char *p = re; *p; p++) {
		if (*p == '\\' && p[1]) {
			p++;
			if (!in_class && *p >= '1' && *p <= '9')
				return "back-references";
		} else if (in_class) {
			in_class = *p != ']';
		} else if (*p == '[') {
			in_class = true;
			p += p[1] == '^';
			p += p[1] == ']';
		} else if (*p == '{') {
			return "intervals";
		}
	}
	return NULL;
}

static int compile(struct pattern *p, const struct pattern_spec *spec, struct err *err)
{
	const char *bad = spec->cheap ? costly(p->want) : NULL;
	char why[128];
	int r;

	if (bad)
		return err_set(err, EINVAL, "Invalid filter: \"%s\": %s are not taken here",
			       spec->name, bad);
	if (strlen(p->want) > spec->max)
		return err_set(err, EINVAL,
			       "Invalid filter: the expression for \"%s\" has over %zu characters",
			       spec->name, spec->max);
	r = regcomp(&p->re, p->want, REG_EXTENDED | REG_ICASE | REG_NOSUB);
	p->regex = r == 0;
	if (r == 0)
		return 0;
	(void)regerror(r, &p->re, why, sizeof(why));
	return err_set(err, EINVAL, "Invalid filter: \"%s=~%s\": %s", spec->name, p->want, why);
}

int pattern_init(struct pattern *p, const char *value, const struct pattern_spec *spec,
		 struct err *err)
{
	int r;

	*p = (struct pattern){.want = xstrdup(*value == '~' ? value + 1 : value)};
	r = *value == '~' ? compile(p, spec, err) : 0;
	if (r < 0)
		pattern_done(p);
	return r;
}

bool pattern_matches(const struct pattern *p, const char *text)
{
	return p->regex ? regexec(&p->re, text, 0, NULL, 0) == 0 : str_eq(text, p->want);
}

void pattern_done(struct pattern *p)
{
	if (p->regex)
		regfree(&p->re);
	free(p->want);
	*p = (struct pattern){0};
}
