/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether this host has what a bhyve_config file names. Done after the start hooks, which may make
 * it; QEMU is never left to make an interface or to open a disk that is not there.
 */
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/bhyve_map.h"

#define PCI_DEVICES "/sys/bus/pci/devices"

static void refuse(const struct bhyve_need *need, struct problems *p, const char *text)
{
	AUTO_FREE char *shown = bhyve_show(need->value);

	bhyve_say(p, PROBLEM_BAD_VALUE, need->var, "'%s' %s", shown, text);
}

static void check_path(const struct bhyve_need *need, struct problems *p)
{
	struct stat st;
	bool folder = need->kind == NEED_FOLDER;

	if (stat(need->value, &st) < 0)
		refuse(need, p, errno == ENOENT ? "does not exist" : strerrordesc_np(errno));
	else if (folder != S_ISDIR(st.st_mode))
		refuse(need, p, folder ? "is not a folder" : "is a folder");
	else if (need->kind == NEED_CHAR && !S_ISCHR(st.st_mode))
		refuse(need, p, "is not a character device");
	else if (access(need->value, R_OK) < 0)
		refuse(need, p, "cannot be read (permission)");
	else if (need->write && access(need->value, W_OK) < 0)
		refuse(need, p, "cannot be written (permission, or a read-only file system)");
}

static void check_tap(const struct bhyve_need *need, struct problems *p)
{
	if (if_nametoindex(need->value) == 0)
		bhyve_say(p, PROBLEM_BAD_VALUE, need->var, "interface %s does not exist",
			  need->value);
}

static void check_vfio(const struct bhyve_need *need, struct problems *p)
{
	AUTO_FREE char *device = path_join(PCI_DEVICES, need->value);
	AUTO_FREE char *driver = path_join(device, "driver");
	AUTO_FREE char *target = NULL;

	if (!file_exists(device)) {
		bhyve_say(p, PROBLEM_BAD_VALUE, need->var, "there is no PCI device %s",
			  need->value);
		return;
	}
	target = realpath(driver, NULL);
	if (!target || !str_ends(target, "/vfio-pci"))
		bhyve_say(p, PROBLEM_BAD_VALUE, need->var,
			  "PCI device %s is not bound to the driver vfio-pci", need->value);
}

static void (*const checks[])(const struct bhyve_need *, struct problems *) = {
	[NEED_FILE] = check_path, [NEED_FOLDER] = check_path, [NEED_CHAR] = check_path,
	[NEED_TAP] = check_tap,   [NEED_VFIO] = check_vfio,
};

void bhyve_check_host(const struct bhyve *b, struct problems *p)
{
	for (size_t i = 0; i < b->hw.nneeds; i++)
		checks[b->hw.needs[i].kind](&b->hw.needs[i], p);
}
