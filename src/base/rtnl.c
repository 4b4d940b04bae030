/* SPDX-License-Identifier: Apache-2.0 */
/* Requests by rtnetlink; see rtnl.h. Answers are read whole: the kernel never splits a message. */
#include "base/rtnl.h"

#include <assert.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/err.h"
#include "base/mem.h"

#define ANSWER_MAX 65536

/* --- messages --- */

static void append(struct rtnl_msg *m, const void *data, size_t len)
{
	size_t at = NLMSG_ALIGN(m->head.nlmsg_len);

	assert(at + len <= sizeof(m->bytes));
	if (len)
		memcpy(m->bytes + at, data, len);
	m->head.nlmsg_len = (uint32_t)(at + len);
}

void rtnl_begin(struct rtnl_msg *m, uint16_t type, uint16_t flags, const void *body, size_t len)
{
	memset(m, 0, sizeof(*m));
	m->head.nlmsg_len = NLMSG_HDRLEN;
	m->head.nlmsg_type = type;
	m->head.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	append(m, body, len);
}

void rtnl_put(struct rtnl_msg *m, uint16_t type, const void *data, size_t len)
{
	struct rtattr a = {.rta_len = (uint16_t)RTA_LENGTH(len), .rta_type = type};

	append(m, &a, sizeof(a));
	append(m, data, len);
}

void rtnl_put_u32(struct rtnl_msg *m, uint16_t type, uint32_t value)
{
	rtnl_put(m, type, &value, sizeof(value));
}

void rtnl_put_str(struct rtnl_msg *m, uint16_t type, const char *text)
{
	rtnl_put(m, type, text, strlen(text) + 1);
}

size_t rtnl_enter(struct rtnl_msg *m, uint16_t type)
{
	size_t at = NLMSG_ALIGN(m->head.nlmsg_len);

	rtnl_put(m, type, NULL, 0);
	return at;
}

void rtnl_leave(struct rtnl_msg *m, size_t at)
{
	struct rtattr a;

	memcpy(&a, m->bytes + at, sizeof(a));
	a.rta_len = (uint16_t)(m->head.nlmsg_len - at);
	memcpy(m->bytes + at, &a, sizeof(a));
}

static void parse(const struct rtattr *a, size_t len, const struct rtattr **table, uint16_t max)
{
	memset(table, 0, (max + 1u) * sizeof(*table));
	for (; RTA_OK(a, len); a = RTA_NEXT(a, len)) {
		uint16_t type = a->rta_type & NLA_TYPE_MASK;

		if (type <= max)
			table[type] = a;
	}
}

void rtnl_attributes(const struct nlmsghdr *h, size_t fixed, const struct rtattr **table,
		     uint16_t max)
{
	size_t skip = NLMSG_SPACE(fixed);

	parse((const struct rtattr *)(const void *)((const char *)h + skip),
	      h->nlmsg_len > skip ? h->nlmsg_len - skip : 0, table, max);
}

void rtnl_nested(const struct rtattr *outer, const struct rtattr **table, uint16_t max)
{
	parse(RTA_DATA(outer), RTA_PAYLOAD(outer), table, max);
}

/* --- asking --- */

int rtnl_open(int *ret_fd, struct err *err)
{
	struct sockaddr_nl self = {.nl_family = AF_NETLINK};
	struct timeval wait = {.tv_sec = RTNL_WAIT_MS / 1000};
	AUTO_FD int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	int on = 1;

	if (fd < 0 || bind(fd, (struct sockaddr *)&self, sizeof(self)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) < 0)
		return err_sys(err, errno, "cannot ask the kernel about the network");
	(void)setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
	*ret_fd = steal_fd(&fd);
	return 0;
}

/* What the kernel adds to a refusal: attributes after the request it repeats. */
static int refused(const struct nlmsghdr *h, struct err *err)
{
	const struct nlmsgerr *e = NLMSG_DATA(h);
	const struct rtattr *table[NLMSGERR_ATTR_MSG + 1] = {NULL};
	size_t fixed = sizeof(*e);
	int code;

	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*e)))
		return err_set(err, EPROTO, "the kernel's answer is cut short");
	code = -e->error;
	if (code <= 0)
		return 0;
	if (!(h->nlmsg_flags & NLM_F_CAPPED) && e->msg.nlmsg_len >= NLMSG_HDRLEN)
		fixed += e->msg.nlmsg_len - NLMSG_HDRLEN;
	if (h->nlmsg_flags & NLM_F_ACK_TLVS)
		rtnl_attributes(h, fixed, table, NLMSGERR_ATTR_MSG);
	if (!table[NLMSGERR_ATTR_MSG])
		return err_set(err, code, "%s", strerror(code));
	return err_set(err, code, "%s (%.*s)", strerror(code),
		       (int)strnlen(RTA_DATA(table[NLMSGERR_ATTR_MSG]),
				    RTA_PAYLOAD(table[NLMSGERR_ATTR_MSG])),
		       (const char *)RTA_DATA(table[NLMSGERR_ATTR_MSG]));
}

