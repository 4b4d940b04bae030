/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A libvirt domain as a create payload: the rows take what they know, then what follows from
 * several of them is settled here. See convert.h; the rows are in convert_rows.c.
 */
#include "one/convert/convert.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/convert/convert_private.h"
#include "one/deploy/deploy_finish.h"
#include "one/xml.h"

#define OVMF "/usr/share/OVMF/OVMF_CODE.fd"

const struct deploy_word words_end[] = {{"destroy", ""}, {NULL, NULL}};
const struct deploy_word words_restart[] = {{"restart", ""}, {NULL, NULL}};
const struct deploy_word words_crash[] = {{"destroy", "fail"},
					  {"coredump-destroy", "fail"},
					  {"restart", "restart"},
					  {"coredump-restart", "restart"},
					  {NULL, NULL}};
const struct deploy_word words_device[] = {
	{"disk", "disk"}, {"cdrom", "cdrom"}, {"lun", "disk"}, {NULL, NULL}};
const struct deploy_word words_interface[] = {
	{"bridge", "bridge"}, {"network", "network"}, {"user", "user"}, {NULL, NULL}};
const struct deploy_word words_link[] = {{"up", ""}, {"down", "true"}, {NULL, NULL}};

/* <boot dev='hd'/> in their order, as the letters of our boot. */
void take_boot(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	static const char *const rows[][2] = {{"hd", "c"}, {"cdrom", "d"}, {"network", "n"}};
	const char *before = json_get_str(at, row->key, "");
	AUTO_FREE char *letters = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (!str_eq(rows[i][0], value))
			continue;
		letters = xasprintf("%s%s", before, strstr(before, rows[i][1]) ? "" : rows[i][1]);
		json_put_str(at, row->key, letters);
		return;
	}
	problems_add(&d->problems, PROBLEM_BAD_VALUE, deploy_row_path(d->dialect, row), NULL,
		     "'%.80s' is not supported (want hd, cdrom, network)", value);
}

/* A feature of the CPU with the policy before it, behind the model. */
void take_feature(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	const char *policy = json_get_str(at, ".policy", "require");
	bool off = str_eq(policy, "disable") || str_eq(policy, "forbid");
	AUTO_FREE char *text = xasprintf("%s,%c%.200s", json_get_str(at, row->key, "host"),
					 off ? '-' : '+', value);

	json_put_str(at, row->key, text);
}

/* --- notes --- */

#define NOTE(d, where, ...) problems_add(&(d)->problems, PROBLEM_WARNING, where, NULL, __VA_ARGS__)

/* --- what follows from several elements --- */

/* A size of libvirt in MiB, 0 when it is none. */
static json_int_t size_mib(const char *value, const char *unit)
{
	static const struct {
		const char *unit;
		double mib;
	} units[] = {{"KiB", 1.0 / 1024},
		     {"k", 1.0 / 1024},
		     {"KB", 1000.0 / (1 << 20)},
		     {"MiB", 1},
		     {"M", 1},
		     {"MB", 1e6 / (1 << 20)},
		     {"GiB", 1024},
		     {"G", 1024},
		     {"GB", 1e9 / (1 << 20)},
		     {"TiB", 1 << 20},
		     {"T", 1 << 20},
		     {"b", 1.0 / (1 << 20)},
		     {"bytes", 1.0 / (1 << 20)}};
	double number;

	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (str_eq(units[i].unit, unit) && deploy_number(value, &number))
			return (json_int_t)(number * units[i].mib + 0.999);
	return 0;
}

static void memory(struct deploy *d)
{
	json_int_t ram = size_mib(json_get_str(d->vm, ".memory", ""),
				  json_get_str(d->vm, ".memory_unit", "KiB"));
	json_int_t now = size_mib(json_get_str(d->vm, ".current", ""),
				  json_get_str(d->vm, ".current_unit", "KiB"));

	if (ram > 0)
		json_put_int(d->vm, "ram", ram);
	else
		NOTE(d, "memory", "is no size that is understood: ram has its default");
	if (now > 0 && now < ram)
		json_put_int(d->vm, "balloon", now);
}

static void cpus(struct deploy *d)
{
	json_int_t vcpus = json_get_int(d->vm, ".vcpus_max", 1);
	json_int_t period = json_get_int(d->vm, ".period", 100000);
	json_int_t quota = json_get_int(d->vm, ".quota", 0);

	if (!json_object_get(d->vm, "vcpus"))
		json_put_int(d->vm, "vcpus", vcpus);
	/* libvirt's quota is of each CPU, ours of the VM. */
	if (quota > 0 && period > 0 && quota < 1000000000 && vcpus < 1000)
		json_put_int(d->vm, "cpu_cap", quota * 100 * vcpus / period);
}

static void firmware_and_order(struct deploy *d)
{
	const char *letters = json_get_str(d->vm, ".boot", NULL);
	AUTO_FREE char *order = xasprintf("order=%s", letters ? letters : "");

	if (letters)
		json_put_str(d->vm, "boot", order);
	if (str_eq(json_get_str(d->vm, ".firmware", ""), "efi") &&
	    !json_object_get(d->vm, "bootrom"))
		json_put_str(d->vm, "bootrom", OVMF);
	if (!d->has_acpi)
		json_put_bool(d->vm, "acpi", false);
	if (str_eq(json_get_str(d->vm, ".clock", ""), "localtime"))
		json_put_str(d->vm, "qemu_extra_opts", "-rtc base=localtime");
}

