/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NICs of a running machine: in, out, cable pulled; see plug.h. Taps and their filters are
 * vmstated's, as at a start: it makes the back end over its own monitor, since QEMU knows a
 * descriptor only on the monitor it came by.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "qemu/argv.h"
#include "vmadmd/devices/plug_private.h"
#include "vmadmd/guest.h"

static char *nic_words(const char *id, const struct nic *n)
{
	return xasprintf("NIC '%s' (%s, %s)", n->name ? n->name : "", id, n->mac);
}

static size_t index_of_nic(const struct vm *vm, const struct nic *n)
{
	size_t i = 0;

	while (i < vm->nnics && vm->nics[i] != n)
		i++;
	return i;
}

static void link_step(struct plug *p, const char *id, bool up, const char *what)
{
	plug_step(p, "set_link", json_pack("{s:s, s:b}", "name", id, "up", up), "set_link",
		  json_pack("{s:s, s:b}", "name", id, "up", !up), what);
}

static void back_end(struct plug *p, const struct nic *n, const char *netdev, bool in,
		     const char *what)
{
	struct trans_step step = {.of_vmstated = true,
				  .command = in ? "plug-nic" : "unplug-nic",
				  .undo = in ? "unplug-nic" : "plug-nic",
				  .lax = !in,
				  .what = xstrdup(what)};

	step.args =
		json_pack("{s:o, s:s, s:o}", "vm", vm_to_json(in ? p->new : p->old, NULL, false),
			  "mac", n->mac, "netdev", json_loads(netdev, 0, NULL));
	step.undo_args = json_incref(step.args);
	trans_add(p->trans, &step);
}

/* All of argv, what is made first in or what was made last out. */
static void nic_steps(struct plug *p, const struct nic *n, const struct argv *argv, bool in,
		      const char *what)
{
	bool user = str_eq(n->nic_tag, "user");

	if (in && !user)
		back_end(p, n, argv->items[1], true, what);
	plug_make(p, argv, in, user ? NULL : "-device", what);
	if (!in && !user)
		back_end(p, n, argv->items[1], false, what);
}

int plug_nic_in_steps(struct plug *p, const struct nic *n, struct err *err)
{
	size_t i = index_of_nic(p->new, n);
	struct qemu_place at = {.number = machine_free_number(&p->machine, true, i)};
	long port = machine_free_port(&p->machine, i);
	AUTO_FREE char *what = NULL, *tap = NULL;
	struct argv argv = {0};
	char id[QEMU_ID_MAX];
	int r;

	if (port < 0)
		return err_set(err, ENOSPC, "no free slot in the running machine for NIC '%s'",
			       n->name);
	(void)qemu_nic_id(at.number, id, sizeof(id));
	at.port = (size_t)port;
	what = nic_words(id, n);
	tap = xasprintf("%s-tap", id);
	at.tap = str_eq(n->nic_tag, "user") ? NULL : tap;
	r = qemu_nic_argv(p->new, i, &at, &argv, err);
	if (r < 0)
		return r;
	json_put_str(p->machine.ports, qemu_port_id(at.port, id, sizeof(id)), "?");
	(void)qemu_nic_id(at.number, id, sizeof(id));
	nic_steps(p, n, &argv, true, what);
	argv_done(&argv);
	if (n->link_down)
		link_step(p, id, false, what);
	plug_touch(p, "nics", n->name, n->mac);
	return 0;
}

int plug_nic_out_steps(struct plug *p, const struct nic *n, struct err *err)
{
	const char *id = machine_nic(&p->machine, n->mac);
	AUTO_FREE char *what = nic_words(id ? id : "", n), *tap = xasprintf("%s-tap", id ? id : "");
	struct qemu_place at = {0};
	struct argv argv = {0};
	long port;
	int r;

	if (!id) /* it was added while the machine ran, without being plugged in */
		return 0;
	at.number = strtoul(id + strlen("nic"), NULL, 10);
	at.tap = str_eq(n->nic_tag, "user") ? NULL : tap;
	port = machine_port_of(&p->machine, id);
	at.port = port < 0 ? 0 : (size_t)port;
	r = qemu_nic_argv(p->old, index_of_nic(p->old, n), &at, &argv, err);
	if (r < 0)
		return r;
	nic_steps(p, n, &argv, false, what);
	argv_done(&argv);
	plug_touch(p, "nics", n->name, n->mac);
	return 0;
}

void plug_nic_change_steps(struct plug *p, const struct nic *before, const struct nic *n)
{
	const char *id = machine_nic(&p->machine, n->mac);
	AUTO_FREE char *what = nic_words(id ? id : "", n);

	if (id && before->link_down != n->link_down)
		link_step(p, id, !n->link_down, what);
}
