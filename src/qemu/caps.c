/* SPDX-License-Identifier: Apache-2.0 */
/* What a QEMU binary says of itself, out of two of its outputs; asking it is the caller's. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/argv.h"

/* JSON for -device came with 6.2. */
#define MAJOR_MIN 6
#define MINOR_MIN 2

void qemu_caps_done(struct qemu_caps *caps)
{
	free(caps->binary);
	free(caps->machine);
	*caps = (struct qemu_caps){0};
}

/* The line "q35   Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-7.2)"; NULL without one. */
static char *q35_alias(const char *text)
{
	static const char of[] = "(alias of ";

	for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		size_t len = strcspn(line, "\n");
		const char *at;

		if (!str_starts(line, "q35 "))
			continue;
		at = memmem(line, len, of, sizeof(of) - 1);
		if (at)
			at += sizeof(of) - 1;
		if (at && strcspn(at, ")\n") > 0 && at[strcspn(at, ")\n")] == ')')
			return xstrndup(at, strcspn(at, ")\n"));
	}
	return NULL;
}

/* A number of at most four digits, and what must follow it; NULL when it is not there. */
static const char *number(const char *p, char after, int *ret)
{
	size_t len = strspn(p, "0123456789");

	if (len < 1 || len > 4 || (after && p[len] != after))
		return NULL;
	*ret = (int)strtol(p, NULL, 10);
	return p + len + (after ? 1 : 0);
}

static bool read_version(const char *text, struct qemu_caps *caps)
{
	static const char head[] = "QEMU emulator version ";
	const char *p = str_starts(text, head) ? text + sizeof(head) - 1 : NULL;

	p = p ? number(p, '.', &caps->major) : NULL;
	p = p ? number(p, '.', &caps->minor) : NULL;
	return p && number(p, '\0', &caps->micro);
}

int qemu_caps_parse(const char *binary, const char *version_out, const char *machine_out,
		    struct qemu_caps *ret, struct err *err)
{
	struct qemu_caps caps = {0};

	if (!read_version(version_out, &caps))
		return err_set(err, EPROTO, "'%s --version' does not say 'QEMU emulator version N'",
			       binary);
	if (caps.major < MAJOR_MIN || (caps.major == MAJOR_MIN && caps.minor < MINOR_MIN))
		return err_set(err, EPROTO, "'%s' is QEMU %d.%d.%d (want %d.%d or newer)", binary,
			       caps.major, caps.minor, caps.micro, MAJOR_MIN, MINOR_MIN);
	caps.machine = q35_alias(machine_out);
	if (!caps.machine)
		return err_set(err, EPROTO, "'%s -machine help' names no q35 machine", binary);
	caps.binary = xstrdup(binary);
	*ret = caps;
	return 0;
}
