/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules of nftables for one NIC: a table of the netdev family with a chain for what comes from the
 * guest (ingress of the tap) and one for what goes to it (egress). Hooks of a device cost other
 * guests' packets nothing, and see them before any bridge does.
 */
#include "vmstated/filter.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "model/vm.h"

#define LEARNED_MAX 64u          /* leases a NIC may hold */
#define BURST_LEAST (128u << 10) /* bytes: more than the largest packet of segmentation offload */

/* What is known of its addresses: those of "dhcp" and "addrconf" come later. */
struct known {
	bool any;
	bool learn4, learn6;
};

static struct known known_addresses(const struct nic *n)
{
	struct known k = {.any = n->ips.count > 0 || n->allowed_ips.count > 0};

	for (size_t i = 0; i < n->ips.count; i++) {
		k.learn4 = k.learn4 || str_eq(n->ips.items[i], "dhcp");
		k.learn6 = k.learn6 || str_eq(n->ips.items[i], "addrconf");
	}
	k.any = k.any && !n->allow_ip_spoofing;
	k.learn4 = k.learn4 && k.any;
	k.learn6 = k.learn6 && k.any;
	return k;
}

/* An address as nft takes it: those of the guest alone, without their prefix length. */
static char *source(const char *cidr, bool network)
{
	return network ? xstrdup(cidr) : xstrndup(cidr, strcspn(cidr, "/"));
}

static void sources(struct strbuf *sb, const struct str_list *list, bool network, bool v6,
		    const char *match)
{
	for (size_t i = 0; i < list->count; i++) {
		AUTO_FREE char *text = source(list->items[i], network);

		if ((strchr(text, ':') != NULL) == v6 && strpbrk(text, ".:"))
			strbuf_printf(sb, "\t\t%s %s return\n", match, text);
	}
}

static void family(struct strbuf *sb, const struct nic *n, bool v6, const char *match)
{
	sources(sb, &n->ips, false, v6, match);
	sources(sb, &n->allowed_ips, true, v6, match);
	strbuf_puts(sb, "\t\tdrop\n\t}\n");
}

/* The first `bits` bits of an address as a number. */
static void leading_bits(struct strbuf *sb, const struct in6_addr *in, unsigned bits)
{
	unsigned bytes = (bits + 7) / 8, shift = bytes * 8 - bits;

	strbuf_puts(sb, "0x");
	for (unsigned i = 0; i < bytes; i++) {
		unsigned before = i > 0 ? in->s6_addr[i - 1] : 0;

		strbuf_printf(sb, "%02x", ((before << 8 | in->s6_addr[i]) >> shift) & 0xff);
	}
}

static void advertise(struct strbuf *sb, const char *cidr, bool network)
{
	AUTO_FREE char *addr = source(cidr, false);
	const char *slash = network ? strchr(cidr, '/') : NULL;
	unsigned long bits = slash ? strtoul(slash + 1, NULL, 10) : 128;
	struct in6_addr in;

	if (inet_pton(AF_INET6, addr, &in) != 1 || bits > 128)
		return;
	if (bits > 0) {
		strbuf_printf(sb, "\t\t@th,64,%lu ", bits);
		leading_bits(sb, &in, (unsigned)bits);
		strbuf_puts(sb, " return\n");
	} else {
		strbuf_puts(sb, "\t\treturn\n");
	}
}

/* --- sets of what is learned --- */

static void set(struct strbuf *sb, const char *name, const char *type, const char *flags)
{
	strbuf_printf(sb, "\tset %s {\n\t\t%s; flags %stimeout; timeout %us; size %u;\n\t}\n", name,
		      type, flags, FILTER_LIFE_S, LEARNED_MAX);
}

static void sets(struct strbuf *sb, struct known k)
{
	if (k.learn4)
		set(sb, FILTER_LEASED4, "type ipv4_addr", "dynamic,");
	if (!k.learn6)
		return;
	set(sb, FILTER_LEASED6, "type ipv6_addr", "");
	set(sb, FILTER_PREFIXES6, "type ipv6_addr", "interval,");
	set(sb, FILTER_CLAIMED6, "typeof @th,64,128", "");
	set(sb, FILTER_CLAIMED6_PREFIXES, "typeof @th,64,128", "interval,");
}

/* A neighbour advertisement names its address behind the ICMPv6 header, for which nft has no word.
 */
static void advertised(struct strbuf *sb, const struct nic *n, struct known k)
{
	strbuf_puts(sb, "\tchain advertised {\n\t\t@th,64,10 0x3fa return\n");
	if (k.learn6)
		strbuf_puts(sb, "\t\t@th,64,128 @" FILTER_CLAIMED6 " return\n"
				"\t\t@th,64,128 @" FILTER_CLAIMED6_PREFIXES " return\n");
	for (size_t i = 0; i < n->ips.count; i++)
		advertise(sb, n->ips.items[i], false);
	for (size_t i = 0; i < n->allowed_ips.count; i++)
		advertise(sb, n->allowed_ips.items[i], true);
	strbuf_puts(sb, "\t\tdrop\n\t}\n");
}

