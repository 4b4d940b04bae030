/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Payloads of create and update: from a file, standard input, or key=value words.
 * Source: smartos facts 6.1, 6.2.
 */
#pragma once

#include "cli/cli.h"

struct err;

#define PAYLOAD_MAX (1u << 20) /* bytes; vmadmd takes no more */

extern const struct cli_option payload_options[]; /* -f */

/*
 * The text of -f FILE, or of standard input for "-" or no -f; checked to be one JSON object.
 * 0 and a text to free, or an exit code, told (a terminal as standard input is a usage error).
 */
int payload_read(struct cli *cli, char **ret);

/* key=value words as an object of strings; the last of equal keys wins. As above. */
int payload_from_words(struct cli *cli, const char *const *words, int count, char **ret);
