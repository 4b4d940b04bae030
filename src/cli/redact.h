/* SPDX-License-Identifier: Apache-2.0 */
/* Secrets out of what leaves the host in a bug report. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

struct strbuf;

#define REDACTED "(redacted)"

/* Whether a member of this name holds a secret: by the property table, "password", "*_pw". */
bool redact_is_secret(const char *name);
/* In place, at any depth; of the two metadata maps the keys stay. */
void redact_json(json_t *j);
/* Append a definition in UCL, a member per line, with the values of secret members replaced. */
void redact_ucl(struct strbuf *sb, const char *text);
