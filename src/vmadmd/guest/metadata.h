/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata service a guest talks to over its second serial port: requests out of the bytes it
 * sends, what a VM has to tell, the answers' text. Pure; the port itself is in metaport.c. A guest
 * may send anything: lines are bounded, a bad one costs one answer.
 * Source: smartos facts 7.6 (protocol 1 as lines, protocol 2 as frames with length and CRC32).
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/strbuf.h"

struct err;
struct vm;

#define METADATA_LINE_MAX  (512u << 10) /* bytes of one request; longer ones are dropped */
#define METADATA_TOTAL_MAX (512u << 10) /* of all keys and values, when a guest adds to them */
#define METADATA_KEYS_MAX  1024u        /* of one map, when a guest adds to it */

enum metadata_command {
	METADATA_GET,
	METADATA_KEYS,
	METADATA_PUT,
	METADATA_DELETE,
	METADATA_NEGOTIATE,
	METADATA_UNKNOWN, /* a line, but no command of its protocol */
	METADATA_INVALID, /* no line of either protocol; clients send one to find us listening */
};

/* Frees with metadata_request_done. */
struct metadata_request {
	enum metadata_command command;
	char *id;    /* of a frame of protocol 2; NULL: protocol 1 */
	char *key;   /* or what follows the command; NULL: nothing, or no UTF-8 */
	char *value; /* of PUT */
};

/* The bytes of one guest, from its first; start with {0}, end with metadata_in_done. */
struct metadata_in {
	struct strbuf data;
	bool skipping; /* the rest of a line that was too long */
};

void metadata_in_done(struct metadata_in *in);
void metadata_feed(struct metadata_in *in, const void *data, size_t len);
/* The next whole line as a request: true; false when there is none. */
bool metadata_next(struct metadata_in *in, struct metadata_request *ret);
void metadata_request_done(struct metadata_request *r);

enum metadata_code { METADATA_SUCCESS, METADATA_NOTFOUND, METADATA_FAILURE };
#define METADATA_CODE_COUNT 3

/* Append the answer to r; body may be NULL. */
void metadata_answer(const struct metadata_request *r, enum metadata_code code, const char *body,
		     struct strbuf *out);

/*
 * What GET and KEYS answer, appended to body. object: the VM object without secrets, for the keys
 * that begin with "sdc:". Keys ending in _pw, operator-script and those of the VM's namespaces are
 * looked up in internal_metadata, all others in customer_metadata.
 */
enum metadata_code metadata_get(const struct vm *vm, const json_t *object, const char *key,
				struct strbuf *body);
void metadata_keys(const struct vm *vm, struct strbuf *body);

/*
 * The update payload of a PUT or DELETE; new reference. -EINVAL for a key that cannot be, -EPERM
 * for one the guest may only read, -E2BIG when the VM would have too much of it.
 */
int metadata_payload(const struct vm *vm, const struct metadata_request *r, json_t **ret,
		     struct err *err);
