/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks the table of actions with a message in hand; see driver_plan.h. The tables here say where
 * an argument, a standard input and a condition come from.
 */
#include "one/driver/driver_plan.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/driver/driver_input.h"
#include "one/driver/driver_message.h"
#include "one/driver/driver_options.h"
#include "one/driver/driver_tm.h"
#include "one/xml.h"

#define LCM_STATE_BACKUP  "69"
#define NIC               "VM/TEMPLATE/NIC[ATTACH='YES']"
#define PCI               "VM/TEMPLATE/PCI[ATTACH='YES']"
#define NIC_OR_PCI(value) NIC "/" value "|" PCI "/" value

const char plan_deploy_id[] = "<deploy id>";

struct planner {
	const struct message *m;
	const struct driver_options *o;
	struct plan *plan;
	xmlNode *top;
	bool deployed; /* by a step before */
};

/* clang-format off */

/* Where arguments come from. A missing one without a default refuses the action. */
static const struct param_row {
	const char *path, *fallback;
} param_rows[PARAMS] = {
	[P_DEPLOY_ID]      = { "DEPLOY_ID", "" },
	[P_HOST]           = { "HOST" },
	[P_HOST_6]         = { "HOST" },
	[P_MIGR_HOST]      = { "MIGR_HOST" },
	[P_CHECKPOINT]     = { "CHECKPOINT_FILE" },
	[P_DISK_PATH]      = { "DISK_TARGET_PATH" },
	[P_DISK_TARGET]    = { "VM/TEMPLATE/DISK[ATTACH='YES']/TARGET" },
	[P_DISK_INDEX]     = { "VM/TEMPLATE/DISK[ATTACH='YES']/TARGET" },
	[P_RESIZE_ID]      = { "VM/TEMPLATE/DISK[RESIZE='YES']/DISK_ID" },
	[P_RESIZE_SIZE]    = { "VM/TEMPLATE/DISK[RESIZE='YES']/SIZE" },
	[P_NIC_MAC]        = { NIC_OR_PCI("MAC") },
	[P_NIC_BRIDGE]     = { NIC_OR_PCI("BRIDGE"), "-" },
	[P_NIC_MODEL]      = { NIC_OR_PCI("MODEL"), "-" },
	[P_NIC_DRIVER]     = { NIC_OR_PCI("VN_MAD"), "-" },
	[P_NIC_TARGET]     = { NIC_OR_PCI("TARGET"), "-" },
	[P_CONTEXT_TARGET] = { "VM/TEMPLATE/CONTEXT/TARGET", "" },
	[P_CONTEXT_PATH]   = { "DISK_TARGET_PATH", "" },
	[P_SNAPSHOT_ID]    = { "VM/TEMPLATE/SNAPSHOT[ACTIVE='YES']/SNAPSHOT_ID" },
	[P_SNAPSHOT_NAME]  = { "VM/TEMPLATE/SNAPSHOT[ACTIVE='YES']/HYPERVISOR_ID" },
	[P_GUEST_COMMAND]  = { "VM/TEMPLATE/QEMU_GA_EXEC/COMMAND" },
	[P_GUEST_STDIN]    = { "VM/TEMPLATE/QEMU_GA_EXEC/STDIN", "" },
	[P_SECURITY_GROUP] = { "SECURITY_GROUP_ID" },
	[P_NETWORK]        = { "VIRTUAL_NETWORK_ID" },
};

/* What log lines call the kinds of step is in driver_text.c; where their scripts lie: */
static const char *const folder_of[] = {
	[STEP_VMM] = "vmm", [STEP_VNM] = "vnm", [STEP_TM] = "tm", [STEP_DS] = "datastore",
};
/* clang-format on */

static bool has(const struct planner *p, const char *path)
{
	AUTO_FREE char *value = xml_value(p->top, path);

	return value && *value;
}

