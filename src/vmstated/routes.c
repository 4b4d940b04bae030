/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: routes, and who may. Answers that wait are in answer.c.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/status.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "net/http.h"
#include "qemu/qmp.h"
#include "store/catalog.h"
#include "vmstated/parts.h"
#include "vmstated/routes.h"

#define BUSY_MAX_MS 3600000

/* What a command asks for, from the body. */
struct command {
	struct supervisor *sup;
	struct guest *guest;
	json_t *body;
	char by[64];
	bool wait, force;
	bool admin; /* he for whom it is done */
};

/* --- requests --- */

bool routes_refused(struct supervisor *sup, struct http_request *req, const struct guest *g)
{
	const struct vm *vm = g ? guest_vm(g) : NULL;
	const struct sock_peer *peer = http_peer(req);
	struct err err = {0};

	if (peer &&
	    (vm ? sock_peer_may(peer, vm->owner_uid, vm->group_gid) : sock_peer_is_admin(peer)))
		return false;
	log_warn("refused uid=%d %s %s", peer ? (int)peer->uid : -1, http_method(req),
		 http_path(req));
	(void)err_set(&err, EPERM,
		      "uid %d may not do this to %s (root, its owner or its group may)",
		      peer ? (int)peer->uid : -1, g ? g->name : "the supervisor");
	http_reply_err(req, -EPERM, &err);
	return true;
}

static void who_asks(struct command *c, struct http_request *req)
{
	const struct sock_peer *peer = http_peer(req);
	const json_t *caller = json_object_get(c->body, "caller");
	json_int_t uid = peer->uid;

	if (json_is_object(caller) && sock_peer_is_admin(peer))
		uid = json_get_int(caller, "uid", uid);
	c->admin = uid == 0 || uid == (json_int_t)geteuid();
	(void)snprintf(c->by, sizeof(c->by), "%.40s, uid %lld",
		       json_get_str(caller, "command", "control socket"), (long long)uid);
}

int routes_for_vmadmd(struct http_request *req, struct err *err)
{
	return sock_peer_is_admin(http_peer(req))
		       ? 0
		       : err_set(err, EPERM, "only vmadmd and root tell what was plugged in");
}

struct guest *routes_guest(struct http_request *req, struct supervisor *sup)
{
	struct guest *g = NULL;
	struct err err = {0};
	int r = supervisor_find(sup, http_param(req, "id"), &g, &err);

	if (r < 0)
		http_reply_err(req, r, &err);
	return r < 0 ? NULL : g;
}

int routes_take(struct http_request *req, void *ctx, struct guest **ret, json_t **ret_body)
{
	size_t len;
	const char *text = http_body_text(req, &len);
	struct err err = {0};
	int r = supervisor_find(ctx, http_param(req, "id"), ret, &err);

	if (r == 0 && routes_refused(ctx, req, *ret))
		return -EPERM;
	if (r == 0)
		r = json_parse_object(len ? text : "{}", len ? len : 2, "body", ret_body, &err);
	if (r < 0)
		http_reply_err(req, r, &err);
	else
		guest_connect(*ret);
	return r;
}

/* The guest and body of a command; false: the request was answered. */
static bool take_command(struct command *c, struct http_request *req, void *ctx)
{
	*c = (struct command){.sup = ctx};
	if (routes_take(req, ctx, &c->guest, &c->body) < 0)
		return false;
	c->wait = json_get_bool(c->body, "wait", true);
	c->force = json_get_bool(c->body, "force", false);
	who_asks(c, req);
	return true;
}

/* Answer a command that r says was taken: when the goal is reached, or now. */
static void answer(struct command *c, struct http_request *req, int r, enum goal goal,
		   uint32_t zoneid, const struct err *err)
{
	if (r < 0) {
		http_reply_err(req, r, err);
	} else if (!c->wait) {
		AUTO_JSON json_t *j = json_pack("{s:s, s:s, s:b}", "uuid", c->guest->uuid, "name",
						c->guest->name, "accepted", 1);

		http_reply_json(req, 202, j);
	} else {
		answer_when(c->guest, req, goal, zoneid);
	}
	json_decref(c->body);
}

