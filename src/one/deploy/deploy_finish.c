/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second half of reading a deployment file: names, paths of disks, the order of boot devices,
 * and what the core or libvirt assume when nothing is said. Source: fact sheet, 7.
 */
#include "one/deploy/deploy_finish.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/uuid.h"

/* Of uuids derived from "one-ID": the same on every host, so that a VM keeps its own. */
#define ONE_NAMESPACE "0fe4b2d4-6d0e-5a1b-9c57-3f2a8f1d7e90"
#define VNC_PASSWORD  8 /* characters the protocol looks at */
#define UEFI          "/usr/share/OVMF/OVMF_CODE.fd"
#define NO_ORDER      1000

void deploy_finish_hidden(json_t *object)
{
	const char *key;
	json_t *value;
	void *tmp;

	json_object_foreach_safe (object, tmp, key, value) {
		if (key[0] == HIDDEN)
			(void)json_object_del(object, key);
	}
}

static void missing(struct deploy *d, const char *where, const char *text)
{
	problems_add(&d->problems, PROBLEM_MISSING, where, NULL, "%s", text);
}

/* --- disks --- */

/*
 * POOL/IMAGE; a copy of an image, and a disk made for the VM alone, carry its number and their own.
 * Keys are found by ceph's own means: the keyring of the user, on the host.
 */
static char *rbd_path(struct deploy *d, const json_t *disk)
{
	const char *source = json_get_str(disk, ".source", NULL), *pool;
	const char *user = json_get_str(disk, ".ceph_user", NULL);
	const char *conf = json_get_str(disk, ".conf", NULL);
	bool own = json_object_get(disk, ".clone");
	struct strbuf sb = {0};

	pool = json_get_str(disk, ".pool", NULL);
	if (!source && !pool)
		return NULL;
	strbuf_printf(&sb, "rbd:%s%s", source ? source : pool, source ? "" : "/one-sys");
	if (own || !source)
		strbuf_printf(&sb, "-%lld-%lld", (long long)json_get_int(d->vm, ".vmid", 0),
			      (long long)json_get_int(disk, ".id", 0));
	if (user)
		strbuf_printf(&sb, ":id=%s", user);
	if (conf)
		strbuf_printf(&sb, ":conf=%s", conf);
	return strbuf_steal(&sb);
}

/* disk.N of the system datastore, else images/disk.N there, else the image itself. */
static char *disk_path(struct deploy *d, const json_t *disk)
{
	const char *source = json_get_str(disk, ".source", NULL);
	json_int_t id = json_get_int(disk, ".id", -1);
	AUTO_FREE char *dir = deploy_path(d->place->sysdir);
	char *path = NULL;

	if (json_object_get(disk, ".protocol"))
		return rbd_path(d, disk);
	for (int i = 0; i < 2 && id >= 0 && *dir; i++) {
		free(path);
		path = xasprintf("%s/%sdisk.%lld", dir, i ? "images/" : "", (long long)id);
		if (d->place->exists(path) == 0)
			return path;
	}
	if (source && (!path || d->place->exists(source) == 0)) {
		free(path);
		return xstrdup(source);
	}
	free(path);
	return id >= 0 ? xasprintf("%s/disk.%lld", dir, (long long)id) : NULL;
}

/* Without a bus the target's name tells it, as libvirt has it. */
static const char *bus_of(struct deploy *d, const json_t *disk)
{
	static const char *const rows[][2] = {
		{"vd", "virtio"}, {"xvd", "virtio"}, {"hd", "ide"}, {"sd", "scsi"}};
	const char *name = json_get_str(disk, "name", "");

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (str_starts(name, rows[i][0]))
			return i == 3 ? json_get_str(d->vm, ".sd_bus", rows[i][1]) : rows[i][1];
	return "virtio";
}

void deploy_finish_disk(struct deploy *d, json_t *disk)
{
	AUTO_FREE char *path = NULL;

	if (!json_object_get(disk, "name"))
		missing(d, d->dialect->disk, "has no TARGET");
	if (!json_object_get(disk, "model"))
		json_put_str(disk, "model", bus_of(d, disk));
	if (!json_object_get(disk, "path")) {
		path = disk_path(d, disk);
		if (!path)
			missing(d, d->dialect->disk, "has neither DISK_ID nor SOURCE");
		json_put_str(disk, "path", path);
	}
	if (!json_object_get(disk, "media"))
		json_put_str(disk, "media", "disk");
	if (str_eq(json_get_str(disk, "aio", ""), "native") && !json_object_get(disk, "cache"))
		json_put_str(disk, "cache", "none"); /* the core's own default, and needed */
	/* Never guessed from what the guest may have written into its first sector. */
	if (!json_object_get(disk, "format"))
		json_put_str(disk, "format", "raw");
	if (str_eq(json_get_str(disk, "media", ""), "cdrom")) {
		(void)json_object_del(disk, "readonly");
		(void)json_object_del(disk, "discard");
	}
	json_put_bool(disk, "nocreate", true);
}

