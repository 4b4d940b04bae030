/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What hangs on the LPC bridge: COM ports, firmware, TPM; and the character devices of COM ports
 * and PCI serial ports. The bridge itself is q35's own. Source: bhyve_config(5), bhyve(8) -l.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/bhyve_map.h"

#define COM_PORTS 4

/* --- character devices --- */

static void chardev(struct map *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void chardev(struct map *m, const char *fmt, ...)
{
	AUTO_FREE char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	argv_add(m->b.out, "-chardev");
	argv_add(m->b.out, "%s", text);
}

static void own_socket(struct map *m, const char *id, const char *path)
{
	chardev(m, "socket,id=%s,path=%s,server=on,wait=off", id, path);
}

/* The first two are known to others by name; who starts QEMU may have bound them already. */
static void console_socket(struct map *m, const char *id, size_t console)
{
	int fd = console == 0 ? m->b.fds->ttya : m->b.fds->ttyb;

	if (!argv_socket(&m->b, id, fd))
		own_socket(m, id, console == 0 ? "vm.ttya" : "vm.ttyb");
}

static bool tcp_server(struct map *m, const char *at, const char *id, const char *value)
{
	const char *colon = strrchr(value, ':');
	size_t host = colon ? (size_t)(colon - value) : 0;
	bool brackets = host >= 2 && value[0] == '[' && colon[-1] == ']';
	const char *port = colon ? colon + 1 : "";
	size_t digits = strspn(port, "0123456789");

	if (!colon || digits < 1 || digits > 5 || port[digits] || strtol(port, NULL, 10) < 1 ||
	    strtol(port, NULL, 10) > 65535 || (!brackets && memchr(value, ':', host)) ||
	    strpbrk(value, ", \t")) {
		AUTO_FREE char *shown = bhyve_show(value);

		map_error(m, at, "path",
			  "'tcp=%s' is not an address (want tcp=HOST:PORT or "
			  "tcp=[ADDRESS]:PORT)",
			  shown);
		return false;
	}
	chardev(m, "socket,id=%s,host=%.*s,port=%s,server=on,wait=off", id,
		(int)(host - (brackets ? 2 : 0)), value + (brackets ? 1 : 0), port);
	return true;
}

static bool serial_line(struct map *m, const char *at, const char *id, const char *value)
{
	AUTO_FREE char *path = argv_doubled(value);

	map_need(m, at, "path",
		 &(struct bhyve_need){.kind = NEED_CHAR, .write = true, .value = value});
	chardev(m, "serial,id=%s,path=%s", id, path);
	return true;
}

bool bhyve_map_channel(struct map *m, const char *at, const char *id, const char *own)
{
	const char *value = map_str(m, at, "path");
	bool null_modem = value && str_starts(value, "/dev/nmdm");
	size_t console = m->hw->info.consoles;
	AUTO_FREE char *shown = value ? bhyve_show(value) : NULL;

	if (!value)
		return false;
	if (str_starts(value, "tcp="))
		return tcp_server(m, at, id, value + 4);
	if (!null_modem && !str_eq(value, "stdio")) {
		if (str_starts(value, "/dev/"))
			return serial_line(m, at, id, value);
		map_error(m, at, "path",
			  "'%s' is not understood (want stdio, tcp=HOST:PORT or a device)", shown);
		return false;
	}
	if (console >= BHYVE_CONSOLES_MAX || str_starts(at, "pci."))
		own_socket(m, id, own);
	else {
		own = console == 0 ? "vm.console" : "vm.ttyb";
		console_socket(m, id, m->hw->info.consoles++);
	}
	if (null_modem)
		map_warn(m, at, "path", "null-modem device %s does not exist here; using socket %s",
			 shown, own);
	return true;
}

static void uses_bridge(struct map *m, const char *name)
{
	if (!m->has_lpc)
		map_error(m, "lpc.", name,
			  "needs the LPC bridge (want a line pci.0.31.0.device=lpc)");
}

static void com_port(struct map *m, int n)
{
	AUTO_FREE char *name = xasprintf("com%d.path", n);
	AUTO_FREE char *at = xasprintf("lpc.com%d.", n);
	AUTO_FREE char *id = xasprintf("com%d", n);
	AUTO_FREE char *own = xasprintf("com%d.sock", n);
	json_t *j;

	if (!map_has(m, "lpc.", name))
		return;
	uses_bridge(m, name);
	if (!bhyve_map_channel(m, at, id, own))
		return;
	j = argv_device("isa-serial", id, "isa.0", NULL);
	json_put_int(j, "index", n - 1);
	json_put_str(j, "chardev", id);
	argv_json(&m->b, "-device", j);
}

/* --- firmware --- */

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* "code,vars" in one value is the older form. */
static void firmware(struct map *m)
{
	struct bhyve_info *i = &m->hw->info;
	const char *rom = map_path(m, "lpc.", "bootrom"), *comma = rom ? strchr(rom, ',') : NULL;

	i->bootvars = map_path(m, "lpc.", "bootvars");
	if (comma && comma[1] && comma > rom) {
		if (!i->bootvars) {
			i->bootvars = map_keep(m, xstrdup(comma + 1));
			map_need(m, "lpc.", "bootrom",
				 &(struct bhyve_need){
					 .kind = NEED_FILE, .write = true, .value = i->bootvars});
		}
		rom = map_keep(m, xstrndup(rom, (size_t)(comma - rom)));
	} else if (i->bootvars) {
		map_need(m, "lpc.", "bootvars",
			 &(struct bhyve_need){
				 .kind = NEED_FILE, .write = true, .value = i->bootvars});
	}
	i->bootrom = rom;
	if (!rom && i->bootvars)
		map_error(m, "lpc.", "bootvars", "is given without lpc.bootrom");
	if (!rom)
		return;
	uses_bridge(m, "bootrom");
	if (strstr(base_name(rom), "BHYVE")) {
		AUTO_FREE char *shown = bhyve_show(rom);

		map_error(m, "lpc.", "bootrom", "%s is a bhyve firmware; name an OVMF image",
			  shown);
	}
	map_need(m, "lpc.", "bootrom", &(struct bhyve_need){.kind = NEED_FILE, .value = rom});
	if (!m->hw->acpi) {
		m->hw->acpi = true;
		if (map_has(m, "", "acpi_tables"))
			map_warn(m, "", "acpi_tables",
				 "is on all the same: UEFI guests do not start without");
		else
			map_warn(m, "lpc.", "bootrom", "acpi_tables is on because of it");
	}
}

/* --- TPM and the rest --- */

static bool tpm_backend(struct map *m, const char *type, const char *path)
{
	AUTO_FREE char *value = argv_doubled(path);

	if (str_eq(type, "swtpm")) {
		chardev(m, "socket,id=tpm0-socket,path=%s", value);
		argv_add(m->b.out, "-tpmdev");
		argv_add(m->b.out, "emulator,id=tpm0,chardev=tpm0-socket");
		return true;
	}
	if (str_eq(type, "passthru")) {
		argv_add(m->b.out, "-tpmdev");
		argv_add(m->b.out, "passthrough,id=tpm0,path=%s", value);
		return true;
	}
	return false;
}

static void tpm(struct map *m)
{
	const char *type = map_str(m, "lpc.tpm.", "type");
	const char *path = map_path(m, "lpc.tpm.", "path");
	const char *version = map_str(m, "lpc.tpm.", "version");
	AUTO_FREE char *shown = type ? bhyve_show(type) : NULL;

	if (!type && (path || version))
		map_error(m, "lpc.tpm.", "type", "is missing (want passthru or swtpm)");
	if (version && !str_eq(version, "2.0"))
		map_error(m, "lpc.tpm.", "version", "only version 2.0 is possible");
	if (!type)
		return;
	if (!path) {
		if (!map_has(m, "lpc.tpm.", "path"))
			map_error(m, "lpc.tpm.", "path", "is missing");
		return;
	}
	uses_bridge(m, "tpm.type");
	if (!tpm_backend(m, type, path)) {
		map_error(m, "lpc.tpm.", "type", "'%s' is not understood (want passthru or swtpm)",
			  shown);
		return;
	}
	argv_json(&m->b, "-device",
		  json_pack("{s:s,s:s,s:s}", "driver", "tpm-crb", "id", "tpm", "tpmdev", "tpm0"));
}

static void others(struct map *m)
{
	const char *fwcfg = map_str(m, "lpc.", "fwcfg");
	const struct bhyve_var *var = bhyve_first(m->vars, "lpc.pcireg.");

	if (fwcfg && str_eq(fwcfg, "bhyve"))
		map_warn(m, "lpc.", "fwcfg", "QEMU's own interface (qemu) is there in its place");
	else if (fwcfg && !str_eq(fwcfg, "qemu"))
		map_error(m, "lpc.", "fwcfg", "is not understood (want qemu or bhyve)");
	if (var)
		bhyve_say(m->p, PROBLEM_WARNING, var, "the LPC bridge's ids cannot be changed");
	if (map_bool(m, "lpc.", "pc-testdev", false))
		argv_json(&m->b, "-device",
			  json_pack("{s:s,s:s}", "driver", "pc-testdev", "id", "testdev"));
}

void bhyve_map_lpc(struct map *m)
{
	firmware(m);
	for (int n = 1; n <= COM_PORTS; n++)
		com_port(m, n);
	tpm(m);
	others(m);
}
