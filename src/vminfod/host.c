/* SPDX-License-Identifier: Apache-2.0 */
/* Host facts; see host.h. */
#include "vminfod/host.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/paths.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "vminfod/lookout.h"

#define FILE_MAX    65536u
#define FILES       3
#define MACHINE_ID  32
#define SERVER_UUID "server_uuid"
#define BUILDSTAMP  "platform_buildstamp"

enum { HOST_FILE, ID_FILE, RELEASE_FILE };

struct host {
	struct lookout *lookout;
	char *paths[FILES];
	struct spot *spots[FILES];
	const char *host_uuid;
	json_t *facts;
	char *problem;
	void (*changed)(void *ctx);
	void *ctx;
};

/* "0123456789abcdef0123456789abcdef" with dashes. */
static void put_machine_id(json_t *facts, const char *path)
{
	AUTO_FREE char *text = NULL;
	char uuid[UUID_LEN + 1];

	if (file_read(path, FILE_MAX, &text, NULL, NULL, NULL) < 0)
		return;
	if (strspn(text, "0123456789abcdef") != MACHINE_ID)
		return;
	(void)snprintf(uuid, sizeof(uuid), "%.8s-%.4s-%.4s-%.4s-%.12s", text, text + 8, text + 12,
		       text + 16, text + 20);
	json_put_str(facts, SERVER_UUID, uuid);
}

/* The value of KEY= in an os-release file, unquoted; the caller frees it. NULL: none. */
static char *release_value(const char *text, const char *key)
{
	size_t len = strlen(key);

	for (const char *p = text; p; p = strchr(p, '\n')) {
		const char *v;

		p += *p == '\n';
		if (strncmp(p, key, len) != 0 || p[len] != '=')
			continue;
		v = p + len + 1;
		v += *v == '"' || *v == '\'';
		return xstrndup(v, strcspn(v, "\"'\n"));
	}
	return NULL;
}

static void put_release(json_t *facts, const char *path)
{
	AUTO_FREE char *text = NULL;
	AUTO_FREE char *build = NULL, *id = NULL, *version = NULL, *both = NULL;

	if (file_read(path, FILE_MAX, &text, NULL, NULL, NULL) < 0)
		return;
	build = release_value(text, "BUILD_ID");
	id = release_value(text, "ID");
	version = release_value(text, "VERSION_ID");
	if (!build && id)
		both = xasprintf("%s%s%s", id, version ? "-" : "", version ? version : "");
	json_put_str(facts, BUILDSTAMP, build ? build : both);
}

static void put_host_file(struct host *h, json_t *facts)
{
	static const char *const names[] = {SERVER_UUID, "datacenter_name", "headnode_id",
					    BUILDSTAMP};
	AUTO_FREE char *text = NULL;
	AUTO_JSON json_t *j = NULL;
	struct err err = {0};
	size_t len;

	replace_str(&h->problem, NULL);
	if (!file_exists(h->paths[HOST_FILE]))
		return;
	if (file_read(h->paths[HOST_FILE], FILE_MAX, &text, &len, NULL, &err) < 0 ||
	    json_parse_object(text, len, h->paths[HOST_FILE], &j, &err) < 0) {
		log_warn("host facts not taken: %s", err.msg);
		h->problem = xstrdup(err.msg);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		json_put_str(facts, names[i],
			     json_get_str(j, names[i], json_get_str(facts, names[i], NULL)));
}

static bool look(struct host *h)
{
	json_t *facts = json_object();
	bool same;

	json_put_str(facts, SERVER_UUID, h->host_uuid);
	put_machine_id(facts, h->paths[ID_FILE]);
	put_release(facts, h->paths[RELEASE_FILE]);
	put_host_file(h, facts);
	same = h->facts && json_equal(h->facts, facts);
	json_decref(h->facts);
	h->facts = facts;
	return !same;
}

static void on_spot(void *ctx)
{
	struct host *h = ctx;

	if (look(h))
		h->changed(h->ctx);
}

struct host *host_new(const struct paths *paths, struct lookout *lookout, const char *host_uuid,
		      void (*changed)(void *ctx), void *ctx)
{
	AUTO_FREE char *etc = path_join(paths->root, "etc");
	struct host *h = xcalloc(1, sizeof(*h));

	*h = (struct host){
		.lookout = lookout, .host_uuid = host_uuid, .changed = changed, .ctx = ctx};
	h->paths[HOST_FILE] = path_join(paths->etc, "host.json");
	h->paths[ID_FILE] = path_join(etc, "machine-id");
	h->paths[RELEASE_FILE] = path_join(etc, "os-release");
	for (int i = 0; i < FILES; i++)
		h->spots[i] = lookout_add(lookout, h->paths[i], on_spot, h);
	(void)look(h);
	return h;
}

void host_free(struct host *h)
{
	if (!h)
		return;
	for (int i = 0; i < FILES; i++) {
		lookout_remove(h->lookout, h->spots[i]);
		free(h->paths[i]);
	}
	json_decref(h->facts);
	free(h->problem);
	free(h);
}

const json_t *host_facts(const struct host *h)
{
	return h->facts;
}

const char *host_problem(const struct host *h)
{
	return h->problem;
}
