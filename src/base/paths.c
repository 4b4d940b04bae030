/* SPDX-License-Identifier: Apache-2.0 */
/* Paths; see paths.h. */
#include "base/paths.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"

static const struct {
	size_t at;
	const char *tail;
} rows[] = {
	{offsetof(struct paths, etc), "/etc/vmstated"},
	{offsetof(struct paths, lib), "/var/lib/vmstated"},
	{offsetof(struct paths, run), "/run/vmstated"},
	{offsetof(struct paths, log), "/var/log/vmstated"},
	{offsetof(struct paths, pidfile), "/run/vmstated.pid"},
	{offsetof(struct paths, vmstated), "/run/vmstated.sock"},
	{offsetof(struct paths, vmadmd), "/run/vmadmd.http"},
	{offsetof(struct paths, vminfod), "/run/vminfod.http"},
	{offsetof(struct paths, vminfod_addr), "/run/vminfod.addr"},
	{offsetof(struct paths, vmstated_feed), "/run/vmstated.feed"},
	{offsetof(struct paths, vmadmd_feed), "/run/vmadmd.feed"},
};

static char **member(struct paths *p, size_t i)
{
	return (char **)(void *)((char *)p + rows[i].at);
}

int paths_init(struct paths *p, const char *root, struct err *err)
{
	AUTO_FREE char *cwd = NULL;
	size_t len;

	if (!root)
		root = getenv("DROVER_ROOT");
	if (!root || !*root)
		root = "/";
	if (root[0] != '/') {
		cwd = getcwd(NULL, 0);
		if (!cwd)
			return err_sys(err, errno, "cannot tell the current directory");
		p->root = xasprintf("%s/%s", cwd, root);
	} else {
		p->root = xstrdup(root);
	}
	len = strlen(p->root);
	while (len > 1 && p->root[len - 1] == '/')
		p->root[--len] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		*member(p, i) =
			xasprintf("%s%s", str_eq(p->root, "/") ? "" : p->root, rows[i].tail);
	return 0;
}

void paths_done(struct paths *p)
{
	free(p->root);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		free(*member(p, i));
	*p = (struct paths){0};
}

char *path_of_run(const struct paths *p, const char *uuid, const char *file)
{
	return xasprintf("%s/%s%s%s", p->run, uuid, file ? "/" : "", file ? file : "");
}

char *path_of_data(const struct paths *p, const char *uuid, const char *file)
{
	return xasprintf("%s/%s%s%s", p->lib, uuid, file ? "/" : "", file ? file : "");
}

char *path_of_nvram(const struct paths *p, const char *uuid, const char *given)
{
	return given ? xstrdup(given) : path_of_data(p, uuid, "nvram.fd");
}
