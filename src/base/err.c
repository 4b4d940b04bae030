/* SPDX-License-Identifier: Apache-2.0 */
/* Errors with a text; see err.h. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int(err_set)(struct err *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (err) {
		err->code = code;
		va_start(ap, fmt);
		(void)vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
		va_end(ap);
	}
	return -code;
}

int(err_sys)(struct err *err, int errnum, const char *fmt, ...)
{
	va_list ap;
	size_t len;

	if (err) {
		err->code = errnum;
		va_start(ap, fmt);
		(void)vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
		va_end(ap);
		len = strlen(err->msg);
		(void)snprintf(err->msg + len, sizeof(err->msg) - len, ": %s", strerror(errnum));
	}
	return -errnum;
}

int(err_wrap)(struct err *err, int ret, const char *fmt, ...)
{
	char head[sizeof(err->msg)];
	char old[sizeof(err->msg)];
	va_list ap;

	if (!err)
		return ret;
	va_start(ap, fmt);
	(void)vsnprintf(head, sizeof(head), fmt, ap);
	va_end(ap);
	memcpy(old, err->msg, sizeof(old));
	/* A text too long is cut at its end; the head names what and where, so it stays. */
	(void)snprintf(err->msg, sizeof(err->msg), "%.200s: %.300s", head, old);
	return ret;
}

const char *err_text(const struct err *err, int ret)
{
	if (err && err->code && err->msg[0])
		return err->msg;
	return strerror(ret < 0 ? -ret : ret);
}
