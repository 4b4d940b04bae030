/* SPDX-License-Identifier: Apache-2.0 */
/* UUIDs; see uuid.h. */
#include "base/uuid.h"

#include <ctype.h>
#include <string.h>
#include <uuid/uuid.h>

bool uuid_valid(const char *text)
{
	if (!text || strlen(text) != UUID_LEN)
		return false;
	for (int i = 0; i < UUID_LEN; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
			return false;
	}
	return true;
}

void uuid_random(char buf[UUID_LEN + 1])
{
	uuid_t u;

	uuid_generate_random(u);
	uuid_unparse_lower(u, buf);
}

void uuid_derive(const char *ns, const char *name, char buf[UUID_LEN + 1])
{
	uuid_t space, u;

	if (uuid_parse(ns, space) < 0)
		uuid_clear(space);
	uuid_generate_sha1(u, space, name, strlen(name));
	uuid_unparse_lower(u, buf);
}
