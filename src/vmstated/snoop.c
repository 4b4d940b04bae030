/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packet socket per NIC, with a filter of the kernel's so that only what matters wakes us; what
 * was heard goes into the sets by a worker, at once and then at most once a second.
 */
#include "vmstated/snoop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "vmstated/filter.h"
#include "vmstated/heard.h"
#include "vmstated/neigh.h"
#include "vmstated/parts.h"
#include "vmstated/worker.h"

#define FRAME_MAX    2048 /* of a longer one the rest is not looked at */
#define READS_MAX    16   /* per wake-up: others wait too */
#define KNOWN_MAX    32   /* addresses of a NIC */
#define LIFE_MAX_S   (365u * 86400)
#define AGAIN_MS     1000u
#define MAC_LEN      6
#define SOCKET_BYTES 65536

struct known {
	struct heard what;
	uint64_t until_ms; /* of clock_ms(); 0: given back */
	bool told;         /* the set has it so */
};

struct listener {
	struct snoop *snoop;
	size_t index;
	char tap[IFNAMSIZ];
	uint8_t mac[MAC_LEN];
	sd_event_source *source;
	struct known known[KNOWN_MAX];
	size_t count;
	bool v4, v6;
};

struct snoop {
	struct guest *g;
	struct listener *nics[VM_NICS_MAX];
	struct child *job;
	sd_event_source *again;
};

/* --- sets --- */

/* Those an address of this length is in: as a source, and as nft reads it out of an advertisement.
 */
static const struct {
	uint8_t prefix;
	bool raw;
	const char *name;
} sets[] = {
	{32, false, FILTER_LEASED4},          {128, false, FILTER_LEASED6},
	{128, true, FILTER_CLAIMED6},         {64, false, FILTER_PREFIXES6},
	{64, true, FILTER_CLAIMED6_PREFIXES},
};

/* As one number; the last 64 bits all ones for the end of a prefix. */
static void put_raw(struct strbuf *sb, const struct heard *h, bool end)
{
	strbuf_puts(sb, "0x");
	for (size_t i = 0; i < sizeof(h->address); i++)
		strbuf_printf(sb, "%02x", end && i >= 8 ? 0xffu : h->address[i]);
}

static void put_element(struct strbuf *sb, const struct heard *h, bool raw)
{
	char text[INET6_ADDRSTRLEN] = "";

	if (raw) {
		put_raw(sb, h, false);
		if (h->prefix == 64) {
			strbuf_putc(sb, '-');
			put_raw(sb, h, true);
		}
		return;
	}
	(void)inet_ntop(h->v6 ? AF_INET6 : AF_INET, h->address, text, sizeof(text));
	strbuf_printf(sb, "%s%s", text, h->prefix == 64 ? "/64" : "");
}

/* In place of what the sets have of it; life_s 0: away with it. */
static void put_commands(struct strbuf *sb, const char *tap, const struct heard *h, uint64_t life_s)
{
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
		AUTO_STRBUF struct strbuf one = {0};

		if (sets[i].prefix != h->prefix)
			continue;
		put_element(&one, h, sets[i].raw);
		for (int step = 0; step < 3; step++) {
			if (step == 2 && life_s == 0)
				break;
			strbuf_printf(sb, "%s element netdev " FILTER_PREFIX "%s %s { %s",
				      step == 1 ? "delete" : "add", tap, sets[i].name, one.data);
			if (step == 2)
				strbuf_printf(sb, " timeout %llus", (unsigned long long)life_s);
			strbuf_puts(sb, " }\n");
		}
	}
}

static uint64_t life_of(const struct known *k, uint64_t now_ms)
{
	return k->until_ms > now_ms ? (k->until_ms - now_ms + 999) / 1000 : 0;
}

/* --- what is heard --- */

static void tell(struct snoop *s);

static int on_again(sd_event_source *source, uint64_t usec, void *ctx)
{
	tell(ctx);
	return 0;
}

static void on_told(void *ctx, const struct child_exit *how, const char *out, const char *errors)
{
	struct snoop *s = ctx;
	struct err err = {0};

	s->job = NULL;
	if (worker_result(how, errors, &err) < 0)
		log_warn("vm=%s leases are not in its filter: %s", s->g->uuid, err.msg);
	(void)timer_set(s->g->sup->event, &s->again, AGAIN_MS, on_again, s);
}

