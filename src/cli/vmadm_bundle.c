/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmadm bundle: all that a bug report about a VM needs, as one tar archive without secrets. What
 * cannot be had (a daemon down, a file not ours to read) is listed in about.json and is no error.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/client.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "cli/find.h"
#include "cli/redact.h"
#include "cli/request.h"
#include "cli/tar.h"
#include "cli/vmadm.h"

#define FILE_MAX   (1u << 20) /* of a state file */
#define EVENTS_MAX (1u << 20) /* of the event file's end */
#define LOG_LINES  "2000"

/* clang-format off */
const struct cli_option bundle_options[] = {
	{ 'o', 'o', "output", "FILE", "where to write; - is standard output; default NAME.bundle.tar" },
	{ 0 },
};
/* clang-format on */

struct bundle {
	struct cli *cli;
	const char *uuid;
	struct strbuf tar;
	json_t *missing; /* {file: reason} */
};

static void put(struct bundle *b, const char *name, const char *data, size_t len)
{
	AUTO_FREE char *path = xasprintf("bundle/%s", name);

	tar_add(&b->tar, path, data, len, clock_wall_ms() / 1000);
}

static void put_json(struct bundle *b, const char *name, const json_t *j)
{
	AUTO_FREE char *text = json_pretty(j), *line = xasprintf("%s\n", text);

	put(b, name, line, strlen(line));
}

static void put_missing(struct bundle *b, const char *name, const char *why)
{
	json_put_str(b->missing, name, why);
}

/* --- what daemons say --- */

static const struct {
	const char *file;
	enum peer peer;
	const char *before, *after; /* of the uuid; after NULL: no uuid */
	bool text;
} answers[] = {
	{"vmstated.json", PEER_VMSTATED, "/vms/", "", false},
	{"vmstated-status.json", PEER_VMSTATED, "/status", NULL, false},
	{"vminfod-status.json", PEER_VMINFOD, "/status", NULL, false},
	{"info.json", PEER_VMADMD, "/vm/", "/info", false},
	{"log", PEER_VMSTATED, "/vms/", "/log?lines=" LOG_LINES, true},
};

static void put_answer(struct bundle *b, const char *file, bool text,
		       const struct client_reply *reply)
{
	AUTO_STRBUF struct strbuf sb = {0};
	AUTO_JSON json_t *j = NULL;
	struct err err = {0};

	if (text) {
		cli_escape(&sb, reply->body, reply->len);
		put(b, file, sb.data ? sb.data : "", sb.len);
		return;
	}
	if (json_parse_object(reply->body, reply->len, file, &j, &err) < 0) {
		put_missing(b, file, err.msg);
		return;
	}
	(void)json_object_del(j, "vms"); /* of the daemon's status: not about this VM */
	redact_json(j);
	put_json(b, file, j);
}

static void put_answers(struct bundle *b)
{
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		AUTO_FREE char *target =
			answers[i].after
				? request_target(answers[i].before, b->uuid, answers[i].after)
				: xstrdup(answers[i].before);
		struct request rq = {.peer = answers[i].peer,
				     .method = "GET",
				     .target = target,
				     .limit_ms = READ_LIMIT_MS};
		struct client_reply reply;
		struct err err = {0};

		if (request_run(b->cli, &rq, &reply, &err)) {
			put_missing(b, answers[i].file, err.msg);
			continue;
		}
		put_answer(b, answers[i].file, answers[i].text, &reply);
		client_reply_done(&reply);
	}
}

/* --- files --- */

/* The definition as started: JSON with the definition as UCL text in it. */
static void put_started(struct bundle *b, const char *name, const char *text, size_t len)
{
	AUTO_STRBUF struct strbuf sb = {0};
	AUTO_JSON json_t *j = NULL;
	struct err err = {0};
	const char *ucl;

	if (json_parse_object(text, len, name, &j, &err) < 0) {
		put_missing(b, name, err.msg);
		return;
	}
	redact_json(j);
	ucl = json_get_str(j, "definition", NULL);
	if (ucl) {
		redact_ucl(&sb, ucl);
		json_put_str(j, "definition", sb.data);
	}
	put_json(b, name, j);
}

static void put_plain(struct bundle *b, const char *name, const char *text, size_t len)
{
	AUTO_STRBUF struct strbuf sb = {0};

	cli_escape(&sb, text, len);
	put(b, name, sb.data ? sb.data : "", sb.len);
}

/* The end of a file that may be sparse at its start, without the hole. */
static int read_end(const char *path, char **ret, size_t *ret_len, struct err *err)
{
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
	AUTO_FREE char *data = NULL;
	struct stat st;
	size_t from = 0;
	ssize_t got;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(err, errno, "cannot read '%s'", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "'%s' is no regular file", path);
	data = xcalloc(1, EVENTS_MAX + 1);
	got = pread(fd, data, EVENTS_MAX, st.st_size > EVENTS_MAX ? st.st_size - EVENTS_MAX : 0);
	if (got < 0)
		return err_sys(err, errno, "cannot read '%s'", path);
	while (from < (size_t)got && !data[from])
		from++;
	*ret_len = (size_t)got - from;
	*ret = xmalloc(*ret_len + 1);
	memcpy(*ret, data + from, *ret_len + 1);
	return 0;
}

