/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for what a VM does by itself: vminfod's stream says when to look again, and a look tells.
 * The stream is opened before the first look, so nothing falls between.
 */
#include <errno.h>
#include <string.h>

#include "api/client.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "one/host/action.h"

#define AGENT_NAME "drover-vmm/" DROVER_VERSION
#define OPEN_MS    2000

static bool has_come(struct call *call, const char *uuid, enum vm_goal goal)
{
	AUTO_JSON json_t *vm = NULL;
	int r = ask_vm(call, uuid, &vm, NULL);

	if (r < 0 || goal == VM_GONE)
		return r == -ENOENT;
	return vm_is(vm, "stopped") || vm_is(vm, "failed");
}

/* 0 when the stream has said something of the VM. */
static int next_word(struct client_stream *stream, const char *uuid, uint64_t until_ms,
		     struct err *err)
{
	const char *line = "";
	size_t len = 0;

	while (!memmem(line, len, uuid, strlen(uuid))) {
		uint64_t now = clock_ms();
		int r = now < until_ms
				? client_line(stream, (int)(until_ms - now), &line, &len, err)
				: -ETIMEDOUT;

		if (r <= 0)
			return r < 0 ? r : err_set(err, ECONNRESET, "vminfod went away");
	}
	return 0;
}

int vm_await(struct call *call, const char *uuid, enum vm_goal goal, uint64_t limit_ms,
	     struct err *err)
{
	uint64_t until_ms = clock_ms() + limit_ms;
	struct client_stream *stream = NULL;
	struct client client;
	int r = client_open(&client, call->paths.vminfod, AGENT_NAME, OPEN_MS, err);

	if (r < 0)
		return r;
	r = client_stream_open(&client, "/events", &stream, err);
	while (r == 0 && !has_come(call, uuid, goal))
		r = next_word(stream, uuid, until_ms, err);
	if (stream)
		client_stream_close(stream);
	client_close(&client);
	return r;
}
