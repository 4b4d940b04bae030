/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links of the host; see links.h. A list under way and events come on one socket: what a list did
 * not name when it ends is gone. When the kernel lost messages, or says that a list was disturbed,
 * everything is listed again. Source: rtnetlink(7).
 */
#include "vminfod/links.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"

#define READ_SIZE (64u << 10)
#define READS_MAX 64 /* of one go */
#define MAC_LEN   6

struct link {
	int index, master;
	uint32_t mtu, round;
	uint8_t state;
	char name[IFNAMSIZ];
	char kind[IFNAMSIZ];
	char mac[MAC_LEN * 3];
};

struct links {
	int fd;
	sd_event_source *source;
	struct link *items; /* by index */
	size_t count;
	uint32_t round; /* of listing; odd numbers of seq are not used */
	bool listing, again;
	int64_t lost_wall_ms;
	char *buffer;
};

static const char *const states[] = {"unknown", "notpresent", "down", "lowerlayerdown",
				     "testing", "dormant",    "up"};

static void lose(struct links *l, int error)
{
	if (!l->lost_wall_ms)
		log_warn("the list of network links is not kept: %s", strerror(error));
	l->lost_wall_ms = l->lost_wall_ms ? l->lost_wall_ms : clock_wall_ms();
	l->listing = false;
}

static void list(struct links *l)
{
	struct {
		struct nlmsghdr head;
		struct ifinfomsg info;
	} ask = {.head = {.nlmsg_len = sizeof(ask),
			  .nlmsg_type = RTM_GETLINK,
			  .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
			  .nlmsg_seq = ++l->round}};

	l->again = false;
	l->listing = true;
	if (send(l->fd, &ask, sizeof(ask), MSG_DONTWAIT) < 0)
		lose(l, errno);
}

/* Where index is, or would be. */
static size_t place_of(const struct links *l, int index)
{
	size_t at = 0;

	while (at < l->count && l->items[at].index < index)
		at++;
	return at;
}

static void drop(struct links *l, size_t at)
{
	l->count--;
	memmove(&l->items[at], &l->items[at + 1], (l->count - at) * sizeof(*l->items));
}

static void put_text(char *to, size_t size, const struct rtattr *a)
{
	size_t len = RTA_PAYLOAD(a);

	len = len < size ? len : size - 1;
	memcpy(to, RTA_DATA(a), len);
	to[len] = '\0';
}

static uint32_t number(const struct rtattr *a)
{
	uint32_t n = 0;

	memcpy(&n, RTA_DATA(a), RTA_PAYLOAD(a) < sizeof(n) ? RTA_PAYLOAD(a) : sizeof(n));
	return n;
}

static void put_mac(struct link *link, const struct rtattr *a)
{
	const uint8_t *b = RTA_DATA(a);

	if (RTA_PAYLOAD(a) == MAC_LEN)
		(void)snprintf(link->mac, sizeof(link->mac), "%02x:%02x:%02x:%02x:%02x:%02x", b[0],
			       b[1], b[2], b[3], b[4], b[5]);
}

static void put_kind(struct link *link, const struct rtattr *nested)
{
	int len = (int)RTA_PAYLOAD(nested);

	for (const struct rtattr *a = RTA_DATA(nested); RTA_OK(a, len); a = RTA_NEXT(a, len)) {
		if (a->rta_type == IFLA_INFO_KIND)
			put_text(link->kind, sizeof(link->kind), a);
	}
}

static void put_attribute(struct link *link, const struct rtattr *a)
{
	switch (a->rta_type & NLA_TYPE_MASK) {
	case IFLA_IFNAME:
		put_text(link->name, sizeof(link->name), a);
		break;
	case IFLA_ADDRESS:
		put_mac(link, a);
		break;
	case IFLA_MTU:
		link->mtu = number(a);
		break;
	case IFLA_MASTER:
		link->master = (int)number(a);
		break;
	case IFLA_OPERSTATE:
		link->state = (uint8_t)number(a);
		break;
	case IFLA_LINKINFO:
		put_kind(link, a);
		break;
	}
}

static void take_link(struct links *l, const struct nlmsghdr *h)
{
	const struct ifinfomsg *info = NLMSG_DATA(h);
	int len = (int)h->nlmsg_len - (int)NLMSG_LENGTH(sizeof(*info));
	struct link link = {.index = info->ifi_index, .round = l->round};
	size_t at = place_of(l, info->ifi_index);
	bool known = at < l->count && l->items[at].index == info->ifi_index;

	/* A port of a bridge goes by its own family when it leaves it. */
	if (len < 0 || info->ifi_family != AF_UNSPEC)
		return;
	if (h->nlmsg_type == RTM_DELLINK) {
		if (known)
			drop(l, at);
		return;
	}
	for (const struct rtattr *a = IFLA_RTA(info); RTA_OK(a, len); a = RTA_NEXT(a, len))
		put_attribute(&link, a);
	if (!known && l->count == LINKS_MAX)
		return;
	if (!known) {
		l->items = xrealloc(l->items, (l->count + 1) * sizeof(*l->items));
		memmove(&l->items[at + 1], &l->items[at], (l->count - at) * sizeof(*l->items));
		l->count++;
	}
	l->items[at] = link;
}

