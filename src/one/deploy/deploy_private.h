/* SPDX-License-Identifier: Apache-2.0 */
/* Private to deploy*.c: rows of the two dialects and what they do with a value. */
#pragma once

#include <stdbool.h>

#include "base/problems.h"
#include "one/deploy/deploy.h"

/* Members that only finish() reads begin with it, and are gone afterwards. */
#define HIDDEN '.'

struct deploy_dialect;

struct deploy {
	const struct deploy_dialect *dialect;
	const struct deploy_place *place;
	json_t *vm; /* the payload, its disks and nics within */
	json_t *disks, *nics;
	struct problems problems;
	bool has_acpi; /* the dialect says so by an element's presence */
};

struct deploy_row;
/* value: text or attribute, never NULL, blanks at its ends removed. at: where key belongs. */
typedef void deploy_take(struct deploy *d, json_t *at, const struct deploy_row *row,
			 const char *value);

struct deploy_word {
	const char *theirs, *ours; /* ours NULL: refused; "": nothing to say */
};

struct deploy_row {
	const char *path;  /* "devices/disk/driver@cache"; '*' at its end: all below; NULL: none */
	deploy_take *take; /* NULL: nothing to do with it */
	const char *key;   /* member of the payload, or the reason of a refusal */
	const struct deploy_word *words; /* of take_word; ends with theirs NULL */
	const char *template;            /* "DISK/CACHE", the path in the core's own description */
};

struct deploy_dialect {
	const struct deploy_row *rows;
	size_t count;
	const char *disk, *nic; /* elements that begin one */
	bool template;          /* paths of rows are those of the core's own description */
	bool strict;            /* an element without a row is refused, else passed over */
	bool attributes;        /* and so is an attribute */
	const struct deploy_dialect *base; /* where rows are looked for that are not in these */
};

extern const struct deploy_dialect deploy_libvirt, deploy_template;

/* --- deploy.c --- */
/* An empty payload; the caller frees d->vm and d->problems. place may be NULL. */
void deploy_init(struct deploy *d, const struct deploy_dialect *dialect,
		 const struct deploy_place *place);
/* Let the rows take what stands in and below root. */
void deploy_walk(struct deploy *d, xmlNode *root);
/* The row's path as the document has it. */
const char *deploy_row_path(const struct deploy_dialect *dialect, const struct deploy_row *row);

/* --- deploy_take.c --- */
deploy_take take_str, take_ifname, take_path, take_int, take_kib, take_word, take_yes, take_present,
	take_kbyte, take_ip, take_cpu, take_features, take_pages, take_type, take_port, take_shares,
	take_refuse, take_refuse_yes, take_acpi, take_acpi_yes, take_cpus, take_once;
bool deploy_number(const char *text, double *ret);

extern const struct deploy_word words_bus[], words_cache[], words_format[], words_media[],
	words_type[], words_nic[], words_vga[], words_graphics[], words_machine[], words_cpu[],
	words_discard[], words_filter[], words_template_type[], words_domain[], words_bridge[],
	words_arch[], words_protocol[], words_raw[], words_io[], words_pin[];
