/* SPDX-License-Identifier: Apache-2.0 */
/* UUIDs as lower-case text of 36 characters. Made with libuuid. */
#pragma once

#include <stdbool.h>

#define UUID_LEN 36

/* Whether text is a UUID: hex with dashes at 8, 13, 18, 23. */
bool uuid_valid(const char *text);
void uuid_random(char buf[UUID_LEN + 1]);
/* Version 5 (SHA-1) of name in the namespace ns, itself a valid UUID text. */
void uuid_derive(const char *ns, const char *name, char buf[UUID_LEN + 1]);
