/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taps by ioctl and rtnetlink; Open vSwitch bridges by ovs-vsctl. The order of a set-up: open,
 * filter (not here), connect, which brings it up last: no packet passes before its rules are in
 * force.
 */
#include "vmstated/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/pkt_sched.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/rtnl.h"
#include "base/strbuf.h"
#include "vmstated/net_run.h"

#define TUN         "/dev/net/tun"
#define LATENCY_DIV 10           /* a tenth of a second of traffic may wait */
#define BURST_LEAST (128u << 10) /* bytes */
#define TAP_MAC_TOP 0xfe         /* higher than any: a bridge takes its lowest port's for its own */

/* --- opening --- */

static int no_tun(int code, struct err *err)
{
	if (code == ENOENT || code == ENODEV || code == ENXIO)
		return err_set(err, code,
			       TUN
			       " is missing: the host makes no tap interfaces (modprobe tun, or "
			       "use bridge = user)");
	return err_sys(err, code, "cannot open " TUN " (use bridge = user)");
}

static int not_set(const struct tap_spec *t, int code, struct err *err)
{
	if (code == EPERM)
		return err_set(
			err, code,
			"cannot make tap interface %s: vmstated has no CAP_NET_ADMIN (run it "
			"as root, or use bridge = user)",
			t->name);
	if (code == EBUSY)
		return err_set(err, code, "tap interface %s is open in another process", t->name);
	if (code == EINVAL)
		return err_set(err, code, "interface %s is no tap", t->name);
	return err_sys(err, code, "cannot open tap interface %s", t->name);
}

