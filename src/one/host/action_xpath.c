/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xpath, for shell scripts: values at paths of a message, each ended by a NUL, as the core's
 * xpath.rb prints them. -b BASE64 in place of standard input; a path that begins with %m% gives
 * all values, joined by a blank. Source: the seed, "action xml".
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/base64.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/host/action.h"
#include "one/xml.h"

#define MANY "%m%"

static void print(xmlDoc *doc, const char *path)
{
	bool many = str_starts(path, MANY);
	xmlNode *node;

	path += many ? strlen(MANY) : 0;
	path += strspn(path, "/");
	node = xml_find((xmlNode *)doc, path);
	for (bool first = true; node; node = many ? xml_next(node) : NULL, first = false) {
		AUTO_FREE char *value = xml_value(node, "");

		(void)printf("%s%s", first ? "" : " ", value ? value : "");
	}
	(void)putchar('\0');
}

int act_xpath(struct call *call, struct err *err)
{
	AUTO_FREE char *text = NULL;
	AUTO_XML xmlDoc *doc = NULL;
	int first = 0, r;
	size_t len;

	if (call->argc >= 2 && str_eq(call->argv[0], "-b")) {
		first = 2;
		r = base64_decode(call->argv[1], strlen(call->argv[1]), &text, &len, err);
		if (r == 0)
			r = xml_read(text, len, NULL, &doc, err);
		if (r < 0)
			return r;
	}
	if (!doc && !call->doc)
		return err_set(err, EINVAL, "no message: give it with -b, or on standard input");
	for (int i = first; i < call->argc; i++)
		if (call->argv[i][0] != '-')
			print(doc ? doc : call->doc, call->argv[i]);
	return 0;
}
