/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmadm's commands that tell what would be and change nothing: validate, diff, and --dry-run of
 * create and update; see vmadm.h. Source: smartos facts 6.2, 6.6.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "cli/now.h"
#include "cli/payload.h"
#include "cli/request.h"
#include "cli/vmadm.h"
#include "model/vm.h"

/* clang-format off */
const struct cli_option change_options[] = {
	{ 'f', 'f', "file", "FILE", "read the JSON payload from FILE; - or nothing: standard input" },
	{ OPT_DRY_RUN, 0, "dry-run", NULL, "print what would be, change nothing" },
	{ 0 },
};
const struct cli_option dry_options[] = {
	{ OPT_DRY_RUN, 0, "dry-run", NULL, "print what would be, change nothing" },
	{ 0 },
};
/* clang-format on */

static json_t *parsed(const char *payload)
{
	json_t *json = NULL;

	(void)json_parse_object(payload, strlen(payload), "payload", &json, NULL);
	return json; /* payload_read has checked it */
}

/* --- validate --- */

static const char *const list_names[] = {
	[PROBLEM_BAD_VALUE] = "bad_values",
	[PROBLEM_BAD_PROPERTY] = "bad_properties",
	[PROBLEM_MISSING] = "missing_properties",
};

static bool has_string(const json_t *array, const char *text)
{
	const json_t *one;
	size_t i;

	json_array_foreach ((json_t *)array, i, one)
		if (str_eq(json_string_value(one), text))
			return true;
	return false;
}

/* The three lists of property names, each name once. */
static json_t *lists_of(const struct problems *p)
{
	json_t *out = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(list_names); i++)
		(void)json_object_set_new(out, list_names[i], json_array());
	for (size_t i = 0; i < p->count; i++) {
		const struct problem *one = &p->items[i];
		const char *key = one->key ? one->key : one->where;
		json_t *list;

		if (one->kind == PROBLEM_WARNING)
			continue;
		list = json_object_get(out, list_names[one->kind]);
		if (!has_string(list, key))
			(void)json_array_append_new(list, json_string(key));
	}
	return out;
}

/* The verdict: exit code, told. verdict: NULL for a valid payload; else taken over. */
static int tell_verdict(struct cli *cli, const char *action, json_t *verdict,
			const struct problems *p)
{
	AUTO_JSON json_t *owned = verdict;
	AUTO_FREE char *text = owned ? json_pretty(owned) : NULL;

	if (cli_flag(cli, OPT_JSON))
		cli_put_json(text ? js_value(text, strlen(text)) : js_value("{}", 2));
	(void)cli_flush();
	if (!text)
		return cli_fail(EXIT_OK, "VALID '%s' payload for kvm brand VMs.", action);
	if (!cli_flag(cli, OPT_JSON)) {
		AUTO_STRBUF struct strbuf sb = {0};

		js_write(&sb, js_value(text, strlen(text)), 0);
		(void)fprintf(stderr, "%s\n", sb.data);
	}
	if (cli_flag(cli, OPT_VERBOSE))
		now_tell(p);
	return EXIT_FAILED;
}

static json_t *bad_brand(const char *brand)
{
	json_t *out = json_object();

	json_put_str(out, "bad_brand", brand);
	return out;
}

static int verdict_of(struct cli *cli, const char *action, const struct problems *p)
{
	return tell_verdict(cli, action, p->errors ? lists_of(p) : NULL, p);
}

static int validate_create(struct cli *cli, const json_t *payload)
{
	AUTO_WOULD struct would w = {0};
	const json_t *brand = json_object_get(payload, "brand");

	if (cli->nargs > 1)
		return cli_usage(cli, "Too many arguments for validate create: \"%s\"",
				 cli->args[1]);
	if (brand && !str_eq(json_string_value(brand), "kvm")) {
		AUTO_FREE char *text = json_is_string(brand) ? xstrdup(json_string_value(brand))
							     : json_text(brand);

		return tell_verdict(cli, "create", bad_brand(text), &w.problems);
	}
	(void)now_create(cli, payload, &w);
	return verdict_of(cli, "create", &w.problems);
}

/* Elements the payload speaks of as if they were there: some VM has them, perhaps. */
static void add_named(json_t *elements, const char *key, const json_t *named)
{
	const json_t *one;
	size_t i;

	json_array_foreach ((json_t *)named, i, one) {
		const char *name =
			json_is_object(one) ? json_get_str(one, key, NULL) : json_string_value(one);
		json_t *element;

		if (!name)
			continue;
		element = json_object();
		json_put_str(element, key, name);
		json_put_str(element, "model", "virtio");
		if (str_eq(key, "mac"))
			json_put_str(element, "nic_tag", "user");
		(void)json_array_append_new(elements, element);
	}
}

