/* SPDX-License-Identifier: Apache-2.0 */
/* What devices a running QEMU has; see machine.h. */
#include "vmadmd/devices/machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "qemu/argv.h"
#include "vmadmd/guest.h"
#include "vmadmd/info.h"

struct machine_ask {
	struct guest *g;
	struct machine *m;
	size_t question; /* of questions[] */
	json_t *todo;    /* [[id, property]]: asked one after the other, the queue has its bound */
	machine_done done;
	void *ctx;
};

void machine_done_with(struct machine *m)
{
	json_decref(m->block);
	json_decref(m->ports);
	json_decref(m->macs);
	json_decref(m->has);
	*m = (struct machine){0};
}

static void end(struct machine_ask *a, int r, const struct err *err)
{
	static const struct err none;

	a->done(a->ctx, r == -EREMOTEIO ? -EIO : r, err ? err : &none);
	json_decref(a->todo);
	free(a);
}

static void next(struct machine_ask *a);

/* "/machine/peripheral/port3/port3" is the bus of what sits on port3. */
static void put_port(struct machine *m, const char *bus, const char *id)
{
	const char *slash = strrchr(bus, '/');

	if (slash && json_object_get(m->ports, slash + 1))
		json_put_str(m->ports, slash + 1, id);
}

static void on_property(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct machine_ask *a = ctx;
	const json_t *pair = json_array_get(a->todo, 0);
	const char *id = json_string_value(json_array_get(pair, 0));
	const char *text = json_string_value(value);

	if (r < 0 && r != -EREMOTEIO) {
		end(a, r, err);
		return;
	}
	/* A refusal: it may have gone just now. */
	if (r == 0 && text && str_eq(json_string_value(json_array_get(pair, 1)), "mac"))
		json_put_str(a->m->macs, id, text);
	else if (r == 0 && text)
		put_port(a->m, text, id);
	json_array_remove(a->todo, 0);
	next(a);
}

static void next(struct machine_ask *a)
{
	const json_t *pair = json_array_get(a->todo, 0);
	const char *id = json_string_value(json_array_get(pair, 0));
	AUTO_FREE char *path = xasprintf("/machine/peripheral/%s", id ? id : "");
	AUTO_JSON json_t *args = json_object();
	struct err err = {0};
	int r;

	if (!pair) {
		end(a, 0, NULL);
		return;
	}
	json_put_str(args, "path", path);
	json_put_str(args, "property", json_string_value(json_array_get(pair, 1)));
	r = monitor_send(a->g, "qom-get", args, -1, on_property, a, &err);
	if (r < 0)
		end(a, r, &err);
}

/* --- questions about all of it --- */

static void put(struct machine_ask *a, const char *maker, const char *id)
{
	json_t *ids = json_object_get(a->m->has, maker);

	if (!ids) {
		ids = json_object();
		(void)json_object_set_new(a->m->has, maker, ids);
	}
	json_put_bool(ids, id, true);
}

static void take_block(struct machine_ask *a, const json_t *value)
{
	a->m->block = info_map(info_row("block"), value);
}

static void take_nodes(struct machine_ask *a, const json_t *value)
{
	const json_t *node;
	size_t i;

	json_array_foreach (value, i, node)
		put(a, "blockdev-add", json_get_str(node, "node-name", ""));
}

/* "nic0: index=0,type=nic,..." or " \\ nic0-net: index=0,type=user,...", a line each. */
static void take_netdevs(struct machine_ask *a, const json_t *value)
{
	const char *line = json_string_value(value);

	for (; line && *line; line += strcspn(line, "\n"), line += *line == '\n') {
		const char *id = line + strspn(line, " \\");
		AUTO_FREE char *name = xstrndup(id, strcspn(id, ":\r\n"));

		if (str_starts(id + strlen(name), ": index="))
			put(a, "netdev_add", name);
	}
}

static void take_objects(struct machine_ask *a, const json_t *value)
{
	const json_t *object;
	size_t i;

	json_array_foreach (value, i, object)
		put(a, "object-add", json_get_str(object, "name", ""));
}

static void want(struct machine_ask *a, const char *id, const char *property)
{
	json_array_append_new(a->todo, json_pack("[s,s]", id, property));
}

/* query-pci would not do: before the firmware has numbered the buses it shows none behind ports. */
static void take_devices(struct machine_ask *a, const json_t *value)
{
	const json_t *device;
	size_t i;

	json_array_foreach (value, i, device) {
		const char *id = json_get_str(device, "name", "");

		put(a, "device_add", id);
		if (str_eq(json_get_str(device, "type", ""), "child<pcie-root-port>"))
			json_put_str(a->m->ports, id, "");
		else
			want(a, id, "parent_bus");
		if (str_starts(id, "nic"))
			want(a, id, "mac");
	}
}

