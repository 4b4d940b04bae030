/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One log per VM: what hooks, QEMU, the guest's console and vmstated said. Our lines carry time
 * and origin; QEMU writes to the file by itself, so it never waits for us. Never emptied; at
 * LOG_MAX it becomes NAME.log.1 and a new one is begun.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "vmstated/parts.h"

#define LOG_MAX  (10 << 20)
#define TAIL_MAX 4096

static char *log_path(const struct guest *g)
{
	return xasprintf("%s/%s.log", g->sup->paths.log, g->name);
}

static void rotate(const char *path)
{
	AUTO_FREE char *old = xasprintf("%s.1", path);
	struct stat st;

	if (stat(path, &st) == 0 && st.st_size > LOG_MAX)
		(void)rename(path, old);
}

int guestlog_open(const struct guest *g, struct err *err)
{
	AUTO_FREE char *path = log_path(g);
	int fd;

	rotate(path);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? err_sys(err, errno, "cannot open log '%s'", path) : fd;
}

void guestlog_line(const struct guest *g, const char *tag, const char *text, size_t len)
{
	AUTO_STRBUF struct strbuf sb = {0};
	AUTO_FREE char *copy = xstrndup(text, len);
	AUTO_FD int fd = guestlog_open(g, NULL);
	char when[ISO_TIME_LEN];

	if (fd < 0)
		return;
	strbuf_printf(&sb, "%s %s: ", clock_iso(clock_wall_ms(), when, sizeof(when)), tag);
	strbuf_put_escaped(&sb, copy);
	strbuf_putc(&sb, '\n');
	if (write(fd, sb.data, sb.len) < 0)
		log_warn("vm=%s log line lost: %s", g->uuid, strerror(errno));
}

void guestlog_printf(const struct guest *g, const char *tag, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	guestlog_line(g, tag, text, (size_t)n);
	free(text);
}

off_t guestlog_size(const struct guest *g)
{
	AUTO_FREE char *path = log_path(g);
	struct stat st;

	return stat(path, &st) == 0 ? st.st_size : 0;
}

/* Is this one of our own lines (they begin with a time), not QEMU's? */
static bool ours(const char *line)
{
	return strlen(line) > 24 && line[4] == '-' && line[10] == 'T' && line[23] == 'Z';
}

char *guestlog_tail(const struct guest *g, off_t from)
{
	AUTO_FREE char *path = log_path(g);
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	char buf[TAIL_MAX + 1];
	char *last = NULL, *save = NULL;
	ssize_t n;

	if (fd < 0)
		return NULL;
	n = pread(fd, buf, TAIL_MAX, from);
	if (n <= 0)
		return NULL;
	buf[n] = '\0';
	for (char *l = strtok_r(buf, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		if (!ours(l))
			last = l;
	}
	return xstrdup(last);
}
