/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses DHCP servers of this host leased to guests that run: the lease files are watched by
 * their folders, for servers replace them or write into them, and read anew a moment later, at
 * most LEASE_FILE_MAX bytes each. A lease that is over goes by a timer.
 */
#include "vmadmd/guest/leases.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "model/vm.h"
#include "store/catalog.h"
#include "vmadmd/guest.h"
#include "vmadmd/guest/lease.h"
#include "vmadmd/vmadmd.h"

#define LEASE_FILE_MAX (4u << 20) /* bytes; 40 000 leases of dnsmasq */
#define GATHER_MS      200u       /* changes of a file are many at once */
#define FOLDER_MS      30000u     /* between two looks for a folder that is not there */
#define ADDRESSES_MAX  32u        /* of one NIC */
#define MASK           (IN_CLOSE_WRITE | IN_MODIFY | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE)

struct lease_file {
	char *path;
	const char *name; /* of path, without its folder */
	sd_event_source *watch;
	bool complained;
};

struct lease_watch {
	struct vmadmd *d;
	struct lease_file files[LEASE_FILES_MAX];
	size_t nfiles;
	struct leases leases;
	sd_event_source *gather, *expiry, *folders;
};

/* --- what a guest has --- */

/* {MAC: {address: since}} */
static json_t *addresses_of(const struct leases *l, const struct vm *vm)
{
	json_t *out = json_object();
	char since[ISO_TIME_LEN];

	for (size_t i = 0; i < vm->nnics; i++) {
		const struct nic *n = vm->nics[i];
		const struct lease *one;
		uint64_t mac;
		size_t count;
		json_t *list;

		if (!n->mac || str_eq(n->nic_tag, "user") ||
		    !lease_mac(n->mac, strlen(n->mac), &mac))
			continue;
		one = leases_of(l, mac, &count);
		if (!one)
			continue;
		list = json_object();
		for (size_t k = 0; k < count && k < ADDRESSES_MAX; k++)
			json_put_str(list, one[k].ip,
				     clock_iso(one[k].since_ms, since, sizeof(since)));
		(void)json_object_set_new(out, n->mac, list);
	}
	return out;
}

bool leases_update(struct guest *g)
{
	const struct lease_watch *w = g->d->leases;
	const struct catalog_entry *e =
		w && guest_runs(g) ? catalog_by_uuid(g->d->catalog, g->uuid) : NULL;
	json_t *now = e && e->vm ? addresses_of(&w->leases, e->vm) : NULL;

	if (json_object_size(now) == 0) {
		json_decref(now);
		now = NULL;
	}
	if (now == g->leases || (now && g->leases && json_equal(now, g->leases))) {
		json_decref(now);
		return false;
	}
	json_decref(g->leases);
	g->leases = now;
	return true;
}

static void update_one(struct guest *g, void *ctx)
{
	if (leases_update(g))
		(void)guest_publish(g);
}

/* --- files --- */

static int on_expiry(sd_event_source *source, uint64_t usec, void *ctx);

static void await_expiry(struct lease_watch *w)
{
	int64_t first = INT64_MAX, now = clock_wall_ms() / 1000;

	for (size_t i = 0; i < w->leases.count; i++) {
		if (w->leases.items[i].expires_s < first)
			first = w->leases.items[i].expires_s;
	}
	if (first == INT64_MAX) {
		timer_stop(w->expiry);
		return;
	}
	if (first - now > 86400) /* the wall clock may be set meanwhile */
		first = now + 86400;
	(void)timer_set(w->d->event, &w->expiry,
			(uint64_t)(first > now ? first - now : 0) * 1000 + 1000, on_expiry, w);
}

static void read_one(struct lease_watch *w, struct lease_file *f, struct leases *into)
{
	AUTO_FREE char *text = NULL;
	struct err err = {0};
	int r = file_read(f->path, LEASE_FILE_MAX, &text, NULL, NULL, &err);

	if (r == 0 && !leases_read(into, text, clock_wall_ms()))
		r = err_set(&err, E2BIG, "%s: more than %u leases", f->path, LEASES_MAX);
	if (r < 0 && r != -ENOENT && !f->complained)
		log_warn("leases not known: %s", err.msg);
	f->complained = r < 0 && r != -ENOENT;
}

