/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory and descriptors with one visible owner. Small allocations abort when there is no memory:
 * guests outlive any daemon, so starting anew is the recovery.
 */
#pragma once

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void *xmalloc(size_t size) __attribute__((returns_nonnull));
void *xcalloc(size_t count, size_t size) __attribute__((returns_nonnull));
void *xrealloc(void *old, size_t size) __attribute__((returns_nonnull));
/* NULL stays NULL in both. */
char *xstrdup(const char *text);
char *xstrndup(const char *text, size_t len);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2), returns_nonnull));

static inline void auto_free_fn(void *p)
{
	free(*(void **)p);
}

static inline void auto_fd_fn(const int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

static inline void auto_file_fn(FILE **f)
{
	if (*f)
		(void)fclose(*f);
}

/* Owners that clean up at the end of the block. */
#define AUTO_FREE __attribute__((cleanup(auto_free_fn)))
#define AUTO_FD   __attribute__((cleanup(auto_fd_fn)))
#define AUTO_FILE __attribute__((cleanup(auto_file_fn)))

/* Take the pointer or descriptor out of its owner, which keeps NULL or -1. */
#define steal_ptr(p)                                                                               \
	({                                                                                         \
		typeof(p) *steal_at_ = &(p);                                                       \
		typeof(p) steal_value_ = *steal_at_;                                               \
		*steal_at_ = NULL;                                                                 \
		steal_value_;                                                                      \
	})

static inline int steal_fd(int *fd)
{
	int value = *fd;

	*fd = -1;
	return value;
}

/* free(old), then own value. */
static inline void replace_str(char **at, char *value)
{
	free(*at);
	*at = value;
}

#define ARRAY_SIZE(a)                (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, mem) ((type *)(void *)((char *)(ptr)-offsetof(type, mem)))
