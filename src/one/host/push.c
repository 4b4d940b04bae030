/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See push.h. Messages go by UDP, one each, as the stock client sends most of its own; a lost one
 * is made good by the next run of the probe, which tells everything. zlib's form without
 * compression is a few bytes around the text, so no library is needed. Source: fact sheet, 6.3.
 */
#include "one/host/push.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api/client.h"
#include "api/names.h"
#include "base/base64.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/host/action.h"
#include "one/host/view.h"

#define LOCK_FILE   ".drover-push.lock"
#define STALE_MS    300000 /* without a probe monitoring has ended */
#define LINE_MS     60000
#define GATHER_MS   300   /* changes that come together make one report */
#define DATAGRAM    65507 /* bytes: a larger report waits for the probe */
#define BLOCK_MAX   65535u
#define ADLER_PRIME 65521u

struct push {
	struct call *call;
	char *host, *address, *port;
	int lock, socket;
	json_t *letters;     /* by uuid: the word last told */
	push_report *report; /* of 5.x; NULL: monitord */
	json_t *gone;        /* for the next report */
	uint64_t report_ms;  /* when it is due, 0: nothing has changed */
};

/* --- messages --- */

static void put_u16(struct strbuf *sb, unsigned value)
{
	strbuf_putc(sb, (char)(value & 0xff));
	strbuf_putc(sb, (char)(value >> 8 & 0xff));
}

/* Blocks of type "stored", between zlib's header and check. Source: RFC 1950, RFC 1951. */
static void put_zlib(struct strbuf *sb, const char *text, size_t len)
{
	uint32_t a = 1, b = 0;

	for (size_t i = 0; i < len; i++) {
		a = (a + (unsigned char)text[i]) % ADLER_PRIME;
		b = (b + a) % ADLER_PRIME;
	}
	strbuf_add(sb, "\x78\x01", 2);
	do {
		size_t n = len < BLOCK_MAX ? len : BLOCK_MAX;

		strbuf_putc(sb, n == len);
		put_u16(sb, (unsigned)n);
		put_u16(sb, ~(unsigned)n);
		strbuf_add(sb, text, n);
		text += n;
		len -= n;
	} while (len);
	for (int shift = 8; shift >= 0; shift -= 8)
		strbuf_putc(sb, (char)(b >> shift & 0xff));
	for (int shift = 8; shift >= 0; shift -= 8)
		strbuf_putc(sb, (char)(a >> shift & 0xff));
}

void push_message(struct strbuf *sb, const char *head, const char *text)
{
	AUTO_STRBUF struct strbuf packed = {0};
	AUTO_FREE char *coded = NULL;

	put_zlib(&packed, text, strlen(text));
	coded = base64_encode(packed.data, packed.len);
	strbuf_printf(sb, "%s %s\n", head, coded);
}

