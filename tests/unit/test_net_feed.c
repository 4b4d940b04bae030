/* SPDX-License-Identifier: Apache-2.0 */
/* Feeds: snapshot, order, acknowledgements, reconnecting, and subscribers that misbehave. */
#include "net_client.h"

#include "base/json.h"
#include "net/feed.h"

struct rig {
	struct place place;
	struct feed_server *server;
	struct feed_client *client;
	struct strbuf lines;
	int ups, downs, snapshots, confirmed, unconfirmed;
	bool free_in_line;
};

static void snapshot(struct feed_server *s, void *ctx)
{
	AUTO_JSON json_t *facts = json_pack("{s:s}", "state", "running");

	((struct rig *)ctx)->snapshots++;
	feed_snapshot_vm(s, "vm-1", facts);
	feed_snapshot_vm(s, "vm-2", facts);
}

static void start_server(struct rig *rig)
{
	struct feed_server_config config = {
		.path = rig->place.path, .daemon = "vmstated", .snapshot = snapshot, .ctx = rig};

	assert_int_equal(feed_server_new(rig->place.event, &config, &rig->server, NULL), 0);
}

static void on_line(void *ctx, const char *type, const json_t *line)
{
	struct rig *rig = ctx;

	strbuf_printf(&rig->lines, "%s:%s:%lld ", type, json_get_str(line, "uuid", ""),
		      (long long)json_get_int(line, "seq", -1));
	if (rig->free_in_line) {
		feed_client_free(rig->client);
		rig->client = NULL;
	}
}

static void on_link(void *ctx, bool up)
{
	struct rig *rig = ctx;

	if (up)
		rig->ups++;
	else
		rig->downs++;
}

static void start_client(struct rig *rig)
{
	struct feed_client_config config = {.path = rig->place.path,
					    .name = "vminfod",
					    .confirms = true,
					    .line = on_line,
					    .link = on_link,
					    .ctx = rig};

	assert_int_equal(feed_client_new(rig->place.event, &config, &rig->client, NULL), 0);
}

static void on_seen(void *ctx, bool confirmed)
{
	struct rig *rig = ctx;

	if (confirmed)
		rig->confirmed++;
	else
		rig->unconfirmed++;
}

static int setup(void **state)
{
	struct rig *rig = xcalloc(1, sizeof(*rig));

	place_init(&rig->place);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	feed_client_free(rig->client);
	feed_server_free(rig->server);
	strbuf_done(&rig->lines);
	place_done(&rig->place);
	free(rig);
	return 0;
}

static void snapshot_then_lines(void **state)
{
	struct rig *rig = *state;
	AUTO_JSON json_t *facts = json_pack("{s:i}", "pid", 1);

	start_server(rig);
	assert_int_equal(feed_vm(rig->server, "early", facts), 1);
	start_client(rig);
	UNTIL(&rig->place, feed_client_ready(rig->client));
	assert_int_equal(rig->ups, 1);
	assert_int_equal(feed_vm(rig->server, "vm-1", facts), 2);
	assert_int_equal(feed_begin(rig->server, "vm-1", facts), 3);
	assert_int_equal(feed_commit(rig->server, "vm-1"), 4);
	assert_int_equal(feed_gone(rig->server, "vm-1"), 5);
	assert_int_equal(feed_seq(rig->server), 5);
	UNTIL(&rig->place, strstr(rig->lines.data, "gone"));
	assert_string_equal(rig->lines.data, "vm:vm-1:1 vm:vm-2:1 ready::1 vm:vm-1:2 begin:vm-1:3 "
					     "commit:vm-1:4 gone:vm-1:5 ");
}

static void drain_takes_what_is_there(void **state)
{
	struct rig *rig = *state;

	start_server(rig);
	start_client(rig);
	UNTIL(&rig->place, feed_client_ready(rig->client));
	(void)feed_gone(rig->server, "vm-1");
	feed_client_drain(rig->client); /* without the loop */
	assert_non_null(strstr(rig->lines.data, "gone:vm-1:1"));
	feed_client_drain(rig->client);
}

