/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a start would do: the routes that tell what is pending, and the arguments QEMU would
 * be given, built by the same pure function as those of a start. Nothing is made or opened:
 * descriptors are numbers as a start would use them, and a disk that is not there yet has the
 * format it would get.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "net/http.h"
#include "qemu/bhyve.h"
#include "qemu/image.h"
#include "store/started.h"
#include "vmstated/hardware.h"
#include "vmstated/parts.h"
#include "vmstated/routes.h"

#define FIRST_FD  3
#define FIRST_TAP 8

struct dryrun {
	struct supervisor *sup;
	struct http_request *req;
	struct vm *vm;
};

static void dryrun_free(struct dryrun *d)
{
	vm_free(d->vm);
	free(d);
}

static void settle_formats(struct vm *vm)
{
	struct image_info info;

	for (size_t i = 0; i < vm->ndisks; i++) {
		struct disk *d = vm->disks[i];

		if (d->format != FORMAT_AUTO || !d->path)
			continue;
		if (image_probe(d->path, &info, NULL) == 0)
			d->format = info.format == IMAGE_QCOW2 ? FORMAT_QCOW2 : FORMAT_RAW;
		else
			d->format = FORMAT_QCOW2;
	}
}

static void imagine_fds(const struct vm *vm, const struct bhyve *bhyve, struct qemu_fds *ret)
{
	size_t consoles = hardware_consoles_of(vm, bhyve);

	*ret = (struct qemu_fds){.mon = FIRST_FD,
				 .qmp = FIRST_FD + 1,
				 .ttya = consoles > 0 ? FIRST_FD + 2 : -1,
				 .ttyb = consoles > 1 ? FIRST_FD + 3 : -1,
				 .agent = bhyve ? -1 : FIRST_FD + 5,
				 .lock = FIRST_FD + 4};
	for (size_t i = 0; i < ARRAY_SIZE(ret->taps); i++) {
		char name[NIC_TAP_MAX];
		bool tap = i < vm->nnics && vm_nic_tap(vm, vm->nics[i], name);

		ret->taps[i] = tap ? FIRST_TAP + (int)i : -1;
	}
}

static int build(struct dryrun *d, struct argv *ret, struct err *err)
{
	AUTO_FREE char *template = d->vm->bootrom ? qemu_vars_template(d->vm->bootrom) : NULL;
	AUTO_FREE char *vars = path_of_nvram(&d->sup->paths, d->vm->uuid, d->vm->nvram);
	AUTO_PROBLEMS struct problems p = {0};
	struct bhyve *bhyve = NULL;
	struct qemu_fds fds;
	int r;

	if (d->vm->configfile && bhyve_load(d->vm->configfile, d->vm, &bhyve, &p) < 0)
		return problems_to_err(&p, err);
	imagine_fds(d->vm, bhyve, &fds);
	fds.vars = template ? vars : NULL;
	settle_formats(d->vm);
	r = bhyve ? bhyve_argv(bhyve, d->vm, &d->sup->caps, &fds, ret, err)
		  : qemu_argv(d->vm, &d->sup->caps, &fds, ret, err);
	bhyve_free(bhyve);
	return r;
}

static json_t *answer_of(const struct argv *argv)
{
	AUTO_FREE char *text = argv_text(argv);
	json_t *list = json_array();

	for (size_t i = 0; i < argv->count; i++)
		(void)json_array_append_new(list, json_string(argv->items[i]));
	return json_pack("{s:o, s:s}", "argv", list, "text", text);
}

static void on_known(void *ctx)
{
	struct dryrun *d = ctx;
	AUTO_JSON json_t *out = NULL;
	struct argv argv = {0};
	struct err err = {0};
	int r = d->sup->caps_known ? build(d, &argv, &err)
				   : err_set(&err, EIO, "%s", d->sup->caps_error);

	if (r < 0) {
		http_reply_err(d->req, r, &err);
	} else {
		out = answer_of(&argv);
		http_reply_json(d->req, 200, out);
	}
	argv_done(&argv);
	dryrun_free(d);
}