/* Read answers of this request until one ends it. */
static int answers(int fd, uint32_t seq, rtnl_each fn, void *ctx, struct err *err)
{
	AUTO_FREE char *buf = xmalloc(ANSWER_MAX);

	for (;;) {
		ssize_t n = recv(fd, buf, ANSWER_MAX, 0);
		const struct nlmsghdr *h = (const struct nlmsghdr *)(const void *)buf;
		size_t left = n > 0 ? (size_t)n : 0;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_sys(err, n < 0 && errno != EAGAIN ? errno : ETIMEDOUT,
				       "the kernel does not answer about the network");
		for (; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
			if (h->nlmsg_seq != seq)
				continue; /* of a request before, which we gave up */
			if (h->nlmsg_type == NLMSG_ERROR)
				return refused(h, err);
			if (h->nlmsg_type == NLMSG_DONE)
				return 0;
			if (fn)
				fn(ctx, h);
		}
	}
}

static int ask(int fd, struct rtnl_msg *m, uint16_t flags, rtnl_each fn, void *ctx, struct err *err)
{
	static uint32_t seq;

	m->head.nlmsg_seq = ++seq;
	m->head.nlmsg_flags |= flags;
	if (send(fd, m->bytes, m->head.nlmsg_len, 0) < 0)
		return err_sys(err, errno, "cannot ask the kernel about the network");
	return answers(fd, m->head.nlmsg_seq, fn, ctx, err);
}

int rtnl_ask(int fd, struct rtnl_msg *m, struct err *err)
{
	return ask(fd, m, NLM_F_ACK, NULL, NULL, err);
}

int rtnl_dump(int fd, struct rtnl_msg *m, rtnl_each fn, void *ctx, struct err *err)
{
	return ask(fd, m, NLM_F_DUMP, fn, ctx, err);
}

/* --- links --- */

static uint32_t u32_of(const struct rtattr *a)
{
	uint32_t value = 0;

	if (a && RTA_PAYLOAD(a) >= sizeof(value))
		memcpy(&value, RTA_DATA(a), sizeof(value));
	return value;
}

static void take_kind(const struct rtattr *info, struct rtnl_link *link)
{
	const struct rtattr *inside[IFLA_INFO_MAX + 1], *bridge[IFLA_BR_MAX + 1];
	const struct rtattr *kind, *vlan = NULL, *pvid = NULL;

	rtnl_nested(info, inside, IFLA_INFO_MAX);
	kind = inside[IFLA_INFO_KIND];
	if (kind)
		memcpy(link->kind, RTA_DATA(kind),
		       RTA_PAYLOAD(kind) < sizeof(link->kind) ? RTA_PAYLOAD(kind)
							      : sizeof(link->kind) - 1);
	if (inside[IFLA_INFO_DATA] && strcmp(link->kind, "bridge") == 0) {
		rtnl_nested(inside[IFLA_INFO_DATA], bridge, IFLA_BR_MAX);
		vlan = bridge[IFLA_BR_VLAN_FILTERING];
		pvid = bridge[IFLA_BR_VLAN_DEFAULT_PVID];
	}
	if (pvid && RTA_PAYLOAD(pvid) >= sizeof(link->default_pvid))
		memcpy(&link->default_pvid, RTA_DATA(pvid), sizeof(link->default_pvid));
	link->vlan_filters = vlan && RTA_PAYLOAD(vlan) >= 1 && *(const uint8_t *)RTA_DATA(vlan);
}

static void take_link(void *ctx, const struct nlmsghdr *h)
{
	const struct ifinfomsg *info = NLMSG_DATA(h);
	const struct rtattr *table[IFLA_MAX + 1];
	struct rtnl_link *link = ctx;

	if (h->nlmsg_type != RTM_NEWLINK || h->nlmsg_len < NLMSG_LENGTH(sizeof(*info)))
		return;
	rtnl_attributes(h, sizeof(*info), table, IFLA_MAX);
	link->index = info->ifi_index;
	link->mtu = u32_of(table[IFLA_MTU]);
	link->master = (int)u32_of(table[IFLA_MASTER]);
	if (table[IFLA_LINKINFO])
		take_kind(table[IFLA_LINKINFO], link);
}

int rtnl_link(int fd, const char *name, struct rtnl_link *ret, struct err *err)
{
	struct ifinfomsg body = {.ifi_family = AF_UNSPEC};
	struct rtnl_link link = {0};
	struct rtnl_msg m;
	int r;

	if (strlen(name) >= IFNAMSIZ)
		return err_set(err, ENODEV, "no interface has a name as long as '%s'", name);
	rtnl_begin(&m, RTM_GETLINK, 0, &body, sizeof(body));
	rtnl_put_str(&m, IFLA_IFNAME, name);
	r = ask(fd, &m, NLM_F_ACK, take_link, &link, err);
	if (r == 0)
		*ret = link;
	return r;
}
