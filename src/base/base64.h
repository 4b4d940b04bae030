/* SPDX-License-Identifier: Apache-2.0 */
/* Base64 (RFC 4648): alphabet +/, one line. */
#pragma once

#include <stddef.h>

struct err;

/* Caller frees. */
char *base64_encode(const void *data, size_t len);

/*
 * Decode text[len], padded; *ret is NUL-terminated (not counted) and the caller's. -EINVAL names
 * the first byte that does not belong, or says that the end is missing.
 */
int base64_decode(const char *text, size_t len, char **ret, size_t *ret_len, struct err *err);
/* The same for text without its padding. */
int base64_decode_bare(const char *text, size_t len, char **ret, size_t *ret_len, struct err *err);
