/* SPDX-License-Identifier: Apache-2.0 */
/* The image store as files; see imagestore.h. */
#include "qemu/imagestore.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "qemu/image.h"

#define INFO_MAX  65536u
#define CHAIN_MAX 64
#define MIB       (1u << 20)

static const char *const suffixes[] = {"", ".qcow2", ".raw", ".img"};

bool image_name_ok(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len > IMAGE_NAME_MAX || *name == '.' || *name == '-')
		return false;
	for (; *name; name++) {
		if (!isascii((unsigned char)*name) ||
		    (!isalnum((unsigned char)*name) && !strchr("._-", *name)))
			return false;
	}
	return true;
}

char *images_path(const char *lib, const char *file)
{
	return file ? xasprintf("%s/" IMAGES_DIR "/%s", lib, file)
		    : xasprintf("%s/" IMAGES_DIR, lib);
}

char *images_info_path(const char *lib, const char *file)
{
	return xasprintf("%s/" IMAGES_DIR "/" IMAGES_INFO "/%s.json", lib, file);
}

static json_t *read_info(const char *lib, const char *file)
{
	AUTO_FREE char *path = images_info_path(lib, file);
	AUTO_FREE char *text = NULL;
	json_t *info = NULL;
	size_t len;

	if (file_read(path, INFO_MAX, &text, &len, NULL, NULL) == 0 &&
	    json_parse_object(text, len, path, &info, NULL) == 0)
		return info;
	return json_object();
}

/* fn for each file that may be an image, until it returns true. */
static void each_file(const char *lib, bool (*fn)(const char *file, void *ctx), void *ctx)
{
	AUTO_FREE char *path = images_path(lib, NULL);
	DIR *dir = opendir(path);
	const struct dirent *entry;

	while (dir && (entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] != '.' && fn(entry->d_name, ctx))
			break;
	}
	if (dir)
		(void)closedir(dir);
}

struct search {
	const char *lib, *uuid;
	char *found;
};

static bool has_uuid(const char *file, void *ctx)
{
	struct search *s = ctx;
	AUTO_JSON json_t *info = read_info(s->lib, file);

	if (!str_eq(json_get_str(info, "uuid", NULL), s->uuid))
		return false;
	s->found = images_path(s->lib, file);
	return true;
}

char *image_find(const char *lib, const char *name)
{
	struct search search = {.lib = lib, .uuid = name};

	if (name[0] == '/')
		return file_exists(name) ? xstrdup(name) : NULL;
	if (strchr(name, '/') || name[0] == '.')
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		AUTO_FREE char *file = xasprintf("%s%s", name, suffixes[i]);
		AUTO_FREE char *path = images_path(lib, file);

		if (*name && file_exists(path))
			return steal_ptr(path);
	}
	if (uuid_valid(name))
		each_file(lib, has_uuid, &search);
	return search.found;
}

/* The name people use: without the suffix that image_find() adds. */
static char *name_of(const char *file)
{
	for (size_t i = 1; i < ARRAY_SIZE(suffixes); i++) {
		size_t len = strlen(suffixes[i]);

		if (str_ends(file, suffixes[i]) && strlen(file) > len)
			return xstrndup(file, strlen(file) - len);
	}
	return xstrdup(file);
}

int image_describe(const char *lib, const char *file, json_t **ret, struct err *err)
{
	static const char *const formats[] = {
		[IMAGE_RAW] = "raw", [IMAGE_QCOW2] = "qcow2", [IMAGE_OTHER] = "other"};
	static const char *const kept[] = {"uuid", "sha256", "imported"};
	AUTO_FREE char *path = images_path(lib, file);
	AUTO_FREE char *name = name_of(file);
	AUTO_JSON json_t *info = read_info(lib, file);
	struct image_info header;
	struct stat st;
	json_t *out;
	int r = image_probe(path, &header, err);

	if (r < 0)
		return r;
	if (stat(path, &st) < 0)
		return err_sys(err, errno, "cannot look at '%s'", path);
	out = json_object();
	json_put_str(out, "name", name);
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		json_put_str(out, kept[i], json_get_str(info, kept[i], NULL));
	json_put_str(out, "file", file);
	json_put_str(out, "path", path);
	json_put_str(out, "format", formats[header.format]);
	json_put_int(out, "size", (json_int_t)((header.virtual_size + MIB - 1) / MIB));
	json_put_int(out, "bytes", st.st_size);
	json_put_int(out, "allocated", (json_int_t)header.allocated_size);
	*ret = out;
	return 0;
}

struct listing {
	const char *lib;
	json_t *list;
};

static bool add_described(const char *file, void *ctx)
{
	struct listing *l = ctx;
	json_t *one;

	if (image_describe(l->lib, file, &one, NULL) == 0)
		(void)json_array_append_new(l->list, one);
	return false;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(json_get_str(*(json_t *const *)a, "file", ""),
		      json_get_str(*(json_t *const *)b, "file", ""));
}

json_t *images_list(const char *lib)
{
	struct listing l = {.lib = lib, .list = json_array()};
	json_t *sorted = json_array();
	AUTO_FREE json_t **all = NULL;
	size_t count;

	each_file(lib, add_described, &l);
	count = json_array_size(l.list);
	all = xcalloc(count + 1, sizeof(json_t *));
	for (size_t i = 0; i < count; i++)
		all[i] = json_array_get(l.list, i);
	qsort(all, count, sizeof(json_t *), by_name);
	for (size_t i = 0; i < count; i++)
		(void)json_array_append(sorted, all[i]);
	json_decref(l.list);
	return sorted;
}

static bool same_file(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool image_reads_from(const char *path, const char *base)
{
	AUTO_FREE char *at = xstrdup(path);

	for (int depth = 0; depth < CHAIN_MAX; depth++) {
		struct image_info info;

		if (image_probe(at, &info, NULL) < 0 || !info.has_backing)
			return false;
		replace_str(&at, image_backing_path(at, &info));
		if (same_file(at, base))
			return true;
	}
	return false;
}
