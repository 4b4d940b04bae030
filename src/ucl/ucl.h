/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UCL text into a tree of values that know where they were written, and changes to such a text
 * that leave everything else in place. What is supported and refused: docs/decisions (UCL
 * subset); behaviour follows libucl except where the golden cases in tests/golden/ucl say
 * "differs". Reads files only for .include; knows nothing of VMs.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define UCL_TEXT_MAX      (1u << 20) /* bytes of one file */
#define UCL_DEPTH_MAX     64         /* nested objects and arrays */
#define UCL_INCLUDE_DEPTH 16
#define UCL_INCLUDES_MAX  64 /* files in one parse */

enum ucl_type {
	UCL_NULL,
	UCL_BOOL,
	UCL_INT,
	UCL_FLOAT,
	UCL_TIME, /* seconds in .real; written with ms, s, min, h, d, w, y */
	UCL_STRING,
	UCL_ARRAY,
	UCL_OBJECT,
};

/* Lines and columns count from 1. file is owned by the document. */
struct ucl_pos {
	const char *file;
	int line;
	int column;
};

struct ucl_value {
	enum ucl_type type;
	bool implicit;      /* UCL_ARRAY made by giving a key more than once */
	struct ucl_pos pos; /* first character of the value */
	struct ucl_pos key; /* first character of its key; same as pos without one */
	size_t start, end;  /* bytes [start, end) of the value as written in pos.file */
	const char *raw;    /* numbers, times, booleans: the text as written ("2G"); else NULL */
	union {
		bool boolean;
		int64_t integer;
		double real;
		const char *string; /* NUL-terminated; a NUL byte inside is refused */
		struct {
			struct ucl_value **items; /* in order of first appearance */
			const char **keys;        /* objects only, else NULL */
			size_t count;
		};
	};
};

/* Owns every value, text and file name of one parse. Opaque. */
struct ucl_doc;

struct ucl_options {
	bool fold_keys; /* ASCII letters of keys to lower case, as vmstated does */
	/* Variables beside CURDIR and FILENAME: name, value pairs, count pairs. May be NULL. */
	const char *const (*vars)[2];
	size_t nvars;
	bool no_includes; /* .include and .try_include are faults */
};

/*
 * Parse text[len] as file `name` (used in messages and as FILENAME; its folder is CURDIR and
 * what relative includes start from). The root is an object or an array.
 *
 * -EINVAL with "FILE:LINE:COLUMN: reason" for the first fault, followed by
 * " (included from FILE:LINE)" per level; -E2BIG beyond the limits above. Ownership: free the
 * document with ucl_free; all values die with it.
 * Source: libucl as of April 2026, facts in docs; differences marked in tests/golden/ucl.
 */
int ucl_parse(const char *name, const char *text, size_t len, const struct ucl_options *opt,
	      struct ucl_doc **ret_doc, struct err *err);

/* As ucl_parse, reading the file. The errno of a file that cannot be read passes through. */
int ucl_parse_file(const char *path, const struct ucl_options *opt, struct ucl_doc **ret_doc,
		   struct err *err);

void ucl_free(struct ucl_doc *doc);

const struct ucl_value *ucl_root(const struct ucl_doc *doc);

/* The files this document was read from, the main one first, then includes (also missing ones
 * named by try, so that their appearance can be watched for). Borrowed. */
size_t ucl_files(const struct ucl_doc *doc, const char *const **ret_names);

/* Member of an object, NULL when absent or v is no object. */
const struct ucl_value *ucl_get(const struct ucl_value *v, const char *key);

/* "a string", "a number", ... for messages. */
const char *ucl_type_name(enum ucl_type type);

/* "FILE:LINE:COLUMN" of a position; caller frees. */
char *ucl_where(const struct ucl_pos *pos);

/* The tree as compact JSON as libucl prints it (times as numbers); caller frees. */
char *ucl_to_json(const struct ucl_value *v);

/* The same tree? Positions, raw texts, the implicit mark and the order of keys do not count; a time
 * equals the number of its seconds. */
bool ucl_equal(const struct ucl_value *a, const struct ucl_value *b);
