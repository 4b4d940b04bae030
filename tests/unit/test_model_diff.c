/* SPDX-License-Identifier: Apache-2.0 */
/* Differences of VM objects: examples E1-E14 of the original, and the values it crashes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/model.h"

/* Quotes are written as ' in the cases. */
static json_t *load(const char *text)
{
	AUTO_FREE char *copy = xstrdup(text);
	json_error_t err;
	json_t *j;

	for (char *c = copy; *c; c++)
		*c = *c == '\'' ? '"' : *c;
	j = json_loads(copy, JSON_DECODE_ANY, &err);
	if (!j)
		fail_msg("%s: %s", text, err.text);
	return j;
}

/* "prettyPath action old -> new (ident)" per line. */
static char *render(const json_t *changes)
{
	struct strbuf sb = {0};
	size_t i;
	json_t *c;

	json_array_foreach ((json_t *)changes, i, c) {
		static const char *const keys[] = {"oldValue", "newValue", "ident"};

		strbuf_printf(&sb, "%s %s", json_get_str(c, "prettyPath", "?"),
			      json_get_str(c, "action", "?"));
		for (size_t k = 0; k < ARRAY_SIZE(keys); k++) {
			json_t *value = json_object_get(c, keys[k]);
			AUTO_FREE char *text = value ? json_text(value) : NULL;

			if (text)
				strbuf_printf(&sb, k == 2 ? " (%s)" : k ? " > %s" : " %s", text);
		}
		strbuf_putc(&sb, '\n');
	}
	for (size_t k = 0; k < sb.len; k++)
		sb.data[k] = sb.data[k] == '"' ? '\'' : sb.data[k];
	return strbuf_steal(&sb);
}

static const struct example {
	const char *name, *old, *new, *want;
} examples[] = {
	{"E1 scalars", "{'ram':1024,'alias':'w'}", "{'ram':2048,'hostname':'h'}",
	 "ram changed 1024 > 2048\nalias removed 'w'\nhostname added > 'h'\n"},
	{"E2 order", "{'a':1,'b':2,'c':3}", "{'c':4,'d':5,'a':1}",
	 "b removed 2\nc changed 3 > 4\nd added > 5\n"},
	{"E3 nic edited", "{'nics':[{'mac':'aa','ip':'dhcp','model':'virtio'}]}",
	 "{'nics':[{'mac':'aa','ip':'10.0.0.1','primary':true}]}",
	 "nics.*.ip changed 'dhcp' > '10.0.0.1' ('aa')\n"
	 "nics.*.model removed 'virtio' ('aa')\nnics.*.primary added > true ('aa')\n"},
	{"E4 mac replaced", "{'nics':[{'mac':'aa','ip':'d'}]}", "{'nics':[{'mac':'bb','ip':'d'}]}",
	 "nics.* removed {'mac':'aa','ip':'d'}\nnics.* added > {'mac':'bb','ip':'d'}\n"},
	{"E5 array in element", "{'nics':[{'mac':'aa','ips':['dhcp']}]}",
	 "{'nics':[{'mac':'aa','ips':['10.0.0.1/24','fe80::1']}]}",
	 "nics.*.ips.* removed 'dhcp' ('aa')\nnics.*.ips.* added > '10.0.0.1/24' ('aa')\n"
	 "nics.*.ips.* added > 'fe80::1' ('aa')\n"},
	{"E6 disks mixed", "{'disks':[{'path':'/d0','size':10},{'path':'/d1','size':5}]}",
	 "{'disks':[{'path':'/d0','size':20},{'path':'/d2','size':7}]}",
	 "disks.* removed {'path':'/d1','size':5}\ndisks.*.size changed 10 > 20 ('/d0')\n"
	 "disks.* added > {'path':'/d2','size':7}\n"},
	{"E7 unkeyed", "{'snapshots':[{'name':'s1','size':1}]}",
	 "{'snapshots':[{'name':'s1','size':2}]}",
	 "snapshots.* removed {'name':'s1','size':1}\n"
	 "snapshots.* added > {'name':'s1','size':2}\n"},
	{"E8 replaced", "{'resolvers':['1.1.1.1']}", "{'resolvers':['8.8.8.8']}",
	 "resolvers.* removed '1.1.1.1'\nresolvers.* added > '8.8.8.8'\n"},
	{"E8 reordered", "{'resolvers':['1','2','2']}", "{'resolvers':['2','1']}", ""},
	{"E9 tags", "{'tags':{'a':'1','b.c':'2'}}", "{'tags':{'b.c':'3','d[0]':'x'}}",
	 "tags.a removed '1'\ntags[b.c] changed '2' > '3'\ntags[d\\[0\\]] added > 'x'\n"},
	{"E10 appears", "{}", "{'customer_metadata':{'k':'v'}}",
	 "customer_metadata added > {'k':'v'}\n"},
	{"E10 empty array", "{}", "{'nics':[]}", "nics added > []\n"},
	{"E10 first nic", "{'nics':[]}", "{'nics':[{'mac':'aa'}]}",
	 "nics.* added > {'mac':'aa'}\n"},
	{"E11 not at the root", "{'root':{'disks':[{'path':'p','s':1}]}}",
	 "{'root':{'disks':[{'path':'p','s':2}]}}",
	 "root.disks.* removed {'path':'p','s':1}\nroot.disks.* added > {'path':'p','s':2}\n"},
	{"E12 duplicate keys", "{'disks':[{'path':'p','s':1},{'path':'p','s':2}]}",
	 "{'disks':[{'path':'p','s':3},{'path':'p','s':4}]}",
	 "disks.*.s changed 1 > 3 ('p')\ndisks.*.s changed 2 > 4 ('p')\n"},
	{"E13 no key", "{'disks':[{'s':1}]}", "{'disks':[{'s':2}]}", "disks.*.s changed 1 > 2\n"},
	{"E14 string to array", "{'a':'x'}", "{'a':['x']}", "a changed 'x' > ['x']\n"},
	{"E14 array to object", "{'a':[1]}", "{'a':{'x':1}}", "a.0 removed 1\na.x added > 1\n"},
	{"object to array", "{'a':{'x':1}}", "{'a':[1]}", "a.x removed 1\na.0 added > 1\n"},
	{"null to primitive", "{'zoneid':null}", "{'zoneid':4}", "zoneid changed null > 4\n"},
	{"null to object", "{'a':null}", "{'a':{'b':1}}", "a changed null > {'b':1}\n"},
	{"array to null", "{'a':[1]}", "{'a':null}", "a changed [1] > null\n"},
	{"null stays", "{'a':null}", "{'a':null}", ""},
	{"no coercion", "{'a':true,'b':1}", "{'a':'true','b':'1'}",
	 "a changed true > 'true'\nb changed 1 > '1'\n"},
	{"real and integer", "{'a':1}", "{'a':1.0}", ""},
	{"strings in a keyed array", "{'disks':['x',1]}", "{'disks':[{'path':'p'},null]}",
	 "disks.* removed 'x'\ndisks.* removed 1\ndisks.* added > {'path':'p'}\n"
	 "disks.* added > null\n"},
	{"order of keys is no change", "{'disks':[{'path':'p','a':1}],'s':[{'x':1,'y':2}]}",
	 "{'disks':[{'a':1,'path':'p'}],'s':[{'y':2,'x':1}]}", ""},
	{"key that is no string", "{'disks':[{'path':1,'s':1}]}", "{'disks':[{'path':1,'s':2}]}",
	 "disks.*.s changed 1 > 2 (1)\n"},
	{"array at the root", "[1,2]", "[2,3]", "* removed 1\n* added > 3\n"},
	{"three levels", "{'a':{'b':{'c':1,'d':{'e':1}}}}", "{'a':{'b':{'c':2,'f':3}}}",
	 "a.b.c changed 1 > 2\na.b.d removed {'e':1}\na.b.f added > 3\n"},
	{"same", "{'a':[1,{'b':null}],'c':''}", "{'a':[1,{'b':null}],'c':''}", ""},
};

