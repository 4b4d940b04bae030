/* SPDX-License-Identifier: Apache-2.0 */
/* Lease files of three servers, told apart by their first bytes; see lease.h. */
#include "vmadmd/guest/lease.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/strbuf.h"

#define LINE_MAX_BYTES 1024u /* longer lines are passed over */
#define FIELDS_MAX     32u   /* of a line of CSV */
#define MAC_TEXT       17u
#define MAC_OCTETS     6u
#define SECOND_MS      1000

/* --- words --- */

bool lease_mac(const char *text, size_t len, uint64_t *ret)
{
	static const char digits[] = "0123456789abcdef";
	uint64_t mac = 0;

	if (len != MAC_TEXT)
		return false;
	for (size_t i = 0; i < MAC_TEXT; i++) {
		const char *at;

		if (i % 3 == 2) {
			if (text[i] != ':')
				return false;
			continue;
		}
		at = text[i] ? strchr(digits, text[i] | 0x20) : NULL;
		if (!at)
			return false;
		mac = mac << 4 | (uint64_t)(at - digits);
	}
	*ret = mac;
	return true;
}

/* The MAC at the end of a DUID that is made of one (RFC 8415, 11.2 and 11.4). */
static bool duid_mac(const char *duid, uint64_t *ret)
{
	size_t len = strlen(duid), octets = (len + 1) / 3;

	if (!(octets == 14 && str_starts(duid, "00:01:00:01:")) &&
	    !(octets == 10 && str_starts(duid, "00:03:00:01:")))
		return false;
	return lease_mac(duid + len - MAC_TEXT, MAC_TEXT, ret);
}

static bool number(const char *text, int64_t *ret)
{
	char *end;
	long long value = strtoll(text, &end, 10);

	if (end == text || *end || value < 0)
		return false;
	*ret = value;
	return true;
}

/* Cut line at any of the bytes of at into fields; how many. */
static size_t split(char *line, const char *at, char **fields)
{
	size_t n = 0;

	for (char *rest = line; rest && n < FIELDS_MAX;)
		fields[n++] = strsep(&rest, at);
	return n;
}

static bool add(struct leases *l, const char *ip, uint64_t mac, int64_t expires_s)
{
	unsigned char address[sizeof(struct in6_addr)];
	int family = strchr(ip, ':') ? AF_INET6 : AF_INET;
	struct lease *one;

	if (inet_pton(family, ip, address) != 1)
		return true;
	if (l->count == LEASES_MAX)
		return false;
	if (l->count == l->cap) {
		l->cap = l->cap ? 2 * l->cap : 64;
		l->items = xrealloc(l->items, l->cap * sizeof(*l->items));
	}
	one = &l->items[l->count++];
	*one = (struct lease){.mac = mac, .expires_s = expires_s};
	(void)inet_ntop(family, address, one->ip, sizeof(one->ip));
	return true;
}

/* --- a server's lines --- */

struct reading {
	struct leases *leases;
	/* dhcpd: the lease that is open */
	char ip[INET6_ADDRSTRLEN];
	uint64_t mac;
	bool has_mac, active;
	int64_t ends_s;
	/* Kea: where the header has them, or -1 */
	int address, hwaddr, expire, state;
};

/* "1700000000 52:54:00:aa:bb:cc 10.0.0.5 name id", of IPv6 "1700000000 IAID ADDRESS name DUID". */
static bool dnsmasq_line(struct reading *r, char *line)
{
	char *f[FIELDS_MAX];
	int64_t expires;
	uint64_t mac;

	if (split(line, " ", f) < 5 || !number(f[0], &expires))
		return true;
	if (!(strchr(f[2], ':') ? duid_mac(f[4], &mac) : lease_mac(f[1], strlen(f[1]), &mac)))
		return true;
	return add(r->leases, f[2], mac, expires ? expires : INT64_MAX);
}

/* "4 2023/10/12 10:21:12" in UTC, "epoch 1697106072" or "never". */
static int64_t dhcpd_time(const char *text)
{
	struct tm tm = {0};
	const char *end;
	int64_t value;

	if (str_eq(text, "never"))
		return INT64_MAX;
	if (str_starts(text, "epoch "))
		return number(text + strlen("epoch "), &value) ? value : 0;
	if (!*text || text[1] != ' ') /* the day of the week */
		return 0;
	end = strptime(text + 2, "%Y/%m/%d %H:%M:%S", &tm);
	if (!end || *end)
		return 0;
	return timegm(&tm);
}

static bool dhcpd_line(struct reading *r, char *line)
{
	char *text = line + strspn(line, " \t");
	size_t len = strcspn(text, ";{");
	bool done = *text == '}';

	text[len] = '\0';
	while (len > 0 && text[len - 1] == ' ')
		text[--len] = '\0';
	if (str_starts(text, "lease ")) {
		r->ip[0] = '\0';
		r->has_mac = r->active = false;
		r->ends_s = 0;
		if (len - strlen("lease ") < sizeof(r->ip))
			memcpy(r->ip, text + strlen("lease "), len - strlen("lease ") + 1);
	} else if (str_starts(text, "ends ")) {
		r->ends_s = dhcpd_time(text + strlen("ends "));
	} else if (str_starts(text, "binding state ")) {
		r->active = str_eq(text + strlen("binding state "), "active");
	} else if (str_starts(text, "hardware ethernet ")) {
		text += strlen("hardware ethernet ");
		r->has_mac = lease_mac(text, strlen(text), &r->mac);
	} else if (done && r->ip[0]) {
		bool more =
			!(r->has_mac || !r->active) ||
			add(r->leases, r->ip, r->has_mac ? r->mac : 0, r->active ? r->ends_s : 0);

		r->ip[0] = '\0';
		return more;
	}
	return true;
}

