/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single changes of a VM's hardware, for people and programs that think in verbs: attach, detach,
 * resize, medium. Each becomes an update (update.c): one change of the definition and of the
 * machine, if it runs; here only the body is read and the element found.
 */
#include "vmadmd/live/operate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "vmadmd/change/change.h"
#include "vmadmd/change/update.h"
#include "vmadmd/guest.h"

#define WORD_MAX 1024

struct operation {
	struct vmadmd *d;
	struct http_request *req;
	struct target target;
	json_t *body; /* owned */
	const char *command;
	struct update_how *how;
};

static bool refuse(struct operation *op, int r, const struct err *err)
{
	http_reply_err(op->req, r, err);
	json_decref(op->body);
	update_how_free(op->how);
	return false;
}

static bool begin(struct operation *op, struct http_request *req, void *ctx, const char *command)
{
	struct err err = {0};
	size_t len;
	const char *text = http_body_text(req, &len);
	int r;

	*op = (struct operation){.d = ctx, .req = req, .command = command};
	if (!target_find(op->d, req, true, &op->target))
		return false;
	op->how = xcalloc(1, sizeof(*op->how));
	r = json_parse_object(text, len, "body", &op->body, &err);
	if (r == 0 && !op->target.vm)
		r = err_set(&err, ENOENT, "VM %s has no definition any more", op->target.uuid);
	return r < 0 ? refuse(op, r, &err) : true;
}

static void update(struct operation *op, json_t *payload)
{
	const struct change_by by = {.uid = op->target.uid, .command = op->command};

	json_decref(op->body);
	change_update_how(op->d, op->req, op->target.uuid, payload, &by, op->how);
}

/* The one member of the body among two, "disk" or "nic". */
static const json_t *one_of(struct operation *op, bool *ret_nic, struct err *err)
{
	const json_t *disk = json_object_get(op->body, "disk");
	const json_t *nic = json_object_get(op->body, "nic");

	*ret_nic = nic != NULL;
	if (!disk == !nic)
		err_set(err, EINVAL, "body: want either disk or nic");
	return !disk == !nic ? NULL : disk ? disk : nic;
}

/* A disk that is there already needs no nocreate: its path says so. */
static json_t *as_added(const json_t *disk)
{
	json_t *copy = json_copy((json_t *)disk);

	if (json_object_get(copy, "path") && !json_object_get(copy, "size") &&
	    !json_object_get(copy, "image") && !json_object_get(copy, "nocreate"))
		json_put_bool(copy, "nocreate", true);
	return copy;
}

void handle_attach(struct http_request *req, void *ctx)
{
	struct operation op;
	struct err err = {0};
	const json_t *one;
	json_t *added;
	bool nic;

	if (!begin(&op, req, ctx, "vmadm attach"))
		return;
	one = one_of(&op, &nic, &err);
	if (one && !json_is_object(one)) {
		err_set(&err, EINVAL, "body.%s: want an object", nic ? "nic" : "disk");
		one = NULL;
	}
	if (!one) {
		(void)refuse(&op, -EINVAL, &err);
		return;
	}
	added = nic ? json_deep_copy(one) : as_added(one);
	update(&op, json_pack("{s:[o]}", nic ? "add_nics" : "add_disks", added));
}

/* --- elements by name, or by what identifies them --- */

static const struct disk *find_disk(const struct operation *op, const char *word, struct err *err)
{
	const struct vm *vm = op->target.vm;

	for (size_t i = 0; i < vm->ndisks; i++) {
		if (str_eq(vm->disks[i]->path, word) || str_eq(vm->disks[i]->name, word))
			return vm->disks[i];
	}
	err_set(err, ENOENT, "VM %s has no disk '%.300s' (want a name or a path)", vm->uuid, word);
	return NULL;
}

static const struct nic *find_nic(const struct operation *op, const char *word, struct err *err)
{
	const struct vm *vm = op->target.vm;

	for (size_t i = 0; i < vm->nnics; i++) {
		const struct nic *n = vm->nics[i];

		if (strcasecmp(n->mac ? n->mac : "", word) == 0 || str_eq(n->name, word) ||
		    str_eq(n->interface, word))
			return n;
	}
	err_set(err, ENOENT, "VM %s has no NIC '%.300s' (want a MAC, a name or an interface)",
		vm->uuid, word);
	return NULL;
}

static const char *key_of(const struct operation *op, const json_t *word, bool nic, struct err *err)
{
	const char *text = json_string_value(word);
	const struct disk *d;
	const struct nic *n;

	if (!text) {
		err_set(err, EINVAL, "body.%s: want a string", nic ? "nic" : "disk");
		return NULL;
	}
	if (nic) {
		n = find_nic(op, text, err);
		return n ? n->mac : NULL;
	}
	d = find_disk(op, text, err);
	if (d && !d->path)
		err_set(err, EINVAL, "drive '%s' is empty and stays (want a disk)", d->name);
	return d ? d->path : NULL;
}

void handle_detach(struct http_request *req, void *ctx)
{
	struct operation op;
	struct err err = {0};
	const json_t *one;
	const char *key;
	bool nic;

	if (!begin(&op, req, ctx, "vmadm detach"))
		return;
	one = one_of(&op, &nic, &err);
	key = one ? key_of(&op, one, nic, &err) : NULL;
	if (!key) {
		(void)refuse(&op, -err.code, &err);
		return;
	}
	update(&op, json_pack("{s:[s]}", nic ? "remove_nics" : "remove_disks", key));
}

void handle_resize(struct http_request *req, void *ctx)
{
	struct operation op;
	struct err err = {0};
	json_t *size;
	const char *path;

	if (!begin(&op, req, ctx, "vmadm resize-disk"))
		return;
	path = key_of(&op, json_object_get(op.body, "disk"), false, &err);
	size = json_object_get(op.body, "size");
	if (path && !size)
		err_set(&err, EINVAL, "body.size: missing (want MiB, or text such as \"20G\")");
	if (!path || !size) {
		(void)refuse(&op, -err.code, &err);
		return;
	}
	update(&op, json_pack("{s:[{s:s,s:O}]}", "update_disks", "path", path, "size", size));
}

void handle_medium(struct http_request *req, void *ctx)
{
	struct operation op;
	struct err err = {0};
	const char *path;

	if (!begin(&op, req, ctx, "vmadm medium"))
		return;
	path = json_get_str(op.body, "path", NULL);
	if (path && (*path != '/' || strlen(path) > WORD_MAX)) {
		err_set(&err, EINVAL, "body.path: '%.100s' is not an absolute path", path);
		(void)refuse(&op, -EINVAL, &err);
		return;
	}
	op.how->drive = xstrdup(json_get_str(op.body, "disk", ""));
	op.how->medium = path ? xstrdup(path) : NULL;
	op.how->force = json_get_bool(op.body, "force", false);
	update(&op, json_object());
}
