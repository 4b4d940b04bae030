/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single files under watch, wherever they lie: whoever closed one after writing, renamed or removed
 * it is noticed at the next lookout_sync(), also when the folder appears only later. Never the
 * writes themselves: a guest writes its disk without end. Beside the store's watches, which know
 * definitions.
 */
#pragma once

#include <stddef.h>

struct err;
struct lookout;
struct spot;

int lookout_new(struct lookout **ret, struct err *err);
void lookout_free(struct lookout *l); /* with all spots */

/* fn runs inside lookout_sync when something happened to path (followed through links). */
struct spot *lookout_add(struct lookout *l, const char *path, void (*fn)(void *ctx), void *ctx);
void lookout_remove(struct lookout *l, struct spot *s); /* NULL is fine; also inside fn */

int lookout_fd(const struct lookout *l); /* borrowed; readable when there is something to take */
/* Take what is queued at entry, no more. */
void lookout_sync(struct lookout *l);
size_t lookout_count(const struct lookout *l);
