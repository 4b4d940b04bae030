/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network devices of a bhyve_config file and what they are connected to. Interfaces are never
 * made: a tap must be there when the guest starts. Source: bhyve(8), network device backends.
 */
#include <ctype.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "qemu/bhyve_map.h"

#define MTU_MIN 68
#define MTU_MAX 65535

/* --- user-mode network --- */

static const char *take_port(const char *p)
{
	size_t digits = strspn(p, "0123456789");

	if (digits < 1 || digits > 5 || strtol(p, NULL, 10) > 65535)
		return NULL;
	return p + digits;
}

/* "proto:[addr]:hostport-[guestaddr]:guestport" */
static bool is_forward(const char *rule)
{
	static const char address[] = "0123456789.";
	const char *p = str_starts(rule, "tcp:") || str_starts(rule, "udp:") ? rule + 4 : NULL;

	if (!p)
		return false;
	p += strspn(p, address);
	p = *p == ':' ? take_port(p + 1) : NULL;
	if (!p || *p != '-')
		return false;
	p++;
	p += strspn(p, address);
	p = *p == ':' ? take_port(p + 1) : NULL;
	return p && !*p;
}

static json_t *forwards(struct map *m, const struct bhyve_pci *d)
{
	const char *text = map_str(m, d->at, "hostfwd");
	json_t *list = json_array();

	while (text && *text) {
		size_t len = strcspn(text, ";");
		AUTO_FREE char *rule = xstrndup(text, len);

		if (!is_forward(rule)) {
			AUTO_FREE char *shown = bhyve_show(rule);

			map_error(m, d->at, "hostfwd",
				  "'%s' is not a rule (want "
				  "tcp:[ADDRESS]:HOSTPORT-[GUESTADDRESS]:GUESTPORT, joined by ';')",
				  shown);
		}
		(void)json_array_append_new(list, json_pack("{s:s}", "str", rule));
		text += len + (text[len] == ';');
	}
	return list;
}

static json_t *user_net(struct map *m, const struct bhyve_pci *d)
{
	json_t *list = forwards(m, d);
	json_t *j = json_pack("{s:s}", "type", "user");

	if (json_array_size(list) > 0)
		(void)json_object_set(j, "hostfwd", list);
	json_decref(list);
	return j;
}

/* --- tap --- */

static json_t *tap_net(struct map *m, const struct bhyve_pci *d)
{
	const char *name = map_str(m, d->at, "backend");
	size_t i = m->hw->taps.count;
	int fd = i < ARRAY_SIZE(m->b.fds->taps) ? m->b.fds->taps[i] : -1;
	AUTO_FREE char *number = xasprintf("%d", fd);

	if (!name || strlen(name) >= IFNAMSIZ || strpbrk(name, "/ \t:")) {
		AUTO_FREE char *shown = name ? bhyve_show(name) : NULL;

		if (name)
			map_error(m, d->at, "backend", "'%s' is not the name of an interface",
				  shown);
		return NULL;
	}
	argv_add(&m->hw->taps, "%s", name);
	map_need(m, d->at, "backend", &(struct bhyve_need){.kind = NEED_TAP, .value = name});
	if (fd >= 0)
		return json_pack("{s:s,s:s}", "type", "tap", "fd", number);
	return json_pack("{s:s,s:s,s:s,s:s}", "type", "tap", "ifname", name, "script", "no",
			 "downscript", "no");
}

/* --- the kinds of back end --- */

static json_t *no_netgraph(struct map *m, const struct bhyve_pci *d)
{
	map_error(m, d->at, "backend",
		  "backend netgraph is not available on Linux; use tap or slirp");
	return NULL;
}

static json_t *no_netmap(struct map *m, const struct bhyve_pci *d)
{
	map_error(m, d->at, "backend",
		  "backend netmap is not available on Linux; use tap or slirp");
	return NULL;
}

