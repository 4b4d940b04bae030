/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deployment files of real cores as payloads: each file of tests/golden/one/deploy beside what is
 * made of it, or why it is refused. What is made must be a good payload by the model's own word.
 */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "model/vm.h"
#include "one/deploy/deploy.h"
#include "one/xml.h"

static int nothing(const char *path)
{
	return -1;
}

static int in_images(const char *path)
{
	return strstr(path, "/images/") ? 0 : -1;
}

static const struct deploy_place place = {.sysdir = "/var/lib/one//datastores/0/7",
					  .exists = nothing};

static char *result_of(const char *text, size_t len)
{
	AUTO_JSON json_t *payload = NULL;
	struct problems AUTO_PROBLEMS problems = {0};
	struct err err = {0};
	struct vm *vm;
	int r = deploy_read(text, len, &place, &payload, &err);

	if (r < 0)
		return xasprintf("refused: %s\n", err.msg);
	vm = vm_from_payload(payload, &problems);
	vm_finish(vm, "/data");
	vm_validate(vm, &problems);
	vm_free(vm);
	if (problems.errors) {
		AUTO_FREE char *all = problems_text(&problems);

		return xasprintf("not a payload: %s\n", all);
	}
	AUTO_FREE char *json = json_pretty(payload);

	return xasprintf("%s\n", json);
}

static size_t judge(const char *dir, const char *name)
{
	AUTO_FREE char *from = path_join(dir, name), *text = NULL, *want = NULL, *got;
	AUTO_FREE char *to = xasprintf("%.*s.out", (int)(strlen(from) - 4), from);
	size_t len;

	assert_int_equal(file_read(from, DEPLOY_MAX, &text, &len, NULL, NULL), 0);
	got = result_of(text, len);
	if (getenv("REWRITE_GOLDEN"))
		assert_int_equal(file_write(to, got, strlen(got), 0644, FILE_NO_SYNC, NULL), 0);
	assert_int_equal(file_read(to, DEPLOY_MAX, &want, NULL, NULL, NULL), 0);
	if (strcmp(got, want) != 0)
		print_error("%s differs:\n%s", to, got);
	return strcmp(got, want) != 0;
}

static void test_golden(void **state)
{
	AUTO_FREE char *dir = path_join(getenv("GOLDEN"), "one/deploy");
	DIR *d = opendir(dir);
	const struct dirent *entry;
	size_t wrong = 0, count = 0;

	assert_non_null(d);
	while ((entry = readdir(d))) {
		if (!str_ends(entry->d_name, ".xml"))
			continue;
		wrong += judge(dir, entry->d_name);
		count++;
	}
	(void)closedir(d);
	assert_int_equal(wrong, 0);
	assert_true(count >= 25);
}