static void add_context(struct deploy *d)
{
	const char *target = json_get_str(d->vm, ".context_target", NULL);
	json_t *disk;

	if (!target)
		return;
	disk = json_object();
	json_put_str(disk, "name", target);
	json_put_str(disk, "media", "cdrom");
	json_put_int(disk, ".id", json_get_int(d->vm, ".context_id", -1));
	(void)json_array_append_new(d->disks, disk);
}

/* --- NICs --- */

static void nic_peak(json_t *nic, const char *from, const char *to)
{
	json_int_t peak = json_get_int(nic, from, 0);

	if (peak > 0 && json_get_int(nic, to, 0) == 0)
		json_put_int(nic, to, peak);
}

void deploy_finish_nic(struct deploy *d, json_t *nic)
{
	static const char *const liberties[] = {"allow_ip_spoofing", "allow_mac_spoofing",
						"allow_dhcp_spoofing", "allow_restricted_traffic"};
	json_t *ips = json_object_get(nic, ".ips");

	if (!json_object_get(nic, "nic_tag"))
		missing(d, d->dialect->nic, "has no BRIDGE");
	if (!json_object_get(nic, "mac"))
		missing(d, d->dialect->nic, "has no MAC");
	/* libvirt's own default; the core's own from 6.0 on is virtio, and written out. */
	if (!json_object_get(nic, "model"))
		json_put_str(nic, "model", d->dialect->strict ? "rtl8139" : "virtio");
	nic_peak(nic, ".peak_in", "bandwidth_in");
	nic_peak(nic, ".peak_out", "bandwidth_out");
	if (!json_object_get(nic, ".filter")) {
		/* Security groups of the core's network drivers judge the traffic, not we. */
		for (size_t i = 0; i < ARRAY_SIZE(liberties); i++)
			json_put_bool(nic, liberties[i], true);
		(void)json_object_del(nic, "allowed_ips");
	} else if (ips && !json_object_get(nic, "allowed_ips")) {
		(void)json_object_set(nic, "allowed_ips", ips);
	}
}

/* --- boot order --- */

/* OS/BOOT, "disk1,nic0", where devices have no order of their own; the first word decides. */
static bool boot_word(struct deploy *d)
{
	const char *boot = json_get_str(d->vm, ".boot", "");
	json_int_t id;
	json_t *disk;
	size_t i;

	if (!str_starts(boot, "disk"))
		return str_starts(boot, "nic");
	id = strtoll(boot + strlen("disk"), NULL, 10);
	json_array_foreach (d->disks, i, disk) {
		if (json_get_int(disk, ".id", -1) == id)
			json_put_bool(disk, "boot", true);
	}
	return false;
}

static json_t *first_of(json_t *list, json_int_t *order)
{
	json_t *one, *first = NULL;
	size_t i;

	json_array_foreach (list, i, one) {
		json_int_t at = json_get_int(one, ".order", NO_ORDER);

		if (at < *order) {
			*order = at;
			first = one;
		}
	}
	return first;
}

static void boot_order(struct deploy *d)
{
	json_int_t order = NO_ORDER;
	json_t *disk = first_of(d->disks, &order);
	json_t *nic = first_of(d->nics, &order);

	if (!nic && disk)
		json_put_bool(disk, "boot", true);
	if (nic || (!disk && boot_word(d)))
		json_put_str(d->vm, "boot", "order=nc");
}

/* --- the VM --- */

static void identity(struct deploy *d)
{
	const char *uuid = json_get_str(d->vm, ".uuid", "");
	char derived[UUID_LEN + 1];

	if (!json_object_get(d->vm, "name") && json_object_get(d->vm, ".vmid")) {
		AUTO_FREE char *name =
			xasprintf("one-%lld", (long long)json_get_int(d->vm, ".vmid", 0));

		json_put_str(d->vm, "name", name);
	}
	if (!json_object_get(d->vm, "name"))
		missing(d, "", "there is no name and no VMID");
	uuid_derive(ONE_NAMESPACE, json_get_str(d->vm, "name", ""), derived);
	json_put_str(d->vm, "uuid", uuid_valid(uuid) ? uuid : derived);
}

static void tags(struct deploy *d)
{
	static const char *const rows[][2] = {{"one_user", ".uname"}, {"one_group", ".gname"}};
	json_t *map = json_object();
	const char *name = json_get_str(d->vm, "name", "");

	if (str_starts(name, "one-"))
		json_put_str(map, "one_vmid", name + 4);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		json_put_str(map, rows[i][0], json_get_str(d->vm, rows[i][1], NULL));
	(void)json_object_set_new(d->vm, "tags", map);
}

static void firmware(struct deploy *d)
{
	const char *word = json_get_str(d->vm, ".firmware", "");

	if (str_starts(word, "/"))
		json_put_str(d->vm, "bootrom", word);
	else if ((strcasecmp(word, "efi") == 0 || strcasecmp(word, "uefi") == 0) &&
		 !json_object_get(d->vm, "bootrom"))
		json_put_str(d->vm, "bootrom", UEFI);
	else if (*word && strcasecmp(word, "bios") != 0 && strcasecmp(word, "efi") != 0)
		problems_add(&d->problems, PROBLEM_BAD_VALUE, "OS/FIRMWARE", NULL,
			     "'%.80s' is not a firmware (want BIOS, UEFI or a path)", word);
}