static void on_gone(struct http_request *req, void *ctx)
{
	struct dryrun *d = ctx;

	accel_forget(d->sup, d);
	dryrun_free(d);
}

void dryrun_reply(struct supervisor *sup, struct http_request *req, struct vm *vm)
{
	struct dryrun *d = xcalloc(1, sizeof(*d));

	*d = (struct dryrun){.sup = sup, .req = req, .vm = vm};
	http_on_gone(req, on_gone, d);
	accel_when_known(sup, on_known, d);
}

/* --- what is pending --- */

struct pending {
	struct supervisor *sup;
	struct http_request *req;
	char uuid[UUID_LEN + 1];
};

/* {"running","installed","changes"}: of QEMU; what is not known is left out. */
static json_t *qemu_object(const struct guest *g)
{
	AUTO_JSON json_t *installed = accel_installed(g->sup), *facts = NULL;
	AUTO_VM struct vm *vm = NULL;
	const json_t *running = NULL;
	json_t *out = json_object();

	if (g->pid > 0 && started_read(&g->sup->paths, g->uuid, &vm, &facts, NULL) == 0)
		running = json_object_get(facts, "qemu");
	json_put_str(out, "running", json_get_str(running, "version", NULL));
	json_put_str(out, "installed", json_get_str(installed, "version", NULL));
	if (running && installed)
		json_put_bool(out, "changes", !json_equal(running, installed));
	return out;
}

static void on_pending(void *ctx)
{
	struct pending *p = ctx;
	AUTO_JSON json_t *j = NULL;
	struct err err = {0};
	struct guest *g = guest_by_uuid(p->sup, p->uuid);

	if (!g) {
		err_set(&err, ENOENT, "VM %s is gone", p->uuid);
		http_reply_err(p->req, -ENOENT, &err);
		free(p);
		return;
	}
	j = json_pack("{s:s, s:b, s:o, s:o}", "uuid", g->uuid, "running", g->pid > 0, "pending",
		      guest_pending(g), "qemu", qemu_object(g));
	if (g->once && g->pid > 0)
		(void)json_object_set(j, "once", g->once);
	http_reply_json(p->req, 200, j);
	free(p);
}

static void on_pending_gone(struct http_request *req, void *ctx)
{
	struct pending *p = ctx;

	accel_forget(p->sup, p);
	free(p);
}

/* Old and new values may be secrets: for those who may start it. */
void route_pending(struct http_request *req, void *ctx)
{
	struct pending *p;
	struct err err = {0};
	struct guest *g;
	int r = supervisor_find(ctx, http_param(req, "id"), &g, &err);

	if (r < 0) {
		http_reply_err(req, r, &err);
		return;
	}
	if (routes_refused(ctx, req, g))
		return;
	p = xcalloc(1, sizeof(*p));
	*p = (struct pending){.sup = ctx, .req = req};
	memcpy(p->uuid, g->uuid, sizeof(p->uuid));
	http_on_gone(req, on_pending_gone, p);
	accel_when_known(p->sup, on_pending, p);
}

/* The arguments of a VM that does not exist yet, from its object. */
void route_argv(struct http_request *req, void *ctx)
{
	struct supervisor *sup = ctx;
	AUTO_PROBLEMS struct problems ignored = {0}; /* it was judged by who asks */
	AUTO_JSON json_t *body = NULL;
	AUTO_FREE char *data = NULL;
	const json_t *object;
	struct err err = {0};
	size_t len;
	const char *text = http_body_text(req, &len);
	int r;

	if (routes_refused(sup, req, NULL))
		return;
	r = json_parse_object(text, len, "body", &body, &err);
	object = json_object_get(body, "vm");
	if (r == 0 && (!json_is_object(object) || !uuid_valid(json_get_str(object, "uuid", ""))))
		r = err_set(&err, EINVAL, "body.vm: want a VM object with a uuid");
	if (r < 0) {
		http_reply_err(req, r, &err);
		return;
	}
	data = path_of_data(&sup->paths, json_get_str(object, "uuid", ""), NULL);
	dryrun_reply(sup, req, vm_from_object(object, data, &ignored));
}
