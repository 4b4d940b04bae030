/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks of single values beyond type and bounds, as the rows of the property tables name them.
 * Each adds at most one finding that says what would be right.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpus.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "model/checks.h"
#include "model/rows.h"
#include "model/value.h"

#define NAME_MAX_LEN 64
#define NAME_WANT    "1 to 64 letters, digits, '.', '_', '-', not starting with '.' or '-'"

static bool is_name(const char *value)
{
	size_t len = strlen(value);

	if (len == 0 || len > NAME_MAX_LEN || value[0] == '.' || value[0] == '-')
		return false;
	for (const char *c = value; *c; c++) {
		if (!isascii((unsigned char)*c) ||
		    (!isalnum((unsigned char)*c) && !strchr("._-", *c)))
			return false;
	}
	return true;
}

static bool all_of(const char *value, const char *extra)
{
	for (const char *c = value; *c; c++) {
		if (!isascii((unsigned char)*c) ||
		    (!isalnum((unsigned char)*c) && !strchr(extra, *c)))
			return false;
	}
	return *value != '\0';
}

static bool is_ip(const char *text, int family)
{
	struct in6_addr addr;

	return inet_pton(family, text, &addr) == 1;
}

/* ADDRESS/PREFIX; without_prefix: the prefix may be absent. */
static bool is_cidr(const char *value, bool without_prefix)
{
	const char *slash = strchr(value, '/');
	AUTO_FREE char *addr = slash ? xstrndup(value, (size_t)(slash - value)) : xstrdup(value);
	bool v4 = is_ip(addr, AF_INET);
	long prefix;
	char *end;

	if (!v4 && !is_ip(addr, AF_INET6))
		return false;
	if (!slash)
		return without_prefix;
	if (!isdigit((unsigned char)slash[1]) || strlen(slash + 1) > 3)
		return false;
	prefix = strtol(slash + 1, &end, 10);
	return !*end && prefix <= (v4 ? 32 : 128);
}

static bool is_port(const char *text, size_t len)
{
	AUTO_FREE char *copy = xstrndup(text, len);
	long port;

	if (len == 0 || len > 5 || strspn(copy, "0123456789") != len)
		return false;
	port = strtol(copy, NULL, 10);
	return port > 0 && port <= 65535;
}

void check_uuid(const char *value, const char *where, const char *key, struct problems *p)
{
	if (!uuid_valid(value))
		problem_value(p, where, key, value,
			      "is not a UUID (want xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx)");
}

void check_name(const char *value, const char *where, const char *key, struct problems *p)
{
	if (!is_name(value))
		problem_value(p, where, key, value, "is not a name (want " NAME_WANT ")");
}

static bool is_mac(const char *value, bool *ret_group)
{
	unsigned first = 0;

	for (int i = 0; i < 6; i++) {
		size_t len = strspn(value, "0123456789abcdefABCDEF");

		if (len == 0 || len > 2 || value[len] != (i < 5 ? ':' : '\0'))
			return false;
		if (i == 0)
			first = (unsigned)strtoul(value, NULL, 16);
		value += len + (i < 5);
	}
	*ret_group = first & 1;
	return true;
}

void check_mac(const char *value, const char *where, const char *key, struct problems *p)
{
	bool group = false;

	if (!is_mac(value, &group))
		problem_value(p, where, key, value,
			      "is not a MAC address (want xx:xx:xx:xx:xx:xx)");
	else if (group)
		problem_value(p, where, key, value,
			      "is a group address (want an even first octet, as in 52:54:00:...)");
	else if (strspn(value, "0:") == strlen(value))
		problem_value(p, where, key, value, "is no address (want 52:54:00:xx:xx:xx)");
}

void check_ip(const char *value, const char *where, const char *key, struct problems *p)
{
	if (!is_ip(value, AF_INET) && !is_ip(value, AF_INET6))
		problem_value(p, where, key, value,
			      "is not an IP address (want 192.0.2.1 or 2001:db8::1)");
}

void check_ip4(const char *value, const char *where, const char *key, struct problems *p)
{
	if (!is_ip(value, AF_INET))
		problem_value(p, where, key, value, "is not an IPv4 address (want 192.0.2.1)");
}

void check_nic_ip(const char *value, const char *where, const char *key, struct problems *p)
{
	if (!str_eq(value, "dhcp") && !str_eq(value, "addrconf") && !is_cidr(value, true))
		problem_value(p, where, key, value,
			      "is not an address (want 192.0.2.5/24, dhcp or addrconf)");
}