/* Beside the disks, where the core has it, so that it goes where they go. */
static void variables(struct deploy *d)
{
	AUTO_FREE char *dir = deploy_path(d->place->sysdir);
	const char *alias = json_get_str(d->vm, "alias", "/");
	const char *name = strchr(alias, '/') ? json_get_str(d->vm, "name", "") : alias;
	AUTO_FREE char *path = *dir ? xasprintf("%s/%s_VARS.fd", dir, name) : NULL;

	if (!json_object_get(d->vm, "bootrom"))
		(void)json_object_del(d->vm, "nvram");
	else if (!json_object_get(d->vm, "nvram"))
		json_put_str(d->vm, "nvram", path);
}

static void processor(struct deploy *d)
{
	const char *features = json_get_str(d->vm, ".features", "");
	AUTO_FREE char *type = xasprintf("%s%s", json_get_str(d->vm, "cpu_type", "max"), features);

	if (*features)
		json_put_str(d->vm, "cpu_type", type);
}

static void cmdline(struct deploy *d)
{
	const char *root = json_get_str(d->vm, ".root", NULL);
	const char *rest = json_get_str(d->vm, ".cmdline", NULL);
	AUTO_FREE char *line = NULL;

	if (!root && !rest)
		return;
	line = xasprintf("%s%s%s%s", root ? "root=/dev/" : "", root ? root : "",
			 root && rest ? " " : "", rest ? rest : "");
	json_put_str(d->vm, "cmdline", line);
}

static void display(struct deploy *d)
{
	const char *password = json_get_str(d->vm, "vnc_password", NULL);
	AUTO_FREE char *cut = xstrndup(password, VNC_PASSWORD);

	json_put_str(d->vm, "vnc_password", cut);
	if (!json_object_get(d->vm, ".graphics"))
		json_put_int(d->vm, "vnc_port", -1);
	else if (json_get_int(d->vm, "vnc_port", -1) < 0)
		json_put_int(d->vm, "vnc_port", 0);
}

/* With room for more the machine has it all, and the balloon takes the difference. */
static void memory(struct deploy *d)
{
	json_int_t most = json_get_int(d->vm, ".ram_max", 0), ram = json_get_int(d->vm, "ram", 0);
	const char *mode = json_get_str(d->vm, ".resize_mode", "BALLOONING");

	if (!ram)
		missing(d, "", "there is no MEMORY");
	if (most > ram && strcasecmp(mode, "BALLOONING") == 0) {
		json_put_int(d->vm, "balloon", ram);
		json_put_int(d->vm, "ram", most);
	}
	if (json_get_int(d->vm, "balloon", 0) >= json_get_int(d->vm, "ram", 0))
		(void)json_object_del(d->vm, "balloon");
}

static void policy(struct deploy *d)
{
	bool local = str_eq(json_get_str(d->vm, ".clock", ""), "localtime") ||
		     json_get_bool(d->vm, ".localtime", false);

	if (!json_object_get(d->vm, "vcpus") && json_object_get(d->vm, ".vcpus_max"))
		json_put_int(d->vm, "vcpus", json_get_int(d->vm, ".vcpus_max", 1));
	if (json_get_int(d->vm, ".vcpus_max", 0) > json_get_int(d->vm, "vcpus", 1))
		json_put_int(d->vm, "vcpus_max", json_get_int(d->vm, ".vcpus_max", 1));
	if (!d->has_acpi)
		json_put_bool(d->vm, "acpi", false);
	if (local)
		json_put_str(d->vm, "qemu_extra_opts", "-rtc base=localtime");
	if (strcasecmp(json_get_str(d->vm, ".raw_type", ""), "kvm") == 0 &&
	    *json_get_str(d->vm, ".raw", ""))
		problems_add(&d->problems, PROBLEM_BAD_PROPERTY, "RAW", NULL,
			     "is not supported: it is text for libvirt");
	json_put_bool(d->vm, "autoboot", false);
	json_put_bool(d->vm, "transient", true);
	json_put_str(d->vm, "onfailure", "fail");
}

void deploy_finish(struct deploy *d)
{
	const struct deploy_place here = {.sysdir = json_get_str(d->vm, ".sysdir", ""),
					  .exists = d->place->exists};
	const struct deploy_place *given = d->place;
	json_t *one;
	size_t i;

	if (!*d->place->sysdir || d->place->location)
		d->place = &here;
	identity(d);
	add_context(d);
	json_array_foreach (d->disks, i, one)
		deploy_finish_disk(d, one);
	json_array_foreach (d->nics, i, one)
		deploy_finish_nic(d, one);
	boot_order(d);
	tags(d);
	firmware(d);
	variables(d);
	processor(d);
	cmdline(d);
	display(d);
	memory(d);
	policy(d);
	json_array_foreach (d->disks, i, one)
		deploy_finish_hidden(one);
	json_array_foreach (d->nics, i, one)
		deploy_finish_hidden(one);
	deploy_finish_hidden(d->vm);
	d->place = given;
}
