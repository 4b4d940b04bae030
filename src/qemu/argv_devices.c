/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks and NICs. Those that can be taken out live (virtio-blk, NVMe, every NIC) sit on a root
 * port each; SCSI devices on one controller, IDE devices on the six ports of q35's AHCI.
 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/props.h"
#include "model/vm.h"
#include "qemu/argv_private.h"
#include "qemu/image.h"
#include "qemu/source.h"

#define AHCI_PORTS  6
#define SEED_TARGET 200 /* behind all disks */

/* What a cache mode means to QEMU. Source: qemu-system(1), -drive cache. */
static const struct cache_row {
	bool direct, no_flush, write_cache;
} caches[DISK_CACHE_COUNT] = {
	[CACHE_WRITEBACK] = {.write_cache = true},
	[CACHE_NONE] = {.direct = true, .write_cache = true},
	[CACHE_WRITETHROUGH] = {0},
	[CACHE_DIRECTSYNC] = {.direct = true},
	[CACHE_UNSAFE] = {.no_flush = true, .write_cache = true},
};

/* A virtio CD does not exist: it comes as SCSI. */
static enum disk_model attached_as(const struct disk *d)
{
	return d->media == MEDIA_CDROM && d->model == DISK_VIRTIO ? DISK_SCSI : d->model;
}

bool qemu_disk_on_port(const struct disk *d)
{
	enum disk_model model = attached_as(d);

	return model == DISK_VIRTIO || model == DISK_NVME;
}

/* --- back end --- */

static bool is_readonly(const struct disk *d)
{
	return d->readonly || d->media == MEDIA_CDROM;
}

static int check_path(struct build *b, size_t i, const struct disk *d)
{
	const char *protocol = image_protocol(d->path);
	AUTO_JSON json_t *text = json_string(d->path);

	if (protocol) {
		AUTO_JSON json_t *source = NULL;
		int r = source_parse(d->path, &source, b->err);

		return r < 0 ? err_wrap(b->err, r, "disks[%zu].path", i) : 0;
	}
	if (!text)
		return err_set(b->err, EINVAL, "disks[%zu].path: is not UTF-8", i);
	if (d->path[0] != '/')
		return err_set(b->err, EINVAL, "disks[%zu].path: '%s' is not an absolute path", i,
			       d->path);
	return 0;
}

static int check_disk(struct build *b, size_t i, const struct disk *d)
{
	bool cd = d->media == MEDIA_CDROM;

	if ((!d->path || !d->path[0]) && !cd)
		return err_set(b->err, EINVAL, "disks[%zu].path: missing", i);
	/* A disk of a network has the format it is given, raw unless another is. */
	if (d->format == FORMAT_AUTO && !cd && !image_protocol(d->path))
		return err_set(b->err, EINVAL,
			       "disks[%zu].format: auto is not settled (want raw or qcow2)", i);
	if (cd && d->model == DISK_NVME)
		return err_set(b->err, EINVAL,
			       "disks[%zu].model: no CD drive is nvme (want scsi or ide)", i);
	if (d->model == DISK_IDE && !cd && d->readonly)
		return err_set(b->err, EINVAL,
			       "disks[%zu].readonly: no IDE disk is read-only (want virtio, scsi "
			       "or media cdrom)",
			       i);
	if (d->aio == AIO_NATIVE && !caches[d->cache].direct)
		return err_set(
			b->err, EINVAL,
			"disks[%zu].aio: native works past the page cache only (want cache none "
			"or directsync, or aio threads or io_uring)",
			i);
	if (d->iothread && attached_as(d) != DISK_VIRTIO)
		return err_set(b->err, EINVAL, "disks[%zu].iothread: only model virtio has one", i);
	return d->path && d->path[0] ? check_path(b, i, d) : 0;
}