int tap_open(const struct tap_spec *t, int *ret_fd, struct err *err)
{
	struct ifreq req = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	AUTO_FD int fd = -1;

	if (strlen(t->name) >= IFNAMSIZ || (!t->bridge && if_nametoindex(t->name) == 0))
		return err_set(err, ENODEV, "interface %s does not exist", t->name);
	memcpy(req.ifr_name, t->name, strlen(t->name) + 1);
	fd = open(TUN, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return no_tun(errno, err);
	if (ioctl(fd, TUNSETIFF, &req) < 0)
		return not_set(t, errno, err);
	*ret_fd = steal_fd(&fd);
	return 0;
}

/* --- link --- */

/* The guest's address with another first octet, so that the bridge does not take the guest's. */
static void put_mac(struct rtnl_msg *m, const char *text)
{
	uint8_t mac[6];

	for (size_t i = 0; i < sizeof(mac); i++) {
		char *end;

		mac[i] = (uint8_t)strtoul(text, &end, 16);
		text = *end ? end + 1 : end;
	}
	mac[0] = TAP_MAC_TOP;
	rtnl_put(m, IFLA_ADDRESS, mac, sizeof(mac));
}

static int set_link(int fd, int index, const struct tap_spec *t, int master, struct err *err)
{
	struct ifinfomsg body = {.ifi_family = AF_UNSPEC, .ifi_index = index};
	struct rtnl_msg m;

	rtnl_begin(&m, RTM_NEWLINK, 0, &body, sizeof(body));
	put_mac(&m, t->mac);
	if (t->mtu)
		rtnl_put_u32(&m, IFLA_MTU, t->mtu);
	if (master)
		rtnl_put_u32(&m, IFLA_MASTER, (uint32_t)master);
	return rtnl_ask(fd, &m, err);
}

static int bring_up(int fd, int index, struct err *err)
{
	struct ifinfomsg body = {.ifi_family = AF_UNSPEC,
				 .ifi_index = index,
				 .ifi_flags = IFF_UP,
				 .ifi_change = IFF_UP};
	struct rtnl_msg m;

	rtnl_begin(&m, RTM_NEWLINK, 0, &body, sizeof(body));
	return rtnl_ask(fd, &m, err);
}

/* The host itself is not to speak on the guest's wire. */
static void no_address(int fd, int index)
{
	struct ifinfomsg body = {.ifi_family = AF_UNSPEC, .ifi_index = index};
	uint8_t none = IN6_ADDR_GEN_MODE_NONE;
	struct rtnl_msg m;
	size_t spec, inet6;

	rtnl_begin(&m, RTM_NEWLINK, 0, &body, sizeof(body));
	spec = rtnl_enter(&m, IFLA_AF_SPEC);
	inet6 = rtnl_enter(&m, AF_INET6);
	rtnl_put(&m, IFLA_INET6_ADDR_GEN_MODE, &none, sizeof(none));
	rtnl_leave(&m, inet6);
	rtnl_leave(&m, spec);
	(void)rtnl_ask(fd, &m, NULL); /* a kernel without IPv6 has nothing to turn off */
}

/* --- VLAN of a bridge port --- */

static int vlan(int fd, int index, uint16_t type, struct bridge_vlan_info info, struct err *err)
{
	struct ifinfomsg body = {.ifi_family = AF_BRIDGE, .ifi_index = index};
	struct rtnl_msg m;
	size_t spec;

	rtnl_begin(&m, type, 0, &body, sizeof(body));
	spec = rtnl_enter(&m, IFLA_AF_SPEC);
	rtnl_put(&m, IFLA_BRIDGE_VLAN_INFO, &info, sizeof(info));
	rtnl_leave(&m, spec);
	return rtnl_ask(fd, &m, err);
}

/* Only the guest's VLAN, untagged on its side: the port came with the bridge's default. */
static int set_vlan(int fd, int index, uint32_t id, uint16_t default_pvid, struct err *err)
{
	struct bridge_vlan_info own = {.flags = BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED,
				       .vid = (uint16_t)id};
	int r = vlan(fd, index, RTM_SETLINK, own, err);

	if (r < 0)
		return err_wrap(err, r, "cannot put the port into VLAN %u", id);
	if (default_pvid == 0 || default_pvid == id)
		return 0;
	r = vlan(fd, index, RTM_DELLINK, (struct bridge_vlan_info){.vid = default_pvid}, err);
	return r == 0 || r == -ENOENT
		       ? 0
		       : err_wrap(err, r, "cannot take the port out of VLAN %u", default_pvid);
}

/* --- connecting --- */

int tap_to_bridge(int fd, int index, const struct tap_spec *t, const struct rtnl_link *bridge,
		  struct err *err)
{
	int r;

	if (t->vlan_id && !bridge->vlan_filters)
		return err_set(
			err, ENOTSUP,
			"vlan_id: bridge %s does not filter VLANs (ip link set %s type bridge "
			"vlan_filtering 1, on a kernel with CONFIG_BRIDGE_VLAN_FILTERING)",
			t->bridge, t->bridge);
	r = set_link(fd, index, t, bridge->index, err);
	if (r < 0)
		return err_wrap(err, r, "cannot put %s into bridge %s", t->name, t->bridge);
	return t->vlan_id ? set_vlan(fd, index, t->vlan_id, bridge->default_pvid, err) : 0;
}

/* An interface that is no bridge of the kernel's may be one of Open vSwitch. */
static int to_ovs(int fd, int index, const struct tap_spec *t, struct err *err)
{
	struct err why = {0};
	int r = ovs_has_bridge(t->bridge, &why);

	if (r == -ENOENT)
		return err_set(
			err, ENOTSUP,
			"interface %s is no bridge, and ovs-vsctl, which would know it as one "
			"of Open vSwitch, is not installed",
			t->bridge);
	if (r < 0)
		return err_set(err, EINVAL,
			       "interface %s is no bridge, of Open vSwitch neither%s%s", t->bridge,
			       why.msg[0] ? ": " : "", why.msg);
	r = set_link(fd, index, t, 0, err);
	return r < 0 ? err_wrap(err, r, "cannot set up %s", t->name)
		     : ovs_add_port(t->bridge, t->name, t->vlan_id, err);
}

int tap_connect(const struct tap_spec *t, struct err *err)
{
	struct rtnl_link bridge, tap;
	AUTO_FD int fd = -1;
	int r = rtnl_open(&fd, err);

	if (r < 0)
		return r;
	r = rtnl_link(fd, t->bridge, &bridge, NULL);
	if (r == -ENODEV)
		return err_set(err, ENODEV,
			       "bridge %s does not exist on this host (ip link add %s type bridge; "
			       "or use bridge = user)",
			       t->bridge, t->bridge);
	if (r == 0)
		r = rtnl_link(fd, t->name, &tap, err);
	if (r < 0)
		return r;
	no_address(fd, tap.index);
	if (str_eq(bridge.kind, "bridge"))
		r = tap_to_bridge(fd, tap.index, t, &bridge, err);
	else
		r = to_ovs(fd, tap.index, t, err);
	if (r == 0 && t->in_kbit)
		r = tap_shape(t->name, t->in_kbit, err);
	return r < 0 ? r : bring_up(fd, tap.index, err);
}

/* --- shaping: a token bucket --- */

static void put_bucket(struct rtnl_msg *m, uint32_t kbit)
{
	uint64_t rate = (uint64_t)kbit * 125, burst = rate / LATENCY_DIV;
	struct tc_tbf_qopt opt = {.rate.linklayer = TC_LINKLAYER_ETHERNET};
	size_t options;

	if (burst < BURST_LEAST)
		burst = BURST_LEAST;
	if (burst > UINT32_MAX / 2)
		burst = UINT32_MAX / 2;
	opt.rate.rate = rate > UINT32_MAX ? UINT32_MAX : (uint32_t)rate;
	opt.limit = (uint32_t)(2 * burst);
	rtnl_put_str(m, TCA_KIND, "tbf");
	options = rtnl_enter(m, TCA_OPTIONS);
	rtnl_put(m, TCA_TBF_PARMS, &opt, sizeof(opt));
	if (rate > UINT32_MAX)
		rtnl_put(m, TCA_TBF_RATE64, &rate, sizeof(rate));
	rtnl_put_u32(m, TCA_TBF_BURST, (uint32_t)burst);
	rtnl_leave(m, options);
}

int tap_shape(const char *tap, uint32_t kbit, struct err *err)
{
	struct tcmsg body = {.tcm_family = AF_UNSPEC,
			     .tcm_ifindex = (int)if_nametoindex(tap),
			     .tcm_parent = TC_H_ROOT};
	struct rtnl_msg m;
	AUTO_FD int fd = -1;
	int r = rtnl_open(&fd, err);

	if (r < 0)
		return r;
	if (kbit == 0) {
		rtnl_begin(&m, RTM_DELQDISC, 0, &body, sizeof(body));
		(void)rtnl_ask(fd, &m, NULL); /* there may be none */
		return 0;
	}
	rtnl_begin(&m, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, &body, sizeof(body));
	put_bucket(&m, kbit);
	r = rtnl_ask(fd, &m, err);
	return r < 0 ? err_wrap(err, r, "bandwidth_in: this kernel has no token bucket (tbf)") : 0;
}
