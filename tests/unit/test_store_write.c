/* SPDX-License-Identifier: Apache-2.0 */
/* Changes on disk: whole or not at all, in the words of the file, nothing left behind. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/paths.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "model/vm.h"
#include "store/catalog.h"
#include "store/write.h"

#define UUID "11111111-1111-4111-8111-111111111111"

struct world {
	char root[64];
	struct paths paths;
	struct catalog *c;
};

static void on_change(void *ctx, struct catalog_entry *e, enum catalog_change what)
{
}

static char *at(struct world *w, const char *rel)
{
	static char buf[4][512];
	static int n;
	char *p = buf[n++ % 4];

	(void)snprintf(p, sizeof(buf[0]), "%s/%s", w->root, rel);
	return p;
}

static void put(struct world *w, const char *rel, const char *text)
{
	AUTO_FREE char *dir = xstrdup(at(w, rel));

	*strrchr(dir, '/') = '\0';
	assert_int_equal(dir_make(dir, 0755, NULL), 0);
	assert_int_equal(file_write(at(w, rel), text, strlen(text), 0640, FILE_NO_SYNC, NULL), 0);
}

static char *content(struct world *w, const char *rel)
{
	static char *kept;
	char *text;
	struct err err;

	if (file_read(at(w, rel), 1 << 20, &text, NULL, NULL, &err) < 0)
		text = xstrdup("");
	replace_str(&kept, text);
	return text;
}

static size_t entries(const char *path)
{
	DIR *d = opendir(path);
	size_t n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		(void)closedir(d);
	return n ? n - 2 : 0;
}

static int setup(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));

	(void)snprintf(w->root, sizeof(w->root), "/tmp/test_write.XXXXXX");
	assert_non_null(mkdtemp(w->root));
	assert_int_equal(paths_init(&w->paths, w->root, NULL), 0);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	catalog_free(w->c);
	(void)dir_remove_tree(w->root, NULL);
	paths_done(&w->paths);
	free(w);
	return 0;
}

static void load(struct world *w)
{
	struct catalog_config config = {.paths = &w->paths, .metadata = true, .changed = on_change};
	const struct catalog_problem *p;

	assert_int_equal(catalog_new(&config, &w->c, NULL), 0);
	assert_int_equal(catalog_load(w->c, NULL), 0);
	if (catalog_problems(w->c, &p) > 0)
		fail_msg("%s", p[0].text);
}

static const struct vm *find(struct world *w, const char *id)
{
	struct catalog_entry *e;
	struct err err = {0};

	catalog_sync(w->c);
	if (catalog_find(w->c, id, &e, &err) < 0)
		fail_msg("%s", err.msg);
	if (e->error)
		fail_msg("%s", e->error);
	return e->vm;
}

static struct vm *payload(struct world *w, const char *text)
{
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_JSON json_t *j = json_loads(text, 0, NULL);
	struct vm *vm = vm_from_payload(j, &p);
	AUTO_FREE char *data = path_of_data(&w->paths, vm->uuid, NULL);
	AUTO_FREE char *all = problems_text(&p);

	if (p.errors)
		fail_msg("%s", all);
	vm_finish(vm, data);
	return vm;
}

/* Update by payload; returns store_update's result. */
static int update(struct world *w, const char *id, const char *text, struct err *err)
{
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_JSON json_t *j = json_loads(text, 0, NULL);
	struct vm_changes changes = {0};
	const struct vm *old = find(w, id);
	AUTO_VM struct vm *new = vm_update(old, j, "stopped", &changes, &p);
	AUTO_FREE char *all = problems_text(&p);

	if (!new)
		fail_msg("%s", all);
	vm_changes_done(&changes);
	*err = (struct err){0};
	return store_update(&w->paths, old, new, FILE_SYNC, err);
}

