/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State of VMs told to the core as it happens, from vminfod's stream, between two runs of a probe.
 * One process per host: the probe starts it, a lock says that it is there, and it ends when the
 * stream does or when the probe has not been run for some time.
 */
#pragma once

#include <jansson.h>

struct call;
struct strbuf;

/*
 * A host's whole report, as of now, for cores up to 5.12, which take a VM that a report leaves out
 * for gone. gone: VMs that were told before and are no more, {"name"} each. -errno when nothing is
 * known.
 */
typedef int push_report(struct call *call, const json_t *gone, struct strbuf *sb);

/*
 * Start it in the background when it is known where to send: for monitord (report NULL) the
 * probe's configuration on standard input says it, for collectd the arguments of run_probes.
 */
void push_start(struct call *call, push_report *report);

/* One message: head ("STATE_VM SUCCESS HOST TIME"), and base64 of text in zlib's form. */
void push_message(struct strbuf *sb, const char *head, const char *text);
