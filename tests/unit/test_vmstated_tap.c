/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel is asked for to put a tap into a bridge, message by message, by a process in its
 * place: the kernels of the test machines have no VLAN filter in their bridges.
 */
#include <errno.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/rtnl.h"
#include "base/strbuf.h"
#include "vmstated/tap.h"

#define PORT     7
#define BRIDGE   3
#define TEXT_MAX 4096

/* --- the kernel's part --- */

static void tell_vlan(struct strbuf *sb, const struct rtattr *spec)
{
	const struct rtattr *inside[IFLA_BRIDGE_MAX + 1];
	struct bridge_vlan_info info;

	rtnl_nested(spec, inside, IFLA_BRIDGE_MAX);
	if (!inside[IFLA_BRIDGE_VLAN_INFO] ||
	    RTA_PAYLOAD(inside[IFLA_BRIDGE_VLAN_INFO]) != sizeof(info))
		return;
	memcpy(&info, RTA_DATA(inside[IFLA_BRIDGE_VLAN_INFO]), sizeof(info));
	strbuf_printf(sb, " vid=%u%s%s", info.vid,
		      info.flags & BRIDGE_VLAN_INFO_PVID ? " pvid" : "",
		      info.flags & BRIDGE_VLAN_INFO_UNTAGGED ? " untagged" : "");
	if (info.flags & ~(BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED))
		strbuf_printf(sb, " flags=%x", info.flags);
}

static void tell(struct strbuf *sb, const struct nlmsghdr *h)
{
	const struct ifinfomsg *body = NLMSG_DATA(h);
	const struct rtattr *table[IFLA_MAX + 1];
	uint32_t value;

	strbuf_puts(sb, h->nlmsg_type == RTM_SETLINK   ? "set"
			: h->nlmsg_type == RTM_DELLINK ? "del"
			: h->nlmsg_type == RTM_NEWLINK ? "new"
						       : "?");
	strbuf_printf(sb, " %d%s", body->ifi_index, body->ifi_family == AF_BRIDGE ? " bridge" : "");
	rtnl_attributes(h, sizeof(*body), table, IFLA_MAX);
	if (table[IFLA_ADDRESS])
		strbuf_printf(sb, " mac=%02x..%02x", ((uint8_t *)RTA_DATA(table[IFLA_ADDRESS]))[0],
			      ((uint8_t *)RTA_DATA(table[IFLA_ADDRESS]))[5]);
	for (int i = 0; i < 2; i++) {
		const struct rtattr *a = table[i ? IFLA_MASTER : IFLA_MTU];

		if (!a)
			continue;
		memcpy(&value, RTA_DATA(a), sizeof(value));
		strbuf_printf(sb, " %s=%u", i ? "master" : "mtu", value);
	}
	if (table[IFLA_AF_SPEC])
		tell_vlan(sb, table[IFLA_AF_SPEC]);
	strbuf_puts(sb, "; ");
}

/* Answer each message, the one of number `refuse` with that error, and write what they said. */
static void kernel(int fd, int out, int refuse, int code)
{
	AUTO_STRBUF struct strbuf said = {0};
	struct rtnl_msg m;

	for (int i = 1; recv(fd, m.bytes, sizeof(m.bytes), 0) > 0; i++) {
		struct {
			struct nlmsghdr head;
			struct nlmsgerr error;
		} answer = {.head = {.nlmsg_len = sizeof(answer),
				     .nlmsg_type = NLMSG_ERROR,
				     .nlmsg_seq = m.head.nlmsg_seq},
			    .error = {.error = i == refuse ? -code : 0, .msg = m.head}};

		tell(&said, &m.head);
		if (send(fd, &answer, sizeof(answer), 0) < 0)
			break;
	}
	_exit(said.len > 0 && write(out, said.data, said.len) < 0);
}

/* --- a case --- */

struct outcome {
	int r;
	char said[TEXT_MAX];
	struct err err;
};

