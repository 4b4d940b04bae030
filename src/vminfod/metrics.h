/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET /metrics in the text form of Prometheus: VM states from the cache, how this daemon does, and
 * the counters of running VMs as vmadmd has them, with their age. No secrets, open to all.
 */
#pragma once

struct http_request;
struct strbuf;
struct status_of;

/* Answers later: vmadmd is asked, and not waited for longer than it needs for its own sample. */
void metrics_reply(struct http_request *req, const struct status_of *of);

/* stats: vmadmd's answer as text, NULL: it did not answer. */
void metrics_put(struct strbuf *to, const struct status_of *of, const char *stats);
/* Only the counters in vmadmd's answer; -EPROTO when it is no such answer. */
int metrics_put_stats(struct strbuf *to, const char *stats);