static const struct {
	const char *file;
	bool data; /* in the data directory, else in the run directory */
	void (*put)(struct bundle *b, const char *name, const char *text, size_t len);
} files[] = {
	{"started.json", false, put_started},   {"events.out", false, put_plain},
	{"vmstated.state", false, put_started}, {"vmadmd.state", false, put_started},
	{"lastexited", true, put_plain},        {"failed", true, put_plain},
	{"running", true, put_plain},
};

static void put_files(struct bundle *b)
{
	const struct paths *paths = &b->cli->paths;

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		AUTO_FREE char *path = files[i].data ? path_of_data(paths, b->uuid, files[i].file)
						     : path_of_run(paths, b->uuid, files[i].file);
		AUTO_FREE char *text = NULL;
		struct err err = {0};
		size_t len = 0;

		if (read_end(path, &text, &len, &err) < 0)
			put_missing(b, files[i].file, err.msg);
		else
			files[i].put(b, files[i].file, text, len);
	}
}

/* --- all of it --- */

static void put_about(struct bundle *b)
{
	AUTO_JSON json_t *about = json_object();
	char when[ISO_TIME_LEN], boot[64] = "";

	json_put_str(about, "uuid", b->uuid);
	json_put_str(about, "made", clock_iso(clock_wall_ms(), when, sizeof(when)));
	if (clock_boot_id(boot, sizeof(boot)) == 0)
		json_put_str(about, "boot_id", boot);
	(void)json_object_set(about, "not_included", b->missing);
	put_json(b, "about.json", about);
}

static int write_bundle(struct cli *cli, const char *name, const struct strbuf *tar)
{
	const char *given = cli_opt(cli, 'o');
	AUTO_FREE char *own = xasprintf("%s.bundle.tar", name);
	const char *path = given ? given : own;
	AUTO_FD int fd = -1;
	int r;

	if (str_eq(path, "-")) {
		if (isatty(STDOUT_FILENO))
			return cli_fail(EXIT_USAGE, "Will not write an archive to a terminal");
		cli_put(tar->data, tar->len);
		return cli_flush();
	}
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return cli_fail(errno == EEXIST ? EXIT_CONFLICT : EXIT_FAILED,
				"cannot make '%s': %s", path, strerror(errno));
	r = fd_write_all(fd, tar->data, tar->len);
	if (r < 0) {
		(void)unlink(path);
		return cli_fail(EXIT_FAILED, "cannot write '%s': %s", path, strerror(-r));
	}
	return cli_fail(EXIT_OK, "Wrote %s", path);
}

/* A name from a definition as part of a file name. */
static void make_plain(char *name)
{
	for (char *p = name; *p; p++)
		if (*p == '/' || (unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '_';
	if (*name == '.' || *name == '-')
		*name = '_';
}

/* The VM's object from vminfod; without it a report is wanted all the more: then vmstated's. */
static int fetch(struct bundle *b, json_t **ret)
{
	const char *id = b->cli->args[0];
	AUTO_FREE char *target = request_target("/vms/", id, "");
	struct request rq = {.peer = PEER_VMSTATED,
			     .method = "GET",
			     .target = target,
			     .limit_ms = READ_LIMIT_MS};
	struct client_reply reply;
	struct err err = {0};
	int code = find_vm(b->cli, id, "", &reply, &err);

	if (code == EXIT_UNREACHABLE) {
		put_missing(b, "vm.json", err.msg);
		code = request_run(b->cli, &rq, &reply, &err);
	}
	if (code)
		return request_fail(code, NULL, &err);
	code = json_parse_object(reply.body, reply.len, "the daemon's answer", ret, &err);
	client_reply_done(&reply);
	if (code == 0 && !uuid_valid(json_get_str(*ret, "uuid", "")))
		code = err_set(&err, EPROTO, "the daemon's answer names no uuid");
	return code < 0 ? cli_fail(EXIT_FAILED, "%s", err_text(&err, code)) : 0;
}

static int bundle(struct bundle *b)
{
	AUTO_JSON json_t *vm = NULL;
	AUTO_FREE char *name = NULL;
	int code = fetch(b, &vm);

	if (code)
		return code;
	b->uuid = json_get_str(vm, "uuid", "");
	name = xstrdup(json_get_str(vm, "name", b->uuid));
	make_plain(name);
	redact_json(vm);
	if (!json_object_get(b->missing, "vm.json"))
		put_json(b, "vm.json", vm);
	put_answers(b);
	put_files(b);
	put_about(b);
	tar_end(&b->tar);
	return write_bundle(b->cli, name, &b->tar);
}

int cmd_bundle(struct cli *cli)
{
	struct bundle b = {.cli = cli, .missing = json_object()};
	int code = bundle(&b);

	json_decref(b.missing);
	strbuf_done(&b.tar);
	return code;
}