static void send_message(struct push *p, const char *head, const char *text)
{
	AUTO_STRBUF struct strbuf sb = {0};

	push_message(&sb, head, text);
	if (sb.len <= DATAGRAM)
		(void)send(p->socket, sb.data, sb.len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void tell(struct push *p, const json_t *vm, const char *word)
{
	AUTO_FREE char *head =
		xasprintf("STATE_VM SUCCESS %s %lld", p->host, (long long)(clock_wall_ms() / 1000));
	AUTO_FREE char *text = xasprintf("VM = [ ID=\"%ld\", DEPLOY_ID=\"%s\", STATE=\"%s\" ]\n",
					 vm_number(vm), vm_deploy_id(vm), word);

	if (p->report && !p->report_ms)
		p->report_ms = clock_ms() + GATHER_MS;
	if (!p->report)
		send_message(p, head, text);
}

static void send_report(struct push *p)
{
	AUTO_FREE char *head = xasprintf("MONITOR SUCCESS %s", p->host);
	AUTO_STRBUF struct strbuf text = {0};

	p->report_ms = 0;
	if (p->report(p->call, p->gone, &text) == 0)
		send_message(p, head, text.data);
	(void)json_array_clear(p->gone);
}

/* --- the stream --- */

static void remember(struct push *p, const json_t *vm, bool silent)
{
	const char *uuid = json_get_str(vm, "uuid", "");
	const char *word = vm_state_word(vm_letter(vm));
	const char *was = json_get_str(json_object_get(p->letters, uuid), "word", "");

	if (str_eq(word, was))
		return;
	(void)json_object_set_new(p->letters, uuid,
				  json_pack("{s:s, s:s, s:s}", "word", word, "uuid", uuid, "name",
					    json_get_str(vm, "name", "")));
	if (!silent && !str_eq(word, "UNKNOWN"))
		tell(p, vm, word);
}

static void take_ready(struct push *p, const json_t *record)
{
	const char *text = json_get_str(record, "vms", "[]");
	AUTO_JSON json_t *vms = json_loads(text, 0, NULL);
	json_t *vm;
	size_t i;

	json_array_foreach (vms, i, vm)
		remember(p, vm, true);
}

static void take_line(struct push *p, const char *line, size_t len)
{
	AUTO_JSON json_t *record = json_loadb(line, len, 0, NULL);
	const char *type = json_get_str(record, "type", ""), *uuid;
	json_t *known;

	if (str_eq(type, EVENT_READY))
		take_ready(p, record);
	if (json_object_get(record, "vm"))
		remember(p, json_object_get(record, "vm"), false);
	if (!str_eq(type, EVENT_DELETE))
		return;
	uuid = json_get_str(record, "uuid", "");
	known = json_object_get(p->letters, json_get_str(record, "zonename", uuid));
	if (known && !str_eq(json_get_str(known, "word", ""), "POWEROFF")) {
		tell(p, known, "POWEROFF");
		(void)json_array_append(p->gone, known);
	}
	(void)json_object_del(p->letters, json_get_str(record, "zonename", uuid));
}

static bool stale(const struct push *p)
{
	struct stat st;

	return fstat(p->lock, &st) < 0 || clock_wall_ms() - (int64_t)st.st_mtime * 1000 > STALE_MS;
}

static void follow(struct push *p)
{
	struct client_stream *stream = NULL;
	struct client client;
	const char *line;
	size_t len;
	int r;

	if (client_open(&client, p->call->paths.vminfod, "drover-vmm", 0, NULL) < 0)
		return;
	r = client_stream_open(&client, "/events", &stream, NULL);
	while (r >= 0 && !stale(p)) {
		uint64_t now = clock_ms();

		if (p->report_ms && p->report_ms <= now)
			send_report(p);
		r = client_line(stream, p->report_ms ? (int)(p->report_ms - now) : LINE_MS, &line,
				&len, NULL);
		if (r == 0)
			break;
		if (r > 0)
			take_line(p, line, len);
		else if (r == -ETIMEDOUT)
			r = 0;
	}
	if (stream)
		client_stream_close(stream);
	client_close(&client);
}

/* --- the start --- */

static int connect_to(const char *address, const char *port)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_DGRAM};
	struct addrinfo *list = NULL;
	int fd = -1;

	if (getaddrinfo(address, port, &hints, &list) != 0)
		return -1;
	for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
		fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
		if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
			(void)close(fd);
			fd = -1;
		}
	}
	freeaddrinfo(list);
	return fd;
}

/* "auto" is where the core's ssh comes from. */
static char *address_of(struct call *call, bool monitord)
{
	char *given = monitord ? call_value(call, "NETWORK/MONITOR_ADDRESS") : NULL;
	const char *ssh = getenv("SSH_CLIENT");

	if (given && *given && !str_eq(given, "auto"))
		return given;
	free(given);
	return ssh && *ssh ? xstrndup(ssh, strcspn(ssh, " ")) : NULL;
}

/* Ours alone from here on: a process of its own, which holds the lock and nothing else. */
static void run(struct push *p)
{
	int null;

	if (fork() != 0)
		return;
	(void)setsid();
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd <= 2; fd++)
		(void)dup2(null, fd);
	p->letters = json_object();
	p->gone = json_array();
	p->socket = connect_to(p->address, p->port);
	if (p->socket >= 0)
		follow(p);
	_exit(0);
}

/* Of run_probes: kind, hypervisor, datastores, port, seconds, host's number, host's name. */
static char *argument(const struct call *call, int i)
{
	return call->argc > i ? xstrdup(call->argv[i]) : NULL;
}

static bool is_number(const char *text)
{
	return text && *text && !text[strspn(text, "0123456789")];
}

void push_start(struct call *call, push_report *report)
{
	AUTO_FREE char *path = xasprintf("%s/" LOCK_FILE, call->remotes);
	AUTO_FREE char *address = address_of(call, !report);
	AUTO_FREE char *port = report ? argument(call, 3) : call_value(call, "NETWORK/PORT");
	AUTO_FREE char *host = report ? argument(call, 5) : call_value(call, "HOST_ID");
	AUTO_FD int lock = -1;
	struct push p = {.call = call, .host = host, .address = address, .port = port};

	p.report = report;
	if (!is_number(host) || !address || !is_number(port))
		return;
	lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (lock < 0 || futimens(lock, NULL) < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0)
		return; /* it is there already */
	p.lock = lock;
	run(&p);
}
