/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases as DHCP servers write them down: dnsmasq, ISC dhcpd, Kea's CSV of both families. Pure;
 * what a file says is anybody's word, so lines that make no sense are passed over.
 * Source: dnsmasq(8), dhcpd.leases(5), Kea's memfile.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <netinet/in.h>

#define LEASES_MAX 65536u /* of all files */

struct lease {
	char ip[INET6_ADDRSTRLEN];
	uint64_t mac;      /* 48 bits, the first octet highest */
	int64_t expires_s; /* since 1970; INT64_MAX never, 0: it is over */
	int64_t since_ms;  /* when it was first seen, wall clock */
};

struct leases {
	struct lease *items; /* by MAC once leases_settle was called */
	size_t count, cap;
};

/*
 * Append what the text of a lease file says: of several of one address the last counts, and only
 * while it is not over. False: there are more than LEASES_MAX, and the rest is missing.
 */
bool leases_read(struct leases *l, const char *text, int64_t now_ms);

/* After the last leases_read: what old has too keeps its since_ms, others get now_ms. */
void leases_settle(struct leases *l, const struct leases *old, int64_t now_ms);

/* The leases of a MAC: the first and how many follow, *ret_count; NULL and 0. */
const struct lease *leases_of(const struct leases *l, uint64_t mac, size_t *ret_count);

/* "52:54:00:aa:bb:cc", all of text[len]. */
bool lease_mac(const char *text, size_t len, uint64_t *ret);

void leases_done(struct leases *l);
