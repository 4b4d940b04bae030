/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done to a running VM's hardware. A device is known by its target (disks) or MAC (NICs);
 * one that is there, or gone, already is what a retry wants.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/deploy/deploy.h"
#include "one/deploy/deploy_private.h"
#include "one/host/action.h"
#include "one/xml.h"

#define DISK_PATH "VM/TEMPLATE/DISK[ATTACH='YES']"
#define NIC_PATH  "VM/TEMPLATE/NIC[ATTACH='YES']"

static int exists(const char *path)
{
	return access(path, F_OK);
}

/* body is taken. */
static int order(struct call *call, const char *verb, json_t *body, struct err *err)
{
	AUTO_FREE char *target = vm_target(call_arg(call, "id"), verb);

	return ask_vmadmd(call, "POST", target, body, NULL, err);
}

/* The message's disk; without a message what the arguments tell. Where it lies is an argument. */
static int disk_of(struct call *call, json_t **ret, struct err *err)
{
	const char *source = call_arg(call, "source"), *name = call_arg(call, "target");
	AUTO_FREE char *path = deploy_path(source), *vmid = call_value(call, "VM/ID");
	const struct deploy_place place = {.sysdir = "", .exists = exists, .vmid = vmid};
	xmlNode *node = xml_find(call->data, DISK_PATH);
	AUTO_XML xmlDoc *doc = NULL;
	int r;

	if (!node) {
		AUTO_FREE char *text = xasprintf("<DISK><SOURCE>.</SOURCE></DISK>");

		r = xml_read(text, strlen(text), "DISK", &doc, err);
		if (r < 0)
			return r;
		node = xmlDocGetRootElement(doc);
		(void)xmlNewTextChild(node, NULL, (const xmlChar *)"TARGET", (const xmlChar *)name);
	}
	r = deploy_read_disk(node, &place, ret, err);
	if (r < 0)
		return r;
	if (!str_starts(json_get_str(*ret, "path", ""), "rbd:"))
		json_put_str(*ret, "path", path);
	json_put_str(*ret, "name", name);
	return 0;
}

int act_attach_disk(struct call *call, struct err *err)
{
	const char *id = call_arg(call, "id"), *name = call_arg(call, "target");
	AUTO_JSON json_t *vm = NULL, *disk = NULL;
	const json_t *there;
	int r = ask_vm(call, id, &vm, err);

	if (r == 0)
		r = disk_of(call, &disk, err);
	there = r == 0 ? vm_disk(vm, name) : NULL;
	if (there && str_eq(json_get_str(there, "path", ""), json_get_str(disk, "path", "")))
		return 0;
	if (r == 0)
		r = order(call, "/attach", json_pack("{s:O}", "disk", disk), err);
	return r < 0 ? err_wrap(err, r, "Could not attach %s (%s) to %s", call_arg(call, "source"),
				name, id)
		     : 0;
}

int act_detach_disk(struct call *call, struct err *err)
{
	const char *id = call_arg(call, "id"), *name = call_arg(call, "target");
	AUTO_JSON json_t *vm = NULL;
	int r = ask_vm(call, id, &vm, err);

	if (r == 0 && !vm_disk(vm, name))
		return 0;
	if (r == 0)
		r = order(call, "/detach", json_pack("{s:s}", "disk", name), err);
	return r < 0 ? err_wrap(err, r, "Could not detach %s from %s", name, id) : 0;
}

/* Without a message the arguments of old: MAC, bridge and model. */
static int nic_of(struct call *call, json_t **ret, struct err *err)
{
	static const char *const rows[][2] = {
		{"MAC", "mac"}, {"BRIDGE", "bridge"}, {"MODEL", "model"}};
	xmlNode *node = xml_find(call->data, NIC_PATH);
	AUTO_XML xmlDoc *doc = NULL;
	int r;

	if (node)
		return deploy_read_nic(node, ret, err);
	r = xml_read("<NIC/>", 6, "NIC", &doc, err);
	if (r < 0)
		return r;
	node = xmlDocGetRootElement(doc);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		(void)xmlNewTextChild(node, NULL, (const xmlChar *)rows[i][0],
				      (const xmlChar *)call_arg(call, rows[i][1]));
	return deploy_read_nic(node, ret, err);
}

int act_attach_nic(struct call *call, struct err *err)
{
	const char *id = call_arg(call, "id"), *mac = call_arg(call, "mac");
	AUTO_JSON json_t *vm = NULL, *nic = NULL;
	int r = ask_vm(call, id, &vm, err);

	if (r == 0 && vm_nic(vm, mac))
		return 0;
	if (r == 0)
		r = nic_of(call, &nic, err);
	if (r == 0)
		r = order(call, "/attach", json_pack("{s:O}", "nic", nic), err);
	return r < 0 ? err_wrap(err, r, "Could not attach NIC with MAC %s to %s", mac, id) : 0;
}