static void acknowledged(void **state)
{
	struct rig *rig = *state;
	uint64_t seq;

	start_server(rig);
	start_client(rig);
	UNTIL(&rig->place, feed_client_ready(rig->client));
	seq = feed_gone(rig->server, "vm-1");
	assert_non_null(feed_when_seen(rig->server, seq, on_seen, rig));
	assert_int_equal(rig->confirmed, 0); /* never before it returned */
	UNTIL(&rig->place, rig->confirmed == 1);
	assert_non_null(strstr(rig->lines.data, "gone:vm-1:1"));
	assert_non_null(feed_when_seen(rig->server, seq, on_seen, rig)); /* long acknowledged */
	UNTIL(&rig->place, rig->confirmed == 2);
	assert_int_equal(rig->unconfirmed, 0);
	feed_wait_cancel(feed_when_seen(rig->server, seq, on_seen, rig));
	turn(&rig->place);
	assert_int_equal(rig->confirmed, 2);
}

static void nobody_attached(void **state)
{
	struct rig *rig = *state;

	start_server(rig);
	assert_non_null(feed_when_seen(rig->server, feed_gone(rig->server, "x"), on_seen, rig));
	assert_int_equal(rig->unconfirmed, 0);
	UNTIL(&rig->place, rig->unconfirmed == 1);
}

static void on_seen_again(void *ctx, bool confirmed)
{
	struct rig *rig = ctx;

	on_seen(ctx, confirmed);
	if (!confirmed)
		(void)feed_when_seen(rig->server, feed_gone(rig->server, "x"), on_seen_again, rig);
}

/* A defer source armed again from its own callback once kept the listener from its turn. */
static void waits_in_a_row_starve_nobody(void **state)
{
	struct rig *rig = *state;

	start_server(rig);
	(void)feed_when_seen(rig->server, 0, on_seen_again, rig);
	start_client(rig);
	UNTIL(&rig->place, rig->confirmed == 1);
	assert_true(rig->unconfirmed > 0);
}

/* A subscriber on a plain socket; its answers are in sb. */
static int plain(struct rig *rig, struct strbuf *sb)
{
	int fd = dial(&rig->place);

	say(fd, "{\"hello\":\"vminfod\",\"confirms\":true}\n");
	await_text(&rig->place, fd, sb, "\"ready\"");
	return fd;
}

static void greeting_text(void **state)
{
	struct rig *rig = *state;
	AUTO_STRBUF struct strbuf sb = {0};
	int fd;

	start_server(rig);
	fd = plain(rig, &sb);
	assert_non_null(strstr(
		sb.data, "{\"type\":\"hello\",\"feed\":1,\"daemon\":\"vmstated\",\"version\":"));
	assert_non_null(strstr(sb.data, "{\"type\":\"vm\",\"seq\":0,\"uuid\":\"vm-1\","
					"\"facts\":{\"state\":\"running\"}}\n"));
	assert_non_null(strstr(sb.data, "{\"type\":\"ready\",\"seq\":0}\n"));
	(void)close(fd);
}

static void silent_subscriber_costs_a_second(void **state)
{
	struct rig *rig = *state;
	AUTO_STRBUF struct strbuf sb = {0};
	uint64_t from;
	int fd;

	start_server(rig);
	fd = plain(rig, &sb);
	from = clock_ms();
	assert_non_null(feed_when_seen(rig->server, feed_gone(rig->server, "x"), on_seen, rig));
	UNTIL(&rig->place, rig->unconfirmed == 1);
	assert_in_range(clock_ms() - from, FEED_CONFIRM_MS, FEED_CONFIRM_MS + 500);
	/* Late is better than never: the next one counts again. */
	say(fd, "{\"ack\":1}\n");
	assert_non_null(feed_when_seen(rig->server, 1, on_seen, rig));
	UNTIL(&rig->place, rig->confirmed == 1);
	(void)close(fd);
}

static void subscriber_leaves_during_a_wait(void **state)
{
	struct rig *rig = *state;
	AUTO_STRBUF struct strbuf sb = {0};
	uint64_t from;
	int fd;

	start_server(rig);
	fd = plain(rig, &sb);
	assert_non_null(feed_when_seen(rig->server, feed_gone(rig->server, "x"), on_seen, rig));
	turn(&rig->place);
	assert_int_equal(rig->unconfirmed, 0);
	from = clock_ms();
	(void)close(fd);
	UNTIL(&rig->place, rig->unconfirmed == 1);
	assert_true(clock_ms() - from < 500);
}