/* A stopped VM that an update payload could be meant for. */
static json_t *imagined(const json_t *payload)
{
	json_t *now = json_object(), *disks = json_array(), *nics = json_array();
	char uuid[UUID_LEN + 1];

	uuid_random(uuid);
	json_put_str(now, "uuid", uuid);
	json_put_str(now, "state", "stopped");
	add_named(disks, "path", json_object_get(payload, "update_disks"));
	add_named(disks, "path", json_object_get(payload, "remove_disks"));
	add_named(nics, "mac", json_object_get(payload, "update_nics"));
	add_named(nics, "mac", json_object_get(payload, "remove_nics"));
	(void)json_object_set_new(now, "disks", disks);
	(void)json_object_set_new(now, "nics", nics);
	return now;
}

static int validate_update(struct cli *cli, const json_t *payload)
{
	static const char *const other_brands[] = {"bhyve", "builder",        "docker", "joyent",
						   "lx",    "joyent-minimal", "lipkg",  "sngl"};
	const char *whose = cli->nargs > 1 ? cli->args[1] : "undefined";
	AUTO_WOULD struct would w = {0};
	AUTO_JSON json_t *now = NULL;
	int code = 0;

	if (cli->nargs < 2)
		return tell_verdict(cli, "update", bad_brand(whose), &w.problems);
	for (size_t i = 0; i < ARRAY_SIZE(other_brands); i++)
		if (str_eq(whose, other_brands[i]))
			return tell_verdict(cli, "update", bad_brand(whose), &w.problems);
	if (str_eq(whose, "kvm"))
		now = imagined(payload);
	else
		code = now_fetch(cli, whose, &now);
	if (code)
		return code;
	(void)now_update(cli, now, payload, &w);
	return verdict_of(cli, "update", &w.problems);
}

int cmd_validate(struct cli *cli)
{
	static const struct {
		const char *name;
		int (*run)(struct cli *cli, const json_t *payload);
	} actions[] = {{"create", validate_create}, {"update", validate_update}};

	for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
		AUTO_FREE char *payload = NULL;
		AUTO_JSON json_t *json = NULL;
		int code;

		if (!str_eq(cli->args[0], actions[i].name))
			continue;
		code = payload_read(cli, &payload);
		if (code)
			return code;
		json = parsed(payload);
		return actions[i].run(cli, json);
	}
	return cli_usage(cli, "Invalid validate action: \"%s\" (want create or update)",
			 cli->args[0]);
}

/* --- QEMU's arguments --- */

void put_arguments(struct cli *cli, struct slice answer)
{
	AUTO_FREE char *text = js_member_string(answer, "text");
	AUTO_STRBUF struct strbuf sb = {0};

	if (cli_flag(cli, OPT_JSON) || !text)
		return;
	cli_escape(&sb, text, strlen(text));
	cli_put(sb.data, sb.len);
}

/* vmstated's answer for the VM that would be; a host without it foretells all but this. */
static int arguments_of(struct cli *cli, const json_t *object, struct client_reply *ret)
{
	AUTO_JSON json_t *json = json_object();
	AUTO_FREE char *body = NULL;
	struct err err = {0};
	int code;

	(void)json_object_set(json, "vm", (json_t *)object);
	body = json_text(json);
	const struct request rq = {.peer = PEER_VMSTATED,
				   .method = "POST",
				   .target = "/argv",
				   .body = body,
				   .limit_ms = READ_LIMIT_MS};

	code = request_run(cli, &rq, ret, &err);
	if (code)
		cli_say("QEMU's arguments are not known: %s", err_text(&err, -EIO));
	return code;
}

/* Put "argv" into out, which --json prints; else they follow on stdout behind an empty line. */
static void foretell_arguments(struct cli *cli, const struct vm *vm, json_t *out)
{
	AUTO_JSON json_t *object = vm_to_json(vm, NULL, true), *answer = NULL;
	struct client_reply reply;

	if (arguments_of(cli, object, &reply))
		return;
	if (json_parse_object(reply.body, reply.len, "vmstated's answer", &answer, NULL) == 0)
		(void)json_object_set(out, "argv", json_object_get(answer, "argv"));
	if (!cli_flag(cli, OPT_JSON))
		cli_put("\n", 1);
	put_arguments(cli, js_value(reply.body, reply.len));
	client_reply_done(&reply);
}

static int put_json(const json_t *out)
{
	AUTO_FREE char *text = json_text(out);

	cli_put_json(js_value(text, strlen(text)));
	return cli_flush();
}

/* --- what would be --- */

