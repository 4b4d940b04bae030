/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a VM wants its VNC served and with which password: the definition says it; of a VM whose
 * hardware comes from a configfile, vmstated tells address and port of the frame buffer it started
 * (the fact "fbuf"), and the password is read from that file, since facts hold no secrets.
 */
#include <stdlib.h>
#include <string.h>

#include "api/names.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "qemu/bhyve.h"
#include "store/catalog.h"
#include "vmadmd/guest.h"
#include "vmadmd/vmadmd.h"

#define LOOPBACK "127.0.0.1"

static bool filled(const char *text)
{
	return text && *text;
}

/* Once per start of QEMU: the file may change, the frame buffer that runs does not. */
static const char *file_password(struct guest *g, const struct vm *vm)
{
	struct problems AUTO_PROBLEMS problems = {0};
	struct bhyve *file = NULL;
	const char *password;

	if (g->vnc.file_read)
		return g->vnc.file_password;
	g->vnc.file_read = true;
	if (bhyve_load(vm->configfile, vm, &file, &problems) < 0) {
		AUTO_FREE char *text = problems_text(&problems);

		log_warn("vm=%s configfile not read for its VNC password: %s", g->uuid, text);
		return NULL;
	}
	password = bhyve_info(file)->vnc.password;
	if (filled(password))
		replace_str(&g->vnc.file_password, xstrdup(password));
	bhyve_free(file);
	return g->vnc.file_password;
}

void vnc_wanted(struct guest *g, const struct vm *vm, struct vnc_want *ret)
{
	const json_t *fbuf = g->facts ? json_object_get(g->facts, FACT_FBUF) : NULL;
	const char *address = filled(vm->vnc_address) ? vm->vnc_address : LOOPBACK;
	const char *password = vm->vnc_password;
	int32_t port = vm->vnc_port;

	if (filled(vm->configfile) && port >= 0) {
		address = json_get_str(fbuf, "address", LOOPBACK);
		port = (int32_t)json_get_int(fbuf, "port", -1);
		if (port > UINT16_MAX)
			port = -1;
		if (!filled(password))
			password = file_password(g, vm);
	}
	*ret = (struct vnc_want){.address = xstrdup(address), .port = port};
	if (filled(password))
		ret->password = xstrdup(password);
}

void vnc_want_done(struct vnc_want *want)
{
	free(want->address);
	free(want->password);
	*want = (struct vnc_want){0};
}

bool vnc_guarded(struct guest *g)
{
	struct catalog_entry *e = catalog_by_uuid(g->d->catalog, g->uuid);
	struct vnc_want want;
	bool guarded;

	if (!e)
		return false;
	vnc_wanted(g, e->vm, &want);
	guarded = want.password != NULL;
	vnc_want_done(&want);
	return guarded;
}
