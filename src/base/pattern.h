/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a filter wants a text to be: "text" exactly, or "~regex", an extended regular expression
 * found anywhere, whatever the case. Source: smartos facts 6.5.
 */
#pragma once

#include <regex.h>
#include <stdbool.h>
#include <stddef.h>

struct err;

struct pattern {
	char *want;
	bool regex;
	regex_t re;
};

/*
 * name: the filter's, for messages. max: bytes of the expression. cheap: no back-references and
 * intervals, which may cost all memory or time: for a daemon that is asked by others. -EINVAL.
 */
struct pattern_spec {
	const char *name;
	size_t max;
	bool cheap;
};
int pattern_init(struct pattern *p, const char *value, const struct pattern_spec *spec,
		 struct err *err);
bool pattern_matches(const struct pattern *p, const char *text);
void pattern_done(struct pattern *p);
