/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a deployment file: walk its elements, let the dialect's rows put members into the
 * payload, collect everything that is wrong, then finish (deploy_finish.c). See deploy.h.
 */
#include "one/deploy/deploy.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/deploy/deploy_finish.h"
#include "one/deploy/deploy_private.h"
#include "one/xml.h"

#define DEPTH_MAX    16
#define ELEMENTS_MAX 64 /* disks or NICs; vmadmd's own limit is lower and says so */

char *deploy_path(const char *path)
{
	struct strbuf sb = {0};

	for (const char *c = path; *c; c++)
		if (*c != '/' || c[1] != '/')
			strbuf_putc(&sb, *c);
	return strbuf_steal(&sb);
}

const char *deploy_row_path(const struct deploy_dialect *dialect, const struct deploy_row *row)
{
	return dialect->template ? row->template : row->path;
}

/* How path and that of a row belong together, the strongest last. */
enum match { MATCH_NONE, MATCH_WILD, MATCH_HOLDS, MATCH_EXACT };

static enum match match(const char *row, const char *path, size_t len)
{
	size_t row_len = row ? strlen(row) : 0;

	if (row_len == len && memcmp(row, path, len) == 0)
		return MATCH_EXACT;
	if (row_len > len && (row[len] == '/' || row[len] == '@') && memcmp(row, path, len) == 0)
		return MATCH_HOLDS;
	if (row_len && row[row_len - 1] == '*' && strncmp(row, path, row_len - 1) == 0)
		return MATCH_WILD;
	return MATCH_NONE;
}

/*
 * The row for path: its own; where rows lie below it, one that takes nothing; else the last that
 * ends with '*', so that a row may narrow one before it. A dialect's rows go before its base's.
 */
static const struct deploy_row *row_of(const struct deploy_dialect *dialect, const char *path)
{
	static const struct deploy_row holds = {.path = ""};
	const struct deploy_row *found = NULL;
	enum match best = MATCH_NONE;
	size_t len = strlen(path);

	for (; dialect; dialect = dialect->base) {
		enum match wild = best;

		for (size_t i = 0; i < dialect->count && best != MATCH_EXACT; i++) {
			const struct deploy_row *row = &dialect->rows[i];
			enum match m = match(deploy_row_path(dialect, row), path, len);

			if (m > best || (m == MATCH_WILD && wild == MATCH_NONE && m == best)) {
				best = m;
				found = m == MATCH_HOLDS ? &holds : row;
			}
		}
	}
	return found;
}

static char *trimmed(const char *text)
{
	size_t len;

	while (text && isspace((unsigned char)*text))
		text++;
	len = text ? strlen(text) : 0;
	while (len && isspace((unsigned char)text[len - 1]))
		len--;
	return xstrndup(text ? text : "", len);
}

static void attributes(struct deploy *d, xmlNode *node, const char *path, json_t *at)
{
	for (xmlAttr *a = node->properties; a; a = a->next) {
		AUTO_FREE char *key = xasprintf("%s@%s", path, (const char *)a->name);
		AUTO_FREE char *value = xml_attr(node, (const char *)a->name);
		AUTO_FREE char *text = trimmed(value);
		const struct deploy_row *row = row_of(d->dialect, key);

		/* What a row says of all below an element it says of elements. */
		if (row && row->take && !str_ends(deploy_row_path(d->dialect, row), "*"))
			row->take(d, at, row, text);
		else if (!row && d->dialect->attributes)
			problems_add(&d->problems, PROBLEM_BAD_PROPERTY, key, NULL,
				     "'%.80s' is not known here", text);
	}
}

/* Where the element's members belong: a disk or NIC of its own, or where its parent's do. */
static json_t *place_of(struct deploy *d, const char *path, json_t *at)
{
	json_t *list = str_eq(path, d->dialect->disk)  ? d->disks
		       : str_eq(path, d->dialect->nic) ? d->nics
						       : NULL;

	if (!list || json_array_size(list) >= ELEMENTS_MAX)
		return at;
	at = json_object();
	(void)json_array_append_new(list, at);
	return at;
}

static bool has_elements(const xmlNode *node)
{
	for (node = node->children; node; node = node->next)
		if (node->type == XML_ELEMENT_NODE)
			return true;
	return false;
}

static void walk(struct deploy *d, xmlNode *node, const char *path, json_t *at);

static void walk_children(struct deploy *d, /* NOLINT */
			  xmlNode *node, const char *path, json_t *at)
{
	for (xmlNode *child = node->children; child; child = child->next) {
		AUTO_FREE char *below = NULL;

		if (child->type != XML_ELEMENT_NODE)
			continue;
		below = xasprintf("%s%s%s", path, *path ? "/" : "", (const char *)child->name);
		walk(d, child, below, at);
	}
}

/* Depth is that of the path, which is bounded. */
static void walk(struct deploy *d, /* NOLINT */
		 xmlNode *node, const char *path, json_t *at)
{
	const struct deploy_row *row = row_of(d->dialect, path);
	AUTO_FREE char *value = xml_value(node, "");
	AUTO_FREE char *text = trimmed(value);
	size_t depth = 0;

	for (const char *c = path; *c; c++)
		depth += *c == '/';
	if (!row && (d->dialect->strict || depth > DEPTH_MAX)) {
		problems_add(&d->problems, PROBLEM_BAD_PROPERTY, path, NULL,
			     "is an element that is not known here");
		return;
	}
	at = place_of(d, path, at);
	if (row && row->take &&
	    (*text || d->dialect->strict || !has_elements(node) || row->take == take_refuse))
		row->take(d, at, row, text);
	if (row && row->take == take_refuse)
		return;
	attributes(d, node, path, at);
	walk_children(d, node, path, at);
}

