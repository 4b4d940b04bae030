/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The error a person will read. Functions return a negative errno; where the reason matters they
 * also fill a caller-owned struct err, passed last, which may be NULL. No allocation.
 */
#pragma once

#include <stddef.h>

struct err {
	int code; /* positive errno, 0 when unset */
	char msg[512];
};

/* Set code and message; returns -code. */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As err_set, and appends ": " and the text of errnum; returns -errnum. */
int err_sys(struct err *err, int errnum, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Put "text: " before the message already there; returns ret unchanged. */
int err_wrap(struct err *err, int ret, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The message, or a generic text for the code when none was set. */
const char *err_text(const struct err *err, int ret);

#ifdef __clang_analyzer__
/* The analyser sees one file at a time; this tells it that a failure is always negative. */
static inline int err_negative(int code)
{
	return code > 0 ? -code : -1;
}
#define err_set(err, code, ...)   ((void)(err_set)(err, code, __VA_ARGS__), err_negative(code))
#define err_sys(err, errnum, ...) ((void)(err_sys)(err, errnum, __VA_ARGS__), err_negative(errnum))
#define err_wrap(err, ret, ...)   ((void)(err_wrap)(err, ret, __VA_ARGS__), (ret))
#endif
