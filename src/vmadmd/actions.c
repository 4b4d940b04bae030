/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /vm/:id?action=: lifecycle is forwarded to vmstated, the one stop engine; the rest is a
 * QMP command or ours. Start and stop of a VM made by us also keep its autoboot, as people expect
 * of a VM they left running or stopped. Source: smartos facts 5.2, 4.3.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "net/feed.h"
#include "store/catalog.h"
#include "vmadmd/guest.h"
#include "vmadmd/live/live.h"
#include "vmadmd/vmadmd.h"

#define TIMEOUT_MAX_S 31536000
#define KEYS_MAX      16
#define KEY_NAME_MAX  32

struct act;

struct action {
	const char *name;
	const char *verb;    /* of vmstated; NULL: ours */
	const char *must_be; /* state the VM must be in; "" running or stopping, NULL: any */
	int autoboot;        /* -1: left alone */
	int (*run)(struct act *a, struct guest *g, struct err *err); /* where verb is NULL */
	const char *done; /* body of the 202: "Stopped" */
};

struct act {
	struct vmadmd *d;
	const struct action *action;
	struct http_request *req; /* NULL: the client left */
	char uuid[UUID_LEN + 1];
	uid_t uid;
	bool wait;
	bool dry_run; /* what a start would be */
	char command[32];
	int sysrq; /* row of sysrqs */
	bool png;  /* format of the screenshot */
	json_t *keys;
	int status; /* of vmstated's reply */
	char *body;
};

static void act_free(struct act *a)
{
	free(a->body);
	json_decref(a->keys);
	free(a);
}

static void reply_failure(struct act *a, int r, const struct err *err)
{
	if (a->req)
		http_reply_err(a->req, r, err);
	act_free(a);
}

static void reply_success(struct act *a)
{
	AUTO_FREE char *text = xasprintf("%s %s", a->action->done, a->uuid);
	AUTO_JSON json_t *out = json_object();

	if (a->req && a->body && (a->wait || a->status >= 300)) {
		http_reply(a->req, a->status, HTTP_JSON, a->body, strlen(a->body));
	} else if (a->req && a->wait) {
		json_put_str(out, "uuid", a->uuid);
		http_reply_json(a->req, 200, out);
	} else if (a->req) {
		http_reply(a->req, 202, HTTP_JSON, text, strlen(text));
	}
	act_free(a);
}

static void on_gone(struct http_request *req, void *ctx)
{
	((struct act *)ctx)->req = NULL;
}

/* --- forwarded to vmstated --- */

static void on_autoboot_kept(void *ctx, int r, const struct err *err)
{
	struct act *a = ctx;

	if (r < 0)
		log_warn("vm=%s autoboot not kept: %s", a->uuid, err_text(err, r));
	reply_success(a);
}

/* Whether start or stop is to write autoboot: only of VMs made by us, only what differs. */
static bool autoboot_differs(const struct act *a)
{
	const struct catalog_entry *e = catalog_by_uuid(a->d->catalog, a->uuid);
	struct err err = {0};

	if (a->action->autoboot < 0 || a->dry_run || !e || !e->vm->made_by_us || e->error ||
	    e->vm->transient || e->vm->autoboot == (a->action->autoboot != 0))
		return false;
	/* A stop of what does not run is a success to people: autoboot is cleared all the same. */
	return a->status < 300 || ask_error(a->status, a->body, &err) == -EALREADY;
}

static void on_forwarded(void *ctx, int r, int status, const char *body, const struct err *err)
{
	struct act *a = ctx;
	struct change_by by = {.uid = a->uid, .command = a->command};

	if (r < 0) {
		reply_failure(a, r, err);
		return;
	}
	a->status = status;
	a->body = xstrdup(body);
	if (autoboot_differs(a))
		change_update(a->d, a->uuid, json_pack("{s:b}", "autoboot", a->action->autoboot),
			      &by, on_autoboot_kept, a);
	else
		reply_success(a);
}

