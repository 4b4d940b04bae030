/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Migration, the side the VM comes to: the other side's orders, the record of a grant, and what
 * follows a sudden end. The record is a file of its own beside the VMs' data, written before the VM
 * runs and removed when the other side has removed its copy: as long as it is there, the answer to
 * "does it run there?" is yes, whatever has become of the VM since. Whoever was told no is never
 * told yes: what could still grant it is ended first.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "net/http.h"
#include "store/catalog.h"
#include "store/write.h"
#include "vmadmd/auth.h"
#include "vmadmd/change/delete.h"
#include "vmadmd/migrate/migrate.h"

#define GRANT_VERSION 1

/* --- the record --- */

static char *record_path(const struct vmadmd *d, const char *session)
{
	return xasprintf("%s/.granted-%s", d->paths->lib, session);
}

bool arrive_granted(const struct vmadmd *d, const char *session)
{
	AUTO_FREE char *path = record_path(d, session);

	return file_exists(path);
}

int arrive_record(struct change *c, struct err *err)
{
	AUTO_FREE char *path = record_path(c->d, c->live->arriving->session);
	AUTO_JSON json_t *record = json_pack("{s:s}", "uuid", c->uuid);

	return state_write(path, GRANT_VERSION, record, c->d->sync, err);
}

void arrive_forget(const struct vmadmd *d, const char *session)
{
	AUTO_FREE char *path = record_path(d, session);
	struct err err = {0};

	if (unlink(path) < 0 && errno != ENOENT)
		log_error("'%s' not removed: %s", path, strerror(errno));
	if (parent_sync(d, path, &err) < 0)
		log_error("%s", err.msg);
}

void arrive_remove_images(const json_t *images)
{
	const json_t *image;
	size_t i;

	json_array_foreach (images, i, image) {
		const char *path = json_get_str(image, "path", "");

		if (path[0] == '/' && unlink(path) < 0 && errno != ENOENT)
			log_error("'%s' not removed: %s", path, strerror(errno));
	}
}

/* --- orders --- */

struct order {
	struct vmadmd *d;
	struct http_request *req;
	const char *session, *uuid;
	struct change *c; /* it is on its way; NULL: it is not, or not any more */
};

static void reply_granted(struct http_request *req, bool granted)
{
	AUTO_JSON json_t *out = json_object();

	json_put_bool(out, "granted", granted);
	http_reply_json(req, 200, out);
}

static void reply_error(struct order *o, int code, const char *why)
{
	struct err err = {0};

	http_reply_err(o->req, err_set(&err, code, "VM %s: %s", o->uuid, why), &err);
}

static void on_switched(struct change *c, int r, const json_t *value, const struct err *err)
{
	struct arriving *a = c->live->arriving;
	struct http_request *req = a->order;

	a->order = NULL;
	live_point("closed");
	if (req && r < 0)
		http_reply_err(req, r == -EREMOTEIO ? -EIO : r, err);
	else if (req)
		reply_granted(req, false);
}

static void on_order_gone(struct http_request *req, void *ctx)
{
	struct change *c = ctx;

	c->live->arriving->order = NULL;
}

static void order_switch(struct order *o)
{
	struct err err = {0};
	int r;

	if (!o->c || !o->c->live->arriving->waiting) {
		reply_error(o, ENOENT, "it is not on its way here");
		return;
	}
	r = live_try(o->c, "nbd-server-stop", NULL, -1, on_switched, &err);
	if (r < 0) {
		http_reply_err(o->req, r, &err);
		return;
	}
	o->c->live->arriving->order = o->req;
	http_on_gone(o->req, on_order_gone, o->c);
}

static void order_grant(struct order *o)
{
	if (arrive_granted(o->d, o->session)) {
		reply_granted(o->req, true);
		return;
	}
	if (!o->c) {
		reply_granted(o->req, false);
		return;
	}
	if (!o->c->live->arriving->waiting) {
		reply_error(o, EBUSY, "it is not ready, or granted already");
		return;
	}
	arrive_unwatch(o->c);
	o->c->live->arriving->asked = true;
	o->c->live->arriving->order = o->req;
	http_on_gone(o->req, on_order_gone, o->c);
	change_next(o->c);
}

/* Its change, or what a sudden end left of it. */
static bool under_way(const struct order *o)
{
	AUTO_JSON json_t *journal = live_journal(o->d, o->uuid);

	return o->c || (journal && str_eq(json_get_str(journal, MIGRATE_SESSION, ""), o->session));
}

/* Before "no" is said, its QEMU is ended, so that the disks are free where they are shared. */
static void order_settle(struct order *o)
{
	struct err err = {0};

	if (arrive_granted(o->d, o->session)) {
		reply_granted(o->req, true);
		return;
	}
	if (o->c && o->c->live->arriving->waiting) {
		arrive_unwatch(o->c);
		change_fail(o->c, err_set(&err, ECANCELED, "the other side ended it"), &err);
		reply_error(o, EBUSY, "it is being ended");
		return;
	}
	if (under_way(o))
		reply_error(o, EBUSY, "it is being ended");
	else
		reply_granted(o->req, false);
}