static bool kea_line(struct reading *r, char *line)
{
	const struct {
		const char *name;
		int *at;
	} columns[] = {{"address", &r->address},
		       {"hwaddr", &r->hwaddr},
		       {"expire", &r->expire},
		       {"state", &r->state}};
	char *f[FIELDS_MAX];
	int n = (int)split(line, ",", f);
	int64_t expires;
	uint64_t mac;

	if (str_eq(f[0], "address")) { /* a header; a file may have several */
		for (size_t c = 0; c < ARRAY_SIZE(columns); c++) {
			*columns[c].at = -1;
			for (int i = 0; i < n; i++) {
				if (str_eq(f[i], columns[c].name))
					*columns[c].at = i;
			}
		}
		return true;
	}
	for (size_t c = 0; c < ARRAY_SIZE(columns); c++) {
		if (*columns[c].at < 0 || *columns[c].at >= n)
			return true;
	}
	if (!lease_mac(f[r->hwaddr], strlen(f[r->hwaddr]), &mac) || !number(f[r->expire], &expires))
		return true;
	return add(r->leases, f[r->address], mac, str_eq(f[r->state], "0") ? expires : 0);
}

typedef bool (*line_fn)(struct reading *r, char *line);

static line_fn reader_of(const char *text)
{
	if (str_starts(text, "address,"))
		return kea_line;
	if (str_starts(text, "duid ") || (*text >= '0' && *text <= '9'))
		return dnsmasq_line;
	return dhcpd_line;
}

/* --- all of them --- */

static int by_ip(const void *a, const void *b)
{
	const struct lease *x = a, *y = b;
	int differs = strcmp(x->ip, y->ip);

	/* since_ms holds the place in the files meanwhile */
	return differs ? differs : (x->since_ms > y->since_ms) - (x->since_ms < y->since_ms);
}

static int by_mac(const void *a, const void *b)
{
	const struct lease *x = a, *y = b;
	int differs = (x->mac > y->mac) - (x->mac < y->mac);

	return differs ? differs : strcmp(x->ip, y->ip);
}

static void sort(struct leases *l, int (*order)(const void *, const void *))
{
	if (l->count)
		qsort(l->items, l->count, sizeof(*l->items), order);
}

static int64_t since_of(const struct leases *old, const struct lease *one, int64_t now_ms)
{
	const struct lease *found =
		old->count ? bsearch(one, old->items, old->count, sizeof(*old->items), by_mac)
			   : NULL;

	return found ? found->since_ms : now_ms;
}

/* Of those from first on that have one address the last counts; those that are over go. */
static void settle_file(struct leases *l, size_t first, int64_t now_ms)
{
	struct leases part = {.items = l->items + first, .count = l->count - first};
	size_t kept = first;

	for (size_t i = 0; i < part.count; i++)
		part.items[i].since_ms = (int64_t)i;
	sort(&part, by_ip);
	for (size_t i = 0; i < part.count; i++) {
		const struct lease *one = &part.items[i];
		bool last = i + 1 == part.count || !str_eq(one->ip, one[1].ip);

		if (last && one->expires_s > now_ms / SECOND_MS)
			l->items[kept++] = *one;
	}
	l->count = kept;
}

static bool read_lines(struct reading *r, line_fn take, const char *text)
{
	char line[LINE_MAX_BYTES];

	while (*text) {
		size_t len = strcspn(text, "\n"), shown = len;

		if (len > 0 && text[len - 1] == '\r')
			shown--;
		if (shown < sizeof(line)) {
			memcpy(line, text, shown);
			line[shown] = '\0';
			if (!take(r, line))
				return false;
		}
		text += len + (text[len] == '\n');
	}
	return true;
}

bool leases_read(struct leases *l, const char *text, int64_t now_ms)
{
	struct reading r = {.leases = l, .address = -1, .hwaddr = -1, .expire = -1, .state = -1};
	size_t first = l->count;
	bool all = read_lines(&r, reader_of(text), text);

	settle_file(l, first, now_ms);
	return all;
}

void leases_settle(struct leases *l, const struct leases *old, int64_t now_ms)
{
	size_t kept = 0;

	sort(l, by_mac);
	for (size_t i = 0; i < l->count; i++) {
		if (kept == 0 || by_mac(&l->items[kept - 1], &l->items[i]) != 0)
			l->items[kept++] = l->items[i];
		else if (l->items[kept - 1].expires_s < l->items[i].expires_s)
			l->items[kept - 1].expires_s = l->items[i].expires_s;
	}
	l->count = kept;
	for (size_t i = 0; i < l->count; i++)
		l->items[i].since_ms = since_of(old, &l->items[i], now_ms);
}

const struct lease *leases_of(const struct leases *l, uint64_t mac, size_t *ret_count)
{
	size_t low = 0, high = l->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (l->items[middle].mac < mac)
			low = middle + 1;
		else
			high = middle;
	}
	*ret_count = 0;
	while (low + *ret_count < l->count && l->items[low + *ret_count].mac == mac)
		(*ret_count)++;
	return *ret_count ? &l->items[low] : NULL;
}

void leases_done(struct leases *l)
{
	free(l->items);
	*l = (struct leases){0};
}
