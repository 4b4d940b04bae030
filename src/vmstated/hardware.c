/* SPDX-License-Identifier: Apache-2.0 */
/* The definition's own hardware, or that of a bhyve_config(5) file; see hardware.h. */
#include "vmstated/hardware.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/problems.h"
#include "qemu/bhyve.h"
#include "vmstated/parts.h"

static int report(struct guest *g, const struct problems *p, struct err *err)
{
	for (size_t i = 0; i < p->count; i++) {
		guestlog_printf(g, "vmstated", "%s: %s", p->items[i].where, p->items[i].text);
	}
	return problems_to_err(p, err);
}

static int write_generated(struct guest *g, struct err *err)
{
	AUTO_FREE char *path = xasprintf("%s.generated", g->started->configfile);
	AUTO_FREE char *text = bhyve_generated(g->bhyve);

	/* It may hold the password of the frame buffer. */
	return file_write(path, text, strlen(text), 0600, FILE_NO_SYNC, err);
}

int hardware_load(struct guest *g, struct err *err)
{
	AUTO_PROBLEMS struct problems p = {0};
	int r;

	hardware_free(g);
	if (!g->started->configfile)
		return 0;
	(void)bhyve_load(g->started->configfile, g->started, &g->bhyve, &p);
	r = report(g, &p, err);
	return r < 0 ? r : write_generated(g, err);
}

void hardware_free(struct guest *g)
{
	bhyve_free(g->bhyve);
	g->bhyve = NULL;
}

/* As QEMU will ask, which has no privilege. */
static int check_uring(const struct guest *g)
{
	struct io_uring_params params = {0};
	AUTO_FREE char *text = NULL;
	int fd;

	if (file_read("/proc/sys/kernel/io_uring_disabled", 16, &text, NULL, NULL, NULL) == 0 &&
	    (text[0] == '2' || (text[0] == '1' && g->uid != 0)))
		return -EPERM;
	fd = (int)syscall(SYS_io_uring_setup, 1, &params);
	if (fd < 0)
		return -errno;
	(void)close(fd);
	return 0;
}

static int check_aio(const struct guest *g, struct err *err)
{
	const struct vm *vm = g->started;

	for (size_t i = 0; i < vm->ndisks; i++) {
		int r = vm->disks[i]->aio == AIO_IO_URING ? check_uring(g) : 0;

		if (r < 0)
			return err_sys(
				err, -r,
				"disks[%zu].aio: this host's kernel gives no io_uring (sysctl "
				"kernel.io_uring_disabled, or a container's seccomp filter; use "
				"aio = threads)",
				i);
	}
	return 0;
}

int hardware_check_host(struct guest *g, struct err *err)
{
	AUTO_PROBLEMS struct problems p = {0};
	const struct vm *vm = g->started;
	const struct {
		const char *what, *path;
	} files[] = {{"kernel", vm->kernel}, {"initrd", vm->initrd}, {"bootrom", vm->bootrom}};

	if (g->bhyve) {
		bhyve_check_host(g->bhyve, &p);
		return report(g, &p, err);
	}
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (files[i].path && access(files[i].path, R_OK) < 0)
			return err_sys(err, errno, "%s: cannot read '%s'", files[i].what,
				       files[i].path);
	}
	return check_aio(g, err);
}

int hardware_argv(struct guest *g, const struct qemu_fds *fds, struct argv *ret, struct err *err)
{
	if (g->bhyve)
		return bhyve_argv(g->bhyve, g->started, &g->sup->caps, fds, ret, err);
	return qemu_argv(g->started, &g->sup->caps, fds, ret, err);
}

bool hardware_tap(const struct guest *g, size_t i, char name[NIC_TAP_MAX])
{
	const struct vm *vm = guest_vm(g);
	const char *given = g->bhyve ? bhyve_tap(g->bhyve, i) : NULL;

	if (!g->bhyve)
		return vm && i < vm->nnics && vm_nic_tap(vm, vm->nics[i], name);
	(void)snprintf(name, NIC_TAP_MAX, "%s", given ? given : "");
	return given != NULL;
}

size_t hardware_consoles(const struct guest *g)
{
	return hardware_consoles_of(guest_vm(g), g->bhyve);
}

size_t hardware_consoles_of(const struct vm *vm, const struct bhyve *bhyve)
{
	if (bhyve)
		return bhyve_info(bhyve)->consoles;
	/* The second is the metadata service's, where the definition has no console for it. */
	return vm->nconsoles > 2 ? vm->nconsoles : 2;
}

const char *hardware_private_vars(const struct guest *g)
{
	const struct bhyve_info *info = g->bhyve ? bhyve_info(g->bhyve) : NULL;

	if (!info)
		return g->started->bootrom;
	return info->bootvars ? NULL : info->bootrom;
}

enum hardware_wait hardware_waits(const struct guest *g)
{
	const struct bhyve_info *info = g->bhyve ? bhyve_info(g->bhyve) : NULL;

	if (info && info->wait)
		return WAITS_DEBUGGER;
	return info && info->vnc.wait ? WAITS_VIEWER : WAITS_NOT;
}

const char *hardware_vnc_password(const struct guest *g)
{
	const struct bhyve_info *info = g->bhyve ? bhyve_info(g->bhyve) : NULL;

	return info && !g->started->vnc_password ? info->vnc.password : NULL;
}
