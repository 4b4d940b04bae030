/* SPDX-License-Identifier: Apache-2.0 */
/* Guests stopped by an error of a disk: told, and resumed by policy; see ioerror.c. */
#pragma once

struct guest;

void ioerror_watch(struct guest *g); /* when it runs; more than once is fine */
void ioerror_end(struct guest *g);   /* it does not run any more, or is forgotten */