/* "timeout" in seconds; *ret is -1 when it is not given. */
static int timeout_of(struct http_request *req, int64_t *ret_s, struct err *err)
{
	const char *text = http_query(req, "timeout");
	char *end;
	long long value;

	*ret_s = -1;
	if (!text || !*text)
		return 0;
	errno = 0;
	value = strtoll(text, &end, 10);
	if (*end || errno || value < 0 || value > TIMEOUT_MAX_S)
		return err_set(err, EINVAL,
			       "timeout: '%.40s' is not a number of seconds (want 0 to %d)", text,
			       TIMEOUT_MAX_S);
	*ret_s = value;
	return 0;
}

static bool flag_of(struct http_request *req, const char *name)
{
	const char *text = http_query(req, name);

	return text && *text && strcmp(text, "0") != 0 && strcmp(text, "false") != 0;
}

/* "disk=PATH,MODEL" and "cdrom=PATH,MODEL" in order; the comma is the last one. NULL: none. */
static int media_of(struct http_request *req, json_t **ret, struct err *err)
{
	AUTO_JSON json_t *list = json_array();
	const char *name, *value;

	for (size_t i = 0; http_query_at(req, i, &name, &value); i++) {
		const char *comma = strrchr(value, ',');

		if (!str_eq(name, "disk") && !str_eq(name, "cdrom"))
			continue;
		if (!comma || comma == value || !comma[1])
			return err_set(err, EINVAL, "Parameter to %s must be: path,model", name);
		json_array_append_new(list, json_pack("{s:s, s:s%, s:s}", "media", name, "path",
						      value, comma - value, "model", comma + 1));
	}
	*ret = json_array_size(list) ? json_incref(list) : NULL;
	return 0;
}

static int start_body(struct act *a, struct http_request *req, json_t *body, struct err *err)
{
	const char *order = http_query(req, "order");
	json_t *media = NULL;
	int r = media_of(req, &media, err);

	if (order)
		json_put_str(body, "order", order);
	if (media)
		json_object_set_new(body, "media", media);
	a->dry_run = flag_of(req, "dry_run");
	if (a->dry_run)
		json_put_bool(body, "dry_run", true);
	a->wait = a->wait || a->dry_run;
	return r;
}

static int forward(struct act *a, struct http_request *req, struct err *err)
{
	bool force = flag_of(req, "force");
	struct ask_spec spec = {.uuid = a->uuid, .verb = a->action->verb, .uid = a->uid};
	int64_t timeout_s;
	int r = timeout_of(req, &timeout_s, err);

	if (r < 0)
		return r;
	/* The original's clients must say it; ours may leave it to the VM's stoptimeout. */
	if (str_eq(a->action->name, "stop") && timeout_s < 0 && !force && !http_query(req, "wait"))
		return err_set(err, EINVAL, "stopVM() requires timeout to be set.");
	spec.command = a->command;
	spec.body = json_object();
	r = start_body(a, req, spec.body, err);
	if (r < 0) {
		json_decref(spec.body);
		return r;
	}
	json_put_bool(spec.body, "wait", a->wait);
	if (timeout_s >= 0)
		json_put_int(spec.body, "timeout_ms", timeout_s * 1000);
	if (force)
		json_put_bool(spec.body, "force", true);
	if (timeout_s > 0)
		spec.timeout_ms = ASK_LIMIT_MS + (uint64_t)timeout_s * 1000;
	ask_start(a->d, &spec, on_forwarded, a);
	return 0;
}

/* --- QMP and ours --- */

static void on_qmp(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct act *a = ctx;
	struct err text = {0};

	if (r == 0) {
		reply_success(a);
		return;
	}
	if (r == -ETIMEDOUT)
		r = err_set(&text, ETIMEDOUT, "QEMU of VM %s does not answer: no reply within %u s",
			    a->uuid, QMP_ANSWER_MS / 1000);
	else
		r = err_set(&text, r == -EREMOTEIO ? EIO : -r, "%s: %s", a->action->name,
			    err_text(err, r));
	reply_failure(a, r, &text);
}

static int run_pause(struct act *a, struct guest *g, struct err *err)
{
	return monitor_send(g, "stop", NULL, -1, on_qmp, a, err);
}

static int run_resume(struct act *a, struct guest *g, struct err *err)
{
	int r = live_kept_away(a->d, a->uuid, err);

	return r < 0 ? r : monitor_send(g, "cont", NULL, -1, on_qmp, a, err);
}

