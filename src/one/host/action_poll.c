/* SPDX-License-Identifier: Apache-2.0 */
/* poll: one line about a VM. What is not known is never called gone. Source: fact sheet, 6.1. */
#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/host/action.h"
#include "one/host/view.h"

static json_t *find(const struct view *v, const char *id)
{
	static const char *const keys[] = {"name", "uuid", "alias"};
	json_t *vm;
	size_t i;

	for (size_t k = 0; k < ARRAY_SIZE(keys); k++)
		json_array_foreach (v->vms, i, vm) {
			if (str_eq(json_get_str(vm, keys[k], NULL), id))
				return vm;
		}
	return NULL;
}

static void print_line(const struct view *v, const json_t *vm)
{
	AUTO_STRBUF struct strbuf sb = {0};
	char letter = vm ? vm_letter(vm) : v->sure ? 'd' : '-';

	strbuf_printf(&sb, "STATE=%c ", letter);
	if (vm) {
		put_counters(&sb, v, vm, ' ');
		put_sizes(&sb, vm, ' ');
		put_snapshots(&sb, vm, ' ');
	}
	sb.data[sb.len - 1] = '\n';
	(void)fputs(sb.data, stdout);
}

int act_poll(struct call *call, struct err *err)
{
	const char *id = call->argc ? call_arg(call, "id") : "";
	struct view v;
	int r;

	if (!*id)
		return err_set(err, EINVAL, "want the deploy id of a VM");
	r = view_open(&v, call, true, err);
	if (r == 0)
		print_line(&v, find(&v, id));
	view_done(&v);
	return r;
}