void check_cidr(const char *value, const char *where, const char *key, struct problems *p)
{
	if (!is_cidr(value, true))
		problem_value(p, where, key, value,
			      "is not an address or network (want 192.0.2.0/24)");
}

void check_netmask(const char *value, const char *where, const char *key, struct problems *p)
{
	struct in_addr addr;
	uint32_t host;

	if (inet_pton(AF_INET, value, &addr) == 1) {
		host = ~ntohl(addr.s_addr);
		if ((host & (host + 1)) == 0)
			return;
	}
	problem_value(p, where, key, value, "is not a netmask (want 255.255.255.0)");
}

/* The original takes [A-Za-z0-9_/]; names of Linux bridges may hold '.' and '-' too. */
void check_nic_tag(const char *value, const char *where, const char *key, struct problems *p)
{
	if (!all_of(value, "_/.-") || value[0] == '-' || strlen(value) > 31)
		problem_value(p, where, key, value,
			      "is not a NIC tag (want the name of a bridge, or \"user\")");
}

void check_interface(const char *value, const char *where, const char *key, struct problems *p)
{
	size_t len = strlen(value);

	if (!str_starts(value, "net") || len < 4 || len > 6 ||
	    strspn(value + 3, "0123456789") != len - 3 || (value[3] == '0' && len > 4))
		problem_value(p, where, key, value, "is not an interface (want net0, net1, ...)");
}

void check_ifname(const char *value, const char *where, const char *key, struct problems *p)
{
	if (!all_of(value, "_.-@:") || strlen(value) > 15 || value[0] == '-' ||
	    str_eq(value, ".") || str_eq(value, ".."))
		problem_value(p, where, key, value,
			      "is not a network interface (want 1 to 15 characters, as in tap0)");
}

/* proto:[host address]:port-[guest address]:port */
static bool is_forward(const char *value)
{
	const char *c = value, *colon;

	if (!str_starts(c, "tcp:") && !str_starts(c, "udp:"))
		return false;
	c += 4;
	for (int side = 0; side < 2; side++) {
		AUTO_FREE char *addr = NULL;
		size_t len;

		colon = strchr(c, ':');
		if (!colon)
			return false;
		addr = xstrndup(c, (size_t)(colon - c));
		if (*addr && !is_ip(addr, AF_INET))
			return false;
		len = side ? strlen(colon + 1) : strcspn(colon + 1, "-");
		if (!is_port(colon + 1, len) || (!side && colon[1 + len] != '-'))
			return false;
		c = colon + 1 + len + !side;
	}
	return true;
}

void check_forward(const char *value, const char *where, const char *key, struct problems *p)
{
	if (!is_forward(value))
		problem_value(p, where, key, value,
			      "is not a forwarding (want tcp:127.0.0.1:2222-:22)");
}

void check_port(const char *value, const char *where, const char *key, struct problems *p)
{
	if (!is_port(value, strlen(value)))
		problem_value(p, where, key, value, "is not a port (want 1 to 65535)");
}

void check_cpus(const char *value, const char *where, const char *key, struct problems *p)
{
	cpu_set_t set;

	if (cpus_parse(value, &set) < 0)
		problem_value(p, where, key, value, "is not a list of CPUs (want 0-1,4)");
}

void check_hugepages(const char *value, const char *where, const char *key, struct problems *p)
{
	unsigned long mib = strtoul(value, NULL, 10);

	if (mib != 0 && mib != 2 && mib != 1024)
		problem_value(p, where, key, value, "is not a size of huge pages (want 2M or 1G)");
}

void check_block_size(const char *value, const char *where, const char *key, struct problems *p)
{
	unsigned long size = strtoul(value, NULL, 10);

	if (size < 512 || size > 131072 || (size & (size - 1)))
		problem_value(p, where, key, value,
			      "is not a block size (want a power of two from 512 to 131072)");
}

bool path_has_protocol(const char *path)
{
	size_t len = strspn(path, "abcdefghijklmnopqrstuvwxyz0123456789+-");

	return len > 1 && path[len] == ':';
}

void check_path(const char *value, const char *where, const char *key, struct problems *p)
{
	for (const char *c = value; *c; c++) {
		if (iscntrl((unsigned char)*c)) {
			problem_value(p, where, key, value,
				      "is not a path (want no control characters)");
			return;
		}
	}
	if (str_ends(value, "/"))
		problem_value(p, where, key, value, "is not a path (want no '/' at its end)");
}

