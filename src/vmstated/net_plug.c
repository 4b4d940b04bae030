/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NICs of a running machine. The device is vmadmd's; the host's side of it and the back end are
 * made here: QEMU knows a descriptor only on the monitor it came by, and taps are made in one
 * place. In: worker (tap, filter, bridge), getfd, netdev_add, answer. Out: netdev_del, worker,
 * answer. Whatever fails, and whoever asked and is gone by then, nothing of it stays.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "net/http.h"
#include "qemu/qmp.h"
#include "vmstated/net.h"
#include "vmstated/net_private.h"
#include "vmstated/parts.h"
#include "vmstated/routes.h"
#include "vmstated/worker.h"

#define QMP_MS 5000u

struct plug {
	struct guest *g;
	struct http_request *req; /* NULL: whoever asked is gone */
	struct child *job;
	int reply;      /* our end of the worker's socket, -1 */
	json_t *netdev; /* arguments of netdev_add */
	struct vm *vm;  /* as it is to be, or was */
	const struct nic *nic;
	char tap[NIC_TAP_MAX];
	bool ours; /* we made the tap: it has a filter */
	int r;     /* what is to be told when all is taken away */
	struct err why;
};

static void plug_free(struct plug *p)
{
	if (p->g)
		p->g->plug = NULL;
	if (p->job)
		child_forget(p->job);
	if (p->reply >= 0)
		(void)close(p->reply);
	json_decref(p->netdev);
	vm_free(p->vm);
	free(p);
}

static void end(struct plug *p)
{
	AUTO_JSON json_t *out = json_pack("{s:s, s:s}", "mac", p->nic->mac, "tap", p->tap);

	if (p->req && p->r < 0)
		http_reply_err(p->req, p->r, &p->why);
	else if (p->req)
		http_reply_json(p->req, 200, out);
	plug_free(p);
}

/* --- away --- */

static void on_removed(void *ctx, const struct child_exit *how, const char *out, const char *errors)
{
	struct plug *p = ctx;
	struct err err = {0};

	p->job = NULL;
	if (worker_result(how, errors, &err) < 0)
		log_warn("network of tap %s was not cleared: %s", p->tap, err.msg);
	end(p);
}

/* The tap ends with its last descriptor, its filter does not. */
static void remove_filter(struct plug *p)
{
	AUTO_JSON json_t *plan = json_pack("{s:[s]}", "remove", p->tap);
	struct err err = {0};

	if (p->ours && worker_run(p->g->sup->event, plan, -1, on_removed, p, &p->job, &err) == 0)
		return;
	end(p);
}

static void fail(struct plug *p, int r, const struct err *why)
{
	p->r = r;
	p->why = *why;
	remove_filter(p);
}

/* --- in --- */

static void take_back(struct plug *p)
{
	AUTO_JSON json_t *args = json_pack("{s:s}", "id", json_get_str(p->netdev, "id", ""));

	(void)qmp_send(p->g->mon, "netdev_del", args, -1, QMP_MS, NULL, NULL);
	remove_filter(p);
}

static void on_added(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct plug *p = ctx;
	AUTO_JSON json_t *name = json_pack("{s:s}", "fdname", json_get_str(p->netdev, "fd", ""));

	if (r < 0) {
		if (p->g->mon)
			(void)qmp_send(p->g->mon, "closefd", name, -1, QMP_MS, NULL, NULL);
		fail(p, r, err);
	} else if (!p->req) {
		take_back(p); /* nobody will give it a device */
	} else {
		net_plugged(p->g);
		guestlog_printf(p->g, "vmstated", "network of %s (%s) is there", p->nic->mac,
				p->tap);
		end(p);
	}
}

static int add(struct plug *p, int tap)
{
	AUTO_JSON json_t *name = json_pack("{s:s}", "fdname", json_get_str(p->netdev, "fd", ""));
	struct qmp *mon = p->g->mon;
	int r = mon ? 0 : -ENOTCONN;

	if (r == 0)
		r = qmp_send(mon, "getfd", name, tap, QMP_MS, NULL, NULL);
	if (r == 0)
		r = qmp_send(mon, "netdev_add", p->netdev, -1, QMP_MS, on_added, p);
	return r;
}

static void on_made(void *ctx, const struct child_exit *how, const char *out, const char *errors)
{
	struct plug *p = ctx;
	int taps[VM_NICS_MAX], r;
	AUTO_FD int tap = -1;
	struct err err = {0};

	p->job = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(taps); i++)
		taps[i] = -1;
	r = worker_result(how, errors, &err);
	net_receive(p->reply, taps);
	for (size_t i = 0; i < ARRAY_SIZE(taps); i++) {
		if (taps[i] >= 0)
			tap = taps[i]; /* one was asked for */
	}
	if (r == 0 && tap < 0)
		r = err_set(&err, EPROTO, "tap interface %s did not come", p->tap);
	if (r == 0) {
		r = add(p, tap);
		if (r < 0)
			(void)err_sys(&err, -r, "QEMU of VM %s", p->g->uuid);
	}
	if (r < 0)
		fail(p, r, &err);
}

