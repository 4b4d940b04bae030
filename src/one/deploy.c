/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a deployment file: walk its elements, let the dialect's rows put members into the
 * payload, collect everything that is wrong, then finish (deploy_finish.c). See deploy.h.
 */
#include "one/deploy.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/deploy_finish.h"
#include "one/deploy_private.h"
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

static const struct deploy_row *exact_row(const struct deploy_dialect *dialect, const char *path)
{
	for (size_t i = 0; i < dialect->count; i++)
		if (str_eq(dialect->rows[i].path, path))
			return &dialect->rows[i];
	return dialect->base ? exact_row(dialect->base, path)
			     : NULL; /* NOLINT(misc-no-recursion) */
}

/* The last one counts: a row may narrow one before it. */
static const struct deploy_row *wild_row(const struct deploy_dialect *dialect, const char *path)
{
	const struct deploy_row *wild = NULL;

	for (size_t i = 0; i < dialect->count; i++) {
		const struct deploy_row *row = &dialect->rows[i];
		size_t len = strlen(row->path);

		if (row->path[len - 1] == '*' && strncmp(row->path, path, len - 1) == 0)
			wild = row;
	}
	if (!wild && dialect->base)
		return wild_row(dialect->base, path); /* NOLINT(misc-no-recursion) */
	return wild;
}

static const struct deploy_row *row_of(const struct deploy_dialect *dialect, const char *path)
{
	const struct deploy_row *row = exact_row(dialect, path);

	return row || strchr(path, '@') ? row : wild_row(dialect, path);
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

static void attributes(struct deploy *d, const struct deploy_dialect *dialect, xmlNode *node,
		       const char *path, json_t *at)
{
	for (xmlAttr *a = node->properties; a; a = a->next) {
		AUTO_FREE char *key = xasprintf("%s@%s", path, (const char *)a->name);
		AUTO_FREE char *value = xml_attr(node, (const char *)a->name);
		AUTO_FREE char *text = trimmed(value);
		const struct deploy_row *row = row_of(dialect, key);

		if (row && row->take)
			row->take(d, at, row, text);
		else if (!row && dialect->attributes && !wild_row(dialect, key))
			problems_add(&d->problems, PROBLEM_BAD_PROPERTY, key, NULL,
				     "'%.80s' is not known here", text);
	}
}

/* Where the element's members belong: a disk or NIC of its own, or where its parent's do. */
static json_t *place_of(struct deploy *d, const struct deploy_dialect *dialect, const char *path,
			json_t *at)
{
	json_t *list = str_eq(path, dialect->disk)  ? d->disks
		       : str_eq(path, dialect->nic) ? d->nics
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

static void walk(struct deploy *d, const struct deploy_dialect *dialect, xmlNode *node,
		 const char *path, json_t *at);

static void walk_children(struct deploy *d, const struct deploy_dialect *dialect, /* NOLINT */
			  xmlNode *node, const char *path, json_t *at)
{
	for (xmlNode *child = node->children; child; child = child->next) {
		AUTO_FREE char *below = NULL;

		if (child->type != XML_ELEMENT_NODE)
			continue;
		below = xasprintf("%s%s%s", path, *path ? "/" : "", (const char *)child->name);
		walk(d, dialect, child, below, at);
	}
}

/* Depth is that of the path, which is bounded. */
static void walk(struct deploy *d, const struct deploy_dialect *dialect, /* NOLINT */
		 xmlNode *node, const char *path, json_t *at)
{
	const struct deploy_row *row = row_of(dialect, path);
	AUTO_FREE char *value = xml_value(node, "");
	AUTO_FREE char *text = trimmed(value);
	size_t depth = 0;

	for (const char *c = path; *c; c++)
		depth += *c == '/';
	if (!row && (dialect->strict || depth > DEPTH_MAX)) {
		problems_add(&d->problems, PROBLEM_BAD_PROPERTY, path, NULL,
			     "is an element that is not known here");
		return;
	}
	at = place_of(d, dialect, path, at);
	if (row && row->take &&
	    (*text || dialect->strict || !has_elements(node) || row->take == take_refuse))
		row->take(d, at, row, text);
	if (row && row->take == take_refuse)
		return;
	attributes(d, dialect, node, path, at);
	walk_children(d, dialect, node, path, at);
}

void deploy_walk(struct deploy *d, const struct deploy_dialect *dialect, xmlNode *root)
{
	attributes(d, dialect, root, "", d->vm);
	walk_children(d, dialect, root, "", d->vm);
}

void deploy_init(struct deploy *d, const struct deploy_place *place)
{
	*d = (struct deploy){.place = place, .vm = json_object()};
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

int deploy_read_vm(xmlNode *vm, const struct deploy_place *place, json_t **ret, struct err *err)
{
	bool whole = str_eq((const char *)vm->name, "VM");
	xmlNode *template = whole ? xml_find(vm, "TEMPLATE") : vm;
	struct deploy d;

	if (!template)
		return err_set(err, EINVAL, "the VM has no TEMPLATE");
	deploy_init(&d, place);
	d.has_acpi = true;
	walk_children(&d, &deploy_template, template, "", d.vm);
	if (whole) {
		take_value(&d, vm, "NAME", "alias");
		take_value(&d, vm, "UNAME", ".uname");
		take_value(&d, vm, "GNAME", ".gname");
	}
	deploy_finish(&d, &deploy_template);
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
	deploy_init(&d, place);
	deploy_walk(&d, &deploy_libvirt, root);
	deploy_finish(&d, &deploy_libvirt);
	return done(&d, d.vm, ret, err);
}

static int read_one(xmlNode *node, const struct deploy_place *place, bool disk, json_t **ret,
		    struct err *err)
{
	struct deploy d;
	json_t *list;

	deploy_init(&d, place);
	d.has_acpi = true;
	list = disk ? d.disks : d.nics;
	walk(&d, &deploy_template, node, disk ? "DISK" : "NIC", d.vm);
	if (disk)
		deploy_finish_disk(&d, json_array_get(list, 0), &deploy_template);
	else
		deploy_finish_nic(&d, json_array_get(list, 0), &deploy_template);
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