static void tell(struct snoop *s)
{
	AUTO_STRBUF struct strbuf commands = {0};
	AUTO_JSON json_t *plan = NULL;
	uint64_t now_ms = clock_ms();
	struct err err = {0};

	for (size_t i = 0; i < VM_NICS_MAX; i++) {
		struct listener *l = s->nics[i];

		for (size_t k = 0; l && k < l->count; k++) {
			if (!l->known[k].told)
				put_commands(&commands, l->tap, &l->known[k].what,
					     life_of(&l->known[k], now_ms));
			l->known[k].told = true;
		}
	}
	if (commands.len == 0)
		return;
	plan = json_pack("{s:s}", "nft", commands.data);
	if (worker_run(s->g->sup->event, plan, -1, on_told, s, &s->job, &err) < 0)
		log_warn("vm=%s %s", s->g->uuid, err.msg);
}

/* Its place among those known; of the full ones that which ended goes. NULL: there is none. */
static struct known *place_of(struct listener *l, const struct heard *h, uint64_t now_ms)
{
	struct known *free_one = NULL;

	for (size_t i = 0; i < l->count; i++) {
		struct known *k = &l->known[i];

		if (k->what.prefix == h->prefix &&
		    memcmp(k->what.address, h->address, sizeof(h->address)) == 0)
			return k;
		if (k->until_ms <= now_ms && k->told)
			free_one = k;
	}
	return l->count < KNOWN_MAX ? &l->known[l->count++] : free_one;
}

static void take(struct listener *l, const struct heard *h)
{
	uint64_t now_ms = clock_ms(), life_s = h->seconds < LIFE_MAX_S ? h->seconds : LIFE_MAX_S;
	struct known *k;

	if (h->v6 ? !l->v6 : !l->v4)
		return;
	k = place_of(l, h, now_ms);
	if (k)
		*k = (struct known){.what = *h, .until_ms = life_s ? now_ms + life_s * 1000 : 0};
}

static int on_frame(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct listener *l = ctx;
	struct snoop *s = l->snoop;
	uint8_t frame[FRAME_MAX];
	int armed = SD_EVENT_OFF;

	for (int i = 0; i < READS_MAX; i++) {
		struct sockaddr_ll from = {0};
		socklen_t size = sizeof(from);
		struct heard heard[HEARD_MAX];
		ssize_t n = recvfrom(fd, frame, sizeof(frame), MSG_DONTWAIT,
				     (struct sockaddr *)&from, &size);
		size_t count;

		if (n <= 0)
			break;
		count = heard_in(frame, (size_t)n, l->mac, from.sll_pkttype == PACKET_OUTGOING,
				 heard);
		for (size_t k = 0; k < count; k++)
			take(l, &heard[k]);
	}
	if (s->again)
		(void)sd_event_source_get_enabled(s->again, &armed);
	if (!s->job && armed == SD_EVENT_OFF)
		tell(s);
	return 0;
}

/* --- listening --- */

/* DHCP, DHCPv6 and router advertisements; of anything else nothing is copied. */
static struct sock_filter interesting[] = {
	BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 8),
	BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 23),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_UDP, 0, 16),
	BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 20),
	BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x3fff, 14, 0),
	BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 14),
	BPF_STMT(BPF_LD | BPF_W | BPF_IND, 14), /* both ports */
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 67u << 16 | 68, 10, 0),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 68u << 16 | 67, 9, 10),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IPV6, 0, 9),
	BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 20),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_ICMPV6, 0, 2),
	BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 54),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 134, 4, 5),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_UDP, 0, 4),
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 54),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 547u << 16 | 546, 1, 0),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 546u << 16 | 547, 0, 1),
	BPF_STMT(BPF_RET | BPF_K, FRAME_MAX),
	BPF_STMT(BPF_RET | BPF_K, 0),
};