void deploy_walk(struct deploy *d, xmlNode *root)
{
	attributes(d, root, "", d->vm);
	walk_children(d, root, "", d->vm);
}

void deploy_init(struct deploy *d, const struct deploy_dialect *dialect,
		 const struct deploy_place *place)
{
	*d = (struct deploy){.dialect = dialect, .place = place, .vm = json_object()};
	d->disks = json_array();
	d->nics = json_array();
	(void)json_object_set_new(d->vm, "disks", d->disks);
	(void)json_object_set_new(d->vm, "nics", d->nics);
}

/* What was read, or all that is wrong with it. */
static int done(struct deploy *d, json_t *value, json_t **ret, struct err *err)
{
	int r = problems_to_err(&d->problems, err);

	if (r == 0)
		*ret = json_incref(value);
	problems_done(&d->problems);
	json_decref(d->vm);
	return r;
}

static void take_value(struct deploy *d, xmlNode *vm, const char *path, const char *key)
{
	AUTO_FREE char *value = xml_value(vm, path);
	AUTO_FREE char *text = trimmed(value);

	if (*text)
		json_put_str(d->vm, key, text);
}

/* LOCATION/DS/VM, by the VM's last host. */
static char *sysdir_of(xmlNode *vm, const struct deploy_place *place)
{
	AUTO_FREE char *store = xml_value(vm, "HISTORY_RECORDS/HISTORY/DS_ID");
	AUTO_FREE char *id = xml_value(vm, "ID");

	if (!place->location)
		return xstrdup(place->sysdir);
	return store && id ? xasprintf("%s/%s/%s", place->location, store, id) : xstrdup("");
}

int deploy_read_vm(xmlNode *vm, const struct deploy_place *place, json_t **ret, struct err *err)
{
	bool whole = str_eq((const char *)vm->name, "VM");
	xmlNode *template = whole ? xml_find(vm, "TEMPLATE") : vm;
	AUTO_FREE char *sysdir = sysdir_of(vm, place);
	const struct deploy_place at = {.sysdir = sysdir, .exists = place->exists};
	struct deploy d;

	if (!template)
		return err_set(err, EINVAL, "the VM has no TEMPLATE");
	deploy_init(&d, &deploy_template, &at);
	d.has_acpi = true;
	walk_children(&d, template, "", d.vm);
	if (whole) {
		take_value(&d, vm, "NAME", "alias");
		take_value(&d, vm, "UNAME", ".uname");
		take_value(&d, vm, "GNAME", ".gname");
	}
	deploy_finish(&d);
	return done(&d, d.vm, ret, err);
}

int deploy_read(const char *text, size_t len, const struct deploy_place *place, json_t **ret,
		struct err *err)
{
	AUTO_XML xmlDoc *doc = NULL;
	xmlNode *root;
	struct deploy d;
	int r;

	if (len > DEPLOY_MAX)
		return err_set(err, E2BIG, "the deployment file is larger than %u MiB",
			       DEPLOY_MAX >> 20);
	r = xml_read(text, len, NULL, &doc, err);
	if (r < 0)
		return err_wrap(err, r, "the deployment file");
	root = xmlDocGetRootElement(doc);
	if (str_eq((const char *)root->name, "VM") || str_eq((const char *)root->name, "TEMPLATE"))
		return deploy_read_vm(root, place, ret, err);
	if (!str_eq((const char *)root->name, "domain"))
		return err_set(err, EINVAL,
			       "the deployment file's root is <%s> (want <domain>, <VM> or "
			       "<TEMPLATE>)",
			       (const char *)root->name);
	deploy_init(&d, &deploy_libvirt, place);
	deploy_walk(&d, root);
	deploy_finish(&d);
	return done(&d, d.vm, ret, err);
}

static int read_one(xmlNode *node, const struct deploy_place *place, bool disk, json_t **ret,
		    struct err *err)
{
	struct deploy d;
	json_t *list;

	deploy_init(&d, &deploy_template, place);
	d.has_acpi = true;
	list = disk ? d.disks : d.nics;
	if (place->vmid)
		json_put_int(d.vm, ".vmid", strtol(place->vmid, NULL, 10));
	walk(&d, node, disk ? "DISK" : "NIC", d.vm);
	if (disk)
		deploy_finish_disk(&d, json_array_get(list, 0));
	else
		deploy_finish_nic(&d, json_array_get(list, 0));
	deploy_finish_hidden(json_array_get(list, 0));
	return done(&d, json_array_get(list, 0), ret, err);
}

int deploy_read_disk(xmlNode *disk, const struct deploy_place *place, json_t **ret, struct err *err)
{
	return read_one(disk, place, true, ret, err);
}

int deploy_read_nic(xmlNode *nic, json_t **ret, struct err *err)
{
	static const struct deploy_place nowhere = {.sysdir = ""};

	return read_one(nic, &nowhere, false, ret, err);
}
