/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One look at a unit: watch first, read then, so that nothing falls between. The definition file
 * with its includes and configfiles, then each VM's metadata. What is found is only returned;
 * apply.c decides what becomes of it.
 */
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/paths.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "model/model.h"
#include "model/vm.h"
#include "store/catalog_impl.h"
#include "store/hash.h"
#include "store/repair.h"
#include "ucl/ucl.h"

#define TEXT_MAX    8192 /* bytes of one problem's text we keep */
#define READ_PASSES 3    /* again while new files turn up */

struct unit *unit_new(struct catalog *c, const char *name)
{
	struct unit *u = xcalloc(1, sizeof(*u));

	u->name = xstrdup(name);
	u->path = path_join(c->config.paths->etc, name);
	u->seen = true;
	c->units = xrealloc(c->units, (c->nunits + 1) * sizeof(struct unit *));
	c->units[c->nunits++] = u;
	map_put(&c->by_dir, u->name, u);
	return u;
}

static void free_texts(char **texts, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(texts[i]);
	free(texts);
}

void unit_free(struct catalog *c, struct unit *u)
{
	unit_set_problems(c, u, NULL, 0);
	unit_trust(c, u);
	for (size_t i = 0; i < u->nwds; i++)
		watch_drop(&c->watches, u->wds[i], u);
	for (size_t i = 0; i < c->nunits; i++) {
		if (c->units[i] != u)
			continue;
		c->units[i] = c->units[--c->nunits];
		break;
	}
	map_del(&c->by_dir, u->name, u);
	free_texts(u->extras, u->nextras);
	free(u->wds);
	free(u->name);
	free(u->path);
	free(u);
}

void reading_done(struct reading *r)
{
	for (size_t i = 0; i < r->nfound; i++) {
		free(r->found[i].section);
		vm_free(r->found[i].vm);
		free(r->found[i].error);
		free(r->found[i].warning);
	}
	free(r->found);
	free_texts(r->extras, r->nextras);
	free(r->wds);
	free(r->error);
	free(r->file);
	*r = (struct reading){0};
}

void reading_watch(struct reading *r, int wd)
{
	for (size_t i = 0; i < r->nwds; i++) {
		if (r->wds[i] == wd)
			return;
	}
	r->wds = xrealloc(r->wds, (r->nwds + 1) * sizeof(*r->wds));
	r->wds[r->nwds++] = wd;
}