/* Bound only when its filter is there: no other frame is ever queued. */
static int open_socket(const char *tap)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET,
				 .sll_protocol = htons(ETH_P_ALL),
				 .sll_ifindex = (int)if_nametoindex(tap)};
	const struct sock_fprog program = {.len = ARRAY_SIZE(interesting), .filter = interesting};
	AUTO_FD int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int bytes = SOCKET_BYTES;

	if (fd < 0 || at.sll_ifindex == 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)) < 0 ||
	    bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		return at.sll_ifindex ? -errno : -ENODEV;
	return steal_fd(&fd);
}

static void close_one(struct listener **at)
{
	if (*at)
		sd_event_source_disable_unref((*at)->source);
	free(steal_ptr(*at));
}

static void open_one(struct snoop *s, size_t i, const char *tap, const struct nic *n)
{
	struct listener *l = xcalloc(1, sizeof(*l));
	AUTO_FD int fd = open_socket(tap);
	int r = fd < 0 ? fd
		       : sd_event_add_io(s->g->sup->event, &l->source, fd, EPOLLIN, on_frame, l);

	if (r < 0) {
		log_warn("vm=%s leases on %s are not followed: %s", s->g->uuid, tap, strerror(-r));
		free(l);
		return;
	}
	(void)sd_event_source_set_io_fd_own(l->source, true);
	(void)steal_fd(&fd);
	l->snoop = s;
	l->index = i;
	memcpy(l->tap, tap, strlen(tap) + 1);
	for (size_t k = 0; k < MAC_LEN; k++)
		l->mac[k] = (uint8_t)strtoul(n->mac + 3 * k, NULL, 16);
	s->nics[i] = l;
}

void snoop_nic(struct guest *g, size_t i, const char *tap, const struct nic *n)
{
	bool v4 = n && filter_learns(n, false), v6 = n && filter_learns(n, true);

	if (!v4 && !v6) {
		if (g->snoop)
			close_one(&g->snoop->nics[i]);
		return;
	}
	if (!g->snoop) {
		g->snoop = xcalloc(1, sizeof(*g->snoop));
		g->snoop->g = g;
	}
	if (g->snoop->nics[i] && !str_eq(g->snoop->nics[i]->tap, tap))
		close_one(&g->snoop->nics[i]);
	if (!g->snoop->nics[i])
		open_one(g->snoop, i, tap, n);
	if (g->snoop->nics[i]) {
		g->snoop->nics[i]->v4 = v4;
		g->snoop->nics[i]->v6 = v6;
	}
}

void snoop_stop(struct guest *g)
{
	struct snoop *s = g->snoop;

	if (!s)
		return;
	for (size_t i = 0; i < VM_NICS_MAX; i++)
		close_one(&s->nics[i]);
	if (s->job)
		child_forget(s->job);
	sd_event_source_disable_unref(s->again);
	free(s);
	g->snoop = NULL;
}

bool snoop_busy(const struct guest *g)
{
	return g->snoop && g->snoop->job;
}

/* --- for new sets --- */

static void put_neighbours(const struct guest *g, const char *tap, const struct nic *n,
			   struct strbuf *sb)
{
	AUTO_JSON json_t *known = neigh_facts(g);
	const char *address;
	json_t *since;

	json_object_foreach (json_object_get(known, n->mac), address, since) {
		bool v6 = strchr(address, ':') != NULL;
		struct heard h = {.v6 = v6, .prefix = v6 ? 128 : 32};

		if (filter_learns(n, v6) &&
		    inet_pton(v6 ? AF_INET6 : AF_INET, address, h.address) == 1)
			put_commands(sb, tap, &h, FILTER_LIFE_S);
	}
}

void snoop_known(const struct guest *g, size_t i, const char *tap, const struct nic *n,
		 struct strbuf *sb)
{
	const struct listener *l = g->snoop ? g->snoop->nics[i] : NULL;
	uint64_t now_ms = clock_ms();

	if (!l || l->count == 0)
		put_neighbours(g, tap, n, sb);
	for (size_t k = 0; l && k < l->count; k++) {
		const struct known *one = &l->known[k];

		if (filter_learns(n, one->what.v6))
			put_commands(sb, tap, &one->what, life_of(one, now_ms));
	}
}
