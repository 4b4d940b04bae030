/* SPDX-License-Identifier: Apache-2.0 */
/* Single files under watch; see lookout.h. */
#include "vminfod/lookout.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"

#define MASK                                                                                       \
	(IN_CLOSE_WRITE | IN_ATTRIB | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO |        \
	 IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK)

struct spot {
	char *path;
	char *name; /* of the entry to look for in the watched folder */
	int wd;     /* of the file's folder, or the nearest that is there; -1: none */
	bool far;   /* not the file's own folder */
	bool dirty, gone;
	void (*fn)(void *ctx);
	void *ctx;
};

struct lookout {
	int fd;
	struct spot **spots;
	size_t count;
	bool calling;
};

int lookout_new(struct lookout **ret, struct err *err)
{
	struct lookout *l = xcalloc(1, sizeof(*l));

	l->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (l->fd < 0) {
		free(l);
		return err_sys(err, errno,
			       "cannot watch files (fs.inotify.max_user_instances reached?)");
	}
	*ret = l;
	return 0;
}

static void spot_free(struct spot *s)
{
	free(s->path);
	free(s->name);
	free(s);
}

void lookout_free(struct lookout *l)
{
	if (!l)
		return;
	for (size_t i = 0; i < l->count; i++)
		spot_free(l->spots[i]);
	free(l->spots);
	(void)close(l->fd);
	free(l);
}

static bool is_used(const struct lookout *l, int wd)
{
	for (size_t i = 0; i < l->count; i++) {
		if (l->spots[i]->wd == wd)
			return true;
	}
	return false;
}

static void release(struct lookout *l, int wd)
{
	if (wd >= 0 && !is_used(l, wd))
		(void)inotify_rm_watch(l->fd, wd);
}

/* The folder of the file, where links lead; else the nearest one above it that is there. */
static void find_place(struct lookout *l, struct spot *s)
{
	AUTO_FREE char *target = realpath(s->path, NULL);
	AUTO_FREE char *path = xstrdup(target ? target : s->path);
	int old = s->wd;
	char *slash;

	s->wd = -1;
	s->far = false;
	while (s->wd < 0 && (slash = strrchr(path, '/')) != NULL) {
		replace_str(&s->name, xstrdup(slash + 1));
		slash[slash == path] = '\0';
		s->wd = inotify_add_watch(l->fd, path, MASK);
		if (s->wd >= 0 || str_eq(path, "/"))
			break;
		s->far = true;
	}
	if (old != s->wd)
		release(l, old);
}

struct spot *lookout_add(struct lookout *l, const char *path, void (*fn)(void *ctx), void *ctx)
{
	struct spot *s = xcalloc(1, sizeof(*s));

	*s = (struct spot){.path = xstrdup(path), .wd = -1, .fn = fn, .ctx = ctx};
	l->spots = xrealloc(l->spots, (l->count + 1) * sizeof(struct spot *));
	l->spots[l->count++] = s;
	find_place(l, s);
	return s;
}

/* Free what was removed; not while callbacks run. */
static void sweep(struct lookout *l)
{
	size_t kept = 0;

	for (size_t i = 0; i < l->count; i++) {
		if (l->spots[i]->gone)
			spot_free(l->spots[i]);
		else
			l->spots[kept++] = l->spots[i];
	}
	l->count = kept;
}

void lookout_remove(struct lookout *l, struct spot *s)
{
	int wd;

	if (!s)
		return;
	wd = s->wd;
	s->wd = -1;
	s->gone = true;
	release(l, wd);
	if (!l->calling)
		sweep(l);
}

static void take_event(struct lookout *l, const struct inotify_event *ev)
{
	const char *name = ev->len ? ev->name : "";
	bool all = ev->mask & IN_Q_OVERFLOW;

	for (size_t i = 0; i < l->count; i++) {
		struct spot *s = l->spots[i];

		if (!all && s->wd != ev->wd)
			continue;
		if (ev->mask & IN_IGNORED)
			s->wd = -1;
		s->dirty |= all || !*name || str_eq(name, s->name);
	}
}

static void call(struct lookout *l)
{
	size_t n = l->count;

	l->calling = true;
	for (size_t i = 0; i < n; i++) {
		struct spot *s = l->spots[i];

		if (!s->dirty || s->gone)
			continue;
		s->dirty = false;
		find_place(l, s);
		s->fn(s->ctx);
	}
	l->calling = false;
	sweep(l);
}

void lookout_sync(struct lookout *l)
{
	union {
		struct inotify_event align;
		char data[16384];
	} buf;
	int there = 0;

	if (l->calling || ioctl(l->fd, FIONREAD, &there) < 0 || there <= 0)
		return;
	while (there > 0) {
		ssize_t n = read(l->fd, &buf, sizeof(buf));

		if (n <= 0)
			break;
		there -= (int)n;
		for (char *p = buf.data; p < buf.data + n;) {
			const struct inotify_event *ev = (const void *)p;

			take_event(l, ev);
			p += sizeof(*ev) + ev->len;
		}
	}
	call(l);
}

int lookout_fd(const struct lookout *l)
{
	return l->fd;
}

size_t lookout_count(const struct lookout *l)
{
	return l->count;
}