void check_word(const char *value, const char *where, const char *key, struct problems *p)
{
	bool good = value[0] != '-';

	for (const unsigned char *c = (const unsigned char *)value; *c; c++) {
		if (*c <= ' ' || *c == 0x7f || *c == ',')
			good = false;
	}
	if (!good)
		problem_value(p, where, key, value,
			      "is not one word (want no blanks or commas, no '-' first)");
}

void check_namespace(const char *value, const char *where, const char *key, struct problems *p)
{
	if (!all_of(value, "._-"))
		problem_value(p, where, key, value,
			      "is not a namespace (want letters, digits, '.', '_', '-')");
}

static bool is_boot_letters(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!strchr("cdnap", text[i]))
			return false;
	}
	return len > 0 && len <= 5;
}

/* "cd", "order=cd", "once=d,order=c", and menu=on|off beside them. */
void check_boot(const char *value, const char *where, const char *key, struct problems *p)
{
	const char *c = value;

	do {
		size_t len = strcspn(c, ","), skip = 0;

		if (str_starts(c, "order="))
			skip = 6;
		else if (str_starts(c, "once="))
			skip = 5;
		if (!is_boot_letters(c + skip, len - skip) &&
		    !(len == 7 && str_starts(c, "menu=on")) &&
		    !(len == 8 && str_starts(c, "menu=off"))) {
			problem_value(p, where, key, value,
				      "is not a boot order (want order=cd, once=d,order=c, ...)");
			return;
		}
		c += len;
	} while (*c++);
}

void check_after(const char *value, const char *where, const char *key, struct problems *p)
{
	size_t len = strlen(value) - (str_ends(value, ":ready") ? 6 : 0);
	AUTO_FREE char *name = xstrndup(value, len);

	if (!is_name(name))
		problem_value(p, where, key, value,
			      "is not a VM to wait for (want NAME or NAME:ready)");
}

void check_vnc_password(const char *value, const char *where, const char *key, struct problems *p)
{
	if (strlen(value) > 8)
		problems_add(p, PROBLEM_BAD_VALUE, where, key,
			     "VNC password is too long, maximum length is 8 characters.");
}

void check_spice_port(const char *value, const char *where, const char *key, struct problems *p)
{
	if (strtol(value, NULL, 10) > 0)
		problem_value(p, where, key, value,
			      "asks for SPICE, which is not supported "
			      "(want 0 or -1, and vnc_port for a display)");
}

static void check_driver(const struct prop_table *t, size_t at, const char *value,
			 const char *where, const char *key, struct problems *p)
{
	const struct prop *model = prop_at(t, at);
	AUTO_STRBUF struct strbuf names = {0};
	AUTO_FREE char *v = shown(value);

	if (enum_value(model->names, model->nnames, value) >= 0)
		return;
	for (size_t i = 0; i < model->nnames; i++)
		strbuf_printf(&names, "%s%s", i ? "," : "", model->names[i]);
	problems_add(p, PROBLEM_BAD_VALUE, where, key,
		     "\"%s\" is not a valid %s model for kvm brand. Valid are: %s", v, t->one,
		     names.data);
}

void check_disk_driver(const char *value, const char *where, const char *key, struct problems *p)
{
	check_driver(&disk_props, offsetof(struct disk, model), value, where, key, p);
}

void check_nic_driver(const char *value, const char *where, const char *key, struct problems *p)
{
	check_driver(&nic_props, offsetof(struct nic, model), value, where, key, p);
}

void problem_unknown(const struct prop_table *t, const char *name, bool ucl, const char *where,
		     const char *key, struct problems *p)
{
	const struct prop *row = prop_find(t, name, ucl);
	const char *nearest = row ? NULL : prop_nearest(t, name, ucl);
	AUTO_FREE char *v = shown(name);

	if (!row)
		problems_add(p, PROBLEM_BAD_PROPERTY, where, key, "unknown property '%s'%s%s%s", v,
			     nearest ? " (did you mean '" : "", nearest ? nearest : "",
			     nearest ? "'?)" : "");
	else if (row->type == PROP_MAP && ucl)
		problems_add(p, PROBLEM_BAD_PROPERTY, where, key,
			     "'%s' does not belong into a definition file (want vmadm update; it "
			     "is kept in the VM's data directory)",
			     v);
	else if (row->set & BY_HAND)
		problems_add(p, PROBLEM_BAD_PROPERTY, where, key,
			     "'%s' can only be given in a definition file", v);
	else
		problems_add(p, PROBLEM_BAD_PROPERTY, where, key, "'%s' cannot be set%s", v,
			     row->set & ON_CREATE ? " here" : ", it is only reported");
}
