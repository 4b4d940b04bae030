/* SPDX-License-Identifier: Apache-2.0 */
/* The cache between a real catalog and the facts of two daemons: what is shown, what is told. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/paths.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "net/http.h"
#include "store/catalog.h"
#include "vminfod/cache.h"

#define UUID "11111111-1111-4111-8111-111111111111"

struct world {
	char root[64];
	struct paths paths;
	struct catalog *catalog;
	struct cache *cache;
	struct strbuf log; /* "create;", "modify ram state;", "delete;" */
	char *cause;
	size_t open;
};

static void on_event(void *ctx, const struct cache_event *ev)
{
	struct world *w = ctx;
	json_t *change;
	size_t i;

	strbuf_puts(&w->log, ev->type);
	json_array_foreach (ev->changes, i, change) {
		strbuf_printf(&w->log, " %s", json_get_str(change, "prettyPath", "?"));
	}
	strbuf_putc(&w->log, ';');
	replace_str(&w->cause, xstrdup(ev->cause));
	w->open = json_array_size(ev->open_changes);
}

static bool listening(void *ctx)
{
	return true;
}

static void expect(struct world *w, const char *log)
{
	assert_string_equal(w->log.data ? w->log.data : "", log);
	strbuf_drop(&w->log, w->log.len);
}

static void define(struct world *w, const char *body)
{
	AUTO_FREE char *path = xasprintf("%s/web/config", w->paths.etc);
	AUTO_FREE char *text = xasprintf("web { uuid = \"" UUID "\"; %s }\n", body);
	AUTO_FREE char *dir = xasprintf("%s/web", w->paths.etc);

	assert_int_equal(dir_make(dir, 0755, NULL), 0);
	assert_int_equal(file_write(path, text, strlen(text), 0644, FILE_NO_SYNC, NULL), 0);
	if (w->catalog)
		catalog_sync(w->catalog);
}

static void facts(struct world *w, enum feed_source from, const char *text)
{
	AUTO_JSON json_t *j = text ? json_loads(text, 0, NULL) : NULL;

	cache_facts(w->cache, from, UUID, j);
}

/* The member as JSON text; "" when it is not there. */
static char *member(struct world *w, const char *name)
{
	static char *kept;
	AUTO_STRBUF struct strbuf sb = {0};
	struct viewer root = {.all = true};
	AUTO_JSON json_t *j = NULL;

	assert_int_equal(cache_vm(w->cache, &root, UUID, NULL, &sb), 0);
	j = json_loads(sb.data, 0, NULL);
	replace_str(&kept,
		    json_object_get(j, name) ? json_text(json_object_get(j, name)) : xstrdup(""));
	return kept;
}

static int setup(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));
	struct cache_config config = {
		.paths = &w->paths, .event = on_event, .listening = listening, .ctx = w};
	struct catalog_config files = {
		.paths = &w->paths, .metadata = true, .changed = cache_on_catalog};

	(void)snprintf(w->root, sizeof(w->root), "/tmp/test_cache.XXXXXX");
	assert_non_null(mkdtemp(w->root));
	assert_int_equal(paths_init(&w->paths, w->root, NULL), 0);
	w->cache = cache_new(&config);
	files.ctx = w->cache;
	define(w, "ram = 128");
	assert_int_equal(catalog_new(&files, &w->catalog, NULL), 0);
	assert_int_equal(catalog_load(w->catalog, NULL), 0);
	cache_start(w->cache);
	expect(w, "create;");
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	catalog_free(w->catalog);
	cache_free(w->cache);
	(void)dir_remove_tree(w->root, NULL);
	paths_done(&w->paths);
	strbuf_done(&w->log);
	free(w->cause);
	free(w);
	return 0;
}

#define RUNNING "{\"zone_state\":\"running\",\"state\":\"running\",\"pid\":7}"
#define STOPPED "{\"zone_state\":\"installed\",\"state\":\"stopped\"}"

