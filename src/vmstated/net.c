/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop's side of guests' networks: plans for the worker, one at a time per guest, and what
 * follows their end. The rules in force are kept as net.nft in the run directory, so that a later
 * vmstated knows whether they still are what the definition asks for.
 */
#include "vmstated/net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "vmstated/filter.h"
#include "vmstated/hardware.h"
#include "vmstated/net_private.h"
#include "vmstated/parts.h"
#include "vmstated/snoop.h"
#include "vmstated/worker.h"

#define RULES     "net.nft"
#define RULES_MAX (1u << 20)

enum net_work { NET_NOTHING, NET_PREPARE, NET_RELEASE, NET_CHANGE };

struct net {
	struct guest *guest;
	struct child *job;
	enum net_work doing, next;
	bool stop_waits;
	bool plugged;    /* since the start */
	int reply;       /* our end of the worker's socket, -1 */
	char *rules;     /* in force */
	char *new_rules; /* of the job */
	int taps[VM_NICS_MAX];
};

static void start(struct net *n, enum net_work what);

static struct net *net_of(struct guest *g)
{
	struct net *n = g->net;

	if (!n) {
		n = xcalloc(1, sizeof(*n));
		n->guest = g;
		n->reply = -1;
		for (size_t i = 0; i < ARRAY_SIZE(n->taps); i++)
			n->taps[i] = -1;
		g->net = n;
	}
	return n;
}

static void close_taps(struct net *n)
{
	for (size_t i = 0; i < ARRAY_SIZE(n->taps); i++) {
		if (n->taps[i] >= 0)
			(void)close(n->taps[i]);
		n->taps[i] = -1;
	}
	if (n->reply >= 0)
		(void)close(n->reply);
	n->reply = -1;
}

/* --- what a guest has --- */

/* The NIC whose tap is ours to make; NULL: user-mode, or a hook's tap, or a configfile's. */
static const struct nic *our_nic(const struct guest *g, size_t i)
{
	const struct vm *vm = guest_vm(g);

	if (g->bhyve || !vm || i >= vm->nnics || vm->nics[i]->tap ||
	    str_eq(vm->nics[i]->nic_tag, "user"))
		return NULL;
	return vm->nics[i];
}

static bool has_ours(const struct guest *g)
{
	bool any = false;

	for (size_t i = 0; i < VM_NICS_MAX; i++)
		any = any || our_nic(g, i);
	return any;
}

/* --- plans --- */

json_t *net_plan_nic(const char *tap, size_t i, const struct nic *n)
{
	json_t *j = json_object();

	json_put_int(j, "index", (json_int_t)i);
	json_put_str(j, "tap", tap);
	if (!n)
		return j;
	json_put_str(j, "bridge", n->nic_tag);
	json_put_str(j, "mac", n->mac);
	json_put_int(j, "mtu", n->mtu);
	json_put_int(j, "vlan_id", n->vlan_id);
	json_put_int(j, "in", n->bandwidth_in_kbit);
	return j;
}

void net_rules(struct strbuf *sb, const char *tap, const struct nic *n)
{
	if (n->bandwidth_in_kbit) /* no rule, but part of what is in force */
		strbuf_printf(sb, "# %s receives at most %u kbit/s\n", tap, n->bandwidth_in_kbit);
	filter_nic(sb, tap, n);
}

/* The rules of all NICs; list gets an item for each, if it is not NULL. */
static char *plan_rules(const struct guest *g, json_t *list, bool all)
{
	struct strbuf sb = {0};

	strbuf_puts(&sb, "");
	for (size_t i = 0; i < VM_NICS_MAX; i++) {
		const struct nic *n = our_nic(g, i);
		char tap[NIC_TAP_MAX];

		if (!hardware_tap(g, i, tap) || (!n && !all))
			continue;
		if (list)
			(void)json_array_append_new(list, net_plan_nic(tap, i, n));
		if (!n)
			continue;
		net_rules(&sb, tap, n);
	}
	return strbuf_steal(&sb);
}