static int on_gathered(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct lease_watch *w = ctx;
	struct leases now = {0};

	for (size_t i = 0; i < w->nfiles; i++)
		read_one(w, &w->files[i], &now);
	leases_settle(&now, &w->leases, clock_wall_ms());
	leases_done(&w->leases);
	w->leases = now;
	await_expiry(w);
	guests_each(w->d, update_one, NULL);
	return 0;
}

static int on_expiry(sd_event_source *source, uint64_t usec, void *ctx)
{
	return on_gathered(NULL, 0, ctx);
}

static void gather(struct lease_watch *w)
{
	int on = SD_EVENT_OFF;

	/* Not put off by what comes meanwhile: a busy file would never be read. */
	if (w->gather && sd_event_source_get_enabled(w->gather, &on) >= 0 && on != SD_EVENT_OFF)
		return;
	(void)timer_set(w->d->event, &w->gather, GATHER_MS, on_gathered, w);
}

static int on_folder(sd_event_source *source, const struct inotify_event *ev, void *ctx)
{
	struct lease_watch *w = ctx;
	bool any = (ev->mask & (IN_Q_OVERFLOW | IN_IGNORED)) != 0;

	for (size_t i = 0; i < w->nfiles; i++) {
		struct lease_file *f = &w->files[i];

		any = any || (ev->len && str_eq(ev->name, f->name));
		if (f->watch == source && (ev->mask & IN_IGNORED))
			f->watch = sd_event_source_disable_unref(f->watch);
	}
	if (any)
		gather(w);
	return 0;
}

/* A folder that is not there (any more) may come. */
static int on_folders(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct lease_watch *w = ctx;

	for (size_t i = 0; i < w->nfiles; i++) {
		struct lease_file *f = &w->files[i];
		AUTO_FREE char *folder = xstrndup(f->path, (size_t)(f->name - f->path));

		if (!f->watch && sd_event_add_inotify(w->d->event, &f->watch, folder,
						      MASK | IN_ONLYDIR, on_folder, w) >= 0)
			gather(w);
	}
	(void)timer_set(w->d->event, &w->folders, FOLDER_MS, on_folders, w);
	return 0;
}

static struct lease_watch *watch_of(struct vmadmd *d)
{
	if (!d->leases) {
		d->leases = xcalloc(1, sizeof(*d->leases));
		d->leases->d = d;
	}
	return d->leases;
}

int leases_add_file(struct vmadmd *d, const char *path, struct err *err)
{
	struct lease_watch *w = watch_of(d);

	if (*path != '/' || str_ends(path, "/"))
		return err_set(err, EINVAL, "lease-file: '%s' is no absolute path of a file", path);
	if (w->nfiles == LEASE_FILES_MAX)
		return err_set(err, E2BIG, "lease-file: is given too often (want at most %d)",
			       LEASE_FILES_MAX);
	w->files[w->nfiles++].path = xstrdup(path);
	return 0;
}

void leases_start(struct vmadmd *d)
{
	struct lease_watch *w = watch_of(d);

	if (w->nfiles == 0)
		w->files[w->nfiles++].path =
			path_join(str_eq(d->paths->root, "/") ? "" : d->paths->root, LEASE_FILE);
	for (size_t i = 0; i < w->nfiles; i++)
		w->files[i].name = strrchr(w->files[i].path, '/') + 1;
	(void)on_folders(NULL, 0, w);
	(void)on_gathered(NULL, 0, w);
}

void leases_free(struct vmadmd *d)
{
	struct lease_watch *w = d->leases;

	if (!w)
		return;
	for (size_t i = 0; i < w->nfiles; i++) {
		sd_event_source_disable_unref(w->files[i].watch);
		free(w->files[i].path);
	}
	sd_event_source_disable_unref(w->gather);
	sd_event_source_disable_unref(w->expiry);
	sd_event_source_disable_unref(w->folders);
	leases_done(&w->leases);
	free(w);
	d->leases = NULL;
}
