/* SPDX-License-Identifier: Apache-2.0 */
/* The `console` command; see attach.h. What the console has said so far comes first. */
#include "cli/attach.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "cli/console.h"
#include "cli/request.h"

/* While it is stopping, the console is where one sees why it does not. */
static const char *const console_states[] = {"running", "stopping"};

static bool has_console(const char *state)
{
	for (size_t i = 0; i < ARRAY_SIZE(console_states); i++)
		if (str_eq(state, console_states[i]))
			return true;
	return false;
}

int attach_console(struct cli *cli, struct slice vm, const char *daemon)
{
	AUTO_FREE char *uuid = js_member_string(vm, "uuid"), *path = NULL;
	AUTO_FREE char *state = js_member_string(vm, "state");
	struct err err = {0};
	int r;

	if (!uuid || !uuid_valid(uuid))
		return cli_fail(EXIT_FAILED, "%s's answer names no uuid", daemon);
	if (!has_console(state))
		return cli_fail(
			EXIT_CONFLICT,
			"cannot connect to console when state is \"%s\" must be \"running\".",
			state ? state : "unknown");
	path = path_of_run(&cli->paths, uuid, "vm.console");
	if (isatty(STDIN_FILENO))
		cli_say("Console of VM %s; leave with Ctrl-].", uuid);
	r = console_run(path, &err);
	if (r == -EACCES || r == -EPERM)
		return request_fail(EXIT_DENIED, NULL, &err);
	return r < 0 ? request_fail(EXIT_FAILED, NULL, &err) : EXIT_OK;
}