static int make(struct plug *p, size_t i, struct err *err)
{
	AUTO_JSON json_t *plan = json_object();
	AUTO_STRBUF struct strbuf rules = {0};
	AUTO_FD int theirs = -1;
	int pair[2];
	int r = p->ours ? net_check_mac(p->g, i, p->nic, err) : 0;

	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(err, errno, "cannot make a socket for taps");
	p->reply = pair[0];
	theirs = pair[1];
	json_object_set_new(plan, "make",
			    json_pack("[o]", net_plan_nic(p->tap, i, p->ours ? p->nic : NULL)));
	if (p->ours) {
		net_rules(&rules, p->tap, p->nic);
		json_put_str(plan, "nft", rules.data);
	}
	return worker_run(p->g->sup->event, plan, theirs, on_made, p, &p->job, err);
}

/* --- out --- */

static void on_deleted(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct plug *p = ctx;

	if (r < 0) {
		p->r = r; /* it is still in use: its filter stays */
		p->why = *err;
		end(p);
		return;
	}
	guestlog_printf(p->g, "vmstated", "network of %s (%s) is gone", p->nic->mac, p->tap);
	remove_filter(p);
}

static int drop(struct plug *p, size_t i, struct err *err)
{
	AUTO_JSON json_t *args = json_pack("{s:s}", "id", json_get_str(p->netdev, "id", ""));
	int r = qmp_send(p->g->mon, "netdev_del", args, -1, QMP_MS, on_deleted, p);

	return r < 0 ? err_sys(err, -r, "QEMU of VM %s", p->g->uuid) : 0;
}

/* --- requests --- */

static void on_gone(struct http_request *req, void *ctx)
{
	struct plug *p = ctx;

	p->req = NULL;
}

/* nics[*ret_index] is the one asked about. */
static int take_body(struct plug *p, json_t *body, size_t *ret_index, struct err *err)
{
	AUTO_PROBLEMS struct problems ignored = {0}; /* it was judged by who asks */
	AUTO_FREE char *data = path_of_data(&p->g->sup->paths, p->g->uuid, NULL);
	const char *mac = json_get_str(body, "mac", "");
	const json_t *vm = json_object_get(body, "vm");
	size_t i = 0;

	p->netdev = json_incref(json_object_get(body, "netdev"));
	if (!json_is_object(vm) || !str_eq(json_get_str(vm, "uuid", NULL), p->g->uuid))
		return err_set(err, EINVAL, "body.vm: want the object of VM %s", p->g->uuid);
	if (!json_is_object(p->netdev) || !json_get_str(p->netdev, "id", NULL) ||
	    !str_eq(json_get_str(p->netdev, "type", NULL), "tap") ||
	    !json_get_str(p->netdev, "fd", NULL))
		return err_set(err, EINVAL, "body.netdev: want type tap, id and fd");
	p->vm = vm_from_object(vm, data, &ignored);
	while (i < p->vm->nnics && !str_eq(p->vm->nics[i]->mac, mac))
		i++;
	if (i == p->vm->nnics || !vm_nic_tap(p->vm, p->vm->nics[i], p->tap))
		return err_set(err, EINVAL, "body.mac: '%.20s' is no NIC on a tap of this VM", mac);
	p->nic = p->vm->nics[i];
	p->ours = !p->nic->tap;
	*ret_index = i;
	return 0;
}

static int may_plug(const struct guest *g, struct err *err)
{
	if (!guest_is_up(g) || !g->mon || g->bhyve)
		return err_set(err, EBUSY, "VM %s does not run by a definition", g->name);
	if (g->plug)
		return err_set(err, EBUSY, "VM %s: another NIC is being plugged", g->name);
	return 0;
}

static void handle(struct http_request *req, void *ctx,
		   int (*begin)(struct plug *, size_t, struct err *))
{
	AUTO_JSON json_t *body = NULL;
	struct err err = {0};
	struct plug *p;
	struct guest *g;
	size_t i = 0;
	int r;

	if (routes_take(req, ctx, &g, &body) < 0)
		return;
	r = routes_for_vmadmd(req, &err);
	if (r == 0)
		r = may_plug(g, &err);
	if (r < 0) {
		http_reply_err(req, r, &err);
		return;
	}
	p = xcalloc(1, sizeof(*p));
	*p = (struct plug){.g = g, .req = req, .reply = -1};
	r = take_body(p, body, &i, &err);
	if (r == 0)
		r = begin(p, i, &err);
	if (r < 0) {
		http_reply_err(req, r, &err);
		plug_free(p);
		return;
	}
	g->plug = p;
	http_on_gone(req, on_gone, p);
}

void route_plug_nic(struct http_request *req, void *ctx)
{
	handle(req, ctx, make);
}

void route_unplug_nic(struct http_request *req, void *ctx)
{
	handle(req, ctx, drop);
}

void net_plug_free(struct guest *g)
{
	static const struct err gone = {ENOENT, "the VM is gone"};

	if (!g->plug)
		return;
	if (g->plug->req)
		http_reply_err(g->plug->req, -ENOENT, &gone);
	plug_free(g->plug);
}

void net_plug_end(struct guest *g)
{
	struct plug *p = g->plug;
	struct err err = {0};

	if (!p)
		return;
	/* What it waits for will not come any more. */
	if (p->job)
		child_forget(p->job);
	p->job = NULL;
	fail(p, err_set(&err, ECONNRESET, "VM %s stopped running", g->name), &err);
}