/* disk.N in the datastore, else images/disk.N, else the image, which must be there. */
static void test_places_of_disks(void **state)
{
	static const char text[] = "<DISK><DISK_ID>3</DISK_ID><TARGET>vdc</TARGET>"
				   "<SOURCE>/srv//data/x</SOURCE></DISK>";
	static const struct {
		const char *sysdir;
		deploy_exists exists;
		const char *want;
	} rows[] = {
		{"/ds//0/7", nothing, "/ds/0/7/disk.3"},
		{"/ds/0/7", in_images, "/ds/0/7/images/disk.3"},
		{"", nothing, "/srv/data/x"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct deploy_place at = {.sysdir = rows[i].sysdir, .exists = rows[i].exists};
		AUTO_XML xmlDoc *doc = NULL;
		AUTO_JSON json_t *disk = NULL;

		assert_int_equal(xml_read(text, strlen(text), "DISK", &doc, NULL), 0);
		assert_int_equal(deploy_read_disk(xmlDocGetRootElement(doc), &at, &disk, NULL), 0);
		assert_string_equal(json_get_str(disk, "path", ""), rows[i].want);
	}
}

/* On the front-end the disks lie in the datastore of the VM's last host. */
static void test_places_of_the_front_end(void **state)
{
	static const char text[] =
		"<VM><ID>7</ID><TEMPLATE><MEMORY>64</MEMORY><VMID>7</VMID><DISK><DISK_ID>0</"
		"DISK_ID>"
		"<TARGET>vda</TARGET></DISK></TEMPLATE><HISTORY_RECORDS><HISTORY><DS_ID>104</DS_ID>"
		"</HISTORY></HISTORY_RECORDS></VM>";
	const struct deploy_place at = {
		.sysdir = "/var/lib/one/vms/7", .exists = nothing, .location = "/var/lib/one//ds"};
	AUTO_JSON json_t *payload = NULL;

	assert_int_equal(deploy_read(text, strlen(text), &at, &payload, NULL), 0);
	assert_string_equal(
		json_get_str(json_array_get(json_object_get(payload, "disks"), 0), "path", ""),
		"/var/lib/one/ds/104/7/disk.0");
}

/* "vm | name | fragment | want" of a row; false where there is no more of it. */
static char *cell(char **rest)
{
	char *at = *rest, *end = at ? strstr(at, "|") : NULL;

	if (!at)
		return NULL;
	*rest = end ? end + 1 : NULL;
	if (end)
		*end = '\0';
	at += strspn(at, " ");
	for (size_t len = strlen(at); len && at[len - 1] == ' '; len--)
		at[len - 1] = '\0';
	return at;
}

static char *domain_with(const char *kind, const char *fragment)
{
	const char *disk = "<disk type='file' device='disk'><source file='/ds/0/1/disk.0'/>"
			   "<target dev='vda'/>";
	const char *nic = "<interface type='bridge'><source bridge='br0'/>"
			  "<mac address='02:00:00:00:00:01'/>";
	bool is_vm = str_eq(kind, "vm"), is_disk = str_eq(kind, "disk");
	const char *end = is_disk ? "</disk></devices>" : "</interface></devices>";

	return xasprintf("<domain type='qemu'><name>one-1</name><memory>65536</memory>"
			 "<vcpu>1</vcpu>%s%s%s%s</domain>",
			 is_vm ? "" : "<devices>",
			 is_vm     ? ""
			 : is_disk ? disk
				   : nic,
			 fragment, is_vm ? "" : end);
}

/* Each element of the guide does what the guide says, and there is none that it leaves out. */
static void test_elements(void **state)
{
	AUTO_FREE char *table = path_join(getenv("GOLDEN"), "one/elements"), *text = NULL;
	AUTO_FREE char *doc = path_join(getenv("GOLDEN"), "../../docs/opennebula.md"),
		       *guide = NULL;
	size_t wrong = 0, rows = 0;

	assert_int_equal(file_read(table, DEPLOY_MAX, &text, NULL, NULL, NULL), 0);
	assert_int_equal(file_read(doc, DEPLOY_MAX, &guide, NULL, NULL, NULL), 0);
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		char *rest = line, *kind, *name, *fragment, *want;

		if (*line == '#')
			continue;
		kind = cell(&rest);
		name = cell(&rest);
		fragment = cell(&rest);
		want = cell(&rest);
		assert_non_null(want);
		AUTO_FREE char *xml = domain_with(kind, fragment);
		AUTO_FREE char *got = result_of(xml, strlen(xml));
		AUTO_FREE char *row = xasprintf("| `%s` |", name);
		bool fits = strstr(got, want) && strstr(guide, row);

		if (!fits)
			print_error("%s: want %s in the guide, and %s in: %s\n", xml, row, want,
				    got);
		wrong += !fits;
		rows++;
	}
	assert_int_equal(wrong, 0);
	assert_true(rows > 60);
}

static void test_too_large(void **state)
{
	AUTO_FREE char *text = xcalloc(1, DEPLOY_MAX + 2);
	AUTO_JSON json_t *payload = NULL;
	struct err err = {0};

	memset(text, ' ', DEPLOY_MAX + 1);
	assert_int_equal(deploy_read(text, DEPLOY_MAX + 1, &place, &payload, &err), -E2BIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_places_of_disks),
		cmocka_unit_test(test_places_of_the_front_end),
		cmocka_unit_test(test_elements),
		cmocka_unit_test(test_too_large),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