/* What is known of leases the new rules may not have seen: somebody flushed those before. */
static void add_leases(struct strbuf *sb, const struct guest *g)
{
	for (size_t i = 0; i < VM_NICS_MAX; i++) {
		const struct nic *n = our_nic(g, i);
		char tap[NIC_TAP_MAX];

		if (n && hardware_tap(g, i, tap))
			snoop_known(g, i, tap, n, sb);
	}
}

/* The taps are there: listen where addresses are learned. */
static void listen_on_taps(struct guest *g)
{
	for (size_t i = 0; i < VM_NICS_MAX; i++) {
		const struct nic *n = our_nic(g, i);
		char tap[NIC_TAP_MAX] = "";

		snoop_nic(g, i, tap, n && hardware_tap(g, i, tap) ? n : NULL);
	}
}

static json_t *plan_of(struct net *n, enum net_work what)
{
	json_t *plan = json_object(), *list = json_array();
	AUTO_STRBUF struct strbuf rules = {0};

	replace_str(&n->new_rules, NULL);
	if (what == NET_RELEASE) {
		for (size_t i = 0; i < VM_NICS_MAX; i++) {
			char tap[NIC_TAP_MAX];

			if (our_nic(n->guest, i) && hardware_tap(n->guest, i, tap))
				(void)json_array_append_new(list, json_string(tap));
		}
		(void)json_object_set_new(plan, "remove", list);
		json_put_bool(plan, "audit", n->plugged);
		n->plugged = false;
		return plan;
	}
	n->new_rules = plan_rules(n->guest, list, what == NET_PREPARE);
	(void)json_object_set_new(plan, what == NET_PREPARE ? "make" : "shape", list);
	strbuf_puts(&rules, n->new_rules);
	add_leases(&rules, n->guest);
	if (*rules.data)
		json_put_str(plan, "nft", rules.data);
	return plan;
}

/* --- ends of jobs --- */

