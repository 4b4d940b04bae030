/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the catalog share: a root of their own, writing into it, counting changes. */
#pragma once

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/paths.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "store/catalog.h"

struct world {
	char root[64];
	struct paths paths;
	struct catalog *c;
	int news, changes, gones;
	struct strbuf problems; /* "FILE TEXT\n" */
};

static inline void on_change(void *ctx, struct catalog_entry *e, enum catalog_change what)
{
	struct world *w = ctx;

	w->news += what == CATALOG_NEW;
	w->changes += what == CATALOG_CHANGED;
	w->gones += what == CATALOG_GONE;
	if (what == CATALOG_GONE)
		assert_null(catalog_by_uuid(w->c, e->uuid));
}

static inline void on_problem(void *ctx, const char *file, const char *text)
{
	struct world *w = ctx;

	strbuf_printf(&w->problems, "%s %s\n", file, text ? text : "(gone)");
}

static inline char *at(struct world *w, const char *rel)
{
	static char buf[4][512];
	static int n;
	char *p = buf[n++ % 4];

	(void)snprintf(p, sizeof(buf[0]), "%s/%s", w->root, rel);
	return p;
}

static inline void put(struct world *w, const char *rel, const char *text)
{
	AUTO_FREE char *dir = xstrdup(at(w, rel));
	AUTO_FD int fd = -1;

	*strrchr(dir, '/') = '\0';
	assert_int_equal(dir_make(dir, 0755, NULL), 0);
	fd = open(at(w, rel), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(fd_write_all(fd, text, strlen(text)), 0);
}

static inline void put_by_rename(struct world *w, const char *rel, const char *text)
{
	struct err err;

	assert_int_equal(file_write(at(w, rel), text, strlen(text), 0644, FILE_NO_SYNC, &err), 0);
}

static inline void expect(struct world *w, int news, int changes, int gones)
{
	if (w->news != news || w->changes != changes || w->gones != gones)
		fail_msg("new %d changed %d gone %d, expected %d %d %d", w->news, w->changes,
			 w->gones, news, changes, gones);
	w->news = w->changes = w->gones = 0;
}

static inline void load(struct world *w)
{
	struct catalog_config config = {.paths = &w->paths,
					.metadata = true,
					.changed = on_change,
					.problem = on_problem,
					.ctx = w};
	struct err err = {0};

	if (catalog_new(&config, &w->c, &err) < 0 || catalog_load(w->c, &err) < 0)
		fail_msg("%s", err.msg);
}

static inline int setup(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));

	(void)snprintf(w->root, sizeof(w->root), "/tmp/test_store.XXXXXX");
	assert_non_null(mkdtemp(w->root));
	assert_int_equal(paths_init(&w->paths, w->root, NULL), 0);
	*state = w;
	return 0;
}

static inline int teardown(void **state)
{
	struct world *w = *state;

	catalog_free(w->c);
	(void)dir_remove_tree(w->root, NULL);
	paths_done(&w->paths);
	strbuf_done(&w->problems);
	free(w);
	return 0;
}

static inline struct catalog_entry *find(struct world *w, const char *id)
{
	struct catalog_entry *e = NULL;
	struct err err = {0};

	if (catalog_find(w->c, id, &e, &err) < 0)
		fail_msg("%s", err.msg);
	return e;
}

static inline const char *only_problem(struct world *w)
{
	const struct catalog_problem *p;

	assert_int_equal(catalog_problems(w->c, &p), 1);
	return p[0].text;
}

static inline void no_problem(struct world *w)
{
	const struct catalog_problem *p;

	if (catalog_problems(w->c, &p) != 0)
		fail_msg("%s: %s", p[0].file, p[0].text);
}

#define ETC "etc/vmstated/"
#define LIB "var/lib/vmstated/"