static bool applies(const struct planner *p, const struct step *s)
{
	bool new_core = p->m->era == ERA_6;

	switch (s->when) {
	case WHEN_ALWAYS:
		return true;
	case WHEN_ERA_5:
		return !new_core;
	case WHEN_ERA_6:
		return new_core;
	case WHEN_TM:
		return has(p, "TM_COMMAND");
	case WHEN_DEPLOYED:
		return has(p, "DEPLOY_ID");
	case WHEN_MIGR_HOST:
		return has(p, "MIGR_HOST");
	case WHEN_MIGR_DEPLOYED:
		return has(p, "MIGR_HOST") && has(p, "DEPLOY_ID");
	case WHEN_NIC:
	case WHEN_NIC_6:
		return (s->when == WHEN_NIC || new_core) &&
		       !xml_find(p->top, "VM/TEMPLATE/NIC_ALIAS[ATTACH='YES']");
	case WHEN_MOVES:
		return !(new_core && str_eq(p->plan->host, p->plan->migr_host));
	}
	return true;
}

/* Texts are made once per plan and shared by its commands. */
static int set_in(const struct planner *p, struct command *c, struct err *err)
{
	enum step_in in = c->step->in;
	bool local = c->via == VIA_LOCAL;
	bool coded =
		in == IN_VNM || in == IN_VM_64 || (local && (in == IN_ACTION || in == IN_DEPLOY));
	char **at = &p->plan->ins[in * 2 + coded];

	if (in == IN_NONE)
		return 0;
	if (!*at) {
		AUTO_STRBUF struct strbuf sb = {0};
		int r = input_make(p->m, p->top, in, &sb, err);

		if (r < 0)
			return r;
		*at = coded ? base64_encode(sb.data, sb.len) : strbuf_steal(&sb);
	}
	c->in = *at;
	c->in_len = strlen(*at);
	return 0;
}

/* --- arguments --- */

static void arg_add(struct command *c, const char *value)
{
	c->argv = xrealloc(c->argv, (c->argc + 2) * sizeof(*c->argv));
	c->argv[c->argc++] = value == plan_deploy_id ? (char *)value : xstrdup(value);
	c->argv[c->argc] = NULL;
}

static int missing(const struct planner *p, const char *path, struct err *err)
{
	return err_set(err, EINVAL, "Cannot perform %s, expecting %s", p->m->word, path);
}

static const char *deploy_file_path(const struct command *c)
{
	return c->via == VIA_LOCAL ? "LOCAL_DEPLOYMENT_FILE" : "REMOTE_DEPLOYMENT_FILE";
}

static char *payload(const struct planner *p)
{
	if (!p->plan->payload)
		p->plan->payload = base64_encode(p->m->xml, p->m->xml_len);
	return p->plan->payload;
}

/* "vda" is 0, "sdc" is 2. */
static char *disk_index(const char *target)
{
	size_t len = strlen(target);
	char last = len ? target[len - 1] : '\0';

	return xasprintf("%d", last >= 'a' && last <= 'z' ? last - 'a' : 0);
}

static int param_value(const struct planner *p, const struct command *c, enum param param,
		       char **ret, struct err *err)
{
	const struct param_row *row = &param_rows[param];
	const char *path = param == P_DEPLOY_FILE ? deploy_file_path(c) : row->path;

	if (param == P_PAYLOAD || param == P_VM_ID) {
		*ret = param == P_PAYLOAD ? xstrdup(payload(p)) : xasprintf("%ld", p->m->id);
		return 0;
	}
	*ret = xml_value(p->top, path);
	if ((!*ret || !**ret) && row->fallback)
		replace_str(ret, xstrdup(row->fallback));
	if (!*ret || (!**ret && !row->fallback))
		return missing(p, path, err);
	if (param == P_DISK_INDEX)
		replace_str(ret, disk_index(*ret));
	return 0;
}

