/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to pointer, open addressing. Keys are borrowed from the values, so a key must not change
 * or die while its value is in the map. Private to src/store.
 */
#pragma once

#include <stddef.h>

struct map_slot {
	const char *key; /* NULL: free */
	void *value;
};

struct map {
	struct map_slot *slots;
	size_t count, size; /* size: a power of two, or 0 */
};

void map_done(struct map *m);
void *map_get(const struct map *m, const char *key);
/* The key must not be in the map yet. */
void map_put(struct map *m, const char *key, void *value);
/* Nothing happens when key is not there, or stands for another value. */
void map_del(struct map *m, const char *key, const void *value);
