/* SPDX-License-Identifier: Apache-2.0 */
/* Lease files of each server, what is over, and what is no lease at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "vmadmd/guest/lease.h"

#define NOW_S  1700000000
#define NOW_MS (NOW_S * 1000ll)
#define A      0x5254000000aaull
#define B      0x5254000000bbull

/* "MAC ip ip|MAC ip": all that is known, in order. */
static char *told(const char *text)
{
	static const struct leases none;
	struct leases l = {0};
	struct strbuf sb = {0};

	assert_true(leases_read(&l, text, NOW_MS));
	leases_settle(&l, &none, NOW_MS);
	strbuf_puts(&sb, "");
	for (size_t i = 0; i < l.count; i++)
		strbuf_printf(&sb, "%s%02x %s", i ? "|" : "", (unsigned)(l.items[i].mac & 0xff),
			      l.items[i].ip);
	leases_done(&l);
	return strbuf_steal(&sb);
}

static const struct {
	const char *text, *told;
} cases[] = {
	/* dnsmasq: the last word of an address counts; 0 is for ever; DUIDs made of MACs */
	{"1700000100 52:54:00:00:00:aa 10.0.0.5 web *\n"
	 "1699999999 52:54:00:00:00:aa 10.0.0.6 web *\n"
	 "0 52:54:00:00:00:BB 10.0.0.7 db 01:52:54:00:00:00:bb\n"
	 "duid 00:01:00:01:2c:f0:00:00:52:54:00:00:00:01\n"
	 "1700000100 1234 fd00::5 web 00:01:00:01:2c:f0:00:00:52:54:00:00:00:aa\n"
	 "1700000100 T1234 fd00::6 web 00:03:00:01:52:54:00:00:00:aa\n"
	 "1700000100 1234 fd00::7 web 00:02:00:00:ab:11:52:54:00:00:00:aa\n",
	 "aa 10.0.0.5|aa fd00::5|aa fd00::6|bb 10.0.0.7"},
	/* dhcpd: UTC, never, epoch; renewed, released and abandoned ones */
	{"# The format of this file is documented in the dhcpd.leases(5) manual page.\n"
	 "server-duid \"\\000\\001\";\n\n"
	 "lease 10.0.0.5 {\n  starts 2 2023/11/14 20:00:00;\n  ends 2 2023/11/14 22:00:00;\n"
	 "  binding state active;\n  hardware ethernet 52:54:00:00:00:aa;\n}\n"
	 "lease 10.0.0.5 {\n  ends 2 2023/11/14 22:30:00;\n  cltt 2 2023/11/14 22:00:00;\n"
	 "  binding state active;\n  next binding state free;\n  rewind binding state free;\n"
	 "  hardware ethernet 52:54:00:00:00:aa;\n  client-hostname \"} lease\";\n}\n"
	 "lease 10.0.0.6 {\n  ends never;\n  binding state active;\n"
	 "  hardware ethernet 52:54:00:00:00:bb;\n}\n"
	 "lease 10.0.0.7 {\n  ends epoch 1700000001; # Tue\n  binding state active;\n"
	 "  hardware ethernet 52:54:00:00:00:bb;\n}\n"
	 "lease 10.0.0.8 {\n  ends never;\n  binding state active;\n"
	 "  hardware ethernet 52:54:00:00:00:bb;\n}\n"
	 "lease 10.0.0.8 {\n  ends never;\n  binding state free;\n}\n"
	 "lease 10.0.0.9 {\n  ends 2 2023/11/14 22:00:00;\n  binding state active;\n"
	 "  hardware ethernet 52:54:00:00:00:bb;\n}\n"
	 "lease 10.0.0.10 {\n  ends never;\n  binding state active;\n"
	 "  hardware token-ring 52:54:00:00:00:bb;\n",
	 "aa 10.0.0.5|bb 10.0.0.6|bb 10.0.0.7"},
	/* Kea, of both families: columns by their names, state 1 is declined */
	{"address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,"
	 "state\n"
	 "10.0.0.5,52:54:00:00:00:aa,,3600,1700000100,1,0,0,web,0\n"
	 "10.0.0.6,52:54:00:00:00:aa,,3600,1700000100,1,0,0,web,1\n"
	 "10.0.0.7,52:54:00:00:00:aa,,3600,1700000100,1,0,0,web,0\n"
	 "10.0.0.7,52:54:00:00:00:aa,,0,1699999999,1,0,0,web,0\n",
	 "aa 10.0.0.5"},
	{"address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,"
	 "fqdn_fwd,fqdn_rev,hostname,hwaddr,state\r\n"
	 "fd00::5,00:01,3600,1700000100,1,1800,0,7,128,0,0,,52:54:00:00:00:aa,0\r\n",
	 "aa fd00::5"},
	/* No lease: bad times, MACs, addresses, lines cut off */
	{"", ""},
	{"1700000100", ""},
	{"1700000100 52:54:00:00:00:aa 10.0.0.5 web", ""},
	{"170000010x 52:54:00:00:00:aa 10.0.0.5 web *\n", ""},
	{"1700000100 52:54:00:00:00:a 10.0.0.5 web *\n", ""},
	{"1700000100 52:54:00:00:00:ag 10.0.0.5 web *\n", ""},
	{"1700000100 52:54:00:00:00:aa 10.0.0.500 web *\n", ""},
	{"1700000100 06-52:54:00:00:00:aa 10.0.0.5 web *\n", ""},
	{"99999999999999999999999 52:54:00:00:00:aa 10.0.0.5 web *\n", "aa 10.0.0.5"},
	{"}\n}\nlease {\n}\nlease \n{\n", ""},
	{"address,\n,,,,\naddress\n10.0.0.5\n", ""},
};

