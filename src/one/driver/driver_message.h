/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line of the core. Up to 5.12 it writes "ACTION ID PAYLOAD", from 6.0 on "ACTION  ID PAYLOAD"
 * with two blanks; that is how the two eras are told apart. Source: fact sheet, 2.1.
 */
#pragma once

#include <stddef.h>

struct action;
struct err;

enum era { ERA_5, ERA_6 };

#define MESSAGE_WORD_MAX 32

enum message_kind {
	MESSAGE_INIT,
	MESSAGE_FINALIZE,
	MESSAGE_CANCEL,  /* id */
	MESSAGE_ACTION,  /* action, id, era, xml, host */
	MESSAGE_REFUSED, /* word, id, era: to be answered with FAILURE and err */
	MESSAGE_NOISE,   /* nothing to answer to; err says why */
};

struct message {
	enum message_kind kind;
	char word[MESSAGE_WORD_MAX + 1]; /* upper case */
	long id;
	enum era era;
	const struct action *action;
	char *xml; /* decoded and well-formed; owned */
	size_t xml_len;
	char *host; /* owned */
};

/* Read line[len], without its newline. Never fails: what is wrong is in kind and err. */
void message_read(const char *line, size_t len, struct message *ret, struct err *err);
/* The same for a line longer than we take; line[len] is its beginning. */
void message_read_long(const char *line, size_t len, size_t max, struct message *ret,
		       struct err *err);
void message_done(struct message *m);
