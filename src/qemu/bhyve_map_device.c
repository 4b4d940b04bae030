/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other devices of a bhyve_config file: frame buffer, USB, sound, serial ports, pass-through
 * and the smaller virtio devices. Source: bhyve(8), bhyve_config(5).
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/bhyve_map.h"

#define VNC_PORT         5900
#define XHCI_PORTS       4
#define CONSOLE_PORTS    16
#define SHARE_NAME_MAX   31
#define PORT_NAME_MAX    31
#define VIDEO_MEMORY_MIN (16u << 20) /* QEMU's own */

/* --- frame buffer --- */

static bool read_port(const char *text, uint16_t *ret)
{
	size_t digits = strspn(text, "0123456789");
	long n = digits > 0 && digits <= 5 && !text[digits] ? strtol(text, NULL, 10) : 0;

	if (n < 1 || n > 65535)
		return false;
	*ret = (uint16_t)n;
	return true;
}

/* "[ADDRESS:]PORT", IPv6 in brackets. */
static bool read_address(struct map *m, const char *text, struct bhyve_vnc *vnc)
{
	const char *colon = strrchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : 0;
	bool v6 = len >= 2 && text[0] == '[' && text[len - 1] == ']';
	AUTO_FREE char *host = xstrndup(text + (v6 ? 1 : 0), len - (v6 ? 2 : 0));
	unsigned char address[sizeof(struct in6_addr)];

	if (!read_port(colon ? colon + 1 : text, &vnc->port))
		return false;
	if (len == 0)
		return true;
	if (!v6 && str_eq(host, "localhost"))
		return true;
	if (inet_pton(v6 ? AF_INET6 : AF_INET, host, address) != 1)
		return false;
	vnc->address = map_keep(m, steal_ptr(host));
	return true;
}

static void read_vnc(struct map *m, const struct bhyve_pci *d)
{
	const char *name = map_has(m, d->at, "rfb") ? "rfb" : "tcp";
	const char *text = map_str(m, d->at, name);
	struct bhyve_vnc vnc = {.address = "127.0.0.1", .port = VNC_PORT};

	if (text && !read_address(m, text, &vnc)) {
		AUTO_FREE char *shown = bhyve_show(text);

		map_error(m, d->at, name, "'%s' is not an address (want [ADDRESS:]PORT)", shown);
	} else if (vnc.port < VNC_PORT) {
		map_error(m, d->at, name, "VNC ports start at %d here", VNC_PORT);
	}
	vnc.password = map_str(m, d->at, "password");
	if (vnc.password && strlen(vnc.password) > 8)
		map_warn(m, d->at, "password", "VNC takes the first 8 characters only");
	vnc.wait = map_bool(m, d->at, "wait", false);
	m->hw->info.vnc = vnc;
}

/* Video memory is a power of two that holds the picture. */
static void put_size(struct map *m, const struct bhyve_pci *d, json_t *j, bool vga)
{
	long w = map_int(m, d->at, "w", (struct bhyve_range){640, 3840, 10}, 1024);
	long h = map_int(m, d->at, "h", (struct bhyve_range){480, 2160, 10}, 768);
	unsigned memory = VIDEO_MEMORY_MIN;

	while (memory < (unsigned)(w * h * 4))
		memory *= 2;
	json_put_int(j, "xres", w);
	json_put_int(j, "yres", h);
	json_put_bool(j, "edid", true);
	if (memory > VIDEO_MEMORY_MIN && vga)
		json_put_int(j, "vgamem_mb", memory >> 20);
	else if (memory > VIDEO_MEMORY_MIN)
		json_put_int(j, "vgamem", memory);
}

void bhyve_map_fbuf(struct map *m, const struct bhyve_pci *d)
{
	const char *vga = map_str(m, d->at, "vga");
	bool off = vga && str_eq(vga, "off");
	json_t *j;

	if (m->has_fbuf) {
		bhyve_say(m->p, PROBLEM_BAD_VALUE, &d->var, "only one frame buffer");
		return;
	}
	m->has_fbuf = true;
	if (vga && !off && !str_eq(vga, "io") && !str_eq(vga, "on"))
		map_error(m, d->at, "vga", "is not understood (want io, on or off)");
	read_vnc(m, d);
	j = bhyve_map_device(m, d, off ? "bochs-display" : "VGA");
	put_size(m, d, j, !off);
	argv_json(&m->b, "-device", j);
}

/* --- numbered nodes: slot.N., port.N. --- */