/* What a start would be: checked as it would be, changing nothing. */
static void foretell(struct command *c, struct http_request *req, const json_t *once)
{
	AUTO_VM struct vm *vm = c->guest->def ? vm_copy(c->guest->def->vm) : NULL;
	struct err err = {0};
	int r = vm ? once_apply(vm, once, &err)
		   : err_set(&err, ENOENT, "VM %s has no definition any more", c->guest->name);

	if (r < 0)
		http_reply_err(req, r, &err);
	else
		dryrun_reply(c->sup, req, steal_ptr(vm));
	json_decref(c->body);
}

/* "hold": it stays before its first instruction, also to take another's state in. */
static int hold_of(const json_t *body, enum guest_hold *ret, struct err *err)
{
	const char *hold = json_get_str(body, "hold", NULL);

	if (!hold)
		*ret = HOLD_NOT;
	else if (str_eq(hold, "paused"))
		*ret = HOLD_PAUSED;
	else if (str_eq(hold, "incoming"))
		*ret = HOLD_INCOMING;
	else
		return err_set(err, EINVAL, "body.hold: '%.40s' (want paused or incoming)", hold);
	return 0;
}

static void post_start(struct http_request *req, void *ctx)
{
	AUTO_JSON json_t *once = NULL;
	struct err err = {0};
	struct command c;
	enum guest_hold hold = HOLD_NOT;
	int r;

	if (!take_command(&c, req, ctx))
		return;
	r = once_take(c.guest, c.body, c.admin, &once, &err);
	if (r == 0 && json_get_bool(c.body, "dry_run", false)) {
		foretell(&c, req, once);
		return;
	}
	if (r == 0)
		r = hold_of(c.body, &hold, &err);
	if (r == 0)
		r = guest_start_held(c.guest, once, c.by, hold, &err);
	answer(&c, req, r, GOAL_RUNNING, c.guest->zoneid, &err);
}

static void stop_or_restart(struct http_request *req, void *ctx, enum guest_target target)
{
	struct err err = {0};
	struct command c;
	const struct vm *vm;
	json_int_t grace;
	int r;

	if (!take_command(&c, req, ctx))
		return;
	vm = guest_vm(c.guest);
	grace = json_get_int(c.body, "timeout_ms", vm ? (json_int_t)vm->stoptimeout_ms : 0);
	if (grace < 0 || grace > INT64_C(365) * 86400000)
		r = err_set(&err, EINVAL,
			    "body.timeout_ms: %lld is out of range (want 0 to a year)",
			    (long long)grace);
	else
		r = guest_stop(c.guest, target, (uint64_t)grace, c.force, c.by, &err);
	answer(&c, req, r, target == TARGET_START ? GOAL_RUNNING : GOAL_STOPPED,
	       c.guest->zoneid + 1, &err);
}

static void post_stop(struct http_request *req, void *ctx)
{
	stop_or_restart(req, ctx, TARGET_STOPPED);
}

static void post_restart(struct http_request *req, void *ctx)
{
	stop_or_restart(req, ctx, TARGET_START);
}

static void post_busy(struct http_request *req, void *ctx)
{
	struct err err = {0};
	struct command c;
	json_int_t ms;
	int r = 0;

	if (!take_command(&c, req, ctx))
		return;
	ms = json_get_int(c.body, "ms", -1);
	if (ms < 0 || ms > BUSY_MAX_MS)
		r = err_set(&err, EINVAL, "body.ms: want 0 to %d", BUSY_MAX_MS);
	else
		monitor_busy(c.guest, (uint64_t)ms);
	c.wait = false;
	answer(&c, req, r, GOAL_RUNNING, 0, &err);
}

