/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by child.c and child_run.c only. */
#pragma once

struct child;

/* drop(ctx of done) runs from child_forget, which then will not run done. */
void child_on_forget(struct child *c, void (*drop)(void *ctx));