/* Calls each for the nodes min to max that the file has; others are an error. */
static void each_node(struct map *m, const struct bhyve_pci *d, const char *node, long max,
		      void (*each)(struct map *, const struct bhyve_pci *, const char *, long))
{
	AUTO_FREE char *prefix = xasprintf("%s%s.", d->at, node);
	long min = str_eq(node, "slot") ? 1 : 0;

	for (const struct bhyve_var *var = bhyve_first(m->vars, prefix);
	     var && var < m->vars->items + m->vars->count && str_starts(var->name, prefix); var++) {
		const char *p = var->name + strlen(prefix);
		size_t digits = strspn(p, "0123456789");
		long n = digits > 0 && digits < 3 && p[digits] == '.' ? strtol(p, NULL, 10) : -1;

		if (n < min || n > max || (digits > 1 && p[0] == '0'))
			bhyve_say(m->p, PROBLEM_BAD_VALUE, var, "%s must be %ld to %ld", node, min,
				  max);
	}
	for (long n = min; n <= max; n++) {
		AUTO_FREE char *at = xasprintf("%s%ld.", prefix, n);

		if (bhyve_first(m->vars, at))
			each(m, d, at, n);
	}
}

/* --- USB --- */

static void usb_device(struct map *m, const struct bhyve_pci *d, const char *at, long n)
{
	const char *model = map_str(m, at, "device");
	AUTO_FREE char *id = xasprintf("%s-s%ld", d->id, n);
	AUTO_FREE char *bus = xasprintf("%s.0", d->id);
	AUTO_FREE char *port = xasprintf("%ld", n);
	json_t *j;

	if (!model || !str_eq(model, "tablet")) {
		if (model || !map_has(m, at, "device"))
			map_error(m, at, "device", "unknown USB device (want tablet)");
		return;
	}
	j = argv_device("usb-tablet", id, bus, NULL);
	json_put_str(j, "port", port);
	argv_json(&m->b, "-device", j);
}

void bhyve_map_xhci(struct map *m, const struct bhyve_pci *d)
{
	argv_json(&m->b, "-device", bhyve_map_device(m, d, "qemu-xhci"));
	each_node(m, d, "slot", XHCI_PORTS, usb_device);
}

/* --- sound --- */

static bool is_sound(struct map *m, const struct bhyve_pci *d, const char *name)
{
	const char *path = map_path(m, d->at, name);
	AUTO_FREE char *shown = path ? bhyve_show(path) : NULL;

	if (!path)
		return false;
	if (access(path, R_OK | W_OK) == 0)
		return true;
	map_warn(m, d->at, name, "no sound device %s here: the guest's is silent", shown);
	return false;
}

static void put_audiodev(struct map *m, const struct bhyve_pci *d, const char *id)
{
	const char *play = is_sound(m, d, "play") ? map_path(m, d->at, "play") : NULL;
	const char *rec = is_sound(m, d, "rec") ? map_path(m, d->at, "rec") : NULL;
	json_t *j = json_pack("{s:s,s:s}", "driver", play || rec ? "oss" : "none", "id", id);

	if (play)
		(void)json_object_set_new(j, "out", json_pack("{s:s}", "dev", play));
	if (rec)
		(void)json_object_set_new(j, "in", json_pack("{s:s}", "dev", rec));
	argv_json(&m->b, "-audiodev", j);
}

void bhyve_map_hda(struct map *m, const struct bhyve_pci *d)
{
	bool play = map_has(m, d->at, "play"), rec = map_has(m, d->at, "rec");
	AUTO_FREE char *audio = xasprintf("%s-audio", d->id);
	AUTO_FREE char *codec = xasprintf("%s-codec", d->id);
	AUTO_FREE char *bus = xasprintf("%s.0", d->id);
	json_t *j;

	put_audiodev(m, d, audio);
	argv_json(&m->b, "-device", bhyve_map_device(m, d, "intel-hda"));
	j = argv_device(play == rec ? "hda-duplex"
			: play      ? "hda-output"
				    : "hda-micro",
			codec, bus, NULL);
	json_put_str(j, "audiodev", audio);
	argv_json(&m->b, "-device", j);
}

/* --- serial port --- */

void bhyve_map_uart(struct map *m, const struct bhyve_pci *d)
{
	AUTO_FREE char *own = xasprintf("%s.sock", d->id);
	json_t *j;

	if (!map_has(m, d->at, "path"))
		map_error(m, d->at, "path", "is missing");
	if (!bhyve_map_channel(m, d->at, d->id, own))
		return;
	j = bhyve_map_device(m, d, "pci-serial");
	json_put_str(j, "chardev", d->id);
	argv_json(&m->b, "-device", j);
}

/* --- pass-through --- */

