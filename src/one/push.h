/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State of VMs told to monitord as it happens, from vminfod's stream, between two runs of the
 * status probe. One process per host: the probe starts it, a lock says that it is there, and it
 * ends when the stream does or when the probe has not been run for some time.
 */
#pragma once

#include <stddef.h>

struct call;
struct strbuf;

/* Start it in the background when the probe's configuration (standard input) says where to. */
void push_start(struct call *call);

/* One message of monitord: "STATE_VM SUCCESS HOST TIME " and base64 of text in zlib's form. */
void push_message(struct strbuf *sb, const char *host, long long time_s, const char *text);
