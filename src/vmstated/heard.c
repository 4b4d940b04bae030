/* SPDX-License-Identifier: Apache-2.0 */
/* Frames, option by option; see heard.h. Every length is looked at before what it covers. */
#include "vmstated/heard.h"

#include <string.h>

#include "base/mem.h"

struct view {
	const uint8_t *data;
	size_t len;
};

struct found {
	struct heard *out;
	size_t count;
};

enum {
	ETHER_HEAD = 14,
	ETHER_IP4 = 0x0800,
	ETHER_IP6 = 0x86dd,
	IP6_HEAD = 40,
	UDP_HEAD = 8,
	PROTOCOL_UDP = 17,
	PROTOCOL_ICMP6 = 58,
};

static uint32_t number(const uint8_t *at, size_t bytes)
{
	uint32_t value = 0;

	for (size_t i = 0; i < bytes; i++)
		value = value << 8 | at[i];
	return value;
}

static struct view past(struct view v, size_t bytes)
{
	return bytes <= v.len ? (struct view){v.data + bytes, v.len - bytes} : (struct view){0};
}

static void add(struct found *f, const uint8_t *address, uint8_t prefix, uint32_t seconds)
{
	struct heard *h = &f->out[f->count];

	if (f->count == HEARD_MAX)
		return;
	*h = (struct heard){.v6 = prefix > 32, .prefix = prefix, .seconds = seconds};
	memcpy(h->address, address, prefix / 8u);
	f->count++;
}

/* --- DHCP --- */

enum {
	DHCP_CIADDR = 12,
	DHCP_YIADDR = 16,
	DHCP_CHADDR = 28,
	DHCP_COOKIE = 236,
	DHCP_OPTIONS = 240,
	OPTION_PAD = 0,
	OPTION_REQUESTED = 50,
	OPTION_LEASE = 51,
	OPTION_TYPE = 53,
	OPTION_END = 255,
	DHCP_DECLINE = 4,
	DHCP_ACK = 5,
	DHCP_RELEASE = 7,
	BOOT_REQUEST = 1,
	BOOT_REPLY = 2,
};

/* The value of an option that is as long as it should be; NULL. */
static const uint8_t *dhcp_option(struct view v, uint8_t which, size_t bytes)
{
	v = past(v, DHCP_OPTIONS);
	while (v.len > 0 && v.data[0] != OPTION_END) {
		if (v.data[0] == OPTION_PAD) {
			v = past(v, 1);
			continue;
		}
		if (v.len < 2 || v.len < 2u + v.data[1])
			return NULL;
		if (v.data[0] == which)
			return v.data[1] == bytes ? v.data + 2 : NULL;
		v = past(v, 2u + v.data[1]);
	}
	return NULL;
}

static void dhcp(struct found *f, struct view v, const uint8_t *mac, bool to_guest)
{
	static const uint8_t cookie[] = {99, 130, 83, 99}, none[4];
	const uint8_t *type, *lease, *asked;

	if (v.len < DHCP_OPTIONS || v.data[0] != (to_guest ? BOOT_REPLY : BOOT_REQUEST) ||
	    memcmp(v.data + DHCP_COOKIE, cookie, sizeof(cookie)) != 0 ||
	    memcmp(v.data + DHCP_CHADDR, mac, 6) != 0)
		return;
	type = dhcp_option(v, OPTION_TYPE, 1);
	lease = dhcp_option(v, OPTION_LEASE, 4);
	asked = dhcp_option(v, OPTION_REQUESTED, 4);
	if (!type)
		return;
	if (to_guest && *type == DHCP_ACK && lease &&
	    memcmp(v.data + DHCP_YIADDR, none, sizeof(none)) != 0)
		add(f, v.data + DHCP_YIADDR, 32, number(lease, 4));
	else if (!to_guest && *type == DHCP_RELEASE)
		add(f, v.data + DHCP_CIADDR, 32, 0);
	else if (!to_guest && *type == DHCP_DECLINE && asked)
		add(f, asked, 32, 0);
}

/* --- DHCPv6 --- */

enum {
	DHCP6_REPLY = 7,
	DHCP6_RELEASE = 8,
	DHCP6_DECLINE = 9,
	OPTION6_IA_NA = 3,
	OPTION6_IA_TA = 4,
	OPTION6_ADDRESS = 5,
	IA_NA_HEAD = 12,
	IA_TA_HEAD = 4,
	ADDRESS_VALID = 20,
	ADDRESS_HEAD = 24,
};

/* The next option: its code, *ret its value; -1 at the end. *v moves on. */
static int option6(struct view *v, struct view *ret)
{
	size_t len;
	int code;

	if (v->len < 4)
		return -1;
	code = (int)number(v->data, 2);
	len = number(v->data + 2, 2);
	*v = past(*v, 4);
	if (len > v->len)
		return -1;
	*ret = (struct view){v->data, len};
	*v = past(*v, len);
	return code;
}

