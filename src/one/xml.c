/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading what the core writes; see xml.h. No XPath engine: paths are walked by hand, which is
 * faster and cannot be fed an expression.
 */
#include "one/xml.h"

#include <errno.h>
#include <libxml/parser.h>
#include <libxml/xmlerror.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"

/* XML_PARSE_HUGE lifts the limit of 10 MB on a text; entities, its danger, are refused before. */
#define PARSE_OPTIONS                                                                              \
	(XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_HUGE |              \
	 XML_PARSE_COMPACT)

/*
 * A document type can only stand before the root element: what begins there with "<!" is refused,
 * comments included, which the core does not write either.
 */
static int check_prolog(const char *text, size_t len, struct err *err)
{
	const char *at = text, *end = text + len;

	for (;;) {
		while (at < end && strchr(" \t\r\n", *at) && *at)
			at++;
		if (at == end)
			return err_set(err, EINVAL, "bad XML: there is no element in it");
		if (end - at < 2 || *at != '<')
			return err_set(err, EINVAL, "bad XML: it does not begin with '<'");
		if (at[1] == '!')
			return err_set(err, EINVAL,
				       "bad XML: document types, entities and comments before the "
				       "root element are refused");
		if (at[1] != '?')
			return 0;
		at = memmem(at, (size_t)(end - at), "?>", 2);
		if (!at)
			return err_set(err, EINVAL, "bad XML: its declaration does not end");
		at += 2;
	}
}

static int fault(xmlParserCtxt *ctxt, struct err *err)
{
	const xmlError *e = xmlCtxtGetLastError(ctxt);
	int n = e && e->message ? (int)strcspn(e->message, "\r\n") : 0;

	if (!n)
		return err_set(err, EINVAL, "bad XML");
	return err_set(err, EINVAL, "bad XML in line %d: %.*s", e->line, n, e->message);
}

int xml_read(const char *text, size_t len, const char *root, xmlDoc **ret, struct err *err)
{
	AUTO_XML xmlDoc *doc = NULL;
	xmlParserCtxt *ctxt;
	xmlNode *top;
	int r = check_prolog(text, len, err);

	if (r < 0)
		return r;
	if (len > INT_MAX || memchr(text, '\0', len))
		return err_set(err, EINVAL, "bad XML: %s",
			       len > INT_MAX ? "too long" : "a NUL byte in it");
	ctxt = xmlNewParserCtxt();
	if (!ctxt)
		return err_set(err, ENOMEM, "no memory to read XML");
	doc = xmlCtxtReadMemory(ctxt, text, (int)len, NULL, NULL, PARSE_OPTIONS);
	if (!doc || !ctxt->wellFormed)
		r = fault(ctxt, err);
	xmlFreeParserCtxt(ctxt);
	if (r < 0)
		return r;
	top = xmlDocGetRootElement(doc);
	if (root && (!top || !str_eq((const char *)top->name, root)))
		return err_set(err, EINVAL, "bad XML: its root is <%s> (want <%s>)",
			       top ? (const char *)top->name : "", root);
	*ret = steal_ptr(doc);
	return 0;
}

static bool is_named(const xmlNode *node, const char *name, size_t len)
{
	return node->type == XML_ELEMENT_NODE && strlen((const char *)node->name) == len &&
	       memcmp(node->name, name, len) == 0;
}

/* "[NAME='VALUE']" of path[len], which may be empty. */
static bool holds(xmlNode *node, const char *cond, size_t len)
{
	const char *eq = memchr(cond, '=', len);
	size_t want_len;

	if (!len)
		return true;
	if (!eq || len < 6 || cond[len - 1] != ']')
		return false;
	want_len = (size_t)(cond + len - 2 - (eq + 2));
	for (xmlNode *child = node->children; child; child = child->next) {
		AUTO_FREE char *value = NULL;

		if (!is_named(child, cond + 1, (size_t)(eq - cond - 1)))
			continue;
		value = xml_value(child, "");
		if (value && strlen(value) == want_len && memcmp(value, eq + 2, want_len) == 0)
			return true;
	}
	return false;
}

/* path[len] holds no '|'. Goes back where a branch leads nowhere. */
static xmlNode *find(xmlNode *from, const char *path, size_t len) /* NOLINT(misc-no-recursion) */
{
	size_t step = 0, name;

	if (!len)
		return from;
	while (step < len && path[step] != '/')
		step++;
	for (name = 0; name < step && path[name] != '['; name++)
		;
	for (xmlNode *child = from->children; child; child = child->next) {
		xmlNode *found;

		if (!is_named(child, path, name) || !holds(child, path + name, step - name))
			continue;
		found = find(child, path + step + (step < len), len - step - (step < len));
		if (found)
			return found;
	}
	return NULL;
}

xmlNode *xml_find(xmlNode *from, const char *path)
{
	while (from) {
		size_t len = strcspn(path, "|");
		xmlNode *found = find(from, path, len);

		if (found || !path[len])
			return found;
		path += len + 1;
	}
	return NULL;
}

xmlNode *xml_next(xmlNode *node)
{
	const char *name = (const char *)node->name;

	for (node = node->next; node; node = node->next)
		if (is_named(node, name, strlen(name)))
			return node;
	return NULL;
}

char *xml_value(xmlNode *from, const char *path)
{
	struct strbuf sb = {0};
	xmlNode *node = xml_find(from, path);

	if (!node)
		return NULL;
	for (xmlNode *child = node->children; child; child = child->next)
		if ((child->type == XML_TEXT_NODE || child->type == XML_CDATA_SECTION_NODE) &&
		    child->content)
			strbuf_puts(&sb, (const char *)child->content);
	return strbuf_steal(&sb);
}

char *xml_attr(xmlNode *node, const char *name)
{
	xmlChar *value = xmlGetNoNsProp(node, (const xmlChar *)name);
	char *copy = xstrdup((const char *)value);

	xmlFree(value);
	return copy;
}

void xml_print(struct strbuf *sb, xmlNode *node)
{
	xmlBuffer *buf = xmlBufferCreate();
	xmlOutputBuffer *out = buf ? xmlOutputBufferCreateBuffer(buf, NULL) : NULL;

	if (out) {
		xmlNodeDumpOutput(out, node->doc, node, 0, 0, "UTF-8");
		(void)xmlOutputBufferFlush(out);
		strbuf_add(sb, xmlBufferContent(buf), (size_t)xmlBufferLength(buf));
		(void)xmlOutputBufferClose(out);
	}
	if (buf)
		xmlBufferFree(buf);
}