/* The journal of its arrival is read by that record: it goes first. */
static void order_forget(struct order *o)
{
	if (under_way(o)) {
		reply_error(o, EBUSY, "its arrival is not through yet");
		return;
	}
	arrive_forget(o->d, o->session);
	reply_granted(o->req, true);
}

static const struct {
	const char *name;
	void (*run)(struct order *o);
} orders[] = {
	{"switch", order_switch},
	{"grant", order_grant},
	{"settle", order_settle},
	{"forget", order_forget},
};

static struct change *on_its_way(struct vmadmd *d, const char *uuid, const char *session)
{
	for (struct change *c = d->changes; c; c = c->next) {
		const struct arriving *a = c->live ? c->live->arriving : NULL;

		if (a && str_eq(c->uuid, uuid) && str_eq(a->session, session))
			return c;
	}
	return NULL;
}

void handle_arrive_order(struct http_request *req, void *ctx)
{
	struct vmadmd *d = ctx;
	const char *name = http_param(req, "order");
	AUTO_JSON json_t *body = NULL;
	struct order o = {.d = d, .req = req};
	struct err err = {0};
	size_t len, i = 0;
	const char *text = http_body_text(req, &len);
	int r = auth_check(http_peer(req), NULL, true, "send VMs here", &err);

	while (i < ARRAY_SIZE(orders) && !str_eq(orders[i].name, name))
		i++;
	if (r == 0 && i == ARRAY_SIZE(orders))
		r = err_set(&err, ENOENT,
			    "unknown order '%.40s' (want switch, grant, settle or forget)", name);
	if (r == 0)
		r = json_parse_object(text, len, "body", &body, &err);
	o.session = json_get_str(body, "session", "");
	o.uuid = json_get_str(body, "uuid", "");
	if (r == 0 && (!uuid_valid(o.session) || !uuid_valid(o.uuid)))
		r = err_set(&err, EINVAL, "uuid, session: want a uuid each");
	if (r < 0) {
		http_reply_err(req, r, &err);
		return;
	}
	o.c = on_its_way(d, o.uuid, o.session);
	orders[i].run(&o);
}

/* --- cut short --- */

static bool granted(const struct change *c)
{
	return arrive_granted(c->d, json_get_str(c->live->journal, MIGRATE_SESSION, ""));
}

static void on_going(struct change *c, int r, const json_t *value, const struct err *err)
{
	if (r < 0) {
		change_fail(c, r, err); /* again, later */
		return;
	}
	migrate_capabilities_off(c);
	change_next(c);
}

/* The record came first: it is ours, and goes on. */
static int go_on(struct change *c, struct err *err)
{
	if (!granted(c))
		return 0;
	c->live->undone = true;
	return c->live->running ? live_try(c, "cont", NULL, -1, on_going, err) : 0;
}

static int settled(struct change *c, struct err *err)
{
	return granted(c) ? live_step_unmark(c, err) : 0;
}

/* Its QEMU ended with its memory: it starts anew from its disks. */
static int start_anew(struct change *c, struct err *err)
{
	if (!c->live->undone)
		return 0;
	if (c->guest_lock >= 0)
		(void)close(c->guest_lock);
	c->guest_lock = -1;
	return c->live->running ? STEP_LAST : live_vm_start(c);
}

static int ours(struct change *c, struct err *err)
{
	return c->live->undone ? STEP_LAST : 0;
}

static int end_qemu(struct change *c, struct err *err)
{
	if (c->guest_lock >= 0)
		(void)close(c->guest_lock);
	c->guest_lock = -1;
	return c->live->running ? live_vm_stop(c) : 0;
}

static int old(struct change *c, struct err *err)
{
	const struct catalog_entry *e = change_entry(c, err);

	if (!e)
		return -ENOENT;
	c->old = vm_copy(e->vm);
	return 0;
}

static int remove_images(struct change *c, struct err *err)
{
	arrive_remove_images(json_object_get(c->live->journal, "images"));
	return 0;
}

static int images(struct change *c, struct err *err)
{
	return change_work(c, remove_images, NULL, err);
}

static int tell(struct change *c, struct err *err)
{
	c->live->marked = false;
	log_info("vm=%s %s", c->uuid,
		 c->live->undone ? "arrived" : "did not arrive: nothing of it is left here");
	return 0;
}

static const change_step back_steps[] = {
	live_step_lock, go_on,      settled,         start_anew,  ours,          end_qemu,
	step_lock,      old,        step_guest_lock, images,      delete_mark,   delete_announce,
	step_seen,      step_begin, delete_store,    step_commit, delete_forget, step_seen,
	tell,
};

const struct change_kind change_arrive_back = {"arrive", back_steps, ARRAY_SIZE(back_steps), NULL,
					       live_undo};