int act_detach_nic(struct call *call, struct err *err)
{
	const char *id = call_arg(call, "id"), *mac = call_arg(call, "mac");
	AUTO_JSON json_t *vm = NULL;
	int r = ask_vm(call, id, &vm, err);

	if (r == 0 && !vm_nic(vm, mac))
		return 0;
	if (r == 0)
		r = order(call, "/detach", json_pack("{s:s}", "nic", mac), err);
	return r < 0 ? err_wrap(err, r, "Could not detach NIC with MAC %s from %s", mac, id) : 0;
}

/* --- other sizes --- */

int act_resize_disk(struct call *call, struct err *err)
{
	const char *id = call_arg(call, "id"), *number = call_arg(call, "disk");
	AUTO_FREE char *path = xasprintf("VM/TEMPLATE/DISK[DISK_ID='%s']/TARGET", number);
	AUTO_FREE char *name = call_value(call, path);
	double size;

	if (!deploy_number(call_arg(call, "size"), &size) || size < 1)
		return err_set(err, EINVAL, "size: '%s' is no number of MB",
			       call_arg(call, "size"));
	if (!name || !*name)
		return err_set(err, EINVAL, "the message has no %s", path);
	return err_wrap(err,
			order(call, "/resize",
			      json_pack("{s:s, s:I}", "disk", name, "size", (json_int_t)size), err),
			"Could not resize disk %s of %s", number, id);
}

static bool number_at(const struct call *call, const char *path, double *ret)
{
	AUTO_FREE char *text = call_value(call, path);

	return text && deploy_number(text, ret);
}

/* 0: as many as there are; else how many there are to be. */
static int wanted_cpus(const struct call *call, const json_t *vm, json_int_t *ret, struct err *err)
{
	json_int_t have = json_get_int(vm, "vcpus", 1), most = json_get_int(vm, "vcpus_max", have);
	double cpus;

	*ret = 0;
	if (!number_at(call, "VM/TEMPLATE/VCPU", &cpus) || (json_int_t)cpus == have)
		return 0;
	*ret = (json_int_t)cpus;
	if (*ret < have)
		return err_set(err, EINVAL,
			       "VCPU: %lld to %lld: CPUs cannot be taken away while the VM runs; "
			       "power it off first",
			       (long long)have, (long long)*ret);
	if (*ret > most)
		return err_set(err, EINVAL,
			       "VCPU: %lld to %lld: the VM was started for at most %lld; power it "
			       "off first, or give it a VCPU_MAX",
			       (long long)have, (long long)*ret, (long long)most);
	return 0;
}

/* The balloon gives and takes within what the machine was started with; CPUs are plugged in. */
int act_resize(struct call *call, struct err *err)
{
	AUTO_FREE char *target = vm_target(call_arg(call, "id"), "");
	AUTO_JSON json_t *vm = NULL;
	json_t *body;
	double memory = 0;
	json_int_t cpus = 0;
	int r = ask_vm(call, call_arg(call, "id"), &vm, err);

	if (r == 0)
		r = wanted_cpus(call, vm, &cpus, err);
	if (r < 0)
		return r;
	if (!number_at(call, "VM/TEMPLATE/MEMORY", &memory) || memory < 1)
		return err_set(err, EINVAL, "the message has no VM/TEMPLATE/MEMORY");
	if ((json_int_t)memory > json_get_int(vm, "ram", 0))
		return err_set(err, EINVAL,
			       "MEMORY: %lld MB is more than the %lld MB the VM was started with; "
			       "power it off first, or give it a MEMORY_MAX",
			       (long long)memory, (long long)json_get_int(vm, "ram", 0));
	body = json_pack("{s:I}", "balloon", (json_int_t)memory);
	if (cpus)
		json_put_int(body, "vcpus", cpus);
	return ask_vmadmd(call, "PUT", target, body, NULL, err);
}

/* --- the context CD --- */

static int medium(struct call *call, const char *file, struct err *err)
{
	const char *name = call_arg(call, "target");
	json_t *body;

	if (!*name)
		return 0;
	body = json_pack("{s:s, s:b}", "disk", name, "force", 1);
	json_put_str(body, "path", file);
	return order(call, "/medium", body, err);
}

int act_prereconfigure(struct call *call, struct err *err)
{
	AUTO_JSON json_t *vm = NULL;
	const json_t *disk;
	int r = ask_vm(call, call_arg(call, "id"), &vm, err);

	disk = r == 0 ? vm_disk(vm, call_arg(call, "target")) : NULL;
	if (r < 0 || (disk && !json_object_get(disk, "path")))
		return r;
	return medium(call, NULL, err);
}

int act_reconfigure(struct call *call, struct err *err)
{
	AUTO_FREE char *file = deploy_path(call_arg(call, "file"));

	return *file ? medium(call, file, err) : 0;
}
