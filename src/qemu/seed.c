/* SPDX-License-Identifier: Apache-2.0 */
/* What cloud-init is told; see seed.h. JSON is YAML, and quotes every name right. */
#include "qemu/seed.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "qemu/iso.h"

#define LABEL  "CIDATA"
#define PREFIX "cloud-init:"
#define EMPTY  "#cloud-config\n{}\n"

bool seed_wanted(const struct vm *vm)
{
	const char *source = json_get_str(vm->internal_metadata, "cloudinit_datasource", NULL);
	const char *key;
	json_t *value;

	if (str_eq(source, "nocloud"))
		return true;
	json_object_foreach (vm->customer_metadata, key, value) {
		if (str_starts(key, PREFIX))
			return true;
	}
	return false;
}

static char *meta_data(const struct vm *vm)
{
	AUTO_JSON json_t *j = json_object();
	const char *name = vm->hostname && *vm->hostname ? vm->hostname : vm->alias;

	json_put_str(j, "instance-id", vm->uuid);
	json_put_str(j, "local-hostname", name && *name ? name : vm->uuid);
	return json_pretty(j);
}

/* --- network-config, version 2 --- */

static void put_addresses(json_t *j, const struct nic *nic)
{
	json_t *list = json_array();

	for (size_t i = 0; i < nic->ips.count; i++) {
		const char *ip = nic->ips.items[i];

		if (str_eq(ip, "dhcp"))
			json_put_bool(j, "dhcp4", true);
		else if (str_eq(ip, "addrconf"))
			json_put_bool(j, "accept-ra", true);
		else
			(void)json_array_append_new(list, json_string(ip));
	}
	if (json_array_size(list) > 0)
		(void)json_object_set(j, "addresses", list);
	/* User-mode networking has its own DHCP server; without addresses we know of no other way.
	 */
	if (nic->ips.count == 0)
		json_put_bool(j, "dhcp4", true);
	json_decref(list);
}

static void put_routers(json_t *j, const struct vm *vm, const struct nic *nic)
{
	json_t *list = json_array();

	for (size_t i = 0; i < nic->gateways.count; i++)
		json_put_str(j, strchr(nic->gateways.items[i], ':') ? "gateway6" : "gateway4",
			     nic->gateways.items[i]);
	for (size_t i = 0; i < vm->resolvers.count; i++)
		(void)json_array_append_new(list, json_string(vm->resolvers.items[i]));
	if (json_array_size(list) > 0)
		(void)json_object_set_new(j, "nameservers", json_pack("{s:O}", "addresses", list));
	json_decref(list);
}

static char *network_config(const struct vm *vm)
{
	AUTO_JSON json_t *j = json_pack("{s:i, s:{}}", "version", 2, "ethernets");
	json_t *nics = json_object_get(j, "ethernets");

	for (size_t i = 0; i < vm->nnics; i++) {
		const struct nic *nic = vm->nics[i];
		json_t *one = json_pack("{s:{s:s}, s:s}", "match", "macaddress", nic->mac,
					"set-name", nic->interface);

		put_addresses(one, nic);
		if (nic->primary)
			put_routers(one, vm, nic);
		if (nic->mtu > 0)
			json_put_int(one, "mtu", nic->mtu);
		(void)json_object_set_new(nics, nic->interface, one);
	}
	return json_pretty(j);
}

/* --- the volume --- */

/* cloud-init:KEY of the customer, else KEY itself where that is known to him, else text (taken). */
static char *overridden(const struct vm *vm, const char *key, const char *plain, char *fallback)
{
	AUTO_FREE char *full = xasprintf(PREFIX "%s", key);
	const char *own = json_get_str(vm->customer_metadata, full, NULL);

	if (!own && plain)
		own = json_get_str(vm->customer_metadata, plain, NULL);
	if (!own)
		return fallback;
	free(fallback);
	return xstrdup(own);
}

int seed_build(const struct vm *vm, char **ret, size_t *ret_len, struct err *err)
{
	AUTO_FREE char *meta = meta_data(vm);
	AUTO_FREE char *network = overridden(vm, "network-config", NULL, network_config(vm));
	AUTO_FREE char *user = overridden(vm, "user-data", "user-data", xstrdup(EMPTY));
	AUTO_FREE char *vendor = overridden(vm, "vendor-data", NULL, xstrdup(EMPTY));
	const struct iso_file files[] = {
		{"meta-data", meta, strlen(meta)},
		{"network-config", network, strlen(network)},
		{"user-data", user, strlen(user)},
		{"vendor-data", vendor, strlen(vendor)},
	};

	return iso_build(LABEL, files, ARRAY_SIZE(files), ret, ret_len, err);
}