/* Changes as lines, and QEMU's arguments; with --json {"uuid","changes","argv"}. */
static int preview(struct cli *cli, const json_t *now, const json_t *payload, bool arguments)
{
	AUTO_JSON json_t *out = json_object(), *list = NULL;
	AUTO_STRBUF struct strbuf sb = {0};
	AUTO_WOULD struct would w = {0};
	AUTO_FREE char *text = NULL;
	int code = now_update(cli, now, payload, &w);

	if (code == 0 && w.changes.count > 0)
		code = now_conflicts(cli, &w);
	now_tell(&w.problems);
	if (code)
		return code;
	list = now_changes_json(&w.changes);
	json_put_str(out, "uuid", json_get_str(now, "uuid", NULL));
	(void)json_object_set(out, "changes", list);
	if (!cli_flag(cli, OPT_JSON)) {
		text = json_text(list);
		now_put_changes(&sb, js_value(text, strlen(text)));
		cli_put(sb.data, sb.len);
	}
	if (arguments && w.changes.count > 0)
		foretell_arguments(cli, w.vm, out);
	return cli_flag(cli, OPT_JSON) ? put_json(out) : cli_flush();
}

int cmd_diff(struct cli *cli)
{
	AUTO_FREE char *payload = NULL;
	AUTO_JSON json_t *wanted = NULL, *now = NULL, *update = NULL;
	int code = payload_read(cli, &payload);

	if (code == 0)
		code = now_fetch(cli, cli->args[0], &now);
	if (code)
		return code;
	wanted = parsed(payload);
	update = now_towards(now, wanted, false);
	return preview(cli, now, update, false);
}

int dry_update(struct cli *cli, const char *id, const char *payload)
{
	AUTO_JSON json_t *now = NULL, *json = parsed(payload);
	int code = now_fetch(cli, id, &now);

	if (code == 0)
		code = preview(cli, now, json, true);
	if (code)
		return code;
	return cli_fail(EXIT_OK, "Dry run: VM %s was not changed", json_get_str(now, "uuid", id));
}

/* The object it would be, without what only a running daemon can tell (an image's size). */
int dry_create(struct cli *cli, const char *payload)
{
	AUTO_JSON json_t *json = parsed(payload), *out = json_object(), *object = NULL;
	AUTO_WOULD struct would w = {0};
	char uuid[UUID_LEN + 1];
	int code = now_create(cli, json, &w);

	if (code == 0)
		code = now_conflicts(cli, &w);
	now_tell(&w.problems);
	if (code)
		return code;
	object = vm_to_json(w.vm, NULL, true);
	(void)json_object_set(out, "vm", object);
	if (!cli_flag(cli, OPT_JSON))
		(void)put_json(object);
	if (!w.vm->uuid) { /* it gets one like this */
		uuid_random(uuid);
		w.vm->uuid = xstrdup(uuid);
		AUTO_FREE char *data = path_of_data(&cli->paths, uuid, NULL);

		vm_finish(w.vm, data);
	}
	foretell_arguments(cli, w.vm, out);
	if (cli_flag(cli, OPT_JSON))
		(void)put_json(out);
	(void)cli_flush();
	return cli_fail(EXIT_OK, "Dry run: no VM was made");
}

/* "WORD: PATH" with control characters escaped. */
static void put_fate(struct strbuf *sb, const char *word, const char *path)
{
	strbuf_printf(sb, "%s: ", word);
	strbuf_put_escaped(sb, path);
	strbuf_putc(sb, '\n');
}

int dry_delete(struct cli *cli, const char *id)
{
	static const char *const guards[] = {"indestructible_zoneroot", "indestructible_delegated"};
	AUTO_STRBUF struct strbuf sb = {0};
	AUTO_FREE char *within = NULL;
	AUTO_JSON json_t *now = NULL;
	const char *state, *data;
	json_t *disk;
	size_t i;
	int code = now_fetch(cli, id, &now);

	if (code)
		return code;
	for (i = 0; i < ARRAY_SIZE(guards); i++)
		if (json_get_bool(now, guards[i], false))
			return cli_fail(EXIT_CONFLICT,
					"Failed to delete VM %s: %s is set, cannot delete", id,
					guards[i]);
	state = json_get_str(now, "state", "unknown");
	data = json_get_str(now, "zonepath", "");
	if (!str_eq(state, "stopped"))
		put_fate(&sb, "stop by force, as it is", state);
	put_fate(&sb, "remove the definition of", json_get_str(now, "name", id));
	put_fate(&sb, "remove with all in it", data);
	within = xasprintf("%s/", data);
	json_array_foreach (json_object_get(now, "disks"), i, disk) {
		const char *path = json_get_str(disk, "path", "");

		put_fate(&sb, str_starts(path, within) ? "remove disk" : "keep disk", path);
	}
	cli_put(sb.data, sb.len);
	(void)cli_flush();
	return cli_fail(EXIT_OK, "Dry run: VM %s was not deleted", json_get_str(now, "uuid", id));
}