static void post_ready(struct http_request *req, void *ctx)
{
	struct err err = {0};
	struct command c;
	int r = 0;

	if (!take_command(&c, req, ctx))
		return;
	if (!c.admin)
		r = err_set(&err, EPERM, "only vmadmd and root tell that a guest is ready");
	else if (c.guest->state == SUP_RUNNING && !c.guest->ready)
		guest_now_ready(c.guest);
	c.wait = false;
	answer(&c, req, r, GOAL_RUNNING, 0, &err);
}

static void post_failreset(struct http_request *req, void *ctx)
{
	struct err err = {0};
	struct command c;
	int r;

	if (!take_command(&c, req, ctx))
		return;
	r = guest_failreset(c.guest, &err);
	answer(&c, req, r, GOAL_STOPPED, 0, &err);
}

static const struct {
	const char *name;
	int number;
} signals[] = {{"KILL", SIGKILL}, {"TERM", SIGTERM}, {"INT", SIGINT},   {"HUP", SIGHUP},
	       {"QUIT", SIGQUIT}, {"ABRT", SIGABRT}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2},
	       {"STOP", SIGSTOP}, {"CONT", SIGCONT}};

static int signal_number(const char *name)
{
	const char *bare = str_starts(name, "SIG") ? name + 3 : name;
	char *end;
	long number = strtol(bare, &end, 10);

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		if (str_eq(signals[i].name, bare) || (*end == '\0' && number == signals[i].number))
			return signals[i].number;
	}
	return -EINVAL;
}

static void post_kill(struct http_request *req, void *ctx)
{
	struct err err = {0};
	struct command c;
	const char *name;
	int r;

	if (!take_command(&c, req, ctx))
		return;
	name = json_get_str(c.body, "signal", "KILL");
	r = signal_number(name);
	if (r < 0)
		r = err_set(&err, EINVAL, "Unknown signal \"%s\"", name);
	else if (!c.guest->qemu)
		r = err_set(&err, EALREADY, "Cannot find running init PID for VM %s",
			    c.guest->uuid);
	else if (r == SIGKILL) /* ours: recorded as asked for */
		r = guest_stop(c.guest, TARGET_STOPPED, 0, true, c.by, &err);
	else
		r = child_kill(c.guest->qemu, r, false);
	if (r == 0 && !str_eq(name, "KILL") && !str_eq(name, "SIGKILL") && !str_eq(name, "9"))
		c.wait = false;
	answer(&c, req, r, GOAL_STOPPED, 0, &err);
}

static void post_reset(struct http_request *req, void *ctx)
{
	struct err err = {0};
	struct command c;
	int r;

	if (!take_command(&c, req, ctx))
		return;
	json_decref(c.body);
	r = c.guest->state == SUP_RUNNING && guest_is_up(c.guest) && c.guest->mon
		    ? qmp_send(c.guest->mon, "system_reset", NULL, -1, RESET_MS, NULL, NULL)
		    : err_set(&err, EALREADY,
			      "Cannot reset vm from state \"%s\", must be \"running\".",
			      sup_states[c.guest->state].state);
	if (r < 0)
		http_reply_err(req, r, &err);
	else /* QEMU says yes at once, and RESET when it has done it */
		answer_when(c.guest, req, GOAL_RESET, c.guest->resets + 1);
}

static void post_reload(struct http_request *req, void *ctx)
{
	struct supervisor *sup = ctx;
	AUTO_JSON json_t *j = NULL;

	if (routes_refused(sup, req, NULL))
		return;
	(void)catalog_scan(sup->catalog, SIZE_MAX);
	j = json_pack("{s:I, s:o}", "vms", (json_int_t)catalog_count(sup->catalog), "problems",
		      definition_problems(sup, true));
	http_reply_json(req, 200, j);
}

static void get_ping(struct http_request *req, void *ctx)
{
	http_reply(req, 200, HTTP_JSON, "{\"ping\":\"pong\"}", 15);
}

