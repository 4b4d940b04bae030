/* SPDX-License-Identifier: Apache-2.0 */
/* Actions that are refused by name, and why. */
#include <errno.h>

#include "base/err.h"
#include "one/action.h"

static int refuse(const struct call *call, const char *why, struct err *err)
{
	return err_set(err, EOPNOTSUPP, "%s: Operation not supported: %s", call->action->name, why);
}

int act_exec(struct call *call, struct err *err)
{
	return refuse(call, "reach the guest by its console or network", err);
}

int act_exec_cancel(struct call *call, struct err *err)
{
	return refuse(call, "no command runs in the guest by us", err);
}