static void test_examples(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(examples); i++) {
		const struct example *e = &examples[i];
		AUTO_JSON json_t *old = load(e->old);
		AUTO_JSON json_t *new = load(e->new);
		AUTO_JSON json_t *changes = vm_diff(old, new);
		AUTO_JSON json_t *none = vm_diff(old, old);
		AUTO_FREE char *text = render(changes);

		if (strcmp(text, e->want) != 0)
			fail_msg("%s:\n%swant:\n%s", e->name, text, e->want);
		assert_int_equal(json_array_size(none), 0);
	}
}

static void test_entry_form(void **state)
{
	AUTO_JSON json_t *old = load("{'nics':[{'mac':'aa','ip':'dhcp'}]}");
	AUTO_JSON json_t *new = load("{'nics':[{'mac':'aa','ip':'10.0.0.1'}]}");
	AUTO_JSON json_t *changes = vm_diff(old, new);
	AUTO_FREE char *text = json_text(changes);

	assert_string_equal(text, "[{\"prettyPath\":\"nics.*.ip\",\"path\":[\"nics\",null,\"ip\"],"
				  "\"action\":\"changed\",\"oldValue\":\"dhcp\","
				  "\"newValue\":\"10.0.0.1\",\"ident\":\"aa\"}]");
}

/* Deeper than any real object: must end, not overflow. */
static void test_depth(void **state)
{
	AUTO_JSON json_t *old = json_integer(1);
	AUTO_JSON json_t *new = json_integer(2);

	for (int i = 0; i < 500; i++) {
		old = json_pack("{s:o}", "a", old);
		new = json_pack("{s:o}", "a", new);
	}
	{
		AUTO_JSON json_t *changes = vm_diff(old, new);

		assert_int_equal(json_array_size(changes), 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_examples),
		cmocka_unit_test(test_entry_form),
		cmocka_unit_test(test_depth),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
