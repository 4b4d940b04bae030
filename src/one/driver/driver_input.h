/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The standard input of a step: the message, parts of it, or the deployment file it names. Source:
 * fact sheet, 4.3 and 4.5.
 */
#pragma once

#include <libxml/tree.h>

#include "one/driver/driver_steps.h"

struct err;
struct message;
struct strbuf;

/*
 * Append the text in, plain, to sb. top: the root of the message. Fails only for a deployment file
 * that cannot be read or is empty, with what the core is to be told.
 */
int input_make(const struct message *m, xmlNode *top, enum step_in in, struct strbuf *sb,
	       struct err *err);
