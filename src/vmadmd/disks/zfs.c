/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking ZFS; see zfs.h. One `zfs get` for all pools the definitions name, two levels deep: the
 * pool, the VMs' datasets and volumes, their snapshots. Only options that zfs-fuse has as well.
 * A pool that is not there backs nothing; any other failure leaves what was known, with its age.
 */
#include "vmadmd/disks/zfs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/child.h"
#include "daemon/daemon.h"
#include "model/rows.h"
#include "model/vm.h"
#include "store/catalog.h"
#include "vmadmd/disks/zfs_dataset.h"
#include "vmadmd/disks/zfs_facts.h"
#include "vmadmd/guest.h"
#include "vmadmd/vmadmd.h"

#define PROGRAM    "zfs"
#define NO_SUCH    "dataset does not exist"
#define ARGS       8 /* before the pools */
#define NEW_VM_MS  200u
#define REASON_MAX 200
#define QUOTA      "quota"

struct zfs {
	struct vmadmd *d;
	sd_event_source *timer;
	struct child *child;  /* that asks; NULL: none */
	bool again;           /* its answer may be old already */
	bool there;           /* the last answer was one */
	bool backs;           /* a dataset backs a VM */
	int64_t seen_wall_ms; /* of the last answer, at first our start */
};

static int on_timer(sd_event_source *source, uint64_t us, void *ctx);

static void rest(struct zfs *z)
{
	(void)timer_set(z->d->event, &z->timer, z->backs ? ZFS_POLL_MS : ZFS_REST_MS, on_timer, z);
}

static bool backs(void *ctx, const char *pool, const char *uuid)
{
	const struct catalog_entry *e = catalog_by_uuid(ctx, uuid);

	return e && str_eq(e->vm->zpool, pool);
}

/* --- an answer --- */

static void give_facts(struct guest *g, void *ctx)
{
	json_t *all = ctx, *facts = json_object_get(all, g->uuid);

	if (facts ? !json_equal(g->zfs, facts) : g->zfs != NULL)
		(void)guest_zfs(g, json_incref(facts));
}

static void answered(struct zfs *z, const char *out)
{
	AUTO_JSON json_t *all = zfs_facts(out, backs, z->d->catalog);
	const char *uuid;
	json_t *facts;

	z->there = true;
	z->backs = json_object_size(all) > 0;
	z->seen_wall_ms = clock_wall_ms();
	json_object_foreach (all, uuid, facts)
		(void)guest_get(z->d, uuid);
	guests_each(z->d, give_facts, all);
}

/* --- no answer --- */

/* A person says that it lies there. */
static bool names_pool(const struct vm *vm)
{
	return VM_GIVEN(vm, zpool);
}

static void give_age(struct guest *g, void *ctx)
{
	struct zfs *z = ctx;
	const struct catalog_entry *e = catalog_by_uuid(z->d->catalog, g->uuid);
	char buf[ISO_TIME_LEN];
	json_t *facts;

	if (json_object_get(g->zfs, FACT_UNKNOWN) || (!g->zfs && !(e && names_pool(e->vm))))
		return;
	facts = g->zfs ? json_copy(g->zfs) : json_object();
	json_put_str(facts, FACT_UNKNOWN, clock_iso(z->seen_wall_ms, buf, sizeof(buf)));
	(void)guest_zfs(g, facts);
}

static void failed(struct zfs *z, const char *reason)
{
	if (z->there || z->backs)
		log_warn("ZFS does not answer, what it last said is shown with its age: %.*s",
			 (int)strcspn(reason, "\n"), reason);
	else
		log_debug("no ZFS: %.*s", (int)strcspn(reason, "\n"), reason);
	z->there = false;
	for (size_t i = 0; i < catalog_count(z->d->catalog); i++) {
		const struct catalog_entry *e = catalog_at(z->d->catalog, i);

		if (names_pool(e->vm))
			(void)guest_get(z->d, e->uuid);
	}
	guests_each(z->d, give_age, z);
}

/* Do all lines say that a pool is not there? */
static bool only_missing(const char *errors)
{
	while (*errors) {
		size_t len = strcspn(errors, "\n");

		if (len < strlen(NO_SUCH) ||
		    memcmp(errors + len - strlen(NO_SUCH), NO_SUCH, strlen(NO_SUCH)) != 0)
			return false;
		errors += len + (errors[len] == '\n');
	}
	return true;
}

static bool ended_well(const struct child_exit *how, const char *errors)
{
	if (!how->known || how->timed_out || how->code != CLD_EXITED)
		return false;
	return how->status == 0 || (how->status == 1 && *errors && only_missing(errors));
}

static void on_asked(void *ctx, const struct child_exit *how, const char *out, const char *errors)
{
	struct zfs *z = ctx;
	char text[64];

	z->child = NULL;
	if (z->again) {
		z->again = false;
		zfs_poll(z);
		return;
	}
	if (strlen(out) >= ZFS_OUTPUT_MAX)
		failed(z, "it says too much");
	else if (ended_well(how, errors))
		answered(z, out);
	else
		failed(z, *errors ? errors : child_exit_text(how, text, sizeof(text)));
	rest(z);
}

/* --- asking --- */

/* The pools that definitions name, borrowed, behind argv[n]. */
static size_t add_pools(const struct zfs *z, const char **argv, size_t n)
{
	size_t first = n;

	for (size_t i = 0; i < catalog_count(z->d->catalog); i++) {
		const char *pool = catalog_at(z->d->catalog, i)->vm->zpool;
		size_t k = first;

		while (k < n && !str_eq(argv[k], pool))
			k++;
		if (pool && k == n && n < first + ZFS_POOLS_MAX)
			argv[n++] = pool;
	}
	return n - first;
}

