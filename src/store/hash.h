/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 64-bit hash (FNV-1a) to see that content is as it was, and for tables. Not for secrets: who
 * can write a definition has no use for a collision. Private to src/store.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HASH_START 0xcbf29ce484222325u

static inline uint64_t hash_bytes(uint64_t h, const void *data, size_t len)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3u;
	return h;
}

/* The terminator counts, so that "ab","c" differs from "a","bc". */
static inline uint64_t hash_text(uint64_t h, const char *text)
{
	return hash_bytes(h, text, strlen(text) + 1);
}

static inline uint64_t hash_number(uint64_t h, uint64_t n)
{
	return hash_bytes(h, &n, sizeof(n));
}

/* Spread to the low bits. */
static inline uint64_t hash_mix(uint64_t h)
{
	return h ^ (h >> 32);
}
