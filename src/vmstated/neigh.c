/* SPDX-License-Identifier: Apache-2.0 */
/* The neighbour table by rtnetlink, on one socket of the loop; see neigh.h. */
#include "vmstated/neigh.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/neighbour.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rtnl.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "vmstated/parts.h"

#define READS_MAX   16 /* per wake-up: others wait too */
#define BUFFER_SIZE 32768
#define SEEN_MAX    128     /* addresses per guest */
#define PROBE_MS    300000u /* between two questions to the silent */
#define MAC_LEN     6
#define MAC_TEXT    (3 * MAC_LEN)
#define GONE        (NUD_FAILED | NUD_INCOMPLETE)

struct seen {
	char mac[MAC_TEXT], ip[INET6_ADDRSTRLEN];
	int ifindex;
	bool stale, doubted;
	int64_t since_ms;
	struct seen *next;
};

struct neigh {
	sd_event_source *source, *probe;
	bool probing; /* the timer is set */
	bool lost;    /* the kernel had more to tell than we took */
};

static struct guest *owner_of(const struct supervisor *sup, const char *mac)
{
	for (struct guest *g = sup->guests; g; g = g->next) {
		for (size_t i = 0; g->pid > 0 && g->started && i < g->started->nnics; i++) {
			const char *own = g->started->nics[i]->mac;

			if (own && strcasecmp(own, mac) == 0)
				return g;
		}
	}
	return NULL;
}

/* --- what is known --- */

/* Take the address at an interface from all but the MAC that has it; NULL: nobody has. */
static void remove_from(struct supervisor *sup, int ifindex, const char *ip, const char *but)
{
	for (struct guest *g = sup->guests; g; g = g->next) {
		for (struct seen **at = &g->seen; *at; at = &(*at)->next) {
			struct seen *s = *at;

			if (s->ifindex != ifindex || !str_eq(s->ip, ip) ||
			    (but && str_eq(s->mac, but)))
				continue;
			*at = s->next;
			free(s);
			guest_publish(g);
			break;
		}
	}
}

static int on_probe(sd_event_source *source, uint64_t usec, void *userdata);

static void probe_later(struct supervisor *sup)
{
	if (sup->neigh->probing)
		return;
	sup->neigh->probing = true;
	(void)timer_set(sup->event, &sup->neigh->probe, PROBE_MS, on_probe, sup);
}

static void note(struct guest *g, const char *mac, const char *ip, const struct ndmsg *nd)
{
	struct seen **at = &g->seen;
	size_t count = 0;
	bool known;

	for (; *at && !(str_eq((*at)->ip, ip) && str_eq((*at)->mac, mac)); at = &(*at)->next)
		count++;
	known = *at != NULL;
	if (!known && count == SEEN_MAX)
		return;
	if (!known) {
		*at = xcalloc(1, sizeof(**at));
		(*at)->since_ms = clock_wall_ms();
		memcpy((*at)->mac, mac, strlen(mac) + 1);
		memcpy((*at)->ip, ip, strlen(ip) + 1);
	}
	(*at)->ifindex = nd->ndm_ifindex;
	(*at)->doubted = false;
	(*at)->stale = (nd->ndm_state & NUD_STALE) != 0;
	if ((*at)->stale)
		probe_later(g->sup);
	if (!known)
		guest_publish(g);
}

json_t *neigh_facts(const struct guest *g)
{
	json_t *out = g->seen ? json_object() : NULL;
	char since[ISO_TIME_LEN];

	for (const struct seen *s = g->seen; s; s = s->next) {
		json_t *list = json_object_get(out, s->mac);

		if (!list) {
			list = json_object();
			(void)json_object_set_new(out, s->mac, list);
		}
		json_put_str(list, s->ip, clock_iso(s->since_ms, since, sizeof(since)));
	}
	return out;
}

void neigh_forget(struct guest *g)
{
	while (g->seen) {
		struct seen *s = g->seen;

		g->seen = s->next;
		free(s);
	}
}

/* --- what the kernel tells --- */

static void take(struct supervisor *sup, const struct nlmsghdr *h)
{
	const struct ndmsg *nd = NLMSG_DATA(h);
	const struct rtattr *table[NDA_MAX + 1];
	char ip[INET6_ADDRSTRLEN], mac[MAC_TEXT];
	const unsigned char *ll;
	struct guest *g = NULL;

	if ((h->nlmsg_type != RTM_NEWNEIGH && h->nlmsg_type != RTM_DELNEIGH) ||
	    h->nlmsg_len < NLMSG_LENGTH(sizeof(*nd)))
		return;
	rtnl_attributes(h, sizeof(*nd), table, NDA_MAX);
	if (!table[NDA_DST] ||
	    RTA_PAYLOAD(table[NDA_DST]) < (nd->ndm_family == AF_INET ? 4u : 16u) ||
	    !inet_ntop(nd->ndm_family, RTA_DATA(table[NDA_DST]), ip, sizeof(ip)))
		return;
	/* One that failed has no MAC any more. */
	if (h->nlmsg_type == RTM_DELNEIGH || (nd->ndm_state & GONE) || !table[NDA_LLADDR] ||
	    RTA_PAYLOAD(table[NDA_LLADDR]) != MAC_LEN) {
		remove_from(sup, nd->ndm_ifindex, ip, NULL);
		return;
	}
	ll = RTA_DATA(table[NDA_LLADDR]);
	(void)snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", ll[0], ll[1], ll[2],
		       ll[3], ll[4], ll[5]);
	remove_from(sup, nd->ndm_ifindex, ip, mac);
	g = owner_of(sup, mac);
	if (g)
		note(g, mac, ip, nd);
}

