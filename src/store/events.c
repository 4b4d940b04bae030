/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inotify events to units that must be read again. An event is only a hint where to look: what
 * counts is what unit.c finds there, so a needless look does no harm.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/paths.h"
#include "base/strbuf.h"
#include "store/catalog_impl.h"
#include "store/repair.h"

#define FINISHED (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE)
#define STARTED  (IN_MODIFY | IN_CREATE)

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static int watch_root(struct catalog *c, int old, const char *path, uint32_t mask)
{
	int wd = watch_add(&c->watches, path, mask, NULL);

	if (old >= 0 && old != wd)
		watch_drop(&c->watches, old, NULL);
	return wd;
}

static char *parent_of(const char *path)
{
	const char *name = last_part(path);

	return xstrndup(path, name - path > 1 ? (size_t)(name - path - 1) : 1);
}

void catalog_watch_roots(struct catalog *c)
{
	const struct paths *p = c->config.paths;
	AUTO_FREE char *etc_parent = parent_of(p->etc);
	AUTO_FREE char *lib_parent = parent_of(p->lib);
	struct err err = {0};
	struct stat st;

	c->roots_changed = false;
	c->etc_parent_wd = watch_root(c, c->etc_parent_wd, etc_parent, WATCH_NAMES);
	c->lib_parent_wd = watch_root(c, c->lib_parent_wd, lib_parent, WATCH_NAMES);
	c->etc_wd = watch_root(c, c->etc_wd, p->etc, WATCH_NAMES | IN_ATTRIB | IN_EXCL_UNLINK);
	c->lib_wd = watch_root(c, c->lib_wd, p->lib, WATCH_NAMES);
	replace_str(&c->distrust, NULL);
	if (stat(p->etc, &st) == 0 &&
	    file_check_trusted(&st, "configuration directory", p->etc, &err) < 0)
		c->distrust = xstrdup(err.msg);
}

static void config_dir_event(struct catalog *c, uint32_t mask, const char *name)
{
	struct unit *u;

	if (!*name) {
		c->roots_changed = true;
		return;
	}
	if (*name == '.')
		return;
	u = map_get(&c->by_dir, name);
	if (!u && (mask & (IN_CREATE | IN_MOVED_TO)))
		u = unit_new(c, name);
	if (!u)
		return;
	/* A new directory: whoever filled it may have finished before we came to watch. */
	if (mask & (IN_CREATE | IN_MOVED_TO))
		u->soft = u->meta_soft = false;
	unit_queue(c, u);
}

static void root_event(struct catalog *c, int wd, uint32_t mask, const char *name)
{
	const struct paths *p = c->config.paths;

	if (mask & IN_IGNORED) {
		c->roots_changed = true;
		return;
	}
	if (wd == c->etc_wd)
		config_dir_event(c, mask, name);
	if (wd == c->lib_wd && *name) {
		const struct item *it = map_get(&c->by_uuid, name);

		if (it)
			unit_queue(c, it->unit);
	}
	if ((wd == c->lib_wd && !*name) ||
	    (wd == c->etc_parent_wd && str_eq(name, last_part(p->etc))) ||
	    (wd == c->lib_parent_wd && str_eq(name, last_part(p->lib))))
		c->roots_changed = true;
}

static void soften(bool *soft, uint32_t mask)
{
	if (mask & FINISHED)
		*soft = false;
	else if ((mask & STARTED) && !(mask & IN_ISDIR))
		*soft = true;
}

static void unit_event(struct catalog *c, struct unit *u, uint32_t mask, const char *name)
{
	for (size_t i = 0; i < META_FILES; i++) {
		if (!str_eq(name, meta_files[i]))
			continue;
		soften(&u->meta_soft, mask);
		unit_queue(c, u);
		return;
	}
	if (*name && !unit_has_file(u, name))
		return;
	soften(&u->soft, mask);
	unit_queue(c, u);
}

static void overflow(struct catalog *c)
{
	c->stats.overflows++;
	for (size_t i = 0; i < c->nunits; i++)
		c->units[i]->soft = c->units[i]->meta_soft = false;
	c->roots_changed = true;
}

static void take_event(struct catalog *c, const struct inotify_event *ev)
{
	const char *name = ev->len ? ev->name : "";
	const struct watch *w;

	c->stats.events++;
	if (ev->mask & IN_Q_OVERFLOW) {
		overflow(c);
		return;
	}
	w = watch_find(&c->watches, ev->wd);
	for (size_t i = 0; w && i < w->nusers; i++) {
		if (w->users[i])
			unit_event(c, w->users[i], ev->mask, name);
		else
			root_event(c, ev->wd, ev->mask, name);
	}
	if (ev->mask & IN_IGNORED)
		watch_forget(&c->watches, ev->wd);
}

/* A test's stand-in for a kernel that tells nothing. */
static bool is_deaf(void)
{
#ifdef DROVER_TEST_HOOKS
	return getenv("DROVER_TEST_DEAF") != NULL;
#else
	return false;
#endif
}

static void take_events(struct catalog *c, size_t bytes)
{
	union {
		struct inotify_event align;
		char data[16384];
	} buf;

	while (bytes > 0) {
		ssize_t n = read(c->watches.fd, &buf, bytes < sizeof(buf) ? bytes : sizeof(buf));

		if (n <= 0)
			return;
		bytes -= (size_t)n < bytes ? (size_t)n : bytes;
		for (char *p = buf.data; p < buf.data + n && !is_deaf();) {
			const struct inotify_event *ev = (const void *)p;

			take_event(c, ev);
			p += sizeof(*ev) + ev->len;
		}
	}
}

void catalog_sync(struct catalog *c)
{
	int bytes = 0;

	if (c->applying || ioctl(c->watches.fd, FIONREAD, &bytes) < 0)
		return;
	if (bytes > 0)
		take_events(c, (size_t)bytes);
	if (c->roots_changed) {
		catalog_watch_roots(c);
		catalog_doubt_all(c);
	}
	if (c->nqueue > 0)
		catalog_apply(c);
	while (c->doubtful && !c->config.sliced)
		(void)catalog_repair_some(c, true);
}
