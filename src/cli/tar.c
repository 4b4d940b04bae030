/* SPDX-License-Identifier: Apache-2.0 */
/* tar archives; see tar.h. Numbers are octal text, the checksum counts itself as blanks. */
#include "cli/tar.h"

#include <stdio.h>
#include <string.h>

#include "base/strbuf.h"

#define BLOCK 512

struct tar_header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type;
	char link[100], magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155];
	char rest[12];
};
_Static_assert(sizeof(struct tar_header) == BLOCK, "a tar header is one block");

static void pad(struct strbuf *sb)
{
	static const char zeroes[BLOCK];

	if (sb->len % BLOCK)
		strbuf_add(sb, zeroes, BLOCK - sb->len % BLOCK);
}

void tar_add(struct strbuf *sb, const char *name, const void *data, size_t len, int64_t mtime_s)
{
	struct tar_header h = {.type = '0', .magic = "ustar", .version = {'0', '0'}};
	const unsigned char *bytes = (const unsigned char *)&h;
	unsigned sum = 0;

	(void)snprintf(h.name, sizeof(h.name), "%s", name);
	(void)snprintf(h.mode, sizeof(h.mode), "%07o", 0600);
	(void)snprintf(h.uid, sizeof(h.uid), "%07o", 0);
	(void)snprintf(h.gid, sizeof(h.gid), "%07o", 0);
	(void)snprintf(h.size, sizeof(h.size), "%011zo", len);
	(void)snprintf(h.mtime, sizeof(h.mtime), "%011llo", (unsigned long long)mtime_s);
	memset(h.checksum, ' ', sizeof(h.checksum));
	for (size_t i = 0; i < sizeof(h); i++)
		sum += bytes[i];
	(void)snprintf(h.checksum, sizeof(h.checksum), "%06o", sum & 0777777);
	strbuf_add(sb, &h, sizeof(h));
	strbuf_add(sb, data, len);
	pad(sb);
}

void tar_end(struct strbuf *sb)
{
	static const char zeroes[2 * BLOCK];

	strbuf_add(sb, zeroes, sizeof(zeroes));
}
