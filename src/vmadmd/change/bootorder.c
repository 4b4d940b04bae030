/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of autoboot; see bootorder.h. A dependency that will never come does not hold a VM
 * back: a host that boots starts what it can, and says what it did not wait for.
 */
#include "vmadmd/change/bootorder.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/vm.h"

#define READY_SUFFIX ":ready"

static void note(struct boot_verdict *v, const char *name, const char *why)
{
	strbuf_printf(&v->notes, "%s'%s' %s", v->notes.len ? ", " : "", name, why);
}

/* One entry: whether it lets the VM go. */
static bool judge_one(const char *entry, bool late, dep_lookup lookup, void *ctx,
		      struct boot_verdict *v)
{
	bool ready = str_ends(entry, READY_SUFFIX);
	size_t len = strlen(entry) - (ready ? strlen(READY_SUFFIX) : 0);
	AUTO_FREE char *name = xstrndup(entry, len);

	switch (lookup(ctx, name)) {
	case DEP_UNKNOWN:
		note(v, name, "does not exist");
		return true;
	case DEP_NEVER:
		note(v, name, "does not run and will not be started");
		return true;
	case DEP_COMING:
		return false;
	case DEP_RUNNING:
		if (!ready)
			return true;
		if (late)
			note(v, name, "is not ready yet");
		v->counts = true;
		return late;
	case DEP_READY:
		return true;
	}
	return true;
}

void boot_judge(const struct vm *vm, uint64_t waited_ms, dep_lookup lookup, void *ctx,
		struct boot_verdict *ret)
{
	bool late = waited_ms >= vm->readytimeout_ms;

	*ret = (struct boot_verdict){.go = true};
	for (size_t i = 0; i < vm->after.count; i++) {
		if (!judge_one(vm->after.items[i], late, lookup, ctx, ret))
			ret->go = false;
	}
}