static int add_params(const struct planner *p, struct command *c, struct err *err)
{
	for (size_t i = 0; i < STEP_PARAMS && c->step->params[i] != P_NONE; i++) {
		enum param param = c->step->params[i];
		AUTO_FREE char *value = NULL;
		int r;

		if (param == P_HOST_6 && p->m->era == ERA_5)
			continue;
		if (param == P_DEPLOY_ID && p->deployed) {
			arg_add(c, plan_deploy_id);
			continue;
		}
		r = param_value(p, c, param, &value, err);
		if (r < 0)
			return r;
		arg_add(c, value);
	}
	c->fixed = c->argc;
	if (c->step->driver == STEP_VMM && !(c->step->flags & NO_IDS)) {
		AUTO_FREE char *id = xasprintf("%ld", p->m->id);

		arg_add(c, id);
		arg_add(c, c->host);
	}
	return 0;
}

/* --- commands --- */

/* -l names a step; a network step may be listed with its driver, too ("elastic-post"). */
static const struct listed *listed_local(const struct planner *p, const struct step *s,
					 const char *network)
{
	static const struct listed here = {.name = NULL};
	const char *name = s->driver == STEP_DIR || s->driver == STEP_PUT ? "deploy" : s->name;
	const struct listed *found = list_find(&p->o->local, name);

	if (!found && network && p->m->era == ERA_6) {
		AUTO_FREE char *pair = xasprintf("%s-%s", network, s->name);

		return words_hold(p->o->local_networks, pair) ? &here : NULL;
	}
	return found;
}

static struct command *command_add(struct command **list, size_t *count)
{
	*list = xrealloc(*list, (*count + 1) * sizeof(**list));
	(*list)[*count] = (struct command){.step = NULL};
	return &(*list)[(*count)++];
}

/* A script of ours or of a network driver, on the host or here. */
static int add_script(const struct planner *p, struct command *c, const char *folder,
		      struct err *err)
{
	const struct step *s = c->step;
	const struct listed *local = listed_local(p, s, c->network);
	const char *script = s->script ? s->script : s->name;
	int r;

	c->host = s->flags & ON_MIGR ? p->plan->migr_host : p->plan->host;
	c->via = local || s->driver == STEP_DS ? VIA_LOCAL
		 : s->flags & ONE_SHOT         ? VIA_SSH
					       : VIA_SHELL;
	if (local && local->script)
		script = local->script;
	c->path = xasprintf("%s/%s/%s/%s", c->via == VIA_LOCAL ? p->o->remotes : p->o->remote_dir,
			    folder_of[s->driver], folder, script);
	c->log_name = xstrdup(s->log_name ? s->log_name : s->name);
	r = add_params(p, c, err);
	return r < 0 ? r : set_in(p, c, err);
}

static int add_networks(const struct planner *p, struct command **list, size_t *count,
			const struct step *s, struct err *err)
{
	static const char *const kinds[] = {"VM/TEMPLATE/NIC", "VM/TEMPLATE/NIC_ALIAS",
					    "VM/TEMPLATE/PCI"};
	size_t first = *count;

	for (size_t i = 0; i < (p->m->era == ERA_6 ? 3 : 2); i++) {
		for (xmlNode *n = xml_find(p->top, kinds[i]); n; n = xml_next(n)) {
			AUTO_FREE char *name = xml_value(n, "VN_MAD");
			struct command *c;
			bool known = !name || !*name;
			int r;

			for (size_t k = first; k < *count; k++)
				known = known || str_eq((*list)[k].network, name);
			if (known)
				continue;
			r = tm_check_name(name, "network driver", err);
			if (r < 0)
				return r;
			c = command_add(list, count);
			c->step = s;
			c->network = steal_ptr(name);
			r = add_script(p, c, c->network, err);
			if (r < 0)
				return r;
		}
	}
	if (first == *count) { /* nothing to run, but the step is logged */
		struct command *c = command_add(list, count);

		c->step = s;
		c->log_name = xstrdup(s->name);
	}
	(*list)[*count - 1].last = true;
	return 0;
}