static const struct kind {
	const char *type, *prefix; /* of backend, when type is not given */
	json_t *(*netdev)(struct map *m, const struct bhyve_pci *d);
} kinds[] = {
	{"tap", "tap", tap_net},
	{"tap", "vmnet", tap_net},
	{"vmnet", "vmnet", tap_net},
	{"slirp", "slirp", user_net},
	{"netgraph", "netgraph", no_netgraph},
	{"netmap", "netmap", no_netmap},
	{"netmap", "vale", no_netmap},
};

/* The netdev's id is the device's and "-net"; false: not connected. */
static bool put_netdev(struct map *m, const struct bhyve_pci *d, const char *id)
{
	const char *backend = map_str(m, d->at, "backend"), *type = map_str(m, d->at, "type");
	AUTO_FREE char *shown = NULL;
	json_t *j;

	if (!map_has(m, d->at, "backend") && !map_has(m, d->at, "type")) {
		map_warn(m, d->at, "backend", "is missing: the interface is not connected");
		return false;
	}
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (type ? !str_eq(type, kinds[i].type)
			 : !backend || !str_starts(backend, kinds[i].prefix))
			continue;
		if (!backend && kinds[i].netdev == tap_net)
			map_error(m, d->at, "backend", "is missing (want an interface)");
		j = kinds[i].netdev(m, d);
		json_put_str(j, "id", id);
		if (j)
			argv_json(&m->b, "-netdev", j);
		return j != NULL;
	}
	if (!type && !backend)
		return false;
	shown = bhyve_show(type ? type : backend);
	map_error(m, d->at, type ? "type" : "backend", "'%s' is unknown (want tap, vmnet or slirp)",
		  shown);
	return false;
}

/* --- devices --- */

static bool is_mac(const char *text)
{
	for (size_t i = 0; i < 17; i++) {
		if (i % 3 == 2 ? text[i] != ':' : !isxdigit((unsigned char)text[i]))
			return false;
	}
	return text[17] == '\0';
}

/* From the VM's uuid and the device's place when not given. */
static void put_mac(struct map *m, const struct bhyve_pci *d, json_t *j)
{
	const char *mac = map_str(m, d->at, "mac");
	char hash[UUID_LEN + 1];
	AUTO_FREE char *made = NULL;

	if (mac && !is_mac(mac)) {
		AUTO_FREE char *shown = bhyve_show(mac);

		map_error(m, d->at, "mac", "'%s' is not a MAC address (want xx:xx:xx:xx:xx:xx)",
			  shown);
	} else if (mac && strchr("13579bBdDfF", mac[1])) {
		map_error(m, d->at, "mac", "MAC must be unicast");
	} else if (mac && str_eq(mac, "00:00:00:00:00:00")) {
		map_error(m, d->at, "mac", "MAC must not be all zero");
	}
	uuid_derive(m->hw->info.uuid ? m->hw->info.uuid : "", d->at, hash);
	made = xasprintf("52:54:00:%.2s:%.2s:%.2s", hash + 30, hash + 32, hash + 34);
	json_put_str(j, "mac", mac ? mac : made);
}

/* The boot ROM is left out: bhyve boots from no network either. */
static json_t *nic(struct map *m, const struct bhyve_pci *d, const char *driver)
{
	AUTO_FREE char *id = xasprintf("%s-net", d->id);
	bool connected = put_netdev(m, d, id);
	json_t *j = bhyve_map_device(m, d, driver);

	if (connected)
		json_put_str(j, "netdev", id);
	put_mac(m, d, j);
	json_put_str(j, "romfile", "");
	return j;
}

void bhyve_map_virtio_net(struct map *m, const struct bhyve_pci *d)
{
	json_t *j = nic(m, d, "virtio-net-pci");
	long mtu = map_int(m, d->at, "mtu", (struct bhyve_range){MTU_MIN, MTU_MAX, 0}, 0);

	if (mtu > 0)
		json_put_int(j, "host_mtu", mtu);
	argv_json(&m->b, "-device", j);
}

void bhyve_map_e1000(struct map *m, const struct bhyve_pci *d)
{
	if (map_has(m, d->at, "mtu"))
		map_warn(m, d->at, "mtu", "is not possible with e1000 and ignored");
	argv_json(&m->b, "-device", nic(m, d, "e1000-82545em"));
}
