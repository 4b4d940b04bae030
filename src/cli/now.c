/* SPDX-License-Identifier: Apache-2.0 */
/* What a VM is now and what a payload would make of it; see now.h. */
#include "cli/now.h"

#include <stdlib.h>
#include <string.h>

#include "api/client.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "cli/find.h"
#include "cli/request.h"
#include "model/vm.h"

int now_fetch(struct cli *cli, const char *id, json_t **ret)
{
	struct client_reply reply;
	struct err err = {0};
	int code = find_vm(cli, id, "", &reply, &err), r;

	if (code)
		return request_fail(code, NULL, &err);
	r = json_parse_object(reply.body, reply.len, "vminfod's answer", ret, &err);
	client_reply_done(&reply);
	return r < 0 ? cli_fail(EXIT_FAILED, "%s", err_text(&err, r)) : 0;
}

void would_done(struct would *w)
{
	vm_free(w->vm);
	vm_changes_done(&w->changes);
	problems_done(&w->problems);
	*w = (struct would){0};
}

static struct vm *read_object(const struct cli *cli, const json_t *object)
{
	AUTO_FREE char *data = path_of_data(&cli->paths, json_get_str(object, "uuid", ""), NULL);
	AUTO_PROBLEMS struct problems ignored = {0}; /* it is in force: not ours to judge */

	return vm_from_object(object, data, &ignored);
}

int now_update(const struct cli *cli, const json_t *now, const json_t *payload, struct would *ret)
{
	AUTO_VM struct vm *old = read_object(cli, now);

	*ret = (struct would){0};
	ret->vm = vm_update(old, payload, json_get_str(now, "state", "stopped"), &ret->changes,
			    &ret->problems);
	return ret->vm && ret->problems.errors == 0 ? 0 : EXIT_FAILED;
}

int now_create(const struct cli *cli, const json_t *payload, struct would *ret)
{
	AUTO_FREE char *data = NULL;

	*ret = (struct would){0};
	ret->vm = vm_from_payload(payload, &ret->problems);
	data = path_of_data(&cli->paths, ret->vm->uuid ? ret->vm->uuid : "", NULL);
	vm_finish(ret->vm, data);
	vm_validate(ret->vm, &ret->problems);
	return ret->problems.errors ? EXIT_FAILED : 0;
}

static int all_vms(const struct cli *cli, json_t **ret, struct err *err)
{
	struct request rq = {
		.peer = PEER_VMINFOD, .method = "GET", .target = "/vms", .limit_ms = READ_LIMIT_MS};
	struct client_reply reply;
	int code = request_run(cli, &rq, &reply, err), r;

	if (code)
		return code;
	r = json_parse(reply.body, reply.len, "vminfod's answer", ret, err);
	client_reply_done(&reply);
	return r < 0 ? EXIT_FAILED : 0;
}

int now_conflicts(struct cli *cli, struct would *w)
{
	AUTO_JSON json_t *all = NULL;
	struct err err = {0};
	json_t *object;
	size_t i;
	int code = all_vms(cli, &all, &err);

	if (code)
		return request_fail(code, NULL, &err);
	json_array_foreach (all, i, object) {
		AUTO_VM struct vm *other = read_object(cli, object);

		/* a VM that is to be made may well have a taken uuid */
		if (!str_eq(other->uuid, w->vm->uuid) || w->changes.items == NULL)
			vm_conflicts(w->vm, other, &w->problems);
	}
	return w->problems.errors ? EXIT_FAILED : 0;
}

/* --- the changes, told --- */

static json_t *value_of(const char *text)
{
	json_t *value = text ? json_loads(text, JSON_DECODE_ANY, NULL) : json_null();

	return value ? value : json_string(text);
}

json_t *now_changes_json(const struct vm_changes *changes)
{
	json_t *list = json_array();

	for (size_t i = 0; i < changes->count; i++) {
		const struct vm_change *one = &changes->items[i];
		json_t *out = json_object();

		json_put_str(out, "path", one->path);
		(void)json_object_set_new(out, "old", value_of(one->old_text));
		(void)json_object_set_new(out, "new", value_of(one->new_text));
		json_put_bool(out, "live", one->live);
		(void)json_array_append_new(list, out);
	}
	return list;
}

/* A changed value: text as it reads, anything else as JSON, nothing as "-". */
static void put_value(struct strbuf *sb, struct slice v)
{
	if (!v.p || js_type(v) == 'n')
		strbuf_putc(sb, '-');
	else if (js_type(v) == '"')
		js_put_string(sb, v);
	else
		js_write(sb, v, JS_COMPACT);
}

void now_put_changes(struct strbuf *sb, struct slice changes)
{
	struct slice change;
	struct js_iter it;

	js_iter_init(&it, changes);
	while (js_next(&it, NULL, &change)) {
		AUTO_STRBUF struct strbuf line = {0};

		js_put_string(&line, js_member(change, "path"));
		strbuf_puts(&line, ": ");
		put_value(&line, js_member(change, "old"));
		strbuf_puts(&line, " -> ");
		put_value(&line, js_member(change, "new"));
		strbuf_puts(&line, js_type(js_member(change, "live")) == 't' ? " (live)"
									     : " (next start)");
		strbuf_put_escaped(sb, line.data);
		strbuf_putc(sb, '\n');
	}
}

void now_tell(const struct problems *p)
{
	for (size_t i = 0; i < p->count; i++) {
		AUTO_STRBUF struct strbuf sb = {0};

		if (p->items[i].kind == PROBLEM_WARNING)
			strbuf_puts(&sb, "warning: ");
		problem_print(&sb, &p->items[i]);
		cli_say("%s", sb.data);
	}
}
