/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filters of GET /vms: ?state=running, ?alias=~^web, ?nics.*.mac=..., as vmadm list has them, over
 * what the asker may see. A daemon must not be held up by an expression, so those that can cost
 * more than a walk over the text are refused. Source: smartos facts 6.5.
 */
#pragma once

#include <stdbool.h>

struct err;
struct filters;
struct text;

#define FILTERS_MAX      16u
#define FILTER_REGEX_MAX 256u /* bytes */

/*
 * Add name=value to *at (NULL at first). -ENOENT: no field and nothing like one, which is no error
 * of a query; -EINVAL: misspelt, or a bad expression; -E2BIG: too many.
 */
int filters_add(struct filters **at, const char *name, const char *value, struct err *err);
/* Do all match? NULL matches. */
bool filters_match(const struct filters *f, const struct text *vm);
void filters_free(struct filters *f);
