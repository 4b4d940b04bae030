/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which VM a person means: a uuid, a name, a unique prefix of a uuid or a unique alias, found in
 * what vminfod knows. The daemons resolve for themselves (store/catalog.h) by the same rules.
 */
#pragma once

#include "base/uuid.h"
#include "cli/cli.h"
#include "cli/js.h"

struct client_reply;
struct err;

#define FIND_PREFIX_MIN 4

/*
 * In a JSON array of VM objects. 0; -ENOENT "VM ID not found"; -EEXIST "ID is ambiguous: matches
 * A, B".
 */
int find_in(struct slice vms, const char *id, char uuid[UUID_LEN + 1], struct err *err);

/*
 * The VM's object from vminfod, whole, as a reply to free. query: "" or "?fields=a,b". 0, or the
 * exit code with err filled.
 */
int find_vm(struct cli *cli, const char *id, const char *query, struct client_reply *ret,
	    struct err *err);
