/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of guests as the host's neighbour table knows them, by the MACs of their NICs. The
 * kernel tells of every change; nothing is polled. A guest that never spoke with the host has none.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/neighbour.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rtnl.h"
#include "base/strbuf.h"
#include "vmstated/parts.h"

#define READS_MAX     16 /* per wake-up: others wait too */
#define BUFFER_SIZE   32768
#define ADDRESSES_MAX 32 /* per NIC */
#define MAC_LEN       6
#define GONE          (NUD_FAILED | NUD_INCOMPLETE)

static bool same_mac(const char *text, const char *mac)
{
	return text && strcasecmp(text, mac) == 0;
}

static struct guest *owner_of(const struct supervisor *sup, const char *mac)
{
	for (struct guest *g = sup->guests; g; g = g->next) {
		for (size_t i = 0; g->pid > 0 && g->started && i < g->started->nnics; i++) {
			if (same_mac(g->started->nics[i]->mac, mac))
				return g;
		}
	}
	return NULL;
}

/* Put the address on the list or take it off; whether that changed anything. */
static bool note(struct guest *g, const char *mac, const char *ip, bool there)
{
	json_t *list, *one;
	size_t i;

	if (!g->addresses)
		g->addresses = json_object();
	list = json_object_get(g->addresses, mac);
	if (!list) {
		list = json_array();
		(void)json_object_set_new(g->addresses, mac, list);
	}
	json_array_foreach (list, i, one) {
		if (str_eq(json_string_value(one), ip))
			return !there && json_array_remove(list, i) == 0;
	}
	return there && json_array_size(list) < ADDRESSES_MAX &&
	       json_array_append_new(list, json_string(ip)) == 0;
}

static void take(struct supervisor *sup, const struct nlmsghdr *h)
{
	const struct ndmsg *nd = NLMSG_DATA(h);
	const struct rtattr *table[NDA_MAX + 1];
	char ip[INET6_ADDRSTRLEN], mac[3 * MAC_LEN];
	const unsigned char *ll;
	struct guest *g;
	bool there;

	if ((h->nlmsg_type != RTM_NEWNEIGH && h->nlmsg_type != RTM_DELNEIGH) ||
	    h->nlmsg_len < NLMSG_LENGTH(sizeof(*nd)))
		return;
	rtnl_attributes(h, sizeof(*nd), table, NDA_MAX);
	if (!table[NDA_DST] || !table[NDA_LLADDR] || RTA_PAYLOAD(table[NDA_LLADDR]) != MAC_LEN ||
	    RTA_PAYLOAD(table[NDA_DST]) < (nd->ndm_family == AF_INET ? 4u : 16u) ||
	    !inet_ntop(nd->ndm_family, RTA_DATA(table[NDA_DST]), ip, sizeof(ip)))
		return;
	ll = RTA_DATA(table[NDA_LLADDR]);
	(void)snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", ll[0], ll[1], ll[2],
		       ll[3], ll[4], ll[5]);
	g = owner_of(sup, mac);
	there = h->nlmsg_type == RTM_NEWNEIGH && !(nd->ndm_state & GONE);
	if (g && note(g, mac, ip, there))
		guest_publish(g);
}

static int on_neighbours(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	AUTO_FREE char *buf = xmalloc(BUFFER_SIZE);
	struct supervisor *sup = userdata;

	for (int i = 0; i < READS_MAX; i++) {
		ssize_t n = recv(fd, buf, BUFFER_SIZE, MSG_DONTWAIT);
		size_t left = n > 0 ? (size_t)n : 0;

		if (n < 0 && errno == ENOBUFS) /* some were lost: ask for all */
			neigh_refresh(sup);
		if (n <= 0)
			break;
		for (const struct nlmsghdr *h = (const struct nlmsghdr *)(const void *)buf;
		     NLMSG_OK(h, left); h = NLMSG_NEXT(h, left))
			take(sup, h);
	}
	return 0;
}

void neigh_refresh(struct supervisor *sup)
{
	struct ndmsg body = {.ndm_family = AF_UNSPEC};
	struct rtnl_msg m;

	if (!sup->neighbours)
		return;
	rtnl_begin(&m, RTM_GETNEIGH, NLM_F_DUMP, &body, sizeof(body));
	(void)send(sd_event_source_get_io_fd(sup->neighbours), m.bytes, m.head.nlmsg_len,
		   MSG_DONTWAIT);
}

void neigh_start(struct supervisor *sup)
{
	struct sockaddr_nl self = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_NEIGH};
	AUTO_FD int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);

	if (fd < 0 || bind(fd, (struct sockaddr *)&self, sizeof(self)) < 0 ||
	    sd_event_add_io(sup->event, &sup->neighbours, fd, EPOLLIN, on_neighbours, sup) < 0) {
		log_warn("addresses of guests are not known: %s", strerror(errno));
		return;
	}
	(void)sd_event_source_set_io_fd_own(sup->neighbours, true);
	(void)steal_fd(&fd);
	neigh_refresh(sup);
}

void neigh_forget(struct guest *g)
{
	json_decref(g->addresses);
	g->addresses = NULL;
}