static void test_unknown(void **state)
{
	struct world *w = *state;

	assert_string_equal(member(w, "state"), "\"unknown\"");
	assert_true(str_starts(member(w, "unknown"), "{\"vmstated\":\""));
	cache_feed_up(w->cache, FEED_OF_VMSTATED);
	facts(w, FEED_OF_VMSTATED, RUNNING);
	assert_string_equal(member(w, "state"), "\"running\"");
	cache_feed_ready(w->cache, FEED_OF_VMSTATED);
	assert_string_equal(member(w, "unknown"), "");
	strbuf_drop(&w->log, w->log.len);
	/* A restart of vmstated is nothing to tell; a longer absence is, without a lie. */
	cache_feed_lost(w->cache, FEED_OF_VMSTATED, 1000, false);
	cache_feed_up(w->cache, FEED_OF_VMSTATED);
	facts(w, FEED_OF_VMSTATED, RUNNING);
	cache_feed_ready(w->cache, FEED_OF_VMSTATED);
	expect(w, "");
	cache_feed_lost(w->cache, FEED_OF_VMSTATED, 1000, true);
	expect(w, "modify unknown;");
	assert_string_equal(member(w, "state"), "\"running\"");
	assert_string_equal(member(w, "unknown"), "{\"vmstated\":\"1970-01-01T00:00:01.000Z\"}");
	/* It comes back and knows nothing of this VM. */
	cache_feed_up(w->cache, FEED_OF_VMSTATED);
	cache_feed_ready(w->cache, FEED_OF_VMSTATED);
	assert_string_equal(member(w, "state"), "\"configured\"");
	assert_string_equal(member(w, "unknown"), "");
	assert_string_equal(member(w, "pid"), "");
}

static void test_records(void **state)
{
	struct world *w = *state;

	cache_feed_up(w->cache, FEED_OF_VMSTATED);
	cache_feed_ready(w->cache, FEED_OF_VMSTATED);
	strbuf_drop(&w->log, w->log.len);
	facts(w, FEED_OF_VMSTATED, STOPPED);
	assert_non_null(strstr(w->log.data, " state"));
	strbuf_drop(&w->log, w->log.len);
	facts(w, FEED_OF_VMSTATED, STOPPED);
	expect(w, "");
	facts(w, FEED_OF_VMSTATED, RUNNING);
	expect(w, "modify state zone_state pid;");
	assert_int_equal(w->open, 3);
	define(w, "ram = 128; vnc_password = geheim");
	define(w, "ram = 128");
	strbuf_drop(&w->log, w->log.len);
	/* Creation's word goes before vmstated's. */
	facts(w, FEED_OF_VMADMD, "{\"provisioning\":true,\"zone_state\":\"incomplete\"}");
	assert_string_equal(member(w, "zone_state"), "\"incomplete\"");
	assert_string_equal(member(w, "state"), "\"provisioning\"");
	facts(w, FEED_OF_VMADMD, NULL);
	assert_string_equal(member(w, "zone_state"), "\"running\"");
}

static void test_mutation(void **state)
{
	struct world *w = *state;
	AUTO_JSON json_t *cause = json_pack("{s:s}", "command", "vmadm update");

	catalog_hold(w->catalog, UUID);
	cache_begin(w->cache, UUID, cause);
	define(w, "ram = 256");
	facts(w, FEED_OF_VMADMD, "{\"provisioning\":true}");
	expect(w, "");
	assert_string_equal(member(w, "ram"), "128");
	/* Lifecycle goes on meanwhile, and is not the mutation's doing. */
	facts(w, FEED_OF_VMSTATED, RUNNING);
	assert_non_null(strstr(w->log.data, "pid"));
	assert_null(strstr(w->log.data, "ram"));
	assert_string_equal(w->cause, "{\"by\":\"supervisor\"}");
	strbuf_drop(&w->log, w->log.len);
	cache_ending(w->cache, UUID);
	catalog_release(w->catalog, UUID);
	cache_end(w->cache, UUID);
	assert_non_null(strstr(w->log.data, " ram "));
	assert_non_null(strstr(w->log.data, " provisioning"));
	assert_ptr_equal(strchr(w->log.data, ';'), w->log.data + w->log.len - 1);
	assert_string_equal(w->cause, "{\"by\":\"command\",\"command\":\"vmadm update\"}");
}