static void nonsense_ends_the_subscription(void **state)
{
	static const char *const cases[] = {
		"{\n",
		"[]\n",
		"{\"ack\":1}\n",
		"{\"ack\":-1}\n",
		"{}\n",
		"\n",
		"{\"hello\":\"x\"}\n{\"ack\":99}\n",
	};
	struct rig *rig = *state;

	start_server(rig);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_STRBUF struct strbuf sb = {0};
		int fd = dial(&rig->place);

		say(fd, cases[i]);
		await_close(&rig->place, fd, &sb);
		(void)close(fd);
	}
}

static void slow_subscriber_is_dropped(void **state)
{
	struct rig *rig = *state;
	AUTO_STRBUF struct strbuf sb = {0};
	AUTO_JSON json_t *facts = json_object();
	char *big = xmalloc(500001);
	int fd;

	memset(big, 'x', 500000);
	big[500000] = '\0';
	json_put_str(facts, "text", big);
	free(big);
	start_server(rig);
	fd = plain(rig, &sb);
	for (int i = 0; i < 50; i++)
		(void)feed_vm(rig->server, "vm-1", facts);
	await_close(&rig->place, fd, &sb);
	assert_true(sb.len < FEED_QUEUE_MAX + (4u << 20));
	(void)close(fd);
}

static void reconnects_with_a_snapshot(void **state)
{
	struct rig *rig = *state;

	start_client(rig); /* before there is a server */
	turn(&rig->place);
	start_server(rig);
	UNTIL(&rig->place, feed_client_ready(rig->client));
	feed_server_free(rig->server);
	rig->server = NULL;
	UNTIL(&rig->place, rig->downs == 1);
	assert_false(feed_client_ready(rig->client));
	start_server(rig);
	UNTIL(&rig->place, feed_client_ready(rig->client));
	assert_int_equal(rig->ups, 2);
	assert_int_equal(rig->snapshots, 2);
}

/* Servers that break the protocol: the client drops them and tries again. */
static void bad_servers(void **state)
{
	static const char hello[] = "{\"type\":\"hello\",\"feed\":1,\"daemon\":\"x\",\"seq\":3}\n";
	static const char *const cases[] = {
		"nonsense\n",
		"{\"type\":\"hello\",\"feed\":2,\"seq\":0}\n",
		"{\"type\":\"ready\",\"seq\":0}\n",
		"H{\"type\":\"ready\",\"seq\":3}\n{\"type\":\"gone\",\"seq\":5}\n", /* a gap */
		"H{\"type\":\"ready\"}\n",
		"HH",
	};
	struct rig *rig = *state;
	int listener;

	assert_int_equal(sock_listen(rig->place.path, 0600, &listener, NULL), 0);
	start_client(rig);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_STRBUF struct strbuf sb = {0};
		int fd = -1;

		UNTIL(&rig->place, (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0);
		for (const char *c = cases[i]; *c; c++)
			say(fd, *c == 'H' ? hello : (char[]){*c, '\0'});
		await_close(&rig->place, fd, &sb);
		(void)close(fd);
	}
	assert_int_equal(rig->ups, rig->downs);
	(void)close(listener);
}

static void freed_inside_its_callback(void **state)
{
	struct rig *rig = *state;

	start_server(rig);
	rig->free_in_line = true;
	start_client(rig);
	UNTIL(&rig->place, !rig->client);
	turn(&rig->place);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(snapshot_then_lines),
		CASE(drain_takes_what_is_there),
		CASE(acknowledged),
		CASE(nobody_attached),
		CASE(waits_in_a_row_starve_nobody),
		CASE(greeting_text),
		CASE(silent_subscriber_costs_a_second),
		CASE(subscriber_leaves_during_a_wait),
		CASE(nonsense_ends_the_subscription),
		CASE(slow_subscriber_is_dropped),
		CASE(reconnects_with_a_snapshot),
		CASE(bad_servers),
		CASE(freed_inside_its_callback),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
