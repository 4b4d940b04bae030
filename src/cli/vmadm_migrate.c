/* SPDX-License-Identifier: Apache-2.0 */
/* vmadm migrate; see vmadm.h. What happens is in docs/migration.md. */
#include <errno.h>
#include <stdlib.h>

#include "api/status.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/act.h"
#include "cli/request.h"
#include "cli/vmadm.h"

/* clang-format off */
const struct cli_option migrate_options[] = {
	{ 'C', 0, "copy-disks", NULL, "copy the disks outside of the data directory too" },
	{ 'B', 0, "bandwidth", "MIB", "send at most so many MiB in a second" },
	{ 'D', 0, "downtime", "MS", "let the guest stand still for at most about so long; 300" },
	{ 'H', 0, "force-here", NULL,
	  "go on here though the other side does not answer: if it runs there, disks are lost" },
	{ 0 },
};
/* clang-format on */

static int put_number(struct cli *cli, json_t *body, char id, const char *name)
{
	const char *text = cli_opt(cli, id);
	char *end;
	long long value;

	if (!text)
		return 0;
	errno = 0;
	value = strtoll(text, &end, 10);
	if (*end || errno || value < 1)
		return cli_usage(cli, "%s: '%.40s' is not a whole number above 0", name, text);
	json_put_int(body, name, value);
	return 0;
}

int cmd_migrate(struct cli *cli)
{
	bool here = cli_flag(cli, 'H');
	AUTO_FREE char *target = NULL, *body = NULL;
	AUTO_JSON json_t *json = json_object();
	struct act a = {.success = "Migrated VM @", .word = "migrate VM", .job = true};
	int r;

	if (here == (cli->nargs == 2))
		return cli_usage(cli, here ? "--force-here goes without a destination"
					   : "want a destination: unix:/ROOT, tls://HOST:PORT or "
					     "ssh://[USER@]HOST[:PORT][/ROOT]");
	if (here) {
		json_put_bool(json, "here", true);
		a = (struct act){.success = "VM @ goes on here"};
	} else {
		json_put_str(json, "to", cli->args[1]);
	}
	if (cli_flag(cli, 'C'))
		json_put_bool(json, "copy_disks", true);
	r = put_number(cli, json, 'B', "bandwidth_mib");
	if (r == 0)
		r = put_number(cli, json, 'D', "downtime_ms");
	if (r != 0)
		return r;
	body = json_text(json);
	target = request_target("/vm/", cli->args[0], "/migrate");
	a.target = target;
	a.body = body;
	return act_run(cli, &a);
}