static json_t *node(const struct disk *d, const char *driver, const char *name)
{
	const struct cache_row *cache = &caches[d->cache];
	json_t *c = json_object(), *j = json_object();

	json_put_str(j, "driver", driver);
	json_put_str(j, "node-name", name);
	json_put_bool(j, "read-only", is_readonly(d));
	json_put_str(j, "discard", d->discard ? "unmap" : "ignore");
	json_put_bool(c, "direct", cache->direct);
	json_put_bool(c, "no-flush", cache->no_flush);
	(void)json_object_set_new(j, "cache", c);
	return j;
}

/* /dev/shm holds files like any other tmpfs. */
static bool is_device(const char *path)
{
	return str_starts(path, "/dev/") && !str_starts(path, "/dev/shm/");
}

/* Native AIO exists without the page cache only. */
static const char *aio_of(const struct disk *d)
{
	switch (d->aio) {
	case AIO_THREADS:
		return "threads";
	case AIO_NATIVE:
		return "native";
	case AIO_IO_URING:
		return "io_uring";
	case AIO_AUTO:
		break;
	}
	return caches[d->cache].direct ? "native" : "threads";
}

static json_t *file_node(const struct disk *d, const char *name)
{
	json_t *j = node(d, is_device(d->path) ? "host_device" : "file", name);

	json_put_str(j, "filename", d->path);
	json_put_str(j, "aio", aio_of(d));
	return j;
}

void argv_backend(struct build *b, const char *id, const struct disk *d)
{
	AUTO_FREE char *name = xasprintf("%s-file", id);
	AUTO_JSON json_t *source = NULL;
	json_t *j;

	if (image_protocol(d->path) && source_parse(d->path, &source, NULL) == 0) {
		j = node(d, json_get_str(source, "driver", ""), name);
		(void)json_object_update(j, source);
	} else {
		j = file_node(d, name);
	}
	argv_json(b, "-blockdev", j);
	j = node(d, d->format == FORMAT_QCOW2 ? "qcow2" : "raw", id);
	json_put_str(j, "file", name);
	argv_json(b, "-blockdev", j);
}

/* --- front end --- */

/* QEMU's own choice is one for each CPU at the start, so that memory would not fit more of them. */
static void put_queues(const struct build *b, json_t *device, const char *key)
{
	if (b->vm->vcpus_max)
		json_put_int(device, key, b->vm->vcpus_max);
}

static json_t *virtio_disk(struct build *b, const char *id, const struct disk *d)
{
	AUTO_FREE char *thread = xasprintf("%s-thread", id);
	json_t *j;

	if (d->iothread)
		argv_json(b, "-object",
			  json_pack("{s:s,s:s}", "qom-type", "iothread", "id", thread));
	j = argv_on_port(b->disk_port++, "virtio-blk-pci", id);
	put_queues(b, j, "num-queues");
	if (d->iothread)
		json_put_str(j, "iothread", thread);
	return j;
}

static json_t *on_scsi(struct build *b, const char *driver, const char *id, unsigned target)
{
	json_t *j;

	if (!b->scsi_there) {
		j = argv_pci("virtio-scsi-pci", "scsi0", SLOT_SCSI);
		put_queues(b, j, "num_queues");
		argv_json(b, "-device", j);
	}
	b->scsi_there = true;
	j = argv_device(driver, id, "scsi0.0", NULL);
	json_put_int(j, "channel", 0);
	json_put_int(j, "scsi-id", target);
	json_put_int(j, "lun", 0);
	return j;
}

static json_t *scsi_disk(struct build *b, const char *id, const struct disk *d)
{
	return on_scsi(b, d->media == MEDIA_CDROM ? "scsi-cd" : "scsi-hd", id, b->scsi++);
}

static json_t *ide_disk(struct build *b, const char *id, const struct disk *d)
{
	AUTO_FREE char *bus = xasprintf("ide.%u", b->ahci);
	json_t *j;

	if (b->ahci++ >= AHCI_PORTS) {
		(void)err_set(b->err, EINVAL, "disks: more than %d of model ide", AHCI_PORTS);
		return NULL;
	}
	j = argv_device(d->media == MEDIA_CDROM ? "ide-cd" : "ide-hd", id, bus, NULL);
	json_put_int(j, "unit", 0);
	return j;
}

