/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands as text: for the shell kept on a host, for a one-shot ssh, for log lines. And what comes
 * back from that shell. Source: fact sheet, 4.3 and 4.5.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "one/driver/driver_message.h"

struct command;
struct plan;
struct strbuf;

#define SHELL_NONCE 16

/* Random digits, so that no script can print the end marks by accident. */
void shell_nonce(char buf[SHELL_NONCE + 1]);

/* What is written to the shell for c: script and standard input, and what marks its end. */
void shell_feed(struct strbuf *sb, const struct plan *plan, const struct command *c,
		const char *nonce);

enum shell_end { SHELL_RUNNING, SHELL_ENDED, SHELL_NO_SCRIPT };

/*
 * Whether both outputs show the end; they are cut there, and *ret_code is the exit code.
 */
enum shell_end shell_check(struct strbuf *out, struct strbuf *errors, const char *nonce,
			   int *ret_code);

/* The command of a one-shot ssh; caller frees. */
char *shell_one_shot(const struct plan *plan, const struct command *c);

/* The command as log lines show it, the message itself left out; caller frees. */
char *shell_log_text(const struct plan *plan, const struct command *c, enum era era);