static void test_vanished(void **state)
{
	struct world *w = *state;
	AUTO_FREE char *dir = xasprintf("%s/web", w->paths.etc);
	struct viewer root = {.all = true};
	AUTO_STRBUF struct strbuf sb = {0};

	facts(w, FEED_OF_VMSTATED, RUNNING);
	define(w, "ram = nonsense");
	assert_string_equal(member(w, "definition"), "\"broken\"");
	assert_string_equal(member(w, "ram"), "128");
	assert_int_equal(dir_remove_tree(dir, NULL), 0);
	catalog_sync(w->catalog);
	assert_string_equal(member(w, "definition"), "\"missing\"");
	assert_null(strstr(w->log.data, "delete"));
	strbuf_drop(&w->log, w->log.len);
	define(w, "ram = 129");
	assert_string_equal(member(w, "definition"), "");
	assert_int_equal(dir_remove_tree(dir, NULL), 0);
	catalog_sync(w->catalog);
	strbuf_drop(&w->log, w->log.len);
	/* Once it has stopped nothing is left of it. */
	facts(w, FEED_OF_VMSTATED, STOPPED);
	expect(w, "delete;");
	assert_int_equal(cache_vm(w->cache, &root, UUID, NULL, &sb), -2);
	facts(w, FEED_OF_VMSTATED, NULL);
	expect(w, "");
	assert_int_equal(cache_count(w->cache), 0);
}

static bool body_has(struct http_body *b, const char *text)
{
	size_t len;
	const char *data = http_body_data(b, &len);
	bool has = memmem(data, len, text, strlen(text)) != NULL;

	http_body_unref(b);
	return has;
}

static void test_secrets(void **state)
{
	struct world *w = *state;
	struct sock_peer stranger = {.uid = 4000000, .gid = 4000000};
	struct sock_peer owner = {.uid = 65534, .gid = 4000000};
	struct viewer all = {.all = true}, tcp = {0}, other = {.peer = &stranger},
		      mine = {.peer = &owner};
	struct http_body *b, *again;

	define(w, "ram = 128; owner = \"65534\"; vnc_password = geheim");
	expect(w, "modify last_modified vnc_password owner;");
	assert_int_equal(w->open, 2);
	define(w, "ram = 128; owner = \"65534\"; vnc_password = neu");
	assert_int_equal(cache_vms(w->cache, &all, NULL, NULL, &b), 0);
	assert_int_equal(cache_vms(w->cache, &all, NULL, NULL, &again), 0);
	assert_ptr_equal(b, again);
	http_body_unref(again);
	assert_true(body_has(b, "\"neu\""));
	assert_int_equal(cache_vms(w->cache, &tcp, NULL, NULL, &b), 0);
	assert_false(body_has(b, "\"neu\""));
	assert_int_equal(cache_vms(w->cache, &other, "vnc_password,uuid", NULL, &b), 0);
	assert_false(body_has(b, "\"neu\""));
	assert_int_equal(cache_vms(w->cache, &mine, "vnc_password,uuid", NULL, &b), 0);
	assert_true(body_has(b, "[{\"uuid\":\"" UUID "\",\"vnc_password\":\"neu\"}]"));
	assert_false(body_has(cache_vms_quoted(w->cache, &tcp, NULL), "neu"));
	assert_true(body_has(cache_vms_quoted(w->cache, &mine, NULL), "neu"));
	/* The lists kept are those of the last change. */
	define(w, "ram = 129; owner = \"65534\"; vnc_password = neu");
	assert_int_equal(cache_vms(w->cache, &tcp, "ram", NULL, &b), 0);
	assert_true(body_has(b, "[{\"ram\":129}]"));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		T(test_unknown),  T(test_records), T(test_mutation),
		T(test_vanished), T(test_secrets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
