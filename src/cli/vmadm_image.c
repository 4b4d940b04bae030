/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmadm image: the store that disks are made from. The file, or the pipe, of an import is opened
 * here, with the caller's rights, and opened anew by vmadmd through our descriptor's number; what
 * comes through a pipe is sent on in frames, so that its end is told from our death. An export is
 * a copy of the image's file.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/table.h"
#include "cli/act.h"
#include "cli/request.h"
#include "cli/vmadm.h"

#define FRAME_MAX (1u << 20)

enum { OPT_NAME = 'n', OPT_UUID = 'u', OPT_SHA256 = 'S' };

const struct cli_option image_options[] = {
	{OPT_NAME, 'n', "name", "NAME",
	 "Name of an imported image; that of the file without suffix."},
	{OPT_UUID, 'u', "uuid", "UUID", "Uuid of an imported image; else it gets one."},
	{OPT_SHA256, 0, "sha256", "SUM", "Refuse the import of anything that has another SHA-256."},
	{0},
};

/* An image unknown is no VM unknown. */
static int ask(struct cli *cli, const char *method, const char *target, struct client_reply *ret)
{
	const struct request rq = {
		.peer = PEER_VMADMD, .method = method, .target = target, .limit_ms = READ_LIMIT_MS};
	struct err err = {0};
	int code = request_run(cli, &rq, ret, &err);

	if (code == EXIT_UNKNOWN_VM)
		return cli_fail(EXIT_FAILED, "%s", err.msg);
	return code ? request_fail(code, NULL, &err) : 0;
}

/* --- list, get, delete --- */

static int image_list(struct cli *cli)
{
	static const struct table_column columns[] = {{"NAME", 24},     {"FORMAT", 6},
						      {"SIZE", 8},      {"USED_BY", 7},
						      {"IMPORTED", 24}, {"UUID", 36}};
	static const char *const members[] = {"name",    "format",   "size",
					      "used_by", "imported", "uuid"};
	struct client_reply reply;
	int code = ask(cli, "GET", "/images", &reply);

	if (code)
		return code;
	if (cli_flag(cli, OPT_JSON))
		cli_put_json(js_value(reply.body, reply.len));
	else
		cli_put_table(js_value(reply.body, reply.len), columns, members,
			      ARRAY_SIZE(columns), NULL);
	client_reply_done(&reply);
	return cli_flush();
}

static int image_get(struct cli *cli)
{
	AUTO_FREE char *target = request_target("/images/", cli->args[1], "");
	struct client_reply reply;
	int code = ask(cli, "GET", target, &reply);

	if (code)
		return code;
	cli_put_json(js_value(reply.body, reply.len));
	client_reply_done(&reply);
	return cli_flush();
}

static int image_delete(struct cli *cli)
{
	AUTO_FREE char *target = request_target("/images/", cli->args[1], "");
	AUTO_FREE char *name = NULL;
	struct client_reply reply;
	int code = ask(cli, "DELETE", target, &reply);

	if (code)
		return code;
	name = js_member_string(js_value(reply.body, reply.len), "name");
	code = request_finish(cli, &reply, "Successfully deleted image %s",
			      name ? name : cli->args[1]);
	client_reply_done(&reply);
	return code;
}

/* --- import --- */

static bool write_frame(int fd, const void *data, size_t len)
{
	uint32_t head = htobe32((uint32_t)len);

	return fd_write_all(fd, &head, sizeof(head)) == 0 &&
	       (len == 0 || fd_write_all(fd, data, len) == 0);
}

/* In a child: everything from in, as frames; no end frame when in cannot be read. */
static _Noreturn void pump(int in, int out)
{
	char *buf = xmalloc(FRAME_MAX);
	ssize_t n;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	do {
		n = read(in, buf, FRAME_MAX);
		if (n < 0 && errno != EINTR) {
			cli_say("cannot read the image: %s", strerror(errno));
			_exit(1);
		}
	} while (n < 0 || (n > 0 && write_frame(out, buf, (size_t)n)));
	_exit(n == 0 && write_frame(out, NULL, 0) ? 0 : 1);
}

/* A pipe of frames in place of what *fd is; *ret_pump sends them. */
static int send_on(int *fd, pid_t *ret_pump)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	*ret_pump = fork();
	if (*ret_pump == 0) {
		(void)close(ends[0]);
		pump(*fd, ends[1]);
	}
	(void)close(ends[1]);
	(void)close(*fd);
	*fd = ends[0];
	return *ret_pump < 0 ? -errno : 0;
}

static int open_import(const char *file, int *ret, pid_t *ret_pump)
{
	bool standard = !file || str_eq(file, "-");
	AUTO_FD int fd = standard ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
				  : open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return cli_fail(EXIT_FAILED, "cannot open %s: %s",
				standard ? "standard input" : file, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return cli_fail(EXIT_FAILED, "%s is a directory", file);
	if (isatty(fd))
		return cli_fail(EXIT_USAGE, "Will not take an image from a terminal");
	r = S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) ? 0 : send_on(&fd, ret_pump);
	if (r < 0)
		return cli_fail(EXIT_FAILED, "cannot start to read: %s", strerror(-r));
	*ret = steal_fd(&fd);
	return 0;
}