static void identity(struct found *f, struct view options, bool given)
{
	struct view value = {0};
	int code;

	while ((code = option6(&options, &value)) >= 0) {
		if (code == OPTION6_ADDRESS && value.len >= ADDRESS_HEAD)
			add(f, value.data, 128, given ? number(value.data + ADDRESS_VALID, 4) : 0);
	}
}

static void dhcp6(struct found *f, struct view v, bool to_guest)
{
	struct view value = {0};
	bool given = to_guest && v.len > 0 && v.data[0] == DHCP6_REPLY;
	bool back = !to_guest && v.len > 0 &&
		    (v.data[0] == DHCP6_RELEASE || v.data[0] == DHCP6_DECLINE);
	int code;

	v = past(v, 4);
	while ((given || back) && (code = option6(&v, &value)) >= 0) {
		if (code == OPTION6_IA_NA)
			identity(f, past(value, IA_NA_HEAD), given);
		else if (code == OPTION6_IA_TA)
			identity(f, past(value, IA_TA_HEAD), given);
	}
}

/* --- routers --- */

enum {
	ICMP6_ADVERTISEMENT = 134,
	ADVERTISEMENT_HEAD = 16,
	OPTION_PREFIX = 3,
	PREFIX_UNITS = 4, /* of eight bytes */
	PREFIX_LENGTH = 2,
	PREFIX_FLAGS = 3,
	PREFIX_VALID = 4,
	PREFIX_ADDRESS = 16,
	FLAG_AUTONOMOUS = 0x40,
	ROUTER_HOPS = 255, /* nobody beyond the link can send this */
};

static void router(struct found *f, struct view v)
{
	for (v = past(v, ADVERTISEMENT_HEAD); v.len >= 8; v = past(v, v.data[1] * 8u)) {
		if (v.data[1] == 0 || v.data[1] * 8u > v.len)
			return;
		/* Interfaces of Ethernet take 64 bits of an address themselves. */
		if (v.data[0] == OPTION_PREFIX && v.data[1] == PREFIX_UNITS &&
		    v.data[PREFIX_LENGTH] == 64 && (v.data[PREFIX_FLAGS] & FLAG_AUTONOMOUS) &&
		    number(v.data + PREFIX_ADDRESS, 2) >> 6 != 0xfe80 >> 6 &&
		    v.data[PREFIX_ADDRESS] != 0xff)
			add(f, v.data + PREFIX_ADDRESS, 64, number(v.data + PREFIX_VALID, 4));
	}
}

/* --- frames --- */

static void ip4(struct found *f, struct view v, const uint8_t *mac, bool to_guest)
{
	size_t head = v.len > 0 ? (v.data[0] & 15u) * 4u : 0;
	uint32_t from, to;

	if (v.len < 20 || head < 20 || v.data[9] != PROTOCOL_UDP ||
	    (number(v.data + 6, 2) & 0x3fff) || v.len < head + UDP_HEAD)
		return;
	from = number(v.data + head, 2);
	to = number(v.data + head + 2, 2);
	if (to_guest ? from == 67 && to == 68 : from == 68 && to == 67)
		dhcp(f, past(v, head + UDP_HEAD), mac, to_guest);
}

static void ip6(struct found *f, struct view v, bool to_guest)
{
	uint8_t protocol = v.len >= IP6_HEAD + UDP_HEAD ? v.data[6] : 0;
	uint8_t hops = protocol ? v.data[7] : 0;
	size_t payload = protocol ? number(v.data + 4, 2) : 0;
	uint32_t from, to;

	v = past(v, IP6_HEAD);
	if (payload < v.len)
		v.len = payload;
	if (v.len < UDP_HEAD)
		return;
	from = number(v.data, 2);
	to = number(v.data + 2, 2);
	if (protocol == PROTOCOL_ICMP6 && to_guest && v.data[0] == ICMP6_ADVERTISEMENT &&
	    hops == ROUTER_HOPS)
		router(f, v);
	else if (protocol == PROTOCOL_UDP &&
		 (to_guest ? from == 547 && to == 546 : from == 546 && to == 547))
		dhcp6(f, past(v, UDP_HEAD), to_guest);
}

size_t heard_in(const uint8_t *frame, size_t len, const uint8_t mac[6], bool to_guest,
		struct heard out[HEARD_MAX])
{
	struct view v = {frame, len};
	struct found f = {.out = out};

	if (len < ETHER_HEAD)
		return 0;
	if (number(frame + 12, 2) == ETHER_IP4)
		ip4(&f, past(v, ETHER_HEAD), mac, to_guest);
	else if (number(frame + 12, 2) == ETHER_IP6)
		ip6(&f, past(v, ETHER_HEAD), to_guest);
	return f.count;
}
