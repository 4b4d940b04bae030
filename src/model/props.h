/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The single source of truth about properties: a row each. Parsing, validation, defaults, JSON,
 * list columns, help, manual sections, fuzz dictionaries walk these tables.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/vm.h"

struct problems;

enum prop_type {
	PROP_STR,
	PROP_BOOL,
	PROP_U32,
	PROP_I32,
	PROP_U64,
	PROP_MS,   /* uint64_t milliseconds; a bare number is seconds; JSON shows seconds */
	PROP_ENUM, /* int-sized enum */
	PROP_LIST, /* struct str_list */
	PROP_MAP,  /* json_t *, flat object of string, number, boolean */
	PROP_DISKS,
	PROP_NICS,
	PROP_CONSOLES,
	PROP_RUNTIME, /* no member: shown from facts or computed; may never be set */
};

/* When and how a property may be set (bits). */
enum prop_set_flags {
	ON_CREATE = 1,
	ON_UPDATE = 2,
	LIVE = 4,          /* applies to a running VM at once */
	NEEDS_RESTART = 8, /* applies at the next start */
	BY_HAND = 16,      /* only in a definition file */
	PAYLOAD_ONLY = 32, /* not stored */
	NOT_CONFIGURED =
		64,         /* not shown while zone_state is "configured" (before install, after) */
	KEY_BY_INDEX = 128, /* findings name disks.0.x instead of disks.*.x */
};

/* When the JSON object has the member. */
enum prop_show {
	SHOW_ALWAYS,
	SHOW_SET,  /* when it is not empty, or differs from the default */
	SHOW_TRUE, /* booleans: only when true */
	SHOW_NEVER,
	SHOW_SECRET, /* as SHOW_SET, but only to those who may read secrets */
};

struct prop {
	const char *name; /* JSON name */
	const char *ucl;  /* name in definition files beside `name`, NULL if none */
	const char *ucl2; /* another one */
	enum prop_type type;
	size_t at;        /* offset in the element's struct */
	const char *unit; /* "MiB", "GiB", "s", "%", NULL */
	/* Numbers, in the unit, both 0: the type's range. Strings: max length in bytes. */
	int64_t min, max;
	int64_t def;              /* default of numbers, booleans, enums */
	const char *def_str;      /* default of strings */
	const char *create;       /* what creation by payload stores when nothing is given */
	const char *const *names; /* PROP_ENUM: names[count] */
	size_t nnames;
	unsigned set; /* enum prop_set_flags */
	enum prop_show show;
	const char *column; /* header in vmadm list, NULL: not a column */
	int width;
	/* Beyond type and bounds; adds findings. where: JSON path or FILE:LINE:COLUMN. */
	void (*check)(const char *value, const char *where, const char *key, struct problems *p);
	/* What to say of a value outside names: $v the value, $n the names joined by ",". */
	const char *refusal;
	/* Rules that need other members too; vm rows only. Findings are at JSON paths. */
	void (*rule)(const struct vm *vm, struct problems *p);
	/* Runtime rows: the value, NULL to leave it out; has the first word over the fact. */
	json_t *(*compute)(const struct vm *vm, const json_t *facts, const json_t *fact);
	const char *source; /* manual section, upstream document, decision */
	const char *doc;    /* one sentence */
};

struct prop_table {
	const char *what; /* "vm", "disks", "nics", "consoles" */
	const struct prop *rows;
	size_t count;
	const char *key;   /* name of the identifying property: "path", "mac" */
	const char *one;   /* "disk", "NIC": one element, for messages */
	size_t given_at;   /* offset of struct prop_set given */
	size_t spelled_at; /* offset of struct ucl_names spelled */
};

extern const struct prop_table vm_props, disk_props, nic_props, console_props;

/* Row by JSON name (ucl: by UCL alias too), NULL when unknown. */
const struct prop *prop_find(const struct prop_table *t, const char *name, bool ucl);
/* The nearest known name, for "did you mean"; NULL. */
const char *prop_nearest(const struct prop_table *t, const char *name, bool ucl);
bool prop_given(const struct prop_table *t, const struct prop_set *set, const struct prop *row);

/* Value as people see it in lists ("" when unset); caller frees. */
char *prop_text(const struct prop *row, const void *element);

/* The table of the elements of a PROP_DISKS, PROP_NICS or PROP_CONSOLES row; NULL of others. */
const struct prop_table *row_elements(const struct prop *row);

const char *enum_name(const char *const *names, size_t count, int value);
int enum_value(const char *const *names, size_t count, const char *name); /* -EINVAL */

extern const char *const disk_media_names[];
extern const char *const disk_model_names[];
extern const char *const disk_preallocation_names[];
extern const char *const disk_aio_names[];
extern const char *const disk_cache_names[];
extern const char *const disk_error_names[];
extern const char *const disk_format_names[];
extern const char *const nic_model_names[];
extern const char *const vga_model_names[];
extern const char *const vm_accel_names[];
extern const char *const on_failure_names[];
extern const char *const on_reboot_names[];
extern const char *const vm_hostbridge_names[];
extern const char *const disk_compression_names[];
