/* SPDX-License-Identifier: Apache-2.0 */
/* Paths of network disks; see source.h. */
#include "qemu/source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/image.h"

#define NBD_PORT "10809"
#define LUN_MAX  255

/* A path that may hold a secret is not repeated. */
static int bad(struct err *err, const char *path, const char *want)
{
	if (strpbrk(path, "%@") || strstr(path, "key"))
		return err_set(err, EINVAL, "'%.*s:...' is no such disk (want %s)",
			       (int)strcspn(path, ":"), path, want);
	return err_set(err, EINVAL, "'%.200s' is no such disk (want %s)", path, want);
}

static bool is_port(const char *text)
{
	size_t len = strlen(text);
	long number = strtol(text, NULL, 10);

	return len < 6 && strspn(text, "0123456789") == len && number > 0 && number < 65536;
}

/* "HOST:PORT", "[::1]:PORT" or without port; *rest is cut in place. */
static bool take_host(char *text, const char *usual, const char **ret_host, const char **ret_port)
{
	char *end = *text == '[' ? strchr(text, ']') : NULL, *colon;

	if (*text == '[' && !end)
		return false;
	colon = strchr(end ? end : text, ':');
	*ret_port = colon ? colon + 1 : usual;
	if (colon)
		*colon = '\0';
	if (end)
		*end = '\0';
	*ret_host = end ? text + 1 : text;
	return **ret_host && *ret_port && is_port(*ret_port);
}

static json_t *nbd_node(json_t *server, const char *name)
{
	json_t *j = json_pack("{s:s, s:o}", "driver", "nbd", "server", server);

	json_put_str(j, "export", name && *name ? name : NULL);
	return j;
}

static int parse_nbd(const char *path, char *rest, json_t **ret, struct err *err)
{
	static const char want[] = "nbd:unix:/SOCKET, nbd:HOST:PORT, each with :exportname=NAME, "
				   "or nbd://HOST:PORT/NAME";
	static const char word[] = ":exportname=";
	bool url = str_starts(rest, "//");
	char *name = url ? strchr(rest + 2, '/') : strstr(rest, word);
	const char *host, *port;

	if (name) {
		*name = '\0';
		name += url ? 1 : strlen(word);
	}
	if (str_starts(rest, "unix:/")) {
		*ret = nbd_node(json_pack("{s:s, s:s}", "type", "unix", "path", rest + 5), name);
		return 0;
	}
	if (!take_host(url ? rest + 2 : rest, url ? NBD_PORT : NULL, &host, &port))
		return bad(err, path, want);
	*ret = nbd_node(json_pack("{s:s, s:s, s:s}", "type", "inet", "host", host, "port", port),
			name);
	return 0;
}

static int parse_rbd(const char *path, char *rest, json_t **ret, struct err *err)
{
	static const char want[] = "rbd:POOL/IMAGE, with :id=USER and :conf=FILE; keys belong into "
				   "ceph's own files";
	AUTO_JSON json_t *j = json_object();
	char *place = strsep(&rest, ":"), *word, *part[3] = {NULL};
	size_t parts = 0;

	json_put_str(j, "driver", "rbd");
	while (place && parts < ARRAY_SIZE(part))
		part[parts++] = strsep(&place, "/");
	if (place || parts < 2 || !*part[0] || !*part[parts - 1])
		return bad(err, path, want);
	place = part[parts - 1];
	json_put_str(j, "pool", part[0]);
	json_put_str(j, "namespace", parts == 3 ? part[1] : NULL);
	json_put_str(j, "image", strsep(&place, "@"));
	json_put_str(j, "snapshot", place);
	while ((word = strsep(&rest, ":"))) {
		bool user = str_starts(word, "id="), conf = str_starts(word, "conf=/");

		if (!user && !conf)
			return bad(err, path, want);
		json_put_str(j, user ? "user" : "conf", strchr(word, '=') + 1);
	}
	*ret = json_incref(j);
	return 0;
}

static int parse_iscsi(const char *path, char *rest, json_t **ret, struct err *err)
{
	static const char want[] = "iscsi://HOST:PORT/TARGET/LUN; secrets belong into the "
				   "initiator's own files";
	char *host = str_starts(rest, "//") ? rest + 2 : NULL, *target, *lun, *end;
	long number;

	target = host && !strpbrk(host, "@%") ? strchr(host, '/') : NULL;
	lun = target ? strchr(target + 1, '/') : NULL;
	if (!lun || target == host || lun == target + 1 || !lun[1])
		return bad(err, path, want);
	*target++ = *lun++ = '\0';
	number = strtol(lun, &end, 10);
	if (*end || number < 0 || number > LUN_MAX || lun[strspn(lun, "0123456789")])
		return bad(err, path, want);
	*ret = json_pack("{s:s, s:s, s:s, s:s, s:i}", "driver", "iscsi", "transport", "tcp",
			 "portal", host, "target", target, "lun", (int)number);
	return 0;
}

static const struct {
	const char *protocol;
	int (*parse)(const char *path, char *rest, json_t **ret, struct err *err);
	bool built_in;
} sources[] = {
	{"nbd", parse_nbd, true},
	{"rbd", parse_rbd, false},
	{"iscsi", parse_iscsi, false},
};

int source_parse(const char *path, json_t **ret, struct err *err)
{
	const char *protocol = image_protocol(path);
	AUTO_FREE char *copy = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(sources); i++) {
		size_t len = strlen(sources[i].protocol);

		if (!str_eq(protocol, sources[i].protocol) || path[len] != ':')
			continue;
		copy = xstrdup(path + len + 1);
		return sources[i].parse(path, copy, ret, err);
	}
	return err_set(err, ENOTSUP,
		       "'%.200s': protocol %s is not served (want a file, a block device, nbd:, "
		       "rbd: or iscsi:)",
		       path, protocol ? protocol : "of this form");
}

int source_driver_check(const char *path, struct err *err)
{
	const char *const folders[] = {getenv("QEMU_MODULE_DIR"), "/usr/lib/x86_64-linux-gnu/qemu",
				       "/usr/lib64/qemu-kvm", "/usr/lib64/qemu", "/usr/lib/qemu"};
	const char *protocol = image_protocol(path);
	bool built_in = false;

	for (size_t i = 0; i < ARRAY_SIZE(sources); i++)
		built_in |= str_eq(protocol, sources[i].protocol) && sources[i].built_in;
	for (size_t i = 0; protocol && !built_in && i < ARRAY_SIZE(folders); i++) {
		AUTO_FREE char *file =
			xasprintf("%s/block-%s.so", folders[i] ? folders[i] : "", protocol);

		if (!folders[i] || !file_exists(folders[i]))
			continue;
		if (file_exists(file))
			return 0;
		return err_set(err, ENOTSUP,
			       "'%.200s' needs QEMU's block driver %s, which is not installed "
			       "(want %s; Debian: qemu-block-extra)",
			       path, protocol, file);
	}
	return 0;
}