static void get_status(struct http_request *req, void *ctx)
{
	struct supervisor *sup = ctx;
	const struct catalog_stats *files = catalog_stats(sup->catalog);
	json_t *vms = json_array();
	AUTO_JSON json_t *j = json_pack("{s:s, s:i, s:I, s:o, s:{s:I, s:I}, s:o, s:o}", "version",
					DROVER_VERSION, "pid", (int)getpid(), "uptime_ms",
					(json_int_t)(clock_ms() - sup->started_ms), "accel",
					accel_object(sup), "files", "lost", (json_int_t)files->lost,
					"overflows", (json_int_t)files->overflows, "vms", vms,
					"problems", definition_problems(sup, false));

	for (const struct guest *g = sup->guests; g; g = g->next)
		(void)json_array_append_new(vms, guest_object(g));
	http_reply_json(req, 200, j);
}

static void get_vm(struct http_request *req, void *ctx)
{
	const struct guest *g = routes_guest(req, ctx);
	AUTO_JSON json_t *j = g ? guest_object(g) : NULL;

	if (j)
		http_reply_json(req, 200, j);
}

/* clang-format off */
static const struct http_route routes[] = {
	{"GET", "/ping", get_ping, false, "Answers {\"ping\":\"pong\"}."},
	{"GET", "/status", get_status, false, "Every guest, refused definitions, the accelerator."},
	{"GET", "/vms/:id", get_vm, false, "One guest."},
	{"GET", "/vms/:id/pending", route_pending, false, "What its next start will change."},
	{"POST", "/argv", route_argv, false, "The arguments QEMU would get for a VM object."},
	{"POST", "/vms/:id/start", post_start, false,
	 "Starts; answers when it runs. hold: paused or incoming."},
	{"POST", "/vms/:id/stop", post_stop, false, "Stops by ACPI within timeout_ms, then by force."},
	{"POST", "/vms/:id/restart", post_restart, false, "Stops and starts."},
	{"POST", "/vms/:id/reset", post_reset, false, "Resets the machine in place."},
	{"POST", "/vms/:id/kill", post_kill, false, "Sends a signal to QEMU, KILL by default."},
	{"POST", "/vms/:id/applied", route_applied, false,
	 "Disks and NICs of these names were plugged in or out: they count as started with."},
	{"POST", "/vms/:id/plug-nic", route_plug_nic, false,
	 "For vmadmd: makes NIC mac of vm ready and gives QEMU its back end netdev."},
	{"POST", "/vms/:id/unplug-nic", route_unplug_nic, false,
	 "For vmadmd: takes that back end away, and tap and filter with it."},
	{"POST", "/vms/:id/busy", post_busy, false,
	 "Its monitors will be silent for at most ms; 0: no longer."},
	{"POST", "/vms/:id/ready", post_ready, false, "Its guest agent answers: it is ready."},
	{"POST", "/vms/:id/failreset", post_failreset, false, "Leaves failure mode."},
	{"GET", "/vms/:id/log", get_log, false,
	 "Its log: ?boot=0 this start, -1 the one before; ?lines=N; ?follow=1."},
	{"POST", "/shutdown-all", post_shutdown_all, false, "Stops all in reverse order of `after`."},
	{"POST", "/upgrade", post_upgrade, false, "Executes the program anew; guests run on."},
	{"POST", "/reload", post_reload, false, "Compares all definitions with the disk."},
};
/* clang-format on */

int routes_print(void)
{
	http_routes_print(stdout, routes, ARRAY_SIZE(routes));
	return 0;
}

static void before(void *ctx)
{
	struct supervisor *sup = ctx;

	catalog_sync(sup->catalog);
}

int routes_start(struct supervisor *sup, struct err *err)
{
	struct http_config config = {
		.routes = routes, .nroutes = ARRAY_SIZE(routes), .ctx = sup, .before = before};
	int fd = upgrade_inherited(UPGRADE_LISTEN_FD);
	bool own;
	int r = http_server_new(sup->event, &config, &sup->http, err);

	if (r < 0)
		return r;
	/* Anyone may connect; who may do what is asked per request. */
	if (fd < 0)
		r = daemon_listen(sup->paths.vmstated, 0666, &fd, &own, err);
	sup->listen_fd = fd;
	return r < 0 ? r : http_server_listen(sup->http, fd, false, err);
}