/* Transfer commands of the message: one, or each line. */
static int add_transfers(const struct planner *p, struct command **list, size_t *count,
			 const struct step *s, struct err *err)
{
	AUTO_FREE char *text =
		xml_value(p->top, s->flags & ROLLBACK ? "TM_COMMAND_ROLLBACK" : "TM_COMMAND");
	AUTO_FREE char *state = xml_value(p->top, "VM/LCM_STATE");
	bool live = s->flags & LIVE || (s->flags & LIVE_BACKUP && str_eq(state, LCM_STATE_BACKUP));
	size_t before = *count;

	for (char *line = text, *next; line; line = next) {
		struct tm_script script = {.prefix = s->script, .live = live};
		struct command *c;
		int r;

		next = s->flags & EACH_LINE ? strchr(line, '\n') : NULL;
		if (next)
			*next++ = '\0';
		if (!line[strspn(line, " \t\r\n")])
			continue;
		r = tm_read(line, p->o->remotes, &script, err);
		if (r < 0)
			return r;
		c = command_add(list, count);
		c->step = s;
		c->last = true;
		c->path = script.path;
		c->argv = script.argv;
		c->argc = c->fixed = script.argc;
		c->log_name = s->log_name              ? xstrdup(s->log_name)
			      : s->flags & LIVE_BACKUP ? xstrdup(script.name)
						       : xasprintf("tm_%s", script.name);
		free(script.name);
		r = set_in(p, c, err);
		if (r < 0)
			return r;
	}
	if (before == *count && !(s->flags & (EACH_LINE | ROLLBACK)))
		return missing(p, "TM_COMMAND", err);
	return 0;
}

/* datastore/DS_MAD/SCRIPT with the words of the transfer command. */
static int add_store(const struct planner *p, struct command *c, struct err *err)
{
	AUTO_FREE char *mad = xml_value(p->top, "DATASTORE/DS_MAD");
	AUTO_FREE char *text = xml_value(p->top, "TM_COMMAND");
	struct tm_script script = {.prefix = NULL};
	int r = mad ? tm_check_name(mad, "datastore driver", err)
		    : missing(p, "DATASTORE/DS_MAD", err);

	if (r == 0)
		r = text && *text ? tm_read(text, p->o->remotes, &script, err)
				  : missing(p, "TM_COMMAND", err);
	if (r < 0)
		return r;
	c->last = true;
	r = add_script(p, c, mad, err);
	for (size_t i = 0; i < script.argc; i++)
		arg_add(c, script.argv[i]);
	c->fixed = c->argc;
	tm_done(&script);
	return r;
}

/* The VM's directory or a file in it, made beside the deployment file. */
static int add_file(const struct planner *p, struct command *c, struct err *err)
{
	bool local = listed_local(p, c->step, NULL);
	AUTO_FREE char *file = NULL;
	char *slash;

	c->via = local ? VIA_LOCAL : VIA_SHELL;
	c->host = p->plan->host;
	c->last = true;
	file = xml_value(p->top, deploy_file_path(c));
	slash = file ? strrchr(file, '/') : NULL;
	if (!slash || slash == file)
		return missing(p, deploy_file_path(c), err);
	*slash = '\0';
	c->path = c->step->name ? path_join(file, c->step->name) : steal_ptr(file);
	c->log_name =
		c->step->name ? xasprintf("/bin/cat - >%s", c->path) : xstrdup("/bin/mkdir -p");
	return set_in(p, c, err);
}

static int add_steps(struct planner *p, struct command **list, size_t *count,
		     const struct step *steps, struct err *err);

/* One row of the table: its commands, each with what undoes it. */
static int add_step(struct planner *p, struct command **list,
		    size_t *count, /* NOLINT(misc-no-recursion) */
		    const struct step *s, struct err *err)
{
	size_t first = *count;
	struct command *c;
	int r;

	if (s->driver == STEP_VNM) {
		r = add_networks(p, list, count, s, err);
	} else if (s->driver == STEP_TM) {
		r = add_transfers(p, list, count, s, err);
	} else {
		c = command_add(list, count);
		c->step = s;
		c->last = true;
		r = s->driver == STEP_VMM  ? add_script(p, c, p->o->dir, err)
		    : s->driver == STEP_DS ? add_store(p, c, err)
					   : add_file(p, c, err);
	}
	for (size_t i = first; r == 0 && s->undo && i < *count; i++)
		r = add_steps(p, &(*list)[i].undo, &(*list)[i].undo_count, s->undo, err);
	if (s->flags & DEPLOYS)
		p->deployed = true;
	return r;
}

