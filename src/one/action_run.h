/* SPDX-License-Identifier: Apache-2.0 */
/* Scripts beside the actions: save.TM and restore.TM. */
#pragma once

struct call;
struct err;

/*
 * Run "NAME.TM" of the actions' folder, TM being the system datastore's transfer driver, with the
 * call's own arguments and message; none there is fine. -EIO when it fails, with what it said.
 */
int action_hook(struct call *call, const char *name, struct err *err);