static void ask(const struct tap_spec *t, const struct rtnl_link *bridge, int refuse, int code,
		struct outcome *ret)
{
	int pair[2], tells[2], status;
	ssize_t n;
	pid_t pid;

	*ret = (struct outcome){0};
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(pipe(tells), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)close(pair[0]);
		kernel(pair[1], tells[1], refuse, code);
	}
	(void)close(pair[1]);
	(void)close(tells[1]);
	ret->r = tap_to_bridge(pair[0], PORT, t, bridge, &ret->err);
	(void)close(pair[0]);
	n = read(tells[0], ret->said, sizeof(ret->said) - 1);
	assert_true(n >= 0);
	(void)close(tells[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

#define LINK "new 7 mac=fe..0a master=3; "

static void test_messages(void **state)
{
	static const struct {
		struct tap_spec tap;
		struct rtnl_link bridge;
		const char *said;
	} cases[] = {
		{{.vlan_id = 0}, {.vlan_filters = true, .default_pvid = 1}, LINK},
		{{.vlan_id = 0, .mtu = 1400}, {0}, "new 7 mac=fe..0a mtu=1400 master=3; "},
		{{.vlan_id = 12},
		 {.vlan_filters = true, .default_pvid = 1},
		 LINK "set 7 bridge vid=12 pvid untagged; del 7 bridge vid=1; "},
		/* Its default VLAN is another, the guest's own, or none. */
		{{.vlan_id = 12},
		 {.vlan_filters = true, .default_pvid = 77},
		 LINK "set 7 bridge vid=12 pvid untagged; del 7 bridge vid=77; "},
		{{.vlan_id = 1},
		 {.vlan_filters = true, .default_pvid = 1},
		 LINK "set 7 bridge vid=1 pvid untagged; "},
		{{.vlan_id = 4094},
		 {.vlan_filters = true},
		 LINK "set 7 bridge vid=4094 pvid untagged; "},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct tap_spec tap = cases[i].tap;
		struct rtnl_link bridge = cases[i].bridge;
		struct outcome is;

		tap.name = "vm0";
		tap.bridge = "br0";
		tap.mac = "52:54:00:00:00:0a";
		bridge.index = BRIDGE;
		ask(&tap, &bridge, 0, 0, &is);
		assert_int_equal(is.r, 0);
		assert_string_equal(is.said, cases[i].said);
	}
}

static void test_refused(void **state)
{
	const struct tap_spec tap = {
		.name = "vm0", .bridge = "br0", .mac = "52:54:00:00:00:0a", .vlan_id = 12};
	const struct rtnl_link plain = {.index = BRIDGE},
			       filters = {.index = BRIDGE, .vlan_filters = true, .default_pvid = 1};
	struct outcome is;

	ask(&tap, &plain, 0, 0, &is);
	assert_int_equal(is.r, -ENOTSUP);
	assert_non_null(strstr(is.err.msg, "vlan_id: bridge br0 does not filter VLANs"));
	assert_string_equal(is.said, "");
	ask(&tap, &filters, 1, EBUSY, &is);
	assert_int_equal(is.r, -EBUSY);
	assert_non_null(strstr(is.err.msg, "cannot put vm0 into bridge br0"));
	ask(&tap, &filters, 2, EOPNOTSUPP, &is);
	assert_int_equal(is.r, -EOPNOTSUPP);
	assert_non_null(strstr(is.err.msg, "cannot put the port into VLAN 12"));
	/* A guest that stays in the default VLAN too hears others. */
	ask(&tap, &filters, 3, EPERM, &is);
	assert_int_equal(is.r, -EPERM);
	assert_non_null(strstr(is.err.msg, "cannot take the port out of VLAN 1"));
	ask(&tap, &filters, 3, ENOENT, &is);
	assert_int_equal(is.r, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_messages),
					   cmocka_unit_test(test_refused)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
