/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One row per error that crosses a process boundary: its name on the wire, its HTTP status and the
 * exit code of a tool that meets it; see status.h.
 */
#include "api/status.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/mem.h"

struct status_row {
	int code;
	const char *name;
	int http;
	enum exit_code exit;
};

/* clang-format off */
static const struct status_row rows[] = {
	/* The first row with a given HTTP status is what the status alone stands for. */
	{ EINVAL,       "EINVAL",       400, EXIT_FAILED },
	{ EPERM,        "EPERM",        403, EXIT_DENIED },
	{ EACCES,       "EACCES",       403, EXIT_DENIED },
	{ ENOENT,       "ENOENT",       404, EXIT_UNKNOWN_VM },
	{ EBUSY,        "EBUSY",        409, EXIT_CONFLICT },
	{ EEXIST,       "EEXIST",       409, EXIT_CONFLICT },
	{ EALREADY,     "EALREADY",     409, EXIT_CONFLICT },
	{ E2BIG,        "E2BIG",        413, EXIT_FAILED },
	{ EIO,          "EIO",          500, EXIT_FAILED },
	{ ENOSYS,       "ENOSYS",       500, EXIT_FAILED },
	{ ENOTSUP,      "ENOTSUP",      500, EXIT_FAILED },
	{ ENOSPC,       "ENOSPC",       500, EXIT_FAILED },
	{ ENOMEM,       "ENOMEM",       500, EXIT_FAILED },
	{ ENOTEMPTY,    "ENOTEMPTY",    500, EXIT_FAILED },
	{ ENOTDIR,      "ENOTDIR",      500, EXIT_FAILED },
	{ EISDIR,       "EISDIR",       500, EXIT_FAILED },
	{ EPROTO,       "EPROTO",       500, EXIT_FAILED },
	{ ECANCELED,    "ECANCELED",    500, EXIT_FAILED },
	{ EAGAIN,       "EAGAIN",       500, EXIT_FAILED },
	{ ENOTCONN,     "ENOTCONN",     500, EXIT_UNREACHABLE },
	{ ECONNREFUSED, "ECONNREFUSED", 500, EXIT_UNREACHABLE },
	{ ECONNRESET,   "ECONNRESET",   500, EXIT_UNREACHABLE },
	{ ETIMEDOUT,    "ETIMEDOUT",    504, EXIT_TIMED_OUT },
};

/* Statuses that no row of ours makes, but a server or library may send. */
static const struct { int http; enum exit_code exit; } foreign[] = {
	{ 401, EXIT_DENIED },
	{ 408, EXIT_TIMED_OUT },
	{ 502, EXIT_UNREACHABLE },
	{ 503, EXIT_UNREACHABLE },
};

static const char *const docs[] = {
	[EXIT_OK]            = "Success.",
	[EXIT_FAILED]        = "The command failed; the reason is on standard error.",
	[EXIT_USAGE]         = "The command line was wrong; nothing was done.",
	[EXIT_UNKNOWN_VM]    = "There is no such VM.",
	[EXIT_DENIED]        = "The caller may not do this.",
	[EXIT_CONFLICT]      = "Something like it exists already, or the VM's state does not allow it.",
	[EXIT_TIMED_OUT]     = "The time limit ran out; the outcome may be unknown.",
	[EXIT_NOT_CONFIRMED] = "Done, but vminfod has not confirmed that readers see it.",
	[EXIT_UNREACHABLE]   = "The daemon does not answer.",
};
/* clang-format on */

static const struct status_row *row_of(int r)
{
	int code = r < 0 ? -r : r;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].code == code)
			return &rows[i];
	return NULL;
}

int status_from_errno(int r)
{
	const struct status_row *row = row_of(r);

	return row ? row->http : 500;
}

const char *status_errno_name(int r)
{
	const struct status_row *row = row_of(r);

	return row ? row->name : "EIO";
}

int status_errno_from_name(const char *name)
{
	for (size_t i = 0; name && i < ARRAY_SIZE(rows); i++)
		if (strcmp(rows[i].name, name) == 0)
			return rows[i].code;
	return 0;
}

int status_to_errno(int status)
{
	if (status >= 200 && status < 300)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].http == status)
			return rows[i].code;
	return EIO;
}

enum exit_code exit_from_errno(int r)
{
	const struct status_row *row = row_of(r);

	if (r == 0)
		return EXIT_OK;
	return row ? row->exit : EXIT_FAILED;
}

enum exit_code exit_from_status(int status)
{
	if (status == 0 || (status >= 200 && status < 300))
		return EXIT_OK;
	for (size_t i = 0; i < ARRAY_SIZE(foreign); i++)
		if (foreign[i].http == status)
			return foreign[i].exit;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].http == status)
			return rows[i].exit;
	return EXIT_FAILED;
}

const char *exit_code_doc(enum exit_code code)
{
	return (size_t)code < ARRAY_SIZE(docs) ? docs[code] : "Unknown.";
}
