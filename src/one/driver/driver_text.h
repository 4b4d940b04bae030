/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes to the core: log lines, results, and how both are made of what scripts print. Source:
 * fact sheet, 2.3 and 4.4, and the recorded traces.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/strbuf.h"
#include "one/driver/driver_message.h"

#define LOG_LINE_MAX 2000        /* bytes of text in a log line */
#define ANSWER_MAX   (64u << 10) /* bytes of text in a result */

/* Lines on their way to the core, each ending with a newline. */
struct out {
	int fd;
	struct strbuf lines;
};

/* Write what can be written without waiting, a line by one write(); -errno when nobody reads. */
int out_flush(struct out *out);

/* "LOG SEVERITY ID text"; text may have any bytes, what is no text becomes blanks and '?'. */
void out_log(struct out *out, char severity, long id, const char *text);
/* The same for the core's own log, whose id differs between the eras. */
void out_log_general(struct out *out, char severity, enum era era, const char *text);
/* "WORD SUCCESS|FAILURE ID text" */
void out_result(struct out *out, const char *word, bool success, long id, const char *text);

/* Text as one line, at most max bytes of it: what is no text becomes blanks and '?'. */
void text_put_clean(struct strbuf *sb, const char *text, size_t max);

/* What a script left behind. */
struct ended {
	int code;            /* exit code; -1 when it has none */
	bool shell;          /* run by the shell kept on the host */
	const char *command; /* as log lines show it */
	const char *out, *errors;
};

/* Log lines about a script that ended. */
void text_log(struct out *out, enum era era, long id, const struct ended *e);

/* Its output on one line, "-" when there is none; caller frees. */
char *text_answer(const char *output);

/*
 * Why it failed: the text between the markers for cores up to 5.12, what is no log line for later
 * ones; where a script gave neither, fallback and its exit code. Caller frees.
 */
char *text_reason(enum era era, const struct ended *e, const char *fallback);
