/* SPDX-License-Identifier: Apache-2.0 */
/* Payloads; see payload.h. */
#include "cli/payload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"

#define READ_SIZE 65536

/* clang-format off */
const struct cli_option payload_options[] = {
	{ 'f', 'f', "file", "FILE", "read the JSON payload from FILE; - or nothing: standard input" },
	{ 0 },
};
/* clang-format on */

/* Pipes and process substitutions are payload files as well, so no file_read(). */
static int read_all(int fd, struct strbuf *sb)
{
	for (;;) {
		ssize_t n;

		strbuf_reserve(sb, READ_SIZE);
		n = read(fd, sb->data + sb->len, READ_SIZE);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		sb->len += (size_t)n;
		sb->data[sb->len] = '\0';
		if (sb->len > PAYLOAD_MAX)
			return -E2BIG;
	}
}

static int read_failed(const char *name, int r)
{
	AUTO_JSON json_t *why = json_object();
	AUTO_FREE char *text = NULL;

	if (r == -ENOENT)
		return cli_fail(EXIT_FAILED, "File: %s does not exist.", name);
	if (r == -E2BIG)
		return cli_fail(EXIT_FAILED,
				"Payload too large: %s has more than %u bytes, which is the limit",
				name, PAYLOAD_MAX);
	json_put_str(why, "code", strerrorname_np(-r));
	json_put_str(why, "message", strerror(-r));
	text = json_text(why);
	return cli_fail(EXIT_FAILED, "Error reading: %s %s", name, text);
}

int payload_read(struct cli *cli, char **ret)
{
	const char *name = cli_opt(cli, 'f');
	bool standard = !name || str_eq(name, "-");
	AUTO_STRBUF struct strbuf sb = {0};
	AUTO_JSON json_t *json = NULL;
	AUTO_FD int opened = -1;
	struct err err = {0};
	int r;

	if (standard && isatty(STDIN_FILENO))
		return cli_usage(cli, "Will not %s from stdin when stdin is a tty.",
				 cli->command->name);
	if (standard)
		name = "standard input";
	else
		opened = open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (!standard && opened < 0)
		return read_failed(name, -errno);
	r = read_all(standard ? STDIN_FILENO : opened, &sb);
	if (r < 0)
		return read_failed(name, r);
	r = json_parse_object(sb.data ? sb.data : "", sb.len, name, &json, &err);
	if (r < 0)
		return cli_fail(EXIT_FAILED, "Invalid JSON payload: %s", err_text(&err, r));
	*ret = strbuf_steal(&sb);
	return 0;
}

int payload_from_words(struct cli *cli, const char *const *words, int count, char **ret)
{
	AUTO_JSON json_t *object = json_object();
	char *text;

	for (int i = 0; i < count; i++) {
		const char *eq = strchr(words[i], '=');

		if (!eq || eq == words[i])
			return cli_usage(cli, "Invalid argument to %s: \"%s\" (want key=value)",
					 cli->command->name, words[i]);
		AUTO_FREE char *key = xstrndup(words[i], (size_t)(eq - words[i]));

		if (json_object_set_new(object, key, json_string(eq + 1)) < 0)
			return cli_usage(cli, "Invalid argument to %s: \"%s\" is not UTF-8 text",
					 cli->command->name, words[i]);
	}
	text = json_text(object);
	if (strlen(text) > PAYLOAD_MAX) {
		free(text);
		return cli_fail(EXIT_FAILED,
				"Payload too large: more than %u bytes, which is the limit",
				PAYLOAD_MAX);
	}
	*ret = text;
	return 0;
}