/* An NVMe controller must have a serial number. */
static json_t *nvme_disk(struct build *b, const char *id, const struct disk *d)
{
	json_t *j = argv_on_port(b->disk_port++, "nvme", id);

	json_put_str(j, "serial", id);
	return j;
}

static json_t *(*const frontends[DISK_MODEL_COUNT])(struct build *, const char *,
						    const struct disk *) = {
	[DISK_VIRTIO] = virtio_disk,
	[DISK_SCSI] = scsi_disk,
	[DISK_IDE] = ide_disk,
	[DISK_NVME] = nvme_disk,
};

/* NVMe tells the guest of every error; it has no policy. */
static void put_policies(json_t *j, const struct disk *d)
{
	json_put_str(j, "write-cache", caches[d->cache].write_cache ? "on" : "off");
	if (attached_as(d) == DISK_NVME)
		return;
	json_put_str(j, "werror", enum_name(disk_error_names, DISK_ERROR_COUNT, (int)d->werror));
	json_put_str(j, "rerror",
		     d->rerror == ERROR_ENOSPC
			     ? "report" /* a read finds no full disk */
			     : enum_name(disk_error_names, DISK_ERROR_COUNT, (int)d->rerror));
}

static int add_disk(struct build *b, size_t i)
{
	const struct disk *d = b->vm->disks[i];
	bool full = d->path && d->path[0];
	char id[QEMU_ID_MAX];
	json_t *j;
	int r = check_disk(b, i, d);

	if (r < 0)
		return r;
	(void)qemu_disk_id(b->place ? b->place->number : i, id, sizeof(id));
	if (full)
		argv_backend(b, id, d);
	j = frontends[attached_as(d)](b, id, d);
	if (!j)
		return -EINVAL;
	if (full)
		json_put_str(j, "drive", id);
	if (d->serial && d->serial[0])
		json_put_str(j, "serial", d->serial);
	if (d->media == MEDIA_DISK)
		put_policies(j, d);
	if (b->boot_disk[i] > 0)
		json_put_int(j, "bootindex", b->boot_disk[i]);
	argv_json(b, "-device", j);
	return 0;
}

/* As a CD: no disk of the guest gets another name because of it. */
static void seed(struct build *b)
{
	json_t *j;

	argv_json(b, "-blockdev",
		  json_pack("{s:s, s:s, s:b, s:s}", "driver", "file", "node-name", "seed",
			    "read-only", 1, "filename", b->fds->seed));
	j = on_scsi(b, "scsi-cd", "seed0", SEED_TARGET);
	json_put_str(j, "drive", "seed");
	json_put_str(j, "serial", "cidata");
	argv_json(b, "-device", j);
}

int argv_disks(struct build *b)
{
	int r = 0;

	for (size_t i = 0; i < b->vm->ndisks && r == 0; i++)
		r = add_disk(b, i);
	if (r == 0 && b->fds->seed)
		seed(b);
	return r;
}

/* --- NICs --- */

static const char *const nic_drivers[NIC_MODEL_COUNT] = {
	[NIC_VIRTIO] = "virtio-net-pci",
	[NIC_E1000] = "e1000",
	[NIC_RTL8139] = "rtl8139",
};

static json_t *user_net(const struct nic *n)
{
	json_t *j = json_object(), *list;

	json_put_str(j, "type", "user");
	if (n->forward.count == 0)
		return j;
	list = json_array();
	for (size_t i = 0; i < n->forward.count; i++)
		(void)json_array_append_new(list, json_pack("{s:s}", "str", n->forward.items[i]));
	(void)json_object_set_new(j, "hostfwd", list);
	return j;
}