void net_receive(int reply, int *taps)
{
	for (;;) {
		union {
			struct cmsghdr head;
			char bytes[CMSG_SPACE(sizeof(int))];
		} control;
		uint32_t index;
		struct iovec io = {.iov_base = &index, .iov_len = sizeof(index)};
		struct msghdr m = {.msg_iov = &io,
				   .msg_iovlen = 1,
				   .msg_control = &control,
				   .msg_controllen = sizeof(control)};
		ssize_t got = recvmsg(reply, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

		if (got != sizeof(index) || index >= VM_NICS_MAX || !CMSG_FIRSTHDR(&m))
			break;
		memcpy(&taps[index], CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
	}
}

/* Taps the worker sent; -EPROTO when the plan asked for more. */
static int receive_taps(struct net *n, struct err *err)
{
	char tap[NIC_TAP_MAX];

	net_receive(n->reply, n->taps);
	for (size_t i = 0; i < VM_NICS_MAX; i++) {
		if (hardware_tap(n->guest, i, tap) && n->taps[i] < 0)
			return err_set(err, EPROTO, "nics[%zu]: tap interface %s did not come", i,
				       tap);
	}
	return 0;
}

static void keep_rules(struct net *n)
{
	AUTO_FREE char *path = path_of_run(&n->guest->sup->paths, n->guest->uuid, RULES);
	struct err err = {0};

	replace_str(&n->rules, steal_ptr(n->new_rules));
	if (file_write(path, n->rules, strlen(n->rules), 0600, FILE_NO_SYNC, &err) < 0)
		log_warn("vm=%s %s", n->guest->uuid, err.msg);
}

static void prepared(struct net *n, int r, struct err *err)
{
	struct guest *g = n->guest;

	if (r == 0)
		r = receive_taps(n, err);
	if (n->reply >= 0)
		(void)close(n->reply);
	n->reply = -1;
	if (r < 0) {
		launch_failed(g, err);
		return;
	}
	if (has_ours(g))
		keep_rules(n);
	listen_on_taps(g);
	launch_ready(g);
}

static void released(struct net *n, int r, const struct err *err)
{
	struct guest *g = n->guest;

	if (r < 0)
		log_warn("vm=%s its network was not cleared: %s", g->uuid, err->msg);
	replace_str(&n->rules, NULL);
	if (n->next == NET_NOTHING && n->stop_waits && g->state == SUP_STOP_NETWORK) {
		n->stop_waits = false;
		(void)guest_dispatch(g, EV_HOOK_DONE, NULL);
	}
}

static void changed(struct net *n, int r, const struct err *err)
{
	struct guest *g = n->guest;

	if (r < 0) {
		log_warn("vm=%s its network was not changed: %s", g->uuid, err->msg);
		guestlog_printf(g, "vmstated", "network not changed: %s", err->msg);
		return;
	}
	keep_rules(n);
	listen_on_taps(g);
	guestlog_printf(g, "vmstated", "network filter and limits changed");
}

static void job_done(void *ctx, const struct child_exit *how, const char *out, const char *errors)
{
	struct net *n = ctx;
	enum net_work did = n->doing, next = n->next;
	struct err err = {0};
	int r = worker_result(how, errors, &err);

	n->job = NULL;
	n->doing = n->next = NET_NOTHING;
	if (next != NET_NOTHING && did == NET_RELEASE) {
		start(n, next);
		return;
	}
	switch (did) {
	case NET_PREPARE:
		prepared(n, r, &err);
		break;
	case NET_RELEASE:
		released(n, r, &err);
		break;
	case NET_CHANGE:
		changed(n, r, &err);
		if (next != NET_NOTHING)
			start(n, next);
		break;
	case NET_NOTHING:
		break;
	}
}

static int start_job(struct net *n, enum net_work what, struct err *err)
{
	AUTO_JSON json_t *plan = plan_of(n, what);
	AUTO_FD int theirs = -1;
	int pair[2];

	if (what == NET_PREPARE) {
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
			return err_sys(err, errno, "cannot make a socket for taps");
		n->reply = pair[0];
		theirs = pair[1];
	}
	return worker_run(n->guest->sup->event, plan, theirs, job_done, n, &n->job, err);
}

static void start(struct net *n, enum net_work what)
{
	struct guest *g = n->guest;
	struct err err = {0};

	if (n->job || (what == NET_PREPARE && g->sup->net_audit)) {
		n->next = what;
		return;
	}
	if (start_job(n, what, &err) == 0) {
		n->doing = what;
		return;
	}
	log_warn("vm=%s %s", g->uuid, err.msg);
	if (what == NET_PREPARE)
		prepared(n, -EIO, &err);
}

/* --- for the rest of vmstated --- */

/* Two NICs of one address in one network would both be cut off, again and again. */
int net_check_mac(const struct guest *g, size_t i, const struct nic *n, struct err *err)
{
	for (const struct guest *o = g->sup->guests; o; o = o->next) {
		for (size_t k = 0; o != g && o->pid > 0 && k < VM_NICS_MAX; k++) {
			const struct nic *theirs = our_nic(o, k);

			if (theirs && str_eq(theirs->nic_tag, n->nic_tag) &&
			    theirs->vlan_id == n->vlan_id && str_eq(theirs->mac, n->mac))
				return err_set(err, EADDRINUSE,
					       "nics[%zu].mac: %s is in use by %s on %s (give one "
					       "of them another mac)",
					       i, n->mac, o->name, n->nic_tag);
		}
	}
	return 0;
}

static int check_macs(const struct guest *g, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < VM_NICS_MAX && r == 0; i++) {
		const struct nic *n = our_nic(g, i);

		r = n ? net_check_mac(g, i, n, err) : 0;
	}
	return r;
}

void net_prepare(struct guest *g)
{
	struct err err = {0};
	char tap[NIC_TAP_MAX];

	if (check_macs(g, &err) < 0) {
		launch_failed(g, &err);
		return;
	}

	for (size_t i = 0; i < VM_NICS_MAX; i++) {
		if (hardware_tap(g, i, tap)) {
			start(net_of(g), NET_PREPARE);
			return;
		}
	}
	launch_ready(g);
}

void net_take(struct guest *g, int *taps)
{
	for (size_t i = 0; i < VM_NICS_MAX; i++)
		taps[i] = g->net ? steal_fd(&g->net->taps[i]) : -1;
}

void net_release(struct guest *g)
{
	net_plug_end(g);
	snoop_stop(g);
	if (g->net)
		close_taps(g->net);
	if (has_ours(g) || (g->net && g->net->plugged))
		start(net_of(g), NET_RELEASE);
}

bool net_wait(struct guest *g)
{
	if (!g->net || !g->net->job)
		return false;
	g->net->stop_waits = true;
	return true;
}

void net_change(struct guest *g)
{
	AUTO_FREE char *rules = NULL;

	if (g->pid <= 0 || !g->started || !has_ours(g))
		return;
	rules = plan_rules(g, NULL, false);
	if (!str_eq(rules, net_of(g)->rules))
		start(g->net, NET_CHANGE);
}

void net_plugged(struct guest *g)
{
	net_of(g)->plugged = true;
}

void net_applied(struct guest *g)
{
	struct net *n = net_of(g);

	if (n->job) {
		start(n, NET_CHANGE);
		return;
	}
	replace_str(&n->new_rules, plan_rules(g, NULL, false));
	keep_rules(n);
	listen_on_taps(g);
}

void net_adopt(struct guest *g)
{
	AUTO_FREE char *path = path_of_run(&g->sup->paths, g->uuid, RULES);

	if (!has_ours(g))
		return;
	(void)file_read(path, RULES_MAX, &net_of(g)->rules, NULL, NULL, NULL);
	listen_on_taps(g);
	net_change(g);
}

void net_renew(struct supervisor *sup)
{
	for (struct guest *g = sup->guests; g; g = g->next) {
		if (g->pid > 0 && g->started && has_ours(g))
			start(net_of(g), NET_CHANGE);
	}
}

void net_free(struct guest *g)
{
	struct net *n = g->net;

	net_plug_free(g);
	snoop_stop(g);
	if (!n)
		return;
	if (n->job)
		child_forget(n->job);
	close_taps(n);
	free(n->rules);
	free(n->new_rules);
	free(n);
	g->net = NULL;
}

/* --- the whole host --- */

static void audited(void *ctx, const struct child_exit *how, const char *out, const char *errors)
{
	struct supervisor *sup = ctx;
	struct err err = {0};

	sup->net_audit = NULL;
	if (worker_result(how, errors, &err) < 0)
		log_warn("network not audited: %s", err.msg);
	if (out[0])
		log_info("filters without their taps removed: %.200s", out);
	for (struct guest *g = sup->guests; g; g = g->next) {
		struct net *n = g->net;

		if (n && !n->job && n->next == NET_PREPARE) {
			n->next = NET_NOTHING;
			start(n, NET_PREPARE);
		}
	}
}

void net_audit(struct supervisor *sup)
{
	AUTO_JSON json_t *plan = json_pack("{s:b}", "audit", true);
	struct err err = {0};

	if (geteuid() != 0) /* nothing of ours can be there */
		return;
	if (worker_run(sup->event, plan, -1, audited, sup, &sup->net_audit, &err) < 0)
		log_warn("network not audited: %s", err.msg);
}

void net_audit_free(struct supervisor *sup)
{
	if (sup->net_audit)
		child_forget(sup->net_audit);
	sup->net_audit = NULL;
}

bool net_busy(const struct supervisor *sup)
{
	bool busy = sup->net_audit != NULL;

	for (const struct guest *g = sup->guests; g; g = g->next)
		busy = busy || g->plug || snoop_busy(g) ||
		       (g->net && (g->net->job || g->net->next != NET_NOTHING));
	return busy;
}