int zfs_run(struct vmadmd *d, const char *const *argv, run_done done, void *ctx, struct child **ret,
	    struct err *err)
{
	const char *path = getenv("PATH");
	AUTO_FREE char *env_path = xasprintf("PATH=%s:/usr/sbin:/sbin", path ? path : "/usr/bin");
	const char *const env[] = {env_path, "LC_ALL=C", NULL};
	const struct child_spec spec = {.argv = argv,
					.env = env,
					.in = -1,
					.group = true,
					.no_new_privs = true,
					.timeout_ms = ZFS_LIMIT_MS};

	return child_run(d->event, &spec, ZFS_OUTPUT_MAX, done, ctx, ret, err);
}

static void ask(struct zfs *z)
{
	const char *argv[ARGS + ZFS_POOLS_MAX + 1] = {PROGRAM, "get", "-Hp",       "-d",
						      "2",     "-o",  ZFS_COLUMNS, ZFS_PROPERTIES};
	struct err err = {0};

	if (z->child) { /* it has outlived its deadline: SIGKILL does not reach it */
		failed(z, "it hangs");
		rest(z);
		return;
	}
	if (add_pools(z, argv, ARGS) == 0) {
		answered(z, "");
		rest(z);
		return;
	}
	/* A child that cannot be killed never calls back; the timer then finds it here. */
	(void)timer_set(z->d->event, &z->timer, ZFS_LIMIT_MS + ZFS_POLL_MS, on_timer, z);
	if (zfs_run(z->d, argv, on_asked, z, &z->child, &err) < 0) {
		failed(z, err.msg);
		rest(z);
	}
}

static int on_timer(sd_event_source *source, uint64_t us, void *ctx)
{
	ask(ctx);
	return 0;
}

void zfs_poll(struct zfs *z)
{
	if (z->child)
		z->again = true;
	else
		ask(z);
}

void zfs_new_vm(struct zfs *z)
{
	if (z && z->there && !z->child)
		(void)timer_set(z->d->event, &z->timer, NEW_VM_MS, on_timer, z);
}

struct zfs *zfs_new(struct vmadmd *d)
{
	struct zfs *z = xcalloc(1, sizeof(*z));

	*z = (struct zfs){.d = d, .seen_wall_ms = clock_wall_ms()};
	ask(z);
	return z;
}

void zfs_free(struct zfs *z)
{
	if (!z)
		return;
	if (z->child)
		child_forget(z->child);
	sd_event_source_disable_unref(z->timer);
	free(z);
}

/* --- its properties --- */

/* ZFS has said so, or is still to be asked about one we made a moment ago. */
static bool has_dataset(const struct zfs *z, const struct vm *vm, const struct guest *g)
{
	AUTO_FREE char *disks = path_of_data(z->d->paths, vm->uuid, DATASET_DISKS);

	return json_object_get(g->zfs, QUOTA) || (names_pool(vm) && file_exists(disks));
}

int zfs_set(struct zfs *z, const char *uuid, const struct zfs_setting *what, struct child **ret,
	    struct err *err)
{
	const struct catalog_entry *e = catalog_by_uuid(z->d->catalog, uuid);
	const struct guest *g = guest_find(z->d, uuid);
	AUTO_FREE char *name = NULL, *pair = NULL;
	const char *argv[] = {PROGRAM, what->value ? "set" : "inherit", NULL, NULL, NULL};
	int r;

	if (!e || !g || !has_dataset(z, e->vm, g))
		return 0;
	pair = what->value ? xasprintf("%s=%s", what->property, what->value)
			   : xstrdup(what->property);
	name = xasprintf("%s/%s", e->vm->zpool, uuid);
	argv[2] = pair;
	argv[3] = name;
	r = zfs_run(z->d, argv, what->done, what->ctx, ret, err);
	return r < 0 ? r : 1;
}

int zfs_was_set(struct zfs *z, const char *uuid, const char *fact, json_t *value,
		const struct child_exit *how, const char *errors, struct err *err)
{
	struct guest *g = guest_find(z->d, uuid);
	AUTO_JSON json_t *taken = value;
	char text[64];
	json_t *facts;

	z->again |= z->child != NULL;
	if (!how->known || how->code != CLD_EXITED || how->status != 0) {
		const char *why = *errors ? errors : child_exit_text(how, text, sizeof(text));
		size_t len = strcspn(why, "\n");

		return err_set(err, EIO, "zfs did not set %s of VM %s: %.*s", fact, uuid,
			       len < REASON_MAX ? (int)len : REASON_MAX, why);
	}
	if (g && g->zfs) {
		facts = json_copy(g->zfs);
		if (json_is_null(taken))
			(void)json_object_del(facts, fact);
		else
			(void)json_object_set(facts, fact, taken);
		(void)guest_zfs(g, facts);
	}
	if (json_is_null(taken)) /* the parent's, whatever that is */
		zfs_poll(z);
	return 0;
}

uint32_t zfs_quota(struct vmadmd *d, const char *uuid, uint32_t fallback)
{
	const struct guest *g = guest_find(d, uuid);
	json_int_t quota = json_get_int(g ? g->zfs : NULL, QUOTA, -1);

	return quota < 0 || quota > UINT32_MAX ? fallback : (uint32_t)quota;
}

const char *zfs_compression(struct vmadmd *d, const char *uuid)
{
	const struct guest *g = guest_find(d, uuid);

	return json_get_str(g ? g->zfs : NULL, ZFS_COMPRESSION, NULL);
}
