/* SPDX-License-Identifier: Apache-2.0 */
/* Finding a VM through vminfod; see find.h. */
#include "cli/find.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/request.h"

/* In order: the first kind that matches at all decides. */
enum match { MATCH_UUID, MATCH_NAME, MATCH_PREFIX, MATCH_ALIAS };
#define MATCH_COUNT 4

static const char *const match_members[MATCH_COUNT] = {
	[MATCH_UUID] = "uuid",
	[MATCH_NAME] = "name",
	[MATCH_PREFIX] = "uuid",
	[MATCH_ALIAS] = "alias",
};

static bool matches(enum match how, struct slice vm, const char *id)
{
	AUTO_FREE char *text = js_member_string(vm, match_members[how]);
	size_t len = strlen(id);

	if (!text)
		return false;
	switch (how) {
	case MATCH_UUID:
		return strcasecmp(text, id) == 0;
	case MATCH_NAME:
	case MATCH_ALIAS:
		return strcmp(text, id) == 0;
	case MATCH_PREFIX:
		return len >= FIND_PREFIX_MIN && strncasecmp(text, id, len) == 0;
	}
	return false;
}

static int ambiguous(const char *id, const struct strbuf *who, struct err *err)
{
	return err_set(err, EEXIST, "%s is ambiguous: matches %.400s", id, who->data);
}

int find_in(struct slice vms, const char *id, char uuid[UUID_LEN + 1], struct err *err)
{
	for (int how = 0; how < MATCH_COUNT; how++) {
		AUTO_STRBUF struct strbuf who = {0};
		struct js_iter it;
		struct slice vm;
		size_t n = 0;

		js_iter_init(&it, vms);
		while (js_next(&it, NULL, &vm)) {
			if (!matches(how, vm, id))
				continue;
			AUTO_FREE char *found = js_member_string(vm, match_members[MATCH_UUID]);

			if (!found || strlen(found) != UUID_LEN)
				continue;
			strbuf_printf(&who, "%s%s", n++ ? ", " : "", found);
			memcpy(uuid, found, UUID_LEN + 1);
		}
		if (n == 1)
			return 0;
		if (n > 1)
			return ambiguous(id, &who, err);
	}
	return err_set(err, ENOENT, "VM %s not found", id);
}

/* vminfod has its own words for a VM it does not know. */
static int get_by_uuid(struct cli *cli, const char *uuid, const char *id, const char *query,
		       struct client_reply *ret, struct err *err)
{
	AUTO_FREE char *target = request_target("/vms/", uuid, query);
	struct request rq = {
		.peer = PEER_VMINFOD, .method = "GET", .target = target, .limit_ms = READ_LIMIT_MS};
	int code = request_run(cli, &rq, ret, err);

	if (code == EXIT_UNKNOWN_VM)
		err_set(err, ENOENT, "VM %s not found", id);
	return code;
}

static int resolve(struct cli *cli, const char *id, char uuid[UUID_LEN + 1], struct err *err)
{
	struct request rq = {.peer = PEER_VMINFOD,
			     .method = "GET",
			     .target = "/vms?fields=uuid,alias,name",
			     .limit_ms = READ_LIMIT_MS};
	struct client_reply reply;
	int code = request_run(cli, &rq, &reply, err), r;

	if (code)
		return code;
	r = find_in(js_value(reply.body, reply.len), id, uuid, err);
	client_reply_done(&reply);
	return r < 0 ? (int)exit_from_errno(r) : 0;
}

static void lower_copy(const char *id, char uuid[UUID_LEN + 1])
{
	for (size_t i = 0; i < UUID_LEN; i++)
		uuid[i] = (char)tolower((unsigned char)id[i]);
	uuid[UUID_LEN] = '\0';
}

int find_vm(struct cli *cli, const char *id, const char *query, struct client_reply *ret,
	    struct err *err)
{
	char uuid[UUID_LEN + 1];
	int code = 0;

	*ret = (struct client_reply){0};
	if (uuid_valid(id))
		lower_copy(id, uuid);
	else
		code = resolve(cli, id, uuid, err);
	return code ? code : get_by_uuid(cli, uuid, id, query, ret, err);
}
