/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to the kernel's network configuration (rtnetlink(7)): messages are built in a bounded
 * buffer, sent, and the answer is waited for, at most RTNL_WAIT_MS. For programs that may wait;
 * an event loop leaves this to a child process.
 */
#pragma once

#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define RTNL_WAIT_MS 5000
#define RTNL_MSG_MAX 1024 /* bytes of a request */

struct rtnl_msg {
	union {
		struct nlmsghdr head;
		char bytes[RTNL_MSG_MAX];
	};
};

/* Begin a message of this type; body is its fixed part (struct ifinfomsg, ...). */
void rtnl_begin(struct rtnl_msg *m, uint16_t type, uint16_t flags, const void *body, size_t len);
/* Append an attribute. What does not fit is our own bug. */
void rtnl_put(struct rtnl_msg *m, uint16_t type, const void *data, size_t len);
void rtnl_put_u32(struct rtnl_msg *m, uint16_t type, uint32_t value);
void rtnl_put_str(struct rtnl_msg *m, uint16_t type, const char *text);
/* Open a nested attribute; what follows is in it until rtnl_leave(m, what this returned). */
size_t rtnl_enter(struct rtnl_msg *m, uint16_t type);
void rtnl_leave(struct rtnl_msg *m, size_t at);

/* A socket for requests, close-on-exec; the caller closes it. */
int rtnl_open(int *ret_fd, struct err *err);

/* Send m and wait for its acknowledgement; the kernel's errno, with its own words when it has any.
 */
int rtnl_ask(int fd, struct rtnl_msg *m, struct err *err);

/* Send m (NLM_F_DUMP is added) and call fn for each message of the answer. */
typedef void (*rtnl_each)(void *ctx, const struct nlmsghdr *h);
int rtnl_dump(int fd, struct rtnl_msg *m, rtnl_each fn, void *ctx, struct err *err);

/* The attributes of a message after its fixed part: table[max + 1], NULL where absent. */
void rtnl_attributes(const struct nlmsghdr *h, size_t fixed, const struct rtattr **table,
		     uint16_t max);
/* The attributes inside another one. */
void rtnl_nested(const struct rtattr *outer, const struct rtattr **table, uint16_t max);

struct rtnl_link {
	int index;
	int master; /* 0: none */
	uint32_t mtu;
	char kind[16];         /* "bridge", "tun", ...; "" for hardware */
	bool vlan_filters;     /* a bridge that filters VLANs */
	uint16_t default_pvid; /* the VLAN it puts new ports into; 0: none */
};

/* The interface of this name; -ENODEV when there is none. */
int rtnl_link(int fd, const char *name, struct rtnl_link *ret, struct err *err);