static void on_vnc(void *ctx)
{
	reply_success(ctx);
}

static int run_reload(struct act *a, struct guest *g, struct err *err)
{
	vnc_reload(g, on_vnc, a);
	return 0;
}

static int sysrq_nmi(struct act *a, struct guest *g, struct err *err)
{
	return monitor_send(g, "inject-nmi", NULL, -1, on_qmp, a, err);
}

/* The button alone: no deadline, nothing is forced, and the VM stays a running one. */
static int sysrq_powerdown(struct act *a, struct guest *g, struct err *err)
{
	return monitor_send(g, "system_powerdown", NULL, -1, on_qmp, a, err);
}

static void on_key(void *ctx, int r, const json_t *value, const struct err *err)
{
}

/* A key first, to wake a blanked screen; the name is relative to QEMU's directory, the run one. */
static int sysrq_screenshot(struct act *a, struct guest *g, struct err *err)
{
	AUTO_JSON json_t *key =
		json_pack("{s:[{s:s,s:s}]}", "keys", "type", "qcode", "data", "shift");
	AUTO_JSON json_t *file =
		a->png ? json_pack("{s:s,s:s}", "filename", "vm.png", "format", "png")
		       : json_pack("{s:s}", "filename", "vm.ppm");
	int r = monitor_send(g, "send-key", key, -1, on_key, NULL, err);

	if (r < 0)
		return r;
	return monitor_send(g, "screendump", file, -1, on_qmp, a, err);
}

static const struct {
	const char *name;
	int (*run)(struct act *a, struct guest *g, struct err *err);
} sysrqs[] = {
	{"nmi", sysrq_nmi},
	{"screenshot", sysrq_screenshot},
	{"powerdown", sysrq_powerdown},
};

static int sysrq_find(const char *name, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(sysrqs); i++) {
		if (str_eq(sysrqs[i].name, name))
			return (int)i;
	}
	return err_set(err, EINVAL,
		       "sysrq: unknown request '%.40s' (want nmi, screenshot or powerdown)",
		       name ? name : "");
}

static int screenshot_format(struct act *a, const char *format, struct err *err)
{
	if (!format || !*format || str_eq(format, "ppm"))
		return 0;
	a->png = str_eq(format, "png");
	return a->png ? 0
		      : err_set(err, EINVAL,
				"format: '%.40s' is not an image format (want ppm or png)", format);
}

/* "ctrl-alt-delete" as QEMU's list of keys; the names are QEMU's to judge. */
static json_t *keys_of(const char *text, struct err *err)
{
	AUTO_JSON json_t *list = json_array();

	for (const char *at = text ? text : ""; *at;) {
		size_t len = strcspn(at, "-+ ,");

		if (len > KEY_NAME_MAX || json_array_size(list) == KEYS_MAX) {
			err_set(err, EINVAL, "keys: at most %d names of at most %d letters",
				KEYS_MAX, KEY_NAME_MAX);
			return NULL;
		}
		if (len > 0)
			json_array_append_new(
				list, json_pack("{s:s,s:s%}", "type", "qcode", "data", at, len));
		at += len + (at[len] != '\0');
	}
	if (json_array_size(list) > 0)
		return json_incref(list);
	err_set(err, EINVAL, "no keys given (want keys=ctrl-alt-delete, names as of QEMU)");
	return NULL;
}

static int run_keys(struct act *a, struct guest *g, struct err *err)
{
	AUTO_JSON json_t *arguments = json_object();

	json_object_set(arguments, "keys", a->keys);
	return monitor_send(g, "send-key", arguments, -1, on_qmp, a, err);
}

static int run_sysrq(struct act *a, struct guest *g, struct err *err)
{
	return sysrqs[a->sysrq].run(a, g, err);
}

