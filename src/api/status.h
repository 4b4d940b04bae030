/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table between an error, its HTTP status and a tool's exit code (design, "Exit codes of
 * every tool"). Errors travel as JSON: {"error": {"code": "ENOENT", "message": "..."}}, success of
 * a command as {"confirmed": true|false, ...}: false when vminfod has not acknowledged it.
 */
#pragma once

enum exit_code {
	EXIT_OK = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_UNKNOWN_VM = 3,
	EXIT_DENIED = 4,
	EXIT_CONFLICT = 5, /* or wrong state */
	EXIT_TIMED_OUT = 6,
	EXIT_NOT_CONFIRMED = 7,
	EXIT_UNREACHABLE = 8,
};

/* HTTP status for a negative errno: ENOENT 404, EPERM and EACCES 403, EINVAL 400, E2BIG 413,
 * EEXIST, EBUSY, EALREADY 409, ETIMEDOUT 504, anything else 500. */
int status_from_errno(int r);

/* "ENOENT" for -ENOENT, "EIO" for what is not in the table; and back (0 for an unknown name). */
const char *status_errno_name(int r);
int status_errno_from_name(const char *name);

/* What a bare HTTP status stands for, as a positive errno: 404 ENOENT, ..., 0 for 2xx. */
int status_to_errno(int status);

/* Exit code for a negative errno or HTTP status (0 and 2xx are EXIT_OK). */
enum exit_code exit_from_errno(int r);
enum exit_code exit_from_status(int status);

/* One sentence per code, for manuals and help. */
const char *exit_code_doc(enum exit_code code);
