/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rows of a dialect do with a value: turn it into a member of the payload, or say why not.
 * Words of the core and of libvirt are mapped by tables; a word that is in none is refused by name.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/deploy/deploy_private.h"

const struct deploy_word words_domain[] = {{"kvm", ""}, {"qemu", "tcg"}, {NULL, NULL}};
const struct deploy_word words_arch[] = {{"x86_64", ""}, {"i686", ""}, {"hvm", ""}, {NULL, NULL}};
/* Every machine of ours is a q35; what asks for the older one gets the same devices there. */
const struct deploy_word words_machine[] = {
	{"pc", ""}, {"q35", ""}, {"pc-q35-*", "*"}, {NULL, NULL}};
const struct deploy_word words_cpu[] = {{"host-passthrough", "host"},
					{"host-model", "host"},
					{"custom", ""},
					{"", ""},
					{NULL, NULL}};
const struct deploy_word words_bus[] = {{"virtio", "virtio"}, {"scsi", "scsi"}, {"ide", "ide"},
					{"sata", "ide"},      {"vd", "virtio"}, {"sd", "scsi"},
					{"hd", "ide"},        {NULL, NULL}};
const struct deploy_word words_cache[] = {{"none", "none"},
					  {"writeback", "writeback"},
					  {"writethrough", "writethrough"},
					  {"directsync", "directsync"},
					  {"unsafe", "unsafe"},
					  {"default", ""},
					  {NULL, NULL}};
const struct deploy_word words_format[] = {{"raw", "raw"}, {"qcow2", "qcow2"}, {NULL, NULL}};
const struct deploy_word words_raw[] = {{"raw", ""}, {NULL, NULL}};
const struct deploy_word words_media[] = {{"disk", "disk"}, {"cdrom", "cdrom"}, {NULL, NULL}};
const struct deploy_word words_type[] = {
	{"file", ""}, {"block", ""}, {"network", ""}, {NULL, NULL}};
const struct deploy_word words_protocol[] = {{"rbd", "rbd"}, {NULL, NULL}};
/* DISK/TYPE of the core: a medium or a protocol. */
const struct deploy_word words_template_type[] = {
	{"file", ""},  {"block", ""}, {"cdrom", "cdrom"}, {"fs", ""},           {"swap", ""},
	{"clone", ""}, {"image", ""}, {"rbd", "rbd"},     {"rbd_cdrom", "rbd"}, {NULL, NULL}};
const struct deploy_word words_discard[] = {
	{"unmap", "true"}, {"on", "true"}, {"ignore", ""}, {"off", ""}, {NULL, NULL}};
const struct deploy_word words_nic[] = {
	{"virtio", "virtio"}, {"e1000", "e1000"}, {"rtl8139", "rtl8139"}, {"-", ""}, {NULL, NULL}};
const struct deploy_word words_bridge[] = {{"bridge", ""}, {NULL, NULL}};
const struct deploy_word words_vga[] = {{"vga", "std"},      {"std", "std"}, {"cirrus", "cirrus"},
					{"vmvga", "vmware"}, {"qxl", "qxl"}, {"virtio", "std"},
					{"none", "none"},    {"auto", ""},   {NULL, NULL}};
const struct deploy_word words_graphics[] = {{"vnc", "vnc"}, {NULL, NULL}};
const struct deploy_word words_io[] = {
	{"native", "native"}, {"threads", "threads"}, {"io_uring", "io_uring"}, {NULL, NULL}};
const struct deploy_word words_pin[] = {{"none", ""}, {NULL, NULL}};
const struct deploy_word words_filter[] = {{"clean-traffic", "clean-traffic"}, {NULL, NULL}};

bool deploy_number(const char *text, double *ret)
{
	char *end = NULL;
	double value = strtod(text, &end);

	if (end == text || *end || !(value >= 0 && value <= 1e15))
		return false;
	*ret = value;
	return true;
}

static void put_number(struct deploy *d, json_t *at, const struct deploy_row *row,
		       const char *value, double factor)
{
	json_int_t whole;
	double number;

	if (!*value)
		return;
	if (deploy_number(value, &number)) {
		whole = (json_int_t)(number * factor);
		json_put_int(at, row->key, whole + ((double)whole < number * factor));
	} else {
		problems_add(&d->problems, PROBLEM_BAD_VALUE, deploy_row_path(d->dialect, row),
			     NULL, "'%.80s' is not a number", value);
	}
}

void take_str(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	if (*value)
		json_put_str(at, row->key, value);
}

/* libvirt keeps these for itself, and chooses anew at each start. */
void take_ifname(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	if (!str_starts(value, "vnet") && !str_starts(value, "vif"))
		take_str(d, at, row, value);
}

void take_path(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	AUTO_FREE char *path = deploy_path(value);

	if (*value)
		json_put_str(at, row->key, path);
}

/* "-1" leaves the choice to the hypervisor. */
void take_port(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	put_number(d, at, row, str_eq(value, "-1") ? "0" : value, 1);
}

void take_int(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	put_number(d, at, row, value, 1);
}

void take_kib(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	put_number(d, at, row, value, 1.0 / 1024);
}

