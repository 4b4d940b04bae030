/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The project's only door to libxml2. Documents come from the OpenNebula core; they have neither a
 * document type nor entities of their own, and are refused when they do, so that nothing is
 * expanded or fetched. Values of any size are taken; the caller bounds the text.
 */
#pragma once

#include <libxml/tree.h>
#include <stddef.h>

struct err;
struct strbuf;

static inline void auto_xml_fn(xmlDoc **doc)
{
	if (*doc)
		xmlFreeDoc(*doc);
}

#define AUTO_XML __attribute__((cleanup(auto_xml_fn)))

/*
 * Parse text[len]. -EINVAL says "bad XML in line N: reason"; root: the name its root element must
 * have, NULL for any.
 */
int xml_read(const char *text, size_t len, const char *root, xmlDoc **ret, struct err *err);

/*
 * The first element at path below from: names joined by '/', each with an optional condition on a
 * child, "VM/TEMPLATE/DISK[ATTACH='YES']/TARGET"; several paths are joined by '|', the first that
 * leads anywhere counts. NULL when there is none, or from is.
 */
xmlNode *xml_find(xmlNode *from, const char *path);

/* The next sibling of the same name, or NULL. */
xmlNode *xml_next(xmlNode *node);

/* Text and CDATA of the element at path, "" when it is empty, NULL when absent; caller frees. */
char *xml_value(xmlNode *from, const char *path);

/* The attribute of this element, NULL when absent; caller frees. */
char *xml_attr(xmlNode *node, const char *name);

/* Append the element as text: CDATA kept, UTF-8, no declaration, no layout added. */
void xml_print(struct strbuf *sb, xmlNode *node);