static const struct action actions[] = {
	/* clang-format off */
	{ "start",	    "start",   NULL,	  1,  NULL,	  "Started" },
	{ "stop",	    "stop",    NULL,	  0,  NULL,	  "Stopped" },
	{ "reboot",	    "restart", "running", -1, NULL,	  "Rebooted" },
	{ "reset",	    "reset",   "running", -1, NULL,	  "Sent reset to" },
	{ "sysrq",	    NULL,      "",	  -1, run_sysrq,  "Sent sysrq to" },
	{ "reload_vnc",	    NULL,      NULL,	  -1, run_reload, "Sent request to reload VNC for" },
	{ "reload_display", NULL,      NULL,	  -1, run_reload, "Sent request to reload VNC for" },
	{ "pause",	    NULL,      "running", -1, run_pause,  "Paused" },
	{ "resume",	    NULL,      "running", -1, run_resume, "Resumed" },
	{ "send_key",	    NULL,      "",	  -1, run_keys,   "Sent keys to" },
	/* clang-format on */
};

/* --- the request --- */

static const struct action *action_find(const char *name, struct err *err)
{
	struct strbuf AUTO_STRBUF all = {0};

	for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
		if (str_eq(actions[i].name, name))
			return &actions[i];
		strbuf_printf(&all, "%s%s", i ? ", " : "", actions[i].name);
	}
	if (name)
		err_set(err, EINVAL, "unknown action '%.40s' (want %s)", name, all.data);
	else
		err_set(err, EINVAL, "no action given (want ?action=%s)", all.data);
	return NULL;
}

static int check_state(struct vmadmd *d, const char *uuid, const struct action *action,
		       struct err *err)
{
	const char *state = guest_state(d, uuid);
	const char *keeper = live_keeps_stopped(d, uuid);

	if (keeper && action->verb && strcmp(action->verb, "start") == 0)
		return err_set(err, EBUSY, "VM %s stays stopped until '%s' is done with its disks",
			       uuid, keeper);
	if (!action->must_be || (action->verb && str_eq(state, "unknown")))
		return 0; /* vmstated will say */
	if (str_eq(state, *action->must_be ? action->must_be : "running") ||
	    (!*action->must_be && str_eq(state, "stopping")))
		return 0;
	if (!*action->must_be)
		return err_set(err, EBUSY,
			       "Unable to send request to vm from state \"%s\", must be "
			       "\"running\" or \"stopping\".",
			       state);
	if (str_eq(action->name, "reset"))
		return err_set(err, EBUSY,
			       "Unable to reset vm from state \"%s\", must be \"running\".", state);
	return err_set(err, EBUSY, "Cannot %s vm from state \"%s\", must be \"running\"",
		       action->name, state);
}

static int act_run(struct act *a, struct http_request *req, struct err *err)
{
	struct guest *g = guest_find(a->d, a->uuid);
	int r;

	if (a->action->run == run_sysrq) {
		a->sysrq = sysrq_find(http_query(req, "request"), err);
		if (a->sysrq < 0)
			return a->sysrq;
		r = screenshot_format(a, http_query(req, "format"), err);
		if (r < 0)
			return r;
	}
	if (a->action->run == run_keys) {
		a->keys = keys_of(http_query(req, "keys"), err);
		if (!a->keys)
			return -EINVAL;
	}
	r = check_state(a->d, a->uuid, a->action, err);
	if (r < 0)
		return r;
	if (a->action->verb)
		return forward(a, req, err);
	if (g)
		return a->action->run(a, g, err);
	reply_success(a); /* reload of a VM that does not run: nothing to do */
	return 0;
}

void handle_action(struct http_request *req, void *ctx)
{
	struct vmadmd *d = ctx;
	struct target target;
	struct err err = {0};
	const struct action *action;
	struct act *a;
	int r;

	if (!target_find(d, req, false, &target))
		return;
	action = action_find(http_query(req, "action"), &err);
	if (!action) {
		http_reply_err(req, -EINVAL, &err);
		return;
	}
	a = xcalloc(1, sizeof(*a));
	*a = (struct act){.d = d, .action = action, .req = req, .uid = target.uid};
	memcpy(a->uuid, target.uuid, sizeof(a->uuid));
	a->wait = flag_of(req, "wait");
	(void)snprintf(a->command, sizeof(a->command), "vmadm %s", action->name);
	http_on_gone(req, on_gone, a);
	r = act_run(a, req, &err);
	if (r < 0)
		reply_failure(a, r, &err);
}