/* "/a/debian-12.qcow2" as "debian-12". */
static char *name_of(const char *file)
{
	static const char *const suffixes[] = {".qcow2", ".raw", ".img"};
	const char *slash = strrchr(file, '/'), *base = slash ? slash + 1 : file;

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		if (str_ends(base, suffixes[i]))
			return xstrndup(base, strlen(base) - strlen(suffixes[i]));
	}
	return xstrdup(base);
}

static char *import_query(struct cli *cli, const char *name, int fd)
{
	AUTO_FREE char *escaped = client_escape(name);
	AUTO_STRBUF struct strbuf sb = {0};
	const struct {
		const char *word, *value;
	} more[] = {{"uuid", cli_opt(cli, OPT_UUID)}, {"sha256", cli_opt(cli, OPT_SHA256)}};

	strbuf_printf(&sb, "?name=%s&fd=%d", escaped, fd);
	for (size_t i = 0; i < ARRAY_SIZE(more); i++) {
		AUTO_FREE char *value = more[i].value ? client_escape(more[i].value) : NULL;

		if (value)
			strbuf_printf(&sb, "&%s=%s", more[i].word, value);
	}
	return strbuf_steal(&sb);
}

static int image_import(struct cli *cli)
{
	const char *file = cli->args[1];
	AUTO_FREE char *name = NULL, *query = NULL, *success = NULL;
	struct act act = {.target = "/images", .word = "import image", .job = true, .lines = true};
	AUTO_FD int fd = -1;
	pid_t pid = -1;
	int code;

	if (cli_opt(cli, OPT_NAME))
		name = xstrdup(cli_opt(cli, OPT_NAME));
	else if (file && !str_eq(file, "-"))
		name = name_of(file);
	if (!name)
		return cli_usage(cli, "What is read from standard input needs a name (-n NAME)");
	code = open_import(file, &fd, &pid);
	if (code)
		return code;
	if (pid >= 0 && cli_flag(cli, OPT_NO_WAIT))
		code = cli_fail(EXIT_USAGE, "What comes through a pipe is waited for");
	query = import_query(cli, name, fd);
	success = xasprintf("Successfully imported image %s (@)", name);
	act.query = query;
	act.success = success;
	if (code == 0)
		code = act_run(cli, &act);
	if (pid >= 0) {
		(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
	}
	return code;
}

/* --- export --- */

static int copy_out(int in, int out)
{
	AUTO_FREE char *buf = xmalloc(FRAME_MAX);
	ssize_t n;

	while ((n = read(in, buf, FRAME_MAX)) != 0) {
		int r = n < 0 ? -errno : fd_write_all(out, buf, (size_t)n);

		if (r < 0 && r != -EINTR)
			return r;
	}
	return 0;
}

static int export_to(const char *path, const char *file)
{
	AUTO_FD int in = open(path, O_RDONLY | O_CLOEXEC);
	AUTO_FD int out = -1;
	int r;

	if (in < 0)
		return cli_fail(EXIT_FAILED, "cannot open '%s': %s", path, strerror(errno));
	if (!file)
		r = copy_out(in, STDOUT_FILENO);
	else
		out = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (file && out < 0)
		return cli_fail(EXIT_FAILED, "cannot make '%s': %s", file, strerror(errno));
	if (file)
		r = copy_out(in, out);
	if (r == 0 && file && fsync(out) < 0)
		r = -errno;
	if (r == 0)
		return 0;
	if (file)
		(void)unlink(file);
	return cli_fail(EXIT_FAILED, "cannot write %s: %s", file ? file : "to standard output",
			strerror(-r));
}

static int image_export(struct cli *cli)
{
	const char *file = cli->args[2] && !str_eq(cli->args[2], "-") ? cli->args[2] : NULL;
	AUTO_FREE char *target = request_target("/images/", cli->args[1], "");
	AUTO_FREE char *path = NULL, *name = NULL, *sum = NULL;
	struct client_reply reply;
	struct slice image;
	int code;

	if (!file && isatty(STDOUT_FILENO))
		return cli_fail(EXIT_USAGE, "Will not write an image to a terminal");
	code = ask(cli, "GET", target, &reply);
	if (code)
		return code;
	image = js_value(reply.body, reply.len);
	path = js_member_string(image, "path");
	name = js_member_string(image, "name");
	sum = js_member_string(image, "sha256");
	client_reply_done(&reply);
	code = path ? export_to(path, file) : EXIT_FAILED;
	if (code)
		return code;
	return cli_fail(EXIT_OK, "Successfully exported image %s%s%s", name,
			sum ? ", SHA-256 " : "", sum ? sum : "");
}

int cmd_image(struct cli *cli)
{
	static const struct {
		const char *name;
		int min, max; /* arguments behind it */
		int (*run)(struct cli *cli);
	} verbs[] = {
		{"import", 0, 1, image_import}, {"list", 0, 0, image_list},
		{"get", 1, 1, image_get},       {"delete", 1, 1, image_delete},
		{"export", 1, 2, image_export},
	};

	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (!str_eq(cli->args[0], verbs[i].name))
			continue;
		if (cli->nargs - 1 < verbs[i].min)
			return cli_usage(cli, "Which image? (vmadm image list)");
		if (cli->nargs - 1 > verbs[i].max)
			return cli_usage(cli, "Too many arguments to image %s", verbs[i].name);
		return verbs[i].run(cli);
	}
	return cli_usage(cli, "Unknown: image %s (want import, list, get, delete or export)",
			 cli->args[0]);
}