static void reading_fail(struct reading *r, const char *file, const struct err *err)
{
	replace_str(&r->error, xstrndup(err->msg, TEXT_MAX));
	replace_str(&r->file, xstrdup(file));
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

bool unit_has_file(const struct unit *u, const char *name)
{
	if (str_eq(name, "config"))
		return true;
	for (size_t i = 0; i < u->nextras; i++) {
		if (str_eq(name, last_part(u->extras[i])))
			return true;
	}
	return false;
}

static void add_extra(struct reading *r, const char *path)
{
	AUTO_FREE char *target = NULL;
	struct stat st;

	for (size_t i = 0; i < r->nextras; i++) {
		if (str_eq(r->extras[i], path))
			return;
	}
	r->extras = xrealloc(r->extras, (r->nextras + 1) * sizeof(char *));
	r->extras[r->nextras++] = xstrdup(path);
	if (lstat(path, &st) < 0 || !S_ISLNK(st.st_mode))
		return;
	target = realpath(path, NULL);
	if (target)
		add_extra(r, target);
}

static int64_t stat_mtime_ms(const struct stat *st)
{
	return (int64_t)st->st_mtim.tv_sec * 1000 + st->st_mtim.tv_nsec / 1000000;
}

/* Read one of the files a definition is made of, check who can write it, remember its content. */
static int read_file(struct reading *r, const char *what, const char *path, char **ret_text,
		     size_t *ret_len, struct err *err)
{
	AUTO_FREE char *text = NULL;
	struct stat st;
	size_t len;
	int n = file_read(path, UCL_TEXT_MAX, &text, &len, &st, err);

	if (n >= 0)
		n = file_check_trusted(&st, what, path, err);
	r->print = hash_number(r->print, n < 0 ? (uint64_t)-n : len);
	if (n < 0)
		return n;
	r->print = hash_bytes(r->print, text, len);
	if (stat_mtime_ms(&st) > r->mtime_ms)
		r->mtime_ms = stat_mtime_ms(&st);
	if (st.st_nlink > 1)
		r->settled = true;
	if (ret_text) {
		*ret_text = steal_ptr(text);
		*ret_len = len;
	}
	return 0;
}

/* Includes were read by the parser; here their content counts and their writers are checked. */
static int check_includes(struct reading *r, const struct ucl_doc *doc, struct err *err)
{
	const char *const *names;
	size_t n = ucl_files(doc, &names);

	for (size_t i = 1; i < n; i++) {
		int k;

		add_extra(r, names[i]);
		k = read_file(r, "included definition", names[i], NULL, NULL, err);
		if (k < 0 && k != -ENOENT)
			return k;
	}
	return 0;
}

static bool lookup(const char *name, bool group, uint32_t *ret_id)
{
	const struct passwd *pw = group ? NULL : getpwnam(name);
	const struct group *gr = group ? getgrnam(name) : NULL;
	unsigned long n;
	char *end;

	if (pw || gr) {
		*ret_id = pw ? pw->pw_uid : gr->gr_gid;
		return true;
	}
	errno = 0;
	n = strtoul(name, &end, 10);
	if (errno || *end || name[0] < '0' || name[0] > '9' || n >= UINT32_MAX)
		return false;
	*ret_id = (uint32_t)n;
	return true;
}

/* Asked once per name and round: a host may have a thousand VMs of one owner. */
static bool resolve(struct catalog *c, const char *name, bool group, uint32_t *ret_id)
{
	struct resolved *n;

	for (size_t i = 0; i < c->nresolved; i++) {
		n = &c->resolved[i];
		if (n->group == group && str_eq(n->name, name)) {
			*ret_id = n->id;
			return n->known;
		}
	}
	c->resolved = xrealloc(c->resolved, (c->nresolved + 1) * sizeof(*c->resolved));
	n = &c->resolved[c->nresolved++];
	*n = (struct resolved){.name = xstrdup(name), .group = group, .id = UINT32_MAX};
	n->known = lookup(name, group, &n->id);
	*ret_id = n->id;
	return n->known;
}

static void resolve_owner(struct catalog *c, struct vm *vm, struct problems *p)
{
	vm->owner_uid = vm->group_gid = UINT32_MAX;
	if (vm->owner && *vm->owner && !resolve(c, vm->owner, false, &vm->owner_uid))
		problems_add(p, PROBLEM_BAD_VALUE, "owner", "owner",
			     "'%s' is not a user of this host", vm->owner);
	if (vm->group && *vm->group && !resolve(c, vm->group, true, &vm->group_gid))
		problems_add(p, PROBLEM_BAD_VALUE, "group", "group",
			     "'%s' is not a group of this host", vm->group);
}

/* A relative configfile lies beside the definition. Its content is not ours to read. */
static void take_configfile(struct reading *r, const struct unit *u, struct vm *vm,
			    struct problems *p)
{
	struct err err = {0};
	int n;

	if (!vm->configfile || !*vm->configfile)
		return;
	if (vm->configfile[0] != '/')
		replace_str(&vm->configfile, path_join(u->path, vm->configfile));
	add_extra(r, vm->configfile);
	n = read_file(r, "configfile", vm->configfile, NULL, NULL, &err);
	if (n < 0 && n != -ENOENT)
		problems_add(p, PROBLEM_BAD_VALUE, "configfile", "configfile", "%s", err.msg);
}

/* All errors as one text; findings of a rule name a property, the file and line go before. */
static char *error_text(const struct problems *p, const char *file, int line, bool located)
{
	struct strbuf sb = {0};

	for (size_t i = 0; i < p->count && sb.len < TEXT_MAX; i++) {
		const struct problem *item = &p->items[i];

		if (item->kind == PROBLEM_WARNING)
			continue;
		if (sb.len)
			strbuf_puts(&sb, "; ");
		if (!located)
			strbuf_printf(&sb, "%s:%d: ", file, line);
		problem_print(&sb, item);
	}
	return strbuf_steal(&sb);
}

static void complete(struct catalog *c, struct unit *u, struct reading *r, struct found *f,
		     const char *file)
{
	AUTO_PROBLEMS struct problems p = {0};
	struct vm *vm = f->vm;
	AUTO_FREE char *data = path_of_data(c->config.paths, vm->uuid, NULL);

	vm->made_by_us = uuid_valid(u->name) && str_eq(u->name, vm->uuid);
	take_configfile(r, u, vm, &p);
	vm_finish(vm, data);
	vm_validate(vm, &p);
	resolve_owner(c, vm, &p);
	if (p.errors)
		f->error = error_text(&p, file, vm->line, false);
	for (size_t i = 0; i < vm->ndisks; i++) {
		const char *path = vm->disks[i]->path;
		size_t len = strlen(u->path);

		if (path && strncmp(path, u->path, len) == 0 && path[len] == '/')
			u->disks_here = true;
	}
}

static void read_section(struct catalog *c, struct unit *u, struct reading *r, const char *key,
			 const struct ucl_value *v)
{
	AUTO_FREE char *config = path_join(u->path, "config");
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_FREE char *where = ucl_where(&v->key);
	struct found *f;

	r->found = xrealloc(r->found, (r->nfound + 1) * sizeof(*r->found));
	f = &r->found[r->nfound++];
	*f = (struct found){.section = xstrdup(key)};
	if (v->type != UCL_OBJECT) {
		f->error = xasprintf("%s: %s is %s (want one section: %s { ... })", where, key,
				     v->implicit ? "given more than once" : ucl_type_name(v->type),
				     key);
		return;
	}
	f->vm = vm_from_ucl(key, v, c->host_uuid, u->name, &p);
	/* Also of a section that stands in an include: this file defines it. */
	replace_str(&f->vm->file, xstrdup(config));
	replace_str(&f->vm->dir, xstrdup(u->path));
	f->vm->line = v->key.line;
	if (p.errors)
		f->error = error_text(&p, v->key.file, v->key.line, true);
	else
		complete(c, u, r, f, v->key.file);
}

/* The file a parser's message is about, when it is an include that we do not know of yet. */
static void extra_of_error(struct reading *r, const char *config, const char *msg)
{
	const char *end = msg;
	AUTO_FREE char *file = NULL;

	while ((end = strchr(end, ':')) != NULL && (end[1] < '0' || end[1] > '9'))
		end++;
	if (!end || msg[0] != '/')
		return;
	file = xstrndup(msg, (size_t)(end - msg));
	if (!str_eq(file, config))
		add_extra(r, file);
}

static void parse_definition(struct catalog *c, struct unit *u, struct reading *r,
			     const char *config, const char *text, size_t len)
{
	static const struct ucl_options options = {.fold_keys = true};
	struct err err = {0};
	const struct ucl_value *root;
	struct ucl_doc *doc;

	if (ucl_parse(config, text, len, &options, &doc, &err) < 0) {
		extra_of_error(r, config, err.msg);
		reading_fail(r, config, &err);
		return;
	}
	root = ucl_root(doc);
	if (check_includes(r, doc, &err) < 0)
		reading_fail(r, config, &err);
	else if (root->type != UCL_OBJECT && !(root->type == UCL_ARRAY && root->count == 0))
		r->error = xasprintf("%s:1:1: is %s (want sections, one for each VM)", config,
				     ucl_type_name(root->type));
	for (size_t i = 0; !r->error && i < root->count; i++) {
		if (!str_eq(root->keys[i], CATALOG_IGNORED))
			read_section(c, u, r, root->keys[i], root->items[i]);
	}
	ucl_free(doc);
}

static void read_definition(struct catalog *c, struct unit *u, struct reading *r)
{
	AUTO_FREE char *config = path_join(u->path, "config");
	AUTO_FREE char *text = NULL;
	struct err err = {0};
	struct stat st;
	size_t len;
	int n;

	r->print = HASH_START;
	if (lstat(config, &st) == 0 && S_ISLNK(st.st_mode)) {
		r->settled = true;
		add_extra(r, config);
	}
	n = read_file(r, "definition", config, &text, &len, &err);
	if (n == -ENOENT)
		return;
	if (n < 0)
		reading_fail(r, config, &err);
	else
		parse_definition(c, u, r, config, text, len);
}

/* Watch one more path; true when the unit did not watch it before. */
static bool watch_more(struct catalog *c, struct unit *u, struct reading *r, const char *path,
		       uint32_t mask)
{
	int wd = watch_add(&c->watches, path, mask, u);

	if (wd == -ENOSPC)
		unit_problem(c, &c->self, c->config.paths->etc,
			     "too many watched files: raise fs.inotify.max_user_watches; until "
			     "then some changes are seen late");
	if (wd < 0)
		return false;
	for (size_t i = 0; i < r->nwds; i++) {
		if (r->wds[i] == wd)
			return false;
	}
	reading_watch(r, wd);
	for (size_t i = 0; i < u->nwds; i++) {
		if (u->wds[i] == wd)
			return false;
	}
	return true;
}

/* True when files turned up whose changes we could have missed so far: read again. */
static bool watch_extras(struct catalog *c, struct unit *u, struct reading *r)
{
	AUTO_FREE char *config = path_join(u->path, "config");
	bool more = false;

	if (u->disks_here) {
		watch_narrow(&c->watches, u->path, WATCH_FOLDER);
		more |= watch_more(c, u, r, config, WATCH_FILE);
	}
	for (size_t i = 0; i < r->nextras; i++) {
		const char *name = last_part(r->extras[i]);
		AUTO_FREE char *dir = xstrndup(r->extras[i], (size_t)(name - r->extras[i]));
		size_t len = strlen(u->path);

		if (strncmp(dir, u->path, len) == 0 && str_eq(dir + len, "/") && !u->disks_here)
			continue;
		more |= watch_more(c, u, r, dir, WATCH_FOLDER);
		more |= watch_more(c, u, r, r->extras[i], WATCH_FILE);
	}
	return more;
}

/* The directory itself: there, watched, and nobody else's. 0 to go on. */
static int enter(struct catalog *c, struct unit *u, struct reading *r)
{
	struct err err = {0};
	struct stat st;

	(void)watch_more(c, u, r, u->path, u->disks_here ? WATCH_FOLDER : WATCH_CONFIG);
	if (stat(u->path, &st) < 0) {
		r->gone = errno == ENOENT || errno == ENOTDIR || errno == ELOOP;
		if (!r->gone) {
			(void)err_sys(&err, errno, "cannot look at '%s'", u->path);
			reading_fail(r, u->path, &err);
		}
		return -1;
	}
	r->gone = !S_ISDIR(st.st_mode);
	if (r->gone)
		return -1;
	if (c->distrust)
		(void)err_set(&err, EPERM, "%s", c->distrust);
	else if (file_check_trusted(&st, "directory of a definition", u->path, &err) == 0)
		return 0;
	reading_fail(r, u->path, &err);
	return -1;
}

static void forget_found(struct reading *r)
{
	struct reading again = {.wds = steal_ptr(r->wds), .nwds = r->nwds};

	reading_done(r);
	*r = again;
}

/* What an unreadable definition included before is still worth watching: the fault may be there. */
static void keep_watching(struct unit *u, struct reading *r)
{
	for (size_t i = 0; i < u->nextras; i++)
		add_extra(r, u->extras[i]);
	for (size_t i = 0; i < u->nwds; i++)
		reading_watch(r, u->wds[i]);
}

static const struct vm *known_vm(struct catalog *c, const char *uuid)
{
	const struct item *it = map_get(&c->by_uuid, uuid);

	return it ? it->e.vm : NULL;
}

void unit_read(struct catalog *c, struct unit *u, struct reading *r)
{
	if (enter(c, u, r) < 0) {
		if (!r->gone)
			keep_watching(u, r);
		return;
	}
	for (int pass = 1;; pass++) {
		read_definition(c, u, r);
		if (r->error)
			keep_watching(u, r);
		if (!watch_extras(c, u, r) || pass == READ_PASSES)
			break;
		forget_found(r);
	}
	for (size_t i = 0; i < r->nfound; i++) {
		struct found *f = &r->found[i];

		f->print = hash_text(r->print, f->section);
		if (f->error || !f->vm)
			continue;
		f->vm->mtime_ms = r->mtime_ms;
		if (c->config.metadata)
			meta_read(c, u, r, f, known_vm(c, f->vm->uuid), u->meta_soft);
	}
}