static const struct {
	const char *command, *arguments;
	void (*take)(struct machine_ask *a, const json_t *value);
	bool may; /* a refusal is passed over */
} questions[] = {
	/* clang-format off */
	{ "query-block",             "{}",                                    take_block,   false },
	{ "query-named-block-nodes", "{\"flat\": true}",                      take_nodes,   false },
	{ "human-monitor-command",   "{\"command-line\": \"info network\"}",  take_netdevs, true },
	{ "qom-list",                "{\"path\": \"/objects\"}",              take_objects, true },
	{ "qom-list",                "{\"path\": \"/machine/peripheral\"}",   take_devices, false },
	/* clang-format on */
};

static int ask_question(struct machine_ask *a, struct err *err);

static void on_answer(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct machine_ask *a = ctx;
	struct err text = {0};

	if (r < 0 && !(r == -EREMOTEIO && questions[a->question].may)) {
		end(a, r, err);
		return;
	}
	if (r == 0)
		questions[a->question].take(a, value);
	if (++a->question == ARRAY_SIZE(questions)) {
		next(a);
		return;
	}
	r = ask_question(a, &text);
	if (r < 0)
		end(a, r, &text);
}

static int ask_question(struct machine_ask *a, struct err *err)
{
	AUTO_JSON json_t *args = json_loads(questions[a->question].arguments, 0, NULL);

	return monitor_send(a->g, questions[a->question].command, args, -1, on_answer, a, err);
}

int machine_ask(struct guest *g, struct machine *m, machine_done done, void *ctx, struct err *err)
{
	struct machine_ask *a = xcalloc(1, sizeof(*a));
	int r;

	*a = (struct machine_ask){.g = g, .m = m, .todo = json_array(), .done = done, .ctx = ctx};
	*m = (struct machine){.ports = json_object(), .macs = json_object(), .has = json_object()};
	r = ask_question(a, err);
	if (r < 0) {
		json_decref(a->todo);
		free(a);
	}
	return r;
}

/* --- looking up --- */

bool machine_has(const struct machine *m, const char *maker, const char *id)
{
	return json_object_get(json_object_get(m->has, maker), id) != NULL;
}

const json_t *machine_disk(const struct machine *m, const char *path, const char *id)
{
	json_t *row;
	size_t i;

	json_array_foreach (m->block, i, row) {
		const json_t *inserted = json_object_get(row, "inserted");

		if (path && *path && str_eq(json_get_str(inserted, "file", NULL), path))
			return row;
		if ((!path || !*path) && !inserted && str_eq(json_get_str(row, "device", ""), id))
			return row;
	}
	return NULL;
}

const char *machine_nic(const struct machine *m, const char *mac)
{
	const char *id;
	json_t *value;

	json_object_foreach (m->macs, id, value) {
		if (str_eq(json_string_value(value), mac))
			return id;
	}
	return NULL;
}

long machine_port_of(const struct machine *m, const char *id)
{
	const char *port;
	json_t *value;

	json_object_foreach (m->ports, port, value) {
		if (str_eq(json_string_value(value), id))
			return strtol(port + strlen("port"), NULL, 10);
	}
	return -1;
}

static bool port_free(const struct machine *m, size_t n)
{
	char id[QEMU_ID_MAX];

	return str_eq(json_get_str(m->ports, qemu_port_id(n, id, sizeof(id)), NULL), "");
}

long machine_free_port(const struct machine *m, size_t first)
{
	size_t count = json_object_size(m->ports);

	for (size_t n = 0; n < count; n++) {
		size_t at = (first + n) % count;

		if (port_free(m, at))
			return (long)at;
	}
	return -1;
}

static bool has_device(const struct machine *m, const char *id)
{
	AUTO_FREE char *netdev = xasprintf("%s-net", id);
	json_t *row;
	size_t i;

	if (machine_port_of(m, id) >= 0 || machine_has(m, "device_add", id) ||
	    machine_has(m, "blockdev-add", id) || machine_has(m, "netdev_add", netdev))
		return true;
	json_array_foreach (m->block, i, row) {
		if (str_eq(json_get_str(row, "device", ""), id))
			return true;
	}
	return false;
}

size_t machine_free_number(const struct machine *m, bool nic, size_t n)
{
	char id[QEMU_ID_MAX];

	while (has_device(m,
			  nic ? qemu_nic_id(n, id, sizeof(id)) : qemu_disk_id(n, id, sizeof(id))))
		n++;
	return n;
}