static void display(struct deploy *d)
{
	const char *password = json_get_str(d->vm, "vnc_password", NULL);
	AUTO_FREE char *cut = xstrndup(password, 8);

	if (password && strlen(password) > 8)
		NOTE(d, "devices/graphics@passwd", "was cut to its first 8 characters");
	json_put_str(d->vm, "vnc_password", cut);
	if (!str_eq(json_get_str(d->vm, ".graphics", ""), "vnc")) {
		json_put_int(d->vm, "vnc_port", -1);
		json_put_str(d->vm, "vnc_address", NULL);
	} else if (json_get_int(d->vm, "vnc_port", -1) < 0) {
		json_put_int(d->vm, "vnc_port", 0);
	}
}

static void disk(struct deploy *d, json_t *at, bool *ret_drop)
{
	bool cdrom = str_eq(json_get_str(at, "media", ""), "cdrom");
	const char *name = json_get_str(at, "name", "?");

	*ret_drop = !json_object_get(at, "path") && !json_object_get(at, ".protocol");
	if (*ret_drop) {
		NOTE(d, "devices/disk", "%s %s: left out", name,
		     cdrom ? "is an empty drive (attach a disc by its path)"
			   : "has no file or device that is known here");
		return;
	}
	if (cdrom) {
		(void)json_object_del(at, "readonly");
		(void)json_object_del(at, "discard");
	}
	deploy_finish_disk(d, at);
}

const char *convert_bridge(const struct convert_bridges *bridges, const char *network)
{
	for (size_t i = 0; i < bridges->count; i++)
		if (str_eq(bridges->items[i].network, network))
			return bridges->items[i].bridge;
	return NULL;
}

static void nic(struct deploy *d, json_t *at, const struct convert_bridges *bridges)
{
	const char *network = json_get_str(at, ".network", json_get_str(at, ".dev", NULL));
	const char *bridge = network ? convert_bridge(bridges, network) : NULL;

	if (str_eq(json_get_str(at, ".type", ""), "user"))
		json_put_str(at, "nic_tag", "user");
	if (!json_object_get(at, "model"))
		json_put_str(at, "model", "rtl8139"); /* libvirt's own */
	if (json_object_get(at, "nic_tag"))
		return;
	json_put_str(at, "nic_tag", bridge ? bridge : network ? network : "br0");
	if (!bridge)
		NOTE(d, "devices/interface",
		     "'%s' is no bridge of this host as it stands: say which one (--bridge "
		     "NETWORK=BRIDGE), or make one of that name",
		     network ? network : "(nothing)");
}

static void elements(struct deploy *d, const struct convert_bridges *bridges)
{
	json_t *one, *boot = NULL;
	json_int_t first = 1000000;
	size_t i;
	bool drop;

	for (i = 0; i < json_array_size(d->disks);) {
		one = json_array_get(d->disks, i);
		disk(d, one, &drop);
		if (drop) {
			(void)json_array_remove(d->disks, i);
			continue;
		}
		if (json_get_int(one, ".order", first) < first) {
			first = json_get_int(one, ".order", 0);
			boot = one;
		}
		i++;
	}
	if (boot)
		json_put_bool(boot, "boot", true);
	json_array_foreach (d->nics, i, one)
		nic(d, one, bridges);
	json_array_foreach (d->disks, i, one)
		deploy_finish_hidden(one);
	json_array_foreach (d->nics, i, one)
		deploy_finish_hidden(one);
}

static int nothing_there(const char *path)
{
	(void)path;
	return -1;
}

/* libvirt's own files begin with a comment, which xml_read() refuses; what it keeps is UTF-8. */
static void skip_prolog(const char **text, size_t *len)
{
	static const char *const ends[][2] = {{"<?", "?>"}, {"<!--", "-->"}};
	bool again = true;

	while (again) {
		again = false;
		for (; *len && strchr(" \t\r\n", **text) && **text; (*text)++)
			(*len)--;
		for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
			size_t begin = strlen(ends[i][0]), end = strlen(ends[i][1]);
			const char *at =
				*len > begin && memcmp(*text, ends[i][0], begin) == 0
					? memmem(*text + begin, *len - begin, ends[i][1], end)
					: NULL;

			if (!at)
				continue;
			*len -= (size_t)(at + end - *text);
			*text = at + end;
			again = true;
		}
	}
}

int convert_libvirt(const char *text, size_t len, const struct convert_bridges *bridges,
		    json_t **ret, struct problems *notes, struct err *err)
{
	static const struct deploy_place nowhere = {.sysdir = "", .exists = nothing_there};
	AUTO_XML xmlDoc *doc = NULL;
	struct deploy d;
	int r;

	if (len > CONVERT_MAX)
		return err_set(err, E2BIG, "the domain is larger than %u MiB", CONVERT_MAX >> 20);
	skip_prolog(&text, &len);
	r = xml_read(text, len, "domain", &doc, err);
	if (r < 0)
		return r;
	deploy_init(&d, &convert_dialect, &nowhere);
	deploy_walk(&d, xmlDocGetRootElement(doc));
	memory(&d);
	cpus(&d);
	firmware_and_order(&d);
	display(&d);
	elements(&d, bridges);
	json_put_bool(d.vm, "autoboot", false);
	deploy_finish_hidden(d.vm);
	problems_join(notes, &d.problems);
	problems_done(&d.problems);
	*ret = d.vm;
	return 0;
}