/* The descriptor is text to QEMU: a number, or a name known to the monitor. */
static json_t *tap_net(const struct build *b, size_t i, int fd)
{
	AUTO_FREE char *text = xasprintf("%d", fd);
	int vhost = b->place || b->vm->nics[i]->model != NIC_VIRTIO ? 0 : b->fds->vhosts[i];
	AUTO_FREE char *vhost_text = xasprintf("%d", vhost);
	json_t *j = json_pack("{s:s,s:s}", "type", "tap", "fd", b->place ? b->place->tap : text);

	if (vhost > 0) {
		json_put_bool(j, "vhost", true);
		json_put_str(j, "vhostfd", vhost_text);
	}
	return j;
}

static int netdev(struct build *b, size_t i, const char *id)
{
	const struct nic *n = b->vm->nics[i];
	bool user = str_eq(n->nic_tag, "user");
	int fd = b->place ? (b->place->tap ? 0 : -1) : b->fds->taps[i];
	json_t *j;

	if (!user && n->forward.count > 0)
		return err_set(b->err, EINVAL, "nics[%zu].forward: needs nic_tag user (is '%s')", i,
			       n->nic_tag ? n->nic_tag : "");
	if (!user && fd < 0)
		return err_set(b->err, ENOTSUP,
			       "nics[%zu].nic_tag: no tap interface for bridge '%s' (name one a "
			       "start_network hook makes with tap, or use nic_tag user)",
			       i, n->nic_tag ? n->nic_tag : "");
	j = user ? user_net(n) : tap_net(b, i, fd);
	json_put_str(j, "id", id);
	argv_json(b, "-netdev", j);
	return 0;
}

static int add_nic(struct build *b, size_t i)
{
	const struct nic *n = b->vm->nics[i];
	AUTO_FREE char *net = NULL;
	char id[QEMU_ID_MAX];
	json_t *j;
	int r;

	(void)qemu_nic_id(b->place ? b->place->number : i, id, sizeof(id));
	net = xasprintf("%s-net", id);
	r = netdev(b, i, net);
	if (r < 0)
		return r;
	j = argv_on_port(b->nic_port++, nic_drivers[n->model], id);
	json_put_str(j, "netdev", net);
	json_put_str(j, "mac", n->mac);
	if (n->mtu > 0 && n->model == NIC_VIRTIO)
		json_put_int(j, "host_mtu", n->mtu);
	if (b->boot_nic[i] > 0)
		json_put_int(j, "bootindex", b->boot_nic[i]);
	if (!b->net_boot) /* the boot ROM of each NIC costs time at every boot */
		json_put_str(j, "romfile", "");
	argv_json(b, "-device", j);
	return 0;
}

int argv_nics(struct build *b)
{
	int r = 0;

	for (size_t i = 0; i < b->vm->nnics && r == 0; i++)
		r = add_nic(b, i);
	return r;
}

/* --- into a machine that runs --- */

static int plug(const struct vm *vm, size_t i, const struct qemu_place *at,
		int (*add)(struct build *b, size_t i), struct argv *ret, struct err *err)
{
	struct argv out = {0};
	struct build b = {.vm = vm,
			  .out = &out,
			  .err = err,
			  .disk_port = at->port,
			  .nic_port = at->port,
			  .scsi = at->scsi,
			  .scsi_there = true,
			  .place = at};
	int r = add(&b, i);

	if (r == 0)
		argv_join(ret, &out);
	argv_done(&out);
	return r;
}

int qemu_disk_argv(const struct vm *vm, size_t i, const struct qemu_place *at, struct argv *ret,
		   struct err *err)
{
	if (attached_as(vm->disks[i]) == DISK_IDE)
		return err_set(err, ENOTSUP,
			       "disks[%zu].model: ide cannot be plugged into a machine that runs "
			       "(want virtio, nvme or scsi, or stop the VM)",
			       i);
	return plug(vm, i, at, add_disk, ret, err);
}

int qemu_nic_argv(const struct vm *vm, size_t i, const struct qemu_place *at, struct argv *ret,
		  struct err *err)
{
	return plug(vm, i, at, add_nic, ret, err);
}