/* Kilobytes per second to kbit/s. */
void take_kbyte(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	put_number(d, at, row, value, 8);
}

/* CPU, a number of host CPUs; a whole one weighs what a VM without a figure does. */
void take_shares(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	put_number(d, at, row, value, row->path ? 100.0 / 1024 : 100);
}

void take_ip(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	AUTO_FREE char *net = xasprintf("%s/%d", value, strchr(value, ':') ? 128 : 32);
	json_t *list = json_object_get(at, row->key);

	if (!*value)
		return;
	if (!list) {
		list = json_array();
		(void)json_object_set_new(at, row->key, list);
	}
	(void)json_array_append_new(list, json_string(net));
}

/* "pc-q35-*" matches by its beginning; its "*" is the value itself. */
static const char *map(const struct deploy_word *words, const char *value)
{
	for (; words->theirs; words++) {
		size_t len = strcspn(words->theirs, "*");
		bool same = words->theirs[len] ? strncasecmp(words->theirs, value, len) == 0
					       : strcasecmp(words->theirs, value) == 0;

		if (same)
			return str_eq(words->ours, "*") ? value : words->ours;
	}
	return NULL;
}

void take_word(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	const char *word = map(row->words, value);
	AUTO_STRBUF struct strbuf want = {0};

	if (!word && !*value)
		return;
	if (str_eq(word, "true"))
		json_put_bool(at, row->key, true);
	else if (word && *word)
		json_put_str(at, row->key, word);
	if (word)
		return;
	for (const struct deploy_word *w = row->words; w->theirs; w++)
		if (*w->theirs)
			strbuf_printf(&want, "%s%s", want.len ? ", " : "", w->theirs);
	problems_add(&d->problems, PROBLEM_BAD_VALUE, deploy_row_path(d->dialect, row), NULL,
		     "'%.80s' is not supported (want %s)", value, want.data);
}

/* A model, or libvirt's word for the host's own. */
void take_cpu(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	const char *word = map(words_cpu, value);

	if (*value)
		json_put_str(at, row->key, word && *word ? word : value);
}

/* "aes" or "aes,avx"; the model may come later. */
void take_features(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	AUTO_STRBUF struct strbuf sb = {0};

	strbuf_puts(&sb, json_get_str(at, row->key, ""));
	for (size_t len; *value; value += len + (value[len] == ',')) {
		len = strcspn(value, ",");
		if (len)
			strbuf_printf(&sb, ",+%.*s", (int)len, value);
	}
	json_put_str(at, row->key, sb.data);
}

/* Size of huge pages: in MiB (2, 1024), or as libvirt does without a unit in KiB. */
void take_pages(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	double number;

	put_number(d, at, row, value,
		   deploy_number(value, &number) && number > 1024 ? 1.0 / 1024 : 1);
}

/* All CPUs that any of the guest's is pinned to: QEMU's threads are placed together. */
void take_cpus(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	const char *sofar = json_get_str(at, row->key, NULL);
	AUTO_FREE char *list = sofar ? xasprintf("%s,%s", sofar, value) : xstrdup(value);

	if (*value)
		json_put_str(at, row->key, list);
}

/* One NUMA node is the machine itself; a guest with more would see them. */
void take_once(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	if (json_object_get(at, row->key))
		problems_add(&d->problems, PROBLEM_BAD_PROPERTY, deploy_row_path(d->dialect, row),
			     NULL, "is there more than once: a guest has one NUMA node here");
	json_put_bool(at, row->key, true);
}

/* RBD is a protocol, RBD_CDROM one and a medium. DISK_TYPE tells it of volatile disks. */
void take_type(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	const char *medium = json_get_str(at, row->key, NULL);
	AUTO_FREE char *was = medium ? xstrdup(medium) : NULL;

	take_word(d, at, row, value);
	if (!str_eq(json_get_str(at, row->key, NULL), "rbd"))
		return;
	json_put_str(at, ".protocol", "rbd");
	json_put_str(at, row->key, strchr(value, '_') ? "cdrom" : was ? was : "disk");
}

static bool is_yes(const char *value)
{
	return strcasecmp(value, "yes") == 0 || strcasecmp(value, "on") == 0 ||
	       strcasecmp(value, "true") == 0 || str_eq(value, "1");
}

void take_yes(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	if (is_yes(value))
		json_put_bool(at, row->key, true);
}

void take_present(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	json_put_bool(at, row->key, true);
}

void take_acpi(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	d->has_acpi = true;
}

void take_acpi_yes(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	if (*value)
		d->has_acpi = is_yes(value);
}

void take_refuse(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	const char *name = deploy_row_path(d->dialect, row);
	AUTO_FREE char *path = xstrndup(name, strcspn(name, "*"));

	problems_add(&d->problems, PROBLEM_BAD_PROPERTY, path, NULL, "is not supported%s%s",
		     row->key ? ": " : "", row->key ? row->key : "");
}

void take_refuse_yes(struct deploy *d, json_t *at, const struct deploy_row *row, const char *value)
{
	if (is_yes(value))
		take_refuse(d, at, row, value);
}
