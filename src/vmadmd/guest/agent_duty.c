/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vmadmd does with a guest agent unasked: vmstated hears that the guest is ready, the guest's
 * addresses go into the VM object, a stop is asked for a second way, and nobody stays frozen.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/daemon.h"
#include "model/vm.h"
#include "store/catalog.h"
#include "vmadmd/guest/agent_private.h"
#include "vmadmd/vmadmd.h"

#define ADDRESSES_MAX 32 /* of one NIC */
#define FIRST_LOOK_MS 3000u

/* --- ready --- */

static void on_told(void *ctx, int r, int status, const char *body, const struct err *err)
{
	struct err text = *err;

	if (r == 0 && status >= 300)
		r = ask_error(status, body, &text);
	if (r < 0)
		log_warn("vmstated was not told that a guest is ready: %s", err_text(&text, r));
}

static void tell_ready(const struct agent *a)
{
	const struct ask_spec spec = {.uuid = a->g->uuid,
				      .verb = "ready",
				      .body = json_object(),
				      .uid = a->g->d->uid,
				      .command = "guest agent",
				      .timeout_ms = QMP_ANSWER_MS};

	ask_start(a->g->d, &spec, on_told, NULL);
}

/* --- addresses --- */

static bool is_address(const char *text)
{
	unsigned char buf[16];

	return text && (inet_pton(AF_INET, text, buf) == 1 || inet_pton(AF_INET6, text, buf) == 1);
}

static const char *mac_of(const struct vm *vm, const char *text)
{
	for (size_t i = 0; text && i < vm->nnics; i++) {
		if (vm->nics[i]->mac && strcasecmp(vm->nics[i]->mac, text) == 0)
			return vm->nics[i]->mac;
	}
	return NULL;
}

static json_t *member(json_t *object, const char *key)
{
	json_t *value = json_object_get(object, key);

	if (!value) {
		value = json_object();
		(void)json_object_set_new(object, key, value);
	}
	return value;
}

/* Of all a guest says, the addresses of the NICs it was given; since when is known of old ones. */
static json_t *addresses_of(const struct vm *vm, const json_t *interfaces, const json_t *old)
{
	json_t *out = json_object(), *list;
	const json_t *one, *address;
	char now[ISO_TIME_LEN];
	size_t i, k;

	(void)clock_iso(clock_wall_ms(), now, sizeof(now));
	json_array_foreach (interfaces, i, one) {
		const char *mac = mac_of(vm, json_get_str(one, "hardware-address", NULL));

		if (!mac)
			continue;
		list = member(out, mac);
		json_array_foreach (json_object_get(one, "ip-addresses"), k, address) {
			const char *text = json_get_str(address, "ip-address", NULL);

			if (is_address(text) && json_object_size(list) < ADDRESSES_MAX)
				json_put_str(list, text,
					     json_get_str(json_object_get(old, mac), text, now));
		}
	}
	return out;
}

void agent_put_addresses(const struct agent *a, json_t *facts, json_t *agent)
{
	const char *mac, *address;
	json_t *list, *since;

	if (json_object_size(a->addresses) == 0)
		return;
	(void)json_object_set(facts, FACT_SAID, a->addresses);
	json_object_foreach (a->addresses, mac, list) {
		json_t *flat = json_array();

		json_object_foreach (list, address, since)
			(void)json_array_append_new(flat, json_string(address));
		(void)json_object_set_new(member(agent, FACT_ADDRESSES), mac, flat);
	}
}

static int on_look(sd_event_source *source, uint64_t usec, void *ctx);

/* Look again later; what it said long ago counts no more. */
static void look_later(struct agent *a)
{
	(void)timer_set(a->g->d->event, &a->look, AGENT_LOOK_MS, on_look, a);
	if (!a->addresses || clock_ms() - a->answered_ms < AGENT_KEPT_MS)
		return;
	json_decref(a->addresses);
	a->addresses = NULL;
	(void)guest_publish(a->g);
}

static void on_interfaces(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct guest *g = ctx;
	const struct catalog_entry *e = catalog_by_uuid(g->d->catalog, g->uuid);
	json_t *found;

	if (!g->agent || g->agent->state == AGENT_DOWN)
		return;
	if (r < 0 || !e) {
		look_later(g->agent);
		return;
	}
	g->agent->answered_ms = clock_ms();
	look_later(g->agent);
	found = addresses_of(e->vm, value, g->agent->addresses);
	if (!json_equal(found, g->agent->addresses)) {
		json_decref(g->agent->addresses);
		g->agent->addresses = json_incref(found);
		(void)guest_publish(g);
	}
	json_decref(found);
}

static int on_look(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct agent *a = ctx;

	if (agent_ask(a->g, "guest-network-get-interfaces", NULL, AGENT_ANSWER_MS, on_interfaces,
		      a->g, NULL) < 0)
		look_later(a);
	return 0;
}

/* --- comes and goes --- */

void agent_came(struct agent *a)
{
	const struct guest *g = a->g;

	if (!json_get_bool(g->facts, FACT_READY, false))
		tell_ready(a);
	agent_thaw_found(a);
	if (!a->addresses) {
		(void)on_look(NULL, 0, a);
		(void)timer_set(g->d->event, &a->look, FIRST_LOOK_MS, on_look, a);
	}
	agent_judge(a);
}

void agent_left(struct agent *a)
{
	agent_freeze_forget(a);
	timer_stop(a->look);
	json_decref(a->addresses);
	a->addresses = NULL;
}

/* --- a stop, asked for a second way --- */

static void on_ignored(void *ctx, int r, const json_t *value, const struct err *err)
{
}

static int on_shutdown(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct agent *a = ctx;
	AUTO_JSON json_t *how = json_pack("{s:s}", "mode", "powerdown");

	if (!a->stopping ||
	    agent_ask(a->g, "guest-shutdown", how, AGENT_ANSWER_MS, on_ignored, NULL, NULL) < 0)
		return 0;
	log_info("vm=%s the guest agent is asked to power off", a->g->uuid);
	return 0;
}

/* A frozen guest cannot end: it is let go before it is asked. */
void agent_judge(struct agent *a)
{
	const struct guest *g = a->g;
	bool stopping = str_eq(json_get_str(g->facts, FACT_STATE, ""), "stopping") && guest_runs(g);

	if (stopping == a->stopping)
		return;
	a->stopping = stopping;
	if (!stopping) {
		timer_stop(a->shutdown);
		return;
	}
	if (a->frozen)
		(void)agent_thaw(a->g, NULL, NULL, NULL);
	(void)timer_set(g->d->event, &a->shutdown, AGENT_SHUTDOWN_MS, on_shutdown, a);
}