/* The chains the rules of ip_rules() jump to. */
static void ip_chains(struct strbuf *sb, const struct nic *n, struct known k)
{
	sets(sb, k);
	strbuf_puts(sb, "\tchain ip4_source {\n"
			"\t\tip saddr 0.0.0.0 udp sport 68 udp dport 67 return\n");
	if (k.learn4)
		strbuf_puts(sb, "\t\tip saddr @" FILTER_LEASED4 " return\n");
	family(sb, n, false, "ip saddr");
	strbuf_puts(sb, "\tchain arp_source {\n\t\tarp saddr ip 0.0.0.0 return\n");
	if (k.learn4)
		strbuf_puts(sb, "\t\tarp saddr ip @" FILTER_LEASED4 " return\n");
	family(sb, n, false, "arp saddr ip");
	advertised(sb, n, k);
	strbuf_puts(sb, "\tchain ip6_source {\n\t\ticmpv6 type nd-neighbor-advert jump advertised\n"
			"\t\tip6 saddr { ::, fe80::/10 } return\n");
	if (k.learn6)
		strbuf_puts(sb, "\t\tip6 saddr @" FILTER_LEASED6 " return\n"
				"\t\tip6 saddr @" FILTER_PREFIXES6 " return\n");
	family(sb, n, true, "ip6 saddr");
}

static void ip_rules(struct strbuf *sb)
{
	strbuf_puts(sb, "\t\tether type arp jump arp_source\n\t\tether type ip jump ip4_source\n"
			"\t\tether type ip6 jump ip6_source\n");
}

static void limit(struct strbuf *sb, uint32_t kbit)
{
	uint64_t rate = (uint64_t)kbit * 125, burst = rate / 10;

	strbuf_printf(sb, "\t\tlimit rate over %llu bytes/second burst %llu bytes drop\n",
		      (unsigned long long)rate,
		      (unsigned long long)(burst < BURST_LEAST ? BURST_LEAST : burst));
}

static void ports(struct strbuf *sb, const struct str_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		strbuf_printf(sb, "\t\tmeta l4proto { tcp, udp } th dport %s drop\n",
			      list->items[i]);
}

static void from_guest(struct strbuf *sb, const char *tap, const struct nic *n)
{
	struct known k = known_addresses(n);

	if (k.any)
		ip_chains(sb, n, k);
	strbuf_printf(sb,
		      "\tchain from_guest {\n"
		      "\t\ttype filter hook ingress device \"%s\" priority -300; policy accept\n",
		      tap);
	if (!n->allow_restricted_traffic)
		strbuf_puts(sb, "\t\tether type != { ip, arp, ip6 } drop\n");
	if (!n->allow_mac_spoofing)
		strbuf_printf(sb, "\t\tether saddr != %s drop\n\t\tarp saddr ether != %s drop\n",
			      n->mac, n->mac);
	if (!n->allow_dhcp_spoofing && !n->dhcp_server)
		strbuf_puts(sb, "\t\tudp sport { 67, 547 } drop\n"
				"\t\ticmpv6 type nd-router-advert drop\n");
	if (k.any)
		ip_rules(sb);
	ports(sb, &n->blocked_outgoing_ports);
	if (n->bandwidth_out_kbit)
		limit(sb, n->bandwidth_out_kbit);
	strbuf_puts(sb, "\t}\n");
}

/*
 * A DHCP server's acknowledgement to this NIC: `yiaddr` of a reply (op) for its hardware address
 * (chaddr) that begins with option 53, as all servers write it. How long it lasts nft cannot read.
 */
static void learn(struct strbuf *sb, const struct nic *n)
{
	strbuf_puts(sb, "\t\tudp sport 67 udp dport 68 @th,64,8 2 @th,288,48 0x");
	for (const char *c = n->mac; *c; c++) {
		if (*c != ':')
			strbuf_putc(sb, *c);
	}
	strbuf_puts(sb, " @th,192,32 != 0 @th,1984,24 0x350105 update @" FILTER_LEASED4
			" { @th,192,32 }\n");
}

static void to_guest(struct strbuf *sb, const char *tap, const struct nic *n)
{
	bool learns = filter_learns(n, false);

	if (n->allow_unfiltered_promisc && !learns)
		return;
	strbuf_printf(sb,
		      "\tchain to_guest {\n"
		      "\t\ttype filter hook egress device \"%s\" priority 0; policy accept\n",
		      tap);
	if (learns)
		learn(sb, n);
	if (!n->allow_unfiltered_promisc)
		strbuf_printf(sb,
			      "\t\tether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 "
			      "ether daddr != %s drop\n",
			      n->mac);
	strbuf_puts(sb, "\t}\n");
}

static bool filters(const struct nic *n)
{
	struct known k = known_addresses(n);

	return !n->allow_restricted_traffic || !n->allow_mac_spoofing ||
	       !(n->allow_dhcp_spoofing || n->dhcp_server) || !n->allow_unfiltered_promisc ||
	       k.any || n->blocked_outgoing_ports.count || n->bandwidth_out_kbit;
}

void filter_remove(struct strbuf *sb, const char *tap)
{
	strbuf_printf(sb,
		      "table netdev " FILTER_PREFIX "%s\ndelete table netdev " FILTER_PREFIX "%s\n",
		      tap, tap);
}

bool filter_learns(const struct nic *n, bool v6)
{
	struct known k = known_addresses(n);

	return v6 ? k.learn6 : k.learn4;
}

void filter_nic(struct strbuf *sb, const char *tap, const struct nic *n)
{
	if (filter_learns(n, false) || filter_learns(n, true)) /* what it has learned stays */
		strbuf_printf(sb,
			      "table netdev " FILTER_PREFIX "%s\nflush table netdev " FILTER_PREFIX
			      "%s\n",
			      tap, tap);
	else
		filter_remove(sb, tap);
	if (!filters(n))
		return;
	strbuf_printf(sb, "table netdev " FILTER_PREFIX "%s {\n", tap);
	from_guest(sb, tap, n);
	to_guest(sb, tap, n);
	strbuf_puts(sb, "}\n");
}