static void end_list(struct links *l)
{
	l->listing = false;
	for (size_t i = 0; i < l->count;) {
		if (l->items[i].round != l->round)
			drop(l, i);
		else
			i++;
	}
	l->lost_wall_ms = 0;
	if (l->again)
		list(l);
}

static void take_message(struct links *l, const struct nlmsghdr *h)
{
	bool of_list = l->listing && h->nlmsg_seq == l->round && h->nlmsg_pid != 0;

	if (of_list && (h->nlmsg_flags & NLM_F_DUMP_INTR))
		l->again = true;
	if (h->nlmsg_type == NLMSG_DONE && of_list)
		end_list(l);
	else if (h->nlmsg_type == NLMSG_ERROR && of_list)
		lose(l, EIO);
	else if ((h->nlmsg_type == RTM_NEWLINK || h->nlmsg_type == RTM_DELLINK) &&
		 h->nlmsg_len >= NLMSG_LENGTH(sizeof(struct ifinfomsg)))
		take_link(l, h);
}

static ssize_t take_some(struct links *l)
{
	struct sockaddr_nl from = {0};
	socklen_t from_len = sizeof(from);
	ssize_t n = recvfrom(l->fd, l->buffer, READ_SIZE, MSG_DONTWAIT | MSG_TRUNC,
			     (struct sockaddr *)&from, &from_len);
	unsigned len;

	if (n < 0)
		return -errno;
	len = (unsigned)n;
	if ((size_t)n > READ_SIZE || from.nl_pid != 0) {
		l->again |= from.nl_pid == 0;
		return n;
	}
	for (const struct nlmsghdr *h = (const void *)l->buffer; NLMSG_OK(h, len);
	     h = NLMSG_NEXT(h, len))
		take_message(l, h);
	return n;
}

static void drain(struct links *l)
{
	ssize_t n = 1;

	for (int i = 0; i < READS_MAX && n > 0; i++) {
		n = take_some(l);
		if (n == -ENOBUFS) { /* messages were lost */
			l->again = true;
			n = 1;
		}
	}
	if (n < 0 && n != -EAGAIN && n != -EINTR)
		lose(l, (int)-n);
	if (l->again && !l->listing)
		list(l);
}

static int on_readable(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	drain(ctx);
	return 0;
}

int links_new(sd_event *event, struct links **ret, struct err *err)
{
	struct sockaddr_nl name = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
	struct links *l = xcalloc(1, sizeof(*l));
	int r = 0;

	l->buffer = xmalloc(READ_SIZE);
	l->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	if (l->fd < 0 || bind(l->fd, (struct sockaddr *)&name, sizeof(name)) < 0)
		r = err_sys(err, errno, "cannot ask for network links");
	if (r == 0) {
		r = sd_event_add_io(event, &l->source, l->fd, EPOLLIN, on_readable, l);
		if (r < 0)
			(void)err_sys(err, -r, "cannot watch network links");
	}
	if (r < 0) {
		links_free(l);
		return r;
	}
	list(l);
	*ret = l;
	return 0;
}

void links_free(struct links *l)
{
	if (!l)
		return;
	(void)sd_event_source_disable_unref(l->source);
	if (l->fd >= 0)
		(void)close(l->fd);
	free(l->items);
	free(l->buffer);
	free(l);
}

static json_t *link_json(const struct links *l, const struct link *link)
{
	json_t *j = json_object();
	size_t at = place_of(l, link->master);

	json_put_str(j, "name", link->name);
	json_put_int(j, "index", link->index);
	json_put_str(j, "kind", *link->kind ? link->kind : NULL);
	json_put_str(j, "mac", *link->mac ? link->mac : NULL);
	json_put_int(j, "mtu", link->mtu);
	json_put_str(j, "state",
		     link->state < ARRAY_SIZE(states) ? states[link->state] : states[0]);
	if (link->master && at < l->count && l->items[at].index == link->master)
		json_put_str(j, "master", l->items[at].name);
	return j;
}

json_t *links_json(struct links *l)
{
	json_t *all = json_array();

	drain(l);
	if (l->listing) /* just asked for; the kernel answers while it is read */
		drain(l);
	for (size_t i = 0; i < l->count; i++)
		(void)json_array_append_new(all, link_json(l, &l->items[i]));
	return all;
}

int64_t links_lost(const struct links *l)
{
	return l->lost_wall_ms;
}