static void test_files(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_FREE char *is = told(cases[i].text);

		assert_string_equal(is, cases[i].told);
	}
}

/* Two networks may lease one address each; since when is kept; a MAC finds all of its own. */
static void test_several(void **state)
{
	struct leases old = {0}, now = {0};
	const struct lease *found;
	size_t count;

	assert_true(leases_read(&old, "0 52:54:00:00:00:aa 10.0.0.5 - -\n", NOW_MS - 5000));
	leases_settle(&old, &now, NOW_MS - 5000);
	assert_true(leases_read(&now,
				"0 52:54:00:00:00:aa 10.0.0.5 - -\n"
				"0 52:54:00:00:00:aa 10.0.0.4 - -\n",
				NOW_MS));
	assert_true(leases_read(&now, "0 52:54:00:00:00:bb 10.0.0.5 - -\n", NOW_MS));
	leases_settle(&now, &old, NOW_MS);
	found = leases_of(&now, A, &count);
	assert_int_equal(count, 2);
	assert_string_equal(found[0].ip, "10.0.0.4");
	assert_int_equal(found[0].since_ms, NOW_MS);
	assert_int_equal(found[1].since_ms, NOW_MS - 5000);
	found = leases_of(&now, B, &count);
	assert_int_equal(count, 1);
	assert_string_equal(found->ip, "10.0.0.5");
	assert_null(leases_of(&now, 1, &count));
	assert_int_equal(count, 0);
	leases_done(&old);
	leases_done(&now);
}

static void test_too_many(void **state)
{
	struct leases l = {0};
	AUTO_STRBUF struct strbuf text = {0};

	for (unsigned i = 0; i <= LEASES_MAX; i++)
		strbuf_printf(&text, "0 52:54:00:00:00:aa 10.%u.%u.%u - -\n", i >> 16, i >> 8 & 255,
			      i & 255);
	assert_false(leases_read(&l, text.data, NOW_MS));
	assert_int_equal(l.count, LEASES_MAX);
	leases_done(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_files),
					   cmocka_unit_test(test_several),
					   cmocka_unit_test(test_too_many)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
