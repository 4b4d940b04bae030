/* SPDX-License-Identifier: Apache-2.0 */
/* Text to pointer; see map.h. */
#include "store/map.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "store/hash.h"

void map_done(struct map *m)
{
	free(m->slots);
	*m = (struct map){0};
}

static size_t home(const struct map *m, const char *key)
{
	return (size_t)hash_mix(hash_text(HASH_START, key)) & (m->size - 1);
}

/* The slot of key, or the free one where it would go. */
static size_t probe(const struct map *m, const char *key)
{
	size_t i = home(m, key);

	while (m->slots[i].key && strcmp(m->slots[i].key, key) != 0)
		i = (i + 1) & (m->size - 1);
	return i;
}

void *map_get(const struct map *m, const char *key)
{
	return m->size ? m->slots[probe(m, key)].value : NULL;
}

static void grow(struct map *m)
{
	struct map old = *m;

	m->size = old.size ? old.size * 2 : 16;
	m->slots = xcalloc(m->size, sizeof(*m->slots));
	for (size_t i = 0; i < old.size; i++) {
		if (old.slots[i].key)
			m->slots[probe(m, old.slots[i].key)] = old.slots[i];
	}
	free(old.slots);
}

void map_put(struct map *m, const char *key, void *value)
{
	size_t i;

	if ((m->count + 1) * 4 > m->size * 3)
		grow(m);
	i = probe(m, key);
	m->count += !m->slots[i].key;
	m->slots[i] = (struct map_slot){.key = key, .value = value};
}

void map_del(struct map *m, const char *key, const void *value)
{
	size_t mask = m->size - 1, hole, i;

	if (!m->size)
		return;
	hole = probe(m, key);
	if (!m->slots[hole].key || m->slots[hole].value != value)
		return;
	m->count--;
	/* Move up whatever was pushed past the hole, so that no probe ends there too early. */
	for (i = (hole + 1) & mask; m->slots[i].key; i = (i + 1) & mask) {
		if (((i - home(m, m->slots[i].key)) & mask) < ((i - hole) & mask))
			continue;
		m->slots[hole] = m->slots[i];
		hole = i;
	}
	m->slots[hole] = (struct map_slot){0};
}