static void test_create_delete(void **state)
{
	struct world *w = *state;
	AUTO_VM struct vm *vm = payload(
		w, "{\"uuid\":\"" UUID "\",\"brand\":\"kvm\",\"alias\":\"made\",\"ram\":512,"
		   "\"tags\":{\"a\":\"b\"},\"vnc_password\":\"x\",\"autoboot\":false}");
	struct err err = {0};
	struct stat st;
	const struct vm *read;

	load(w);
	if (store_create(&w->paths, vm, FILE_SYNC, &err) < 0)
		fail_msg("%s", err.msg);
	read = find(w, UUID);
	assert_true(read->made_by_us);
	assert_int_equal(read->ram_mib, 512);
	assert_string_equal(read->vnc_password, "x");
	assert_string_equal(json_get_str(read->tags, "a", ""), "b");
	assert_int_equal(stat(at(w, "etc/vmstated/" UUID "/config"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(at(w, "var/lib/vmstated/" UUID), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(entries(w->paths.etc), 1);
	assert_int_equal(store_create(&w->paths, vm, FILE_SYNC, &err), -EEXIST);
	assert_string_equal(err.msg, "VM with UUID " UUID " already exists");
	put(w, "var/lib/vmstated/" UUID "/disk0.qcow2", "disk");
	if (store_delete(&w->paths, find(w, UUID), &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(entries(w->paths.etc), 0);
	assert_int_equal(entries(w->paths.lib), 1); /* the host's uuid */
}

static void test_create_fails(void **state)
{
	struct world *w = *state;
	AUTO_VM struct vm *vm = payload(w, "{\"uuid\":\"" UUID "\",\"brand\":\"kvm\",\"ram\":512,"
					   "\"tags\":{\"a\":\"b\"}}");
	struct err err = {0};

	load(w);
	/* A file where the temporary directory would go, that cannot be a directory. */
	put(w, "etc/blocked", "");
	assert_int_equal(dir_remove_tree(w->paths.etc, NULL), 0);
	assert_int_equal(symlink("blocked", w->paths.etc), 0);
	assert_true(store_create(&w->paths, vm, FILE_NO_SYNC, &err) < 0);
	assert_int_equal(entries(w->paths.lib), 1);
}

static const char by_hand[] = "# the shop\n"
			      "Web0 {\n"
			      "    memory = 2G;  cpus = 2;   # enough\n"
			      "    uuid = \"" UUID "\";\n"
			      "    disk root { size = 20G; cache = none; }\n"
			      "    nic net0 { bridge = br0; mac = \"52:54:00:12:34:56\"; }\n"
			      "}\n";

static void test_update_by_hand(void **state)
{
	struct world *w = *state;
	struct err err;
	struct stat st;
	char *text;

	put(w, "etc/vmstated/web/config", by_hand);
	load(w);
	if (update(w, "web0",
		   "{\"ram\":4096,\"vcpus\":4,\"alias\":\"shop\","
		   "\"set_tags\":{\"k\":1},"
		   "\"update_nics\":[{\"mac\":\"52:54:00:12:34:56\",\"nic_tag\":\"br1\"}]}",
		   &err) < 0)
		fail_msg("%s", err.msg);
	text = content(w, "etc/vmstated/web/config");
	assert_non_null(strstr(text, "# the shop\nWeb0 {\n"));
	assert_non_null(strstr(text, "cpus = 4;   # enough"));
	assert_non_null(strstr(text, "disk root { size = 20G; cache = none; }"));
	assert_non_null(strstr(text, "bridge = "));
	assert_null(strstr(text, "ram"));
	assert_null(strstr(text, "nic_tag"));
	assert_int_equal(find(w, "web0")->ram_mib, 4096);
	assert_int_equal(find(w, "shop")->vcpus, 4);
	assert_string_equal(find(w, "web0")->nics[0]->nic_tag, "br1");
	assert_int_equal(json_get_int(find(w, "web0")->tags, "k", 0), 1);
	assert_int_equal(stat(at(w, "etc/vmstated/web/config"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	/* No journal, no temporary file. */
	assert_int_equal(entries(at(w, "var/lib/vmstated/" UUID "/config")), 1);
	assert_int_equal(entries(at(w, "etc/vmstated/web")), 1);
}

static void test_update_refused(void **state)
{
	struct world *w = *state;
	struct err err;

	put(w, "etc/vmstated/web/more.conf", "memory = 1G\n");
	put(w, "etc/vmstated/web/config",
	    "web0 {\n uuid = \"" UUID "\";\n"
	    " .include \"more.conf\"\n}\n");
	load(w);
	assert_int_equal(find(w, "web0")->ram_mib, 1024);
	assert_int_equal(update(w, "web0", "{\"ram\":4096,\"set_tags\":{\"k\":1}}", &err),
			 -ENOTSUP);
	assert_non_null(strstr(err.msg, "more.conf:1"));
	assert_int_equal(entries(at(w, "var/lib/vmstated/" UUID "/config")), 0);
	assert_int_equal(find(w, "web0")->ram_mib, 1024);
	/* So is a whole section that stands in an include. */
	put(w, "etc/vmstated/inc/vm.conf", "web1 { memory = 1G }\n");
	put(w, "etc/vmstated/inc/config", ".include \"vm.conf\"\n");
	assert_true(str_ends(find(w, "web1")->file, "/inc/config"));
	assert_int_equal(update(w, "web1", "{\"ram\":4096}", &err), -ENOTSUP);
	assert_non_null(strstr(err.msg, "vm.conf:1"));
}

static void test_update_undone(void **state)
{
	struct world *w = *state;
	AUTO_FREE char *text = xasprintf("%s# %0900d\n", by_hand, 0);
	AUTO_FREE char *payload_text =
		xasprintf("{\"alias\":\"%0100d\",\"set_tags\":{\"k\":1}}", 0);
	AUTO_FD int lock = -1;
	struct rlimit limit;
	struct err err;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	put(w, "etc/vmstated/web/config", text);
	put(w, "var/lib/vmstated/" UUID "/config/tags.json", "{\"old\":1}\n");
	load(w);
	/* No room for the last of two files: the first is put back. */
	(void)signal(SIGXFSZ, SIG_IGN);
	limit.rlim_cur = strlen(text) + 50;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_int_equal(update(w, "web0", payload_text, &err), -EFBIG);
	limit.rlim_cur = limit.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_string_equal(content(w, "var/lib/vmstated/" UUID "/config/tags.json"),
			    "{\"old\":1}\n");
	assert_string_equal(content(w, "etc/vmstated/web/config"), text);
	assert_int_equal(entries(at(w, "var/lib/vmstated/" UUID "/config")), 1);
	assert_int_equal(entries(at(w, "etc/vmstated/web")), 1);
	/* What a crash leaves: the journal, old contents, and part of the new ones. */
	put(w, "var/lib/vmstated/" UUID "/config/.undo.0", "{\"older\":1}\n");
	{
		AUTO_JSON json_t *j = json_pack(
			"{s:[{s:s,s:b,s:i},{s:s,s:b,s:i}]}", "files", "path",
			at(w, "var/lib/vmstated/" UUID "/config/tags.json"), "existed", 1, "mode",
			0644, "path", at(w, "var/lib/vmstated/" UUID "/config/routes.json"),
			"existed", 0, "mode", 0644);

		assert_int_equal(state_write(at(w, "var/lib/vmstated/" UUID "/config/.undo"), 1, j,
					     FILE_NO_SYNC, NULL),
				 0);
	}
	put(w, "var/lib/vmstated/" UUID "/config/routes.json", "{}");
	put(w, "etc/vmstated/." UUID ".new/config", "half");
	if (store_recover(&w->paths, &err) < 0)
		fail_msg("%s", err.msg);
	assert_string_equal(content(w, "var/lib/vmstated/" UUID "/config/tags.json"),
			    "{\"older\":1}\n");
	assert_int_equal(entries(at(w, "var/lib/vmstated/" UUID "/config")), 1);
	assert_int_equal(entries(w->paths.etc), 1);
	assert_int_equal(store_lock(&w->paths, UUID, &lock, &err), 0);
}

static void test_delete_by_hand(void **state)
{
	struct world *w = *state;
	struct err err;

	put(w, "etc/vmstated/web/config", "a { memory = 1G }\nb { memory = 1G }\n");
	put(w, "etc/vmstated/one/config", by_hand);
	put(w, "etc/vmstated/one/running", "#!/bin/sh\n");
	load(w);
	assert_int_equal(store_delete(&w->paths, find(w, "a"), &err), -ENOTSUP);
	assert_non_null(strstr(err.msg, "/web/config:1: the file defines other VMs too (b)"));
	assert_int_equal(store_delete(&w->paths, find(w, "web0"), &err), 0);
	assert_false(file_exists(at(w, "etc/vmstated/one/config")));
	assert_true(file_exists(at(w, "etc/vmstated/one/running")));
}

static void test_lock(void **state)
{
	struct world *w = *state;
	AUTO_FD int one = -1;
	AUTO_FD int two = -1;
	struct err err;

	assert_int_equal(store_lock(&w->paths, UUID, &one, &err), 0);
	assert_int_equal(store_lock(&w->paths, UUID, &two, &err), -EBUSY);
	(void)close(steal_fd(&one));
	assert_int_equal(store_lock(&w->paths, UUID, &two, &err), 0);
	assert_int_equal(store_lock(&w->paths, "../x", &one, &err), -EINVAL);
}

static void test_state(void **state)
{
	struct world *w = *state;
	AUTO_JSON json_t *j = json_pack("{s:i}", "n", 7);
	AUTO_JSON json_t *back = NULL;
	json_t *none;
	struct err err;
	char *path = at(w, "state");

	assert_int_equal(state_read(path, 2, &none, &err), -ENOENT);
	assert_int_equal(state_write(path, 2, j, FILE_SYNC, &err), 0);
	assert_int_equal(state_read(path, 3, &back, &err), 0);
	assert_int_equal(json_get_int(back, "n", 0), 7);
	assert_int_equal(json_get_int(back, "format_version", 0), 2);
	assert_int_equal(state_read(path, 1, &none, &err), -EPROTO);
	put(w, "state", "{\"n\":");
	assert_int_equal(state_read(path, 2, &none, &err), -EPROTO);
	assert_int_equal(entries(w->root), 1);
	assert_int_equal(state_write(at(w, "no/such/folder"), 1, j, FILE_SYNC, &err), -ENOENT);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		T(test_create_delete),  T(test_create_fails),  T(test_update_by_hand),
		T(test_update_refused), T(test_update_undone), T(test_delete_by_hand),
		T(test_lock),           T(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