void bhyve_map_passthru(struct map *m, const struct bhyve_pci *d)
{
	long bus = map_int(m, d->at, "bus", (struct bhyve_range){0, 255, 0}, -1);
	long slot = map_int(m, d->at, "slot", (struct bhyve_range){0, 31, 0}, -1);
	long func = map_int(m, d->at, "func", (struct bhyve_range){0, 7, 0}, -1);
	const char *rom = map_path(m, d->at, "rom"), *host;
	json_t *j;

	if (map_has(m, d->at, "pptdev")) {
		map_error(m, d->at, "pptdev", "name the host device by bus, slot and func");
		return;
	}
	for (size_t i = 0; i < 3; i++) {
		const char *name = ((const char *const[]){"bus", "slot", "func"})[i];

		if (!map_has(m, d->at, name))
			map_error(m, d->at, name, "is missing (want the host device's)");
	}
	if (bus < 0 || slot < 0 || func < 0)
		return;
	host = map_keep(m, xasprintf("0000:%02lx:%02lx.%lx", bus, slot, func));
	map_need(m, d->at, "bus", &(struct bhyve_need){.kind = NEED_VFIO, .value = host});
	j = bhyve_map_device(m, d, "vfio-pci");
	json_put_str(j, "host", host);
	json_put_str(j, "romfile", rom);
	if (rom)
		map_need(m, d->at, "rom", &(struct bhyve_need){.kind = NEED_FILE, .value = rom});
	map_bootindex(m, d->at, j);
	argv_json(&m->b, "-device", j);
}

/* --- virtio --- */

void bhyve_map_rnd(struct map *m, const struct bhyve_pci *d)
{
	AUTO_FREE char *rng = xasprintf("%s-rng", d->id);
	json_t *j;

	argv_json(&m->b, "-object",
		  json_pack("{s:s,s:s,s:s}", "qom-type", "rng-random", "id", rng, "filename",
			    "/dev/urandom"));
	j = bhyve_map_device(m, d, "virtio-rng-pci");
	json_put_str(j, "rng", rng);
	argv_json(&m->b, "-device", j);
}

void bhyve_map_9p(struct map *m, const struct bhyve_pci *d)
{
	const char *name = map_str(m, d->at, "sharename"), *path = map_path(m, d->at, "path");
	bool ro = map_bool(m, d->at, "ro", false);
	AUTO_FREE char *share = xasprintf("%s-share", d->id);
	AUTO_FREE char *text = path ? argv_doubled(path) : NULL;
	json_t *j;

	if (!map_has(m, d->at, "sharename"))
		map_error(m, d->at, "sharename", "is missing");
	else if (name && strlen(name) > SHARE_NAME_MAX)
		map_error(m, d->at, "sharename", "is longer than %d bytes", SHARE_NAME_MAX);
	if (!map_has(m, d->at, "path"))
		map_error(m, d->at, "path", "is missing");
	if (!name || !path)
		return;
	map_need(m, d->at, "path", &(struct bhyve_need){.kind = NEED_FOLDER, .value = path});
	argv_add(m->b.out, "-fsdev");
	argv_add(m->b.out, "local,id=%s,path=%s,security_model=none,readonly=%s", share, text,
		 ro ? "on" : "off");
	j = bhyve_map_device(m, d, "virtio-9p-pci");
	json_put_str(j, "fsdev", share);
	json_put_str(j, "mount_tag", name);
	argv_json(&m->b, "-device", j);
}

static void console_port(struct map *m, const struct bhyve_pci *d, const char *at, long n)
{
	const char *name = map_str(m, at, "name"), *path = map_path(m, at, "path");
	AUTO_FREE char *id = xasprintf("%s-p%ld", d->id, n);
	AUTO_FREE char *bus = xasprintf("%s.0", d->id);
	AUTO_FREE char *text = path ? argv_doubled(path) : NULL;
	json_t *j;

	if (!map_has(m, at, "path"))
		map_error(m, at, "path", "is missing (want a socket)");
	if (name && strlen(name) > PORT_NAME_MAX)
		map_error(m, at, "name", "is longer than %d bytes", PORT_NAME_MAX);
	if (!path)
		return;
	argv_add(m->b.out, "-chardev");
	argv_add(m->b.out, "socket,id=%s,path=%s,server=on,wait=off", id, text);
	j = argv_device("virtserialport", id, bus, NULL);
	json_put_int(j, "nr", n + 1);
	json_put_str(j, "chardev", id);
	json_put_str(j, "name", name);
	argv_json(&m->b, "-device", j);
}

void bhyve_map_console(struct map *m, const struct bhyve_pci *d)
{
	argv_json(&m->b, "-device", bhyve_map_device(m, d, "virtio-serial-pci"));
	each_node(m, d, "port", CONSOLE_PORTS - 1, console_port);
}

void bhyve_map_input(struct map *m, const struct bhyve_pci *d)
{
	const char *path = map_path(m, d->at, "path");
	json_t *j;

	if (!map_has(m, d->at, "path"))
		map_error(m, d->at, "path", "is missing (want /dev/input/eventN)");
	if (!path)
		return;
	map_need(m, d->at, "path",
		 &(struct bhyve_need){.kind = NEED_CHAR, .write = true, .value = path});
	j = bhyve_map_device(m, d, "virtio-input-host-pci");
	json_put_str(j, "evdev", path);
	argv_json(&m->b, "-device", j);
}

void bhyve_map_scsi(struct map *m, const struct bhyve_pci *d)
{
	bhyve_say(m->p, PROBLEM_BAD_VALUE, &d->var,
		  "virtio-scsi needs FreeBSD's CTL target; give disks as virtio-blk");
}
