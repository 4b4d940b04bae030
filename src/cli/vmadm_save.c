/* SPDX-License-Identifier: Apache-2.0 */
/* vmadm save and restore; see vmadm.h. The file is opened by vmadmd in the caller's name. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "cli/act.h"
#include "cli/request.h"
#include "cli/vmadm.h"

/* clang-format off */
const struct cli_option restore_options[] = {
	{ 'f', 0, "force", NULL, "also when a disk was written since: its file system may suffer" },
	{ 0 },
};
/* clang-format on */

/* vmadmd has another working directory. */
static char *absolute(const char *file)
{
	AUTO_FREE char *here = NULL;

	if (file[0] == '/')
		return xstrdup(file);
	here = getcwd(NULL, 0);
	return path_join(here ? here : "", file);
}

static int run(struct cli *cli, struct act *a, const char *suffix, bool force)
{
	AUTO_FREE char *target = request_target("/vm/", cli->args[0], suffix);
	AUTO_FREE char *file = absolute(cli->args[1]), *body = NULL;
	AUTO_JSON json_t *json = json_object();

	json_put_str(json, "file", file);
	if (force)
		json_put_bool(json, "force", true);
	body = json_text(json);
	a->target = target;
	a->body = body;
	a->job = true;
	return act_run(cli, a);
}

int cmd_save(struct cli *cli)
{
	struct act a = {.success = "Saved VM @; it is stopped", .word = "save VM"};

	return run(cli, &a, "/save", false);
}

int cmd_restore(struct cli *cli)
{
	struct act a = {.success = "Restored VM @; it is running", .word = "restore VM"};

	return run(cli, &a, "/restore", cli_flag(cli, 'f'));
}
