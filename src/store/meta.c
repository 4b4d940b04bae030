/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metadata of a VM: config/{tags,metadata,routes}.json of its data directory. The directory may
 * come after the definition, so its nearest existing ancestor is watched meanwhile: by names
 * only, because disks lie there.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/paths.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "store/catalog_impl.h"
#include "store/hash.h"

#define META_MAX (1u << 20) /* bytes of one metadata file */

const char *const meta_files[META_FILES] = {"tags.json", "metadata.json", "routes.json"};

/* Watch the config directory or, until it is there, the data directory. */
static void watch_data(struct catalog *c, struct unit *u, struct reading *r, const char *config)
{
	AUTO_FREE char *data = xstrndup(config, strlen(config) - strlen("/config"));

	/* Twice: config may be made between the two calls. */
	for (int i = 0; i < 2; i++) {
		int wd = watch_add(&c->watches, config, WATCH_CONFIG, u);

		if (wd >= 0) {
			reading_watch(r, wd);
			return;
		}
		wd = watch_add(&c->watches, data, WATCH_NAMES, u);
		if (wd < 0)
			return; /* the parent of all is always watched */
		reading_watch(r, wd);
	}
}

/* Values are flat: the table's rule, but the file may be anybody's. */
static int check_flat(const json_t *map, const char *path, const char *name, struct err *err)
{
	const char *key;
	json_t *v;

	if (map && !json_is_object(map))
		return err_set(err, EINVAL, "%s: %s is not an object", path, name);
	json_object_foreach ((json_t *)(uintptr_t)map, key, v) {
		if (!json_is_string(v) && !json_is_number(v) && !json_is_boolean(v))
			return err_set(err, EINVAL, "%s: %s.%s is not a string, number or boolean",
				       path, name, key);
	}
	return 0;
}

static void take(json_t **at, json_t *from, const char *key)
{
	json_decref(*at);
	*at = key ? json_incref(json_object_get(from, key)) : json_incref(from);
}

static int take_metadata(struct vm *vm, json_t *j, const char *path, struct err *err)
{
	static const char customer[] = "customer_metadata", internal[] = "internal_metadata";
	int r = check_flat(json_object_get(j, customer), path, customer, err);

	if (r == 0)
		r = check_flat(json_object_get(j, internal), path, internal, err);
	if (r < 0)
		return r;
	take(&vm->customer_metadata, j, customer);
	take(&vm->internal_metadata, j, internal);
	return 0;
}

static int take_file(struct vm *vm, size_t i, json_t *j, const char *path, struct err *err)
{
	int r;

	if (i == 1)
		return take_metadata(vm, j, path, err);
	r = check_flat(j, path, i == 0 ? "tags" : "routes", err);
	if (r == 0)
		take(i == 0 ? &vm->tags : &vm->routes, j, NULL);
	return r;
}

static void keep_old(struct vm *vm, size_t i, const struct vm *old)
{
	if (!old)
		return;
	if (i == 0)
		take(&vm->tags, old->tags, NULL);
	if (i == 2)
		take(&vm->routes, old->routes, NULL);
	if (i != 1)
		return;
	take(&vm->customer_metadata, old->customer_metadata, NULL);
	take(&vm->internal_metadata, old->internal_metadata, NULL);
}

static int read_one(struct vm *vm, size_t i, const char *path, struct err *err)
{
	AUTO_FREE char *text = NULL;
	AUTO_JSON json_t *j = NULL;
	struct stat st;
	int64_t mtime;
	size_t len;
	int r = file_read(path, META_MAX, &text, &len, &st, err);

	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	if (r == 0)
		r = file_check_trusted(&st, "metadata", path, err);
	if (r == 0)
		r = json_parse_object(text, len, path, &j, err);
	if (r == 0)
		r = take_file(vm, i, j, path, err);
	if (r < 0)
		return r;
	mtime = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
	if (mtime > vm->mtime_ms)
		vm->mtime_ms = mtime;
	return 0;
}

int metadata_read(const struct paths *paths, struct vm *vm, struct err *err)
{
	AUTO_FREE char *config = path_of_data(paths, vm->uuid, "config");
	int r = 0;

	for (size_t i = 0; i < META_FILES && r == 0; i++) {
		AUTO_FREE char *path = path_join(config, meta_files[i]);

		r = read_one(vm, i, path, err);
	}
	return r;
}

/* By value, so that what is kept of a half-written file counts as no change. */
static uint64_t hash_json(uint64_t h, const json_t *j)
{
	AUTO_FREE char *text = j ? json_text(j) : NULL;

	return hash_text(h, text ? text : "");
}

void meta_read(struct catalog *c, struct unit *u, struct reading *r, struct found *f,
	       const struct vm *old, bool soft)
{
	AUTO_FREE char *config = path_of_data(c->config.paths, f->vm->uuid, "config");

	watch_data(c, u, r, config);
	for (size_t i = 0; i < META_FILES; i++) {
		AUTO_FREE char *path = path_join(config, meta_files[i]);
		struct err err = {0};

		if (read_one(f->vm, i, path, &err) == 0)
			continue;
		keep_old(f->vm, i, old);
		if (!soft && !f->warning)
			f->warning = xstrdup(err.msg);
	}
	f->print = hash_json(f->print, f->vm->tags);
	f->print = hash_json(f->print, f->vm->customer_metadata);
	f->print = hash_json(f->print, f->vm->internal_metadata);
	f->print = hash_json(f->print, f->vm->routes);
	if (f->warning)
		f->print = hash_text(f->print, f->warning);
}