/* The whole table was told. Where some of its changes were lost before, it is asked for once more,
 * and what is not in it then is gone. */
static void told_all(struct supervisor *sup)
{
	bool lost = sup->neigh->lost;

	for (struct guest *g = sup->guests; g; g = g->next) {
		for (struct seen **at = &g->seen, *s; (s = *at) != NULL;) {
			if (lost || !s->doubted) {
				s->doubted = lost;
				at = &s->next;
				continue;
			}
			*at = s->next;
			free(s);
			guest_publish(g);
		}
	}
	sup->neigh->lost = false;
	if (lost)
		neigh_refresh(sup);
}

static int on_neighbours(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	AUTO_FREE char *buf = xmalloc(BUFFER_SIZE);
	struct supervisor *sup = userdata;

	for (int i = 0; i < READS_MAX; i++) {
		ssize_t n = recv(fd, buf, BUFFER_SIZE, MSG_DONTWAIT);
		size_t left = n > 0 ? (size_t)n : 0;

		if (n < 0 && errno == ENOBUFS) {
			sup->neigh->lost = true;
			neigh_refresh(sup);
			continue;
		}
		if (n <= 0)
			break;
		for (const struct nlmsghdr *h = (const struct nlmsghdr *)(const void *)buf;
		     NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
			if (h->nlmsg_type == NLMSG_DONE)
				told_all(sup);
			else
				take(sup, h);
		}
	}
	return 0;
}

/* --- what it is asked --- */

static void ask(const struct supervisor *sup, const struct rtnl_msg *m)
{
	(void)send(sd_event_source_get_io_fd(sup->neigh->source), m->bytes, m->head.nlmsg_len,
		   MSG_DONTWAIT);
}

void neigh_refresh(struct supervisor *sup)
{
	struct ndmsg body = {.ndm_family = AF_UNSPEC};
	struct rtnl_msg m;

	if (!sup->neigh)
		return;
	rtnl_begin(&m, RTM_GETNEIGH, NLM_F_DUMP, &body, sizeof(body));
	ask(sup, &m);
}

/* As if a packet were to be sent there: the kernel asks for the address, some times. */
static void probe_one(const struct supervisor *sup, const struct seen *s)
{
	struct ndmsg body = {.ndm_family = strchr(s->ip, ':') ? AF_INET6 : AF_INET,
			     .ndm_ifindex = s->ifindex,
			     .ndm_flags = NTF_USE};
	unsigned char address[sizeof(struct in6_addr)];
	struct rtnl_msg m;

	(void)inet_pton(body.ndm_family, s->ip, address);
	rtnl_begin(&m, RTM_NEWNEIGH, 0, &body, sizeof(body));
	rtnl_put(&m, NDA_DST, address, body.ndm_family == AF_INET ? 4 : 16);
	ask(sup, &m);
}

void neigh_probe(struct supervisor *sup)
{
	if (!sup->neigh)
		return;
	for (const struct guest *g = sup->guests; g; g = g->next) {
		for (const struct seen *s = g->seen; s; s = s->next) {
			if (s->stale)
				probe_one(sup, s);
		}
	}
}

static int on_probe(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct supervisor *sup = userdata;

	sup->neigh->probing = false; /* what they say, or that they went silent again, sets it */
	neigh_probe(sup);
	return 0;
}

void neigh_start(struct supervisor *sup)
{
	struct sockaddr_nl self = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_NEIGH};
	AUTO_FD int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	sd_event_source *source = NULL;

	if (fd < 0 || bind(fd, (struct sockaddr *)&self, sizeof(self)) < 0 ||
	    sd_event_add_io(sup->event, &source, fd, EPOLLIN, on_neighbours, sup) < 0) {
		log_warn("addresses of guests are not known: %s", strerror(errno));
		return;
	}
	(void)sd_event_source_set_io_fd_own(source, true);
	(void)steal_fd(&fd);
	sup->neigh = xcalloc(1, sizeof(*sup->neigh));
	sup->neigh->source = source;
	neigh_refresh(sup);
}

void neigh_stop(struct supervisor *sup)
{
	if (!sup->neigh)
		return;
	sd_event_source_disable_unref(sup->neigh->source);
	sd_event_source_disable_unref(sup->neigh->probe);
	free(sup->neigh);
	sup->neigh = NULL;
}