static int add_steps(struct planner *p, struct command **list,
		     size_t *count, /* NOLINT(misc-no-recursion) */
		     const struct step *steps, struct err *err)
{
	for (const struct step *s = steps; s->driver != STEP_END; s++) {
		int r = applies(p, s) ? add_step(p, list, count, s, err) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

/* A disk is only photographed while in use where the administrator says that its driver can. */
static int check_live_snapshot(const struct planner *p, struct err *err)
{
	AUTO_FREE char *mad = xml_value(p->top, "VM/HISTORY_RECORDS/HISTORY/VM_MAD");
	AUTO_FREE char *tm =
		xml_value(p->top, "VM/TEMPLATE/DISK[DISK_SNAPSHOT_ACTIVE='YES']/TM_MAD");
	AUTO_FREE char *pair = xasprintf("%s-%s", mad ? mad : "", tm ? tm : "");

	if (words_hold(p->o->live_snapshots, pair))
		return 0;
	return err_set(err, EPERM,
		       "Cannot perform a live %s operation: %s is not in LIVE_DISK_SNAPSHOTS of "
		       "vmm_exec/vmm_execrc",
		       p->m->word, pair);
}

int plan_make(const struct message *m, const struct driver_options *o, struct plan *ret,
	      struct err *err)
{
	AUTO_XML xmlDoc *doc = NULL;
	struct planner p = {.m = m, .o = o, .plan = ret};
	int r;

	*ret = (struct plan){.commands = NULL};
	r = xml_read(m->xml, m->xml_len, NULL, &doc, err);
	if (r < 0)
		return r;
	p.top = xmlDocGetRootElement(doc);
	ret->host = xml_value(p.top, "HOST");
	ret->migr_host = xml_value(p.top, "MIGR_HOST");
	ret->deploy_id = xml_value(p.top, "DEPLOY_ID");
	if (m->action->prefix) {
		r = param_value(&p, NULL, m->action->prefix, &ret->prefix, err);
		if (r < 0)
			return r;
	}
	if (str_eq(m->word, "MIGRATE") && (!ret->migr_host || !*ret->migr_host))
		return missing(&p, "MIGR_HOST", err);
	if (m->action->live_snapshot)
		r = check_live_snapshot(&p, err);
	ret->delegate = list_find(&o->delegate, m->word) && (o->delegate_given || m->era == ERA_6);
	return r < 0 ? r : add_steps(&p, &ret->commands, &ret->count, m->action->steps, err);
}

const char *command_arg(const struct plan *plan, const struct command *c, size_t i)
{
	if (c->argv[i] == plan_deploy_id)
		return plan->deploy_id ? plan->deploy_id : "";
	return c->argv[i];
}

static void commands_free(struct command *list, size_t count) /* NOLINT(misc-no-recursion) */
{
	for (size_t i = 0; i < count; i++) {
		struct command *c = &list[i];

		commands_free(c->undo, c->undo_count);
		free(c->log_name);
		free(c->network);
		free(c->path);
		for (size_t k = 0; k < c->argc; k++)
			if (c->argv[k] != plan_deploy_id)
				free(c->argv[k]);
		free(c->argv);
	}
	free(list);
}

void plan_done(struct plan *plan)
{
	commands_free(plan->commands, plan->count);
	free(plan->host);
	free(plan->migr_host);
	free(plan->prefix);
	free(plan->deploy_id);
	free(plan->payload);
	for (size_t i = 0; i < ARRAY_SIZE(plan->ins); i++)
		free(plan->ins[i]);
	*plan = (struct plan){.commands = NULL};
}
