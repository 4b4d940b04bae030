/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What QEMU inherits: the VM's lock, listening sockets of monitors and serial ports, taps, and a
 * private copy of the firmware's variables. All of it is ready before QEMU exists, so nobody has
 * to wait for a socket to appear.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/sock.h"
#include "model/model.h"
#include "qemu/recorder.h"
#include "qemu/seed.h"
#include "store/catalog.h"
#include "vmstated/hardware.h"
#include "vmstated/net.h"
#include "vmstated/parts.h"
#include "vmstated/vhost.h"

#define VARS_MAX (16u << 20)
#define SEED_MAX (32u << 20)

static void none(struct inherited *in)
{
	*in = (struct inherited){
		.fds = {.mon = -1, .qmp = -1, .ttya = -1, .ttyb = -1, .agent = -1, .lock = -1}};
	for (size_t i = 0; i < ARRAY_SIZE(in->fds.taps); i++)
		in->fds.taps[i] = -1;
}

size_t inherited_list(const struct inherited *in, int list[INHERITED_MAX])
{
	const struct qemu_fds *f = &in->fds;
	const int sockets[] = {f->mon, f->qmp, f->ttya, f->ttyb, f->agent, f->lock};
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(sockets); i++) {
		if (sockets[i] >= 0)
			list[n++] = sockets[i];
	}
	for (size_t i = 0; i < ARRAY_SIZE(f->taps); i++) {
		if (f->taps[i] >= 0)
			list[n++] = f->taps[i];
	}
	for (size_t i = 0; i < ARRAY_SIZE(f->vhosts); i++) {
		if (f->vhosts[i] > 0)
			list[n++] = f->vhosts[i];
	}
	return n;
}

void inherited_done(struct inherited *in)
{
	int list[INHERITED_MAX];
	size_t n = inherited_list(in, list);

	for (size_t i = 0; i < n; i++)
		(void)close(list[i]);
	free(in->vars);
	free(in->seed);
	none(in);
}

static int take_lock(struct guest *g, int *ret_fd, struct err *err)
{
	AUTO_FREE char *dir = path_of_data(&g->sup->paths, g->uuid, NULL);
	AUTO_FREE char *path = path_of_data(&g->sup->paths, g->uuid, "lock");
	AUTO_FD int fd = -1;
	int r = dir_make(dir, 0700, err);

	if (r < 0)
		return r;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(err, errno, "cannot open '%s'", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(err, EBUSY,
			       "'%s' is held: a QEMU of this VM still runs (fuser -v '%s')", path,
			       path);
	*ret_fd = steal_fd(&fd);
	return 0;
}

static int listen_in_run(struct guest *g, const char *name, int *ret_fd, struct err *err)
{
	AUTO_FREE char *path = path_of_run(&g->sup->paths, g->uuid, name);

	return sock_listen(path, 0600, ret_fd, err);
}

/* Where the definition names the file, whoever has its directory moves it with the disks. */
static int give_vars(const struct guest *g, const char *path, struct err *err)
{
	AUTO_FREE char *dir = xstrndup(path, (size_t)(strrchr(path, '/') - path));
	struct stat st;

	if (geteuid() != 0 || !g->started->nvram)
		return 0;
	if (stat(dir, &st) < 0 || lchown(path, st.st_uid, st.st_gid) < 0)
		return err_sys(err, errno, "cannot give '%s' to its directory's owner", path);
	return 0;
}

/* The firmware's variables: a copy of its template, of this VM alone, made at the first start. */
static int prepare_vars(struct guest *g, char **ret, struct err *err)
{
	const char *bootrom = hardware_private_vars(g);
	AUTO_FREE char *template = bootrom ? qemu_vars_template(bootrom) : NULL;
	AUTO_FREE char *path = NULL;
	AUTO_FREE char *data = NULL;
	size_t len;
	int r;

	if (!template)
		return 0;
	path = path_of_nvram(&g->sup->paths, g->uuid, g->started->nvram);
	if (!file_exists(path)) {
		r = file_read(template, VARS_MAX, &data, &len, NULL, err);
		if (r == 0)
			r = file_write(path, data, len, 0600, FILE_NO_SYNC, err);
		if (r == 0)
			r = give_vars(g, path, err);
		if (r < 0)
			return err_wrap(err, r, "%s", g->started->nvram ? "nvram" : "bootrom");
	}
	*ret = steal_ptr(path);
	return 0;
}

/* The seed of cloud-init, made anew when what it says has changed. */
static int prepare_seed(struct guest *g, char **ret, struct err *err)
{
	AUTO_FREE char *path = path_of_data(&g->sup->paths, g->uuid, SEED_FILE);
	AUTO_FREE char *old = NULL, *data = NULL;
	AUTO_VM struct vm *vm = vm_copy(g->started);
	size_t old_len = 0, len = 0;
	int r = g->bhyve ? 0 : metadata_read(&g->sup->paths, vm, err);

	if (r < 0)
		return r;
	if (g->bhyve || !seed_wanted(vm)) {
		(void)unlink(path);
		return 0;
	}
	r = seed_build(vm, &data, &len, err);
	if (r < 0)
		return err_wrap(err, r, "cloud-init seed");
	if (file_read(path, SEED_MAX, &old, &old_len, NULL, NULL) < 0 || old_len != len ||
	    memcmp(old, data, len) != 0)
		r = file_write(path, data, len, 0600, FILE_NO_SYNC, err);
	if (r == 0)
		*ret = steal_ptr(path);
	return r;
}

/*
 * NICs of virtio on a tap. A machine that arrives may have agreed with its guest on more than the
 * kernel's back end can do: it goes on as it was, until its next start.
 */
static void take_vhosts(const struct guest *g, struct qemu_fds *f)
{
	for (size_t i = 0; i < ARRAY_SIZE(f->vhosts) && i < g->started->nnics; i++) {
		int fd = -1;

		if (!g->bhyve && g->hold != HOLD_INCOMING && f->taps[i] >= 0 &&
		    g->started->nics[i]->model == NIC_VIRTIO)
			fd = vhost_open(VHOST_NET);
		f->vhosts[i] = fd > 0 ? fd : 0;
	}
}

static int listen_all(struct guest *g, struct qemu_fds *f, struct err *err)
{
	const struct {
		const char *name;
		int *fd;
		bool wanted;
	} rows[] = {
		{"vm.mon", &f->mon, true},
		{"vm.qmp", &f->qmp, true},
		{"vm.ttya", &f->ttya, hardware_consoles(g) > 0},
		{"vm.ttyb", &f->ttyb, hardware_consoles(g) > 1},
		{"vm.agent", &f->agent, g->bhyve == NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		int r = rows[i].wanted ? listen_in_run(g, rows[i].name, rows[i].fd, err) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

int inherited_prepare(struct guest *g, struct inherited *ret, struct err *err)
{
	AUTO_FREE char *dir = path_of_run(&g->sup->paths, g->uuid, NULL);
	int r = dir_make(dir, 0711, err);

	none(ret);
	if (r == 0)
		r = take_lock(g, &ret->fds.lock, err);
	if (r == 0)
		r = listen_all(g, &ret->fds, err);
	net_take(g, ret->fds.taps);
	take_vhosts(g, &ret->fds);
	if (r == 0)
		r = prepare_vars(g, &ret->vars, err);
	if (r == 0)
		r = prepare_seed(g, &ret->seed, err);
	if (r == 0)
		r = recorder_prepare(dir, 0600, &g->recorder_fd, err);
	ret->fds.vars = ret->vars;
	ret->fds.seed = ret->seed;
	return r;
}
