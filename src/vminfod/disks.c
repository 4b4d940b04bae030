/* SPDX-License-Identifier: Apache-2.0 */
/* Disk headers; see disks.h. */
#include "vminfod/disks.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/image.h"
#include "vminfod/lookout.h"

struct seen_disk {
	char *path;
	unsigned refs;
	struct disks *of;
	struct spot *spot;
	struct disk_look look;
};

struct disks {
	struct lookout *lookout;
	void (*changed)(void *ctx, struct seen_disk *d);
	void *ctx;
	void *by_path; /* tsearch */
	struct seen_disk **items;
	size_t count, cursor;
};

static int compare(const void *a, const void *b)
{
	return strcmp(((const struct seen_disk *)a)->path, ((const struct seen_disk *)b)->path);
}

struct disks *disks_new(struct lookout *lookout, void (*changed)(void *ctx, struct seen_disk *d),
			void *ctx)
{
	struct disks *s = xcalloc(1, sizeof(*s));

	*s = (struct disks){.lookout = lookout, .changed = changed, .ctx = ctx};
	return s;
}

static void disk_free(struct seen_disk *d)
{
	free(d->look.backing);
	free(d->path);
	free(d);
}

void disks_free(struct disks *s)
{
	if (!s)
		return;
	while (s->count > 0) {
		s->items[s->count - 1]->refs = 1;
		disks_put(s, s->items[s->count - 1]);
	}
	free(s->items);
	free(s);
}

static void probe(const char *path, struct disk_look *ret)
{
	static const char *const formats[] = {
		[IMAGE_RAW] = "raw", [IMAGE_QCOW2] = "qcow2", [IMAGE_OTHER] = "other"};
	struct image_info info = {0};
	struct stat st = {0};
	int r = image_probe(path, &info, NULL);

	*ret = (struct disk_look){.error = r < 0 ? -r : 0};
	if (r < 0) {
		ret->failed_wall_ms = clock_wall_ms();
		return;
	}
	ret->size = info.virtual_size;
	ret->allocated = info.allocated_size;
	ret->format = formats[info.format];
	ret->backing = info.has_backing ? xstrdup(info.backing) : NULL;
	ret->file_size = stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size
								     : info.virtual_size;
}

static bool same(const struct disk_look *a, const struct disk_look *b)
{
	return a->error == b->error && a->size == b->size && a->allocated == b->allocated &&
	       a->file_size == b->file_size && a->format == b->format &&
	       str_eq(a->backing, b->backing);
}

bool disk_look_again(struct seen_disk *d)
{
	struct disk_look now;

	probe(d->path, &now);
	if (same(&now, &d->look)) {
		free(now.backing);
		return false;
	}
	free(d->look.backing);
	d->look = now;
	return true;
}

static void on_spot(void *ctx)
{
	struct seen_disk *d = ctx;

	if (disk_look_again(d))
		d->of->changed(d->of->ctx, d);
}

struct seen_disk *disks_get(struct disks *s, const char *path)
{
	struct seen_disk key = {.path = (char *)(uintptr_t)path};
	struct seen_disk **node = tfind(&key, &s->by_path, compare);
	struct seen_disk *d;

	if (node) {
		(*node)->refs++;
		return *node;
	}
	if (image_protocol(path) || *path != '/')
		return NULL;
	d = xcalloc(1, sizeof(*d));
	*d = (struct seen_disk){.path = xstrdup(path), .refs = 1, .of = s};
	if (!tsearch(d, &s->by_path, compare))
		abort();
	s->items = xrealloc(s->items, (s->count + 1) * sizeof(struct seen_disk *));
	s->items[s->count++] = d;
	/* Watch first, look then: nothing falls between. */
	d->spot = lookout_add(s->lookout, path, on_spot, d);
	probe(path, &d->look);
	return d;
}

void disks_put(struct disks *s, struct seen_disk *d)
{
	if (!d || --d->refs > 0)
		return;
	lookout_remove(s->lookout, d->spot);
	(void)tdelete(d, &s->by_path, compare);
	for (size_t i = s->count; i-- > 0;) {
		if (s->items[i] != d)
			continue;
		s->items[i] = s->items[--s->count];
		break;
	}
	disk_free(d);
}

const struct disk_look *disk_look(const struct seen_disk *d)
{
	return &d->look;
}

size_t disks_scan(struct disks *s, size_t count)
{
	size_t found = 0;

	for (size_t i = 0; i < count && i < s->count; i++) {
		struct seen_disk *d;

		if (s->cursor >= s->count)
			s->cursor = 0;
		d = s->items[s->cursor++];
		if (!disk_look_again(d))
			continue;
		found++;
		s->changed(s->ctx, d);
	}
	return found;
}

size_t disks_count(const struct disks *s)
{
	return s->count;
}
