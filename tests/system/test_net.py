# SPDX-License-Identifier: Apache-2.0
"""Guests on a bridge: taps, filters, limits, and that nothing of them stays."""

import json
import os
import select
import shutil
import signal
import subprocess
import time

import pytest

from drover import TOP, Deadline, wait_file
from netns import (Tap, advertisement, arp, dhcp, dhcp6, ip, link, links, namespace, router, run, tables,
                   taps, taps_of, udp4, udp6)
from vmstated_help import log_of, vm

pytestmark = pytest.mark.root


@pytest.fixture
def bridge(cold):
    """The suite in a network namespace with br0, 10.9.0.1/24."""
    if not shutil.which("nft"):
        pytest.skip("nft is not installed")
    with namespace():
        ip("link", "add", "br0", "type", "bridge")
        ip("addr", "add", "10.9.0.1/24", "dev", "br0")
        ip("link", "set", "br0", "up")
        yield cold
        cold.finish()


def nic(number, more="", bridge_name="br0"):
    return [f'net0 {{ bridge = {bridge_name}; ips = [ "10.9.0.{number}/24" ]; {more} }}']


def ping(console, arguments, answers):
    """Ping from a guest; answers: whether any may come."""
    console.send(f"ping {arguments} > /ping 2>&1; grep -c 'bytes from' /ping; echo PING''-END\n")
    seen = console.wait("PING-END", 30)
    got = seen[:seen.rindex(b"PING-END")].split()[-1]
    assert (got != b"0") == answers, seen[-600:]


def test_two_guests(bridge):
    """They reach each other; one that sends as somebody else reaches nobody; nothing stays."""
    suite = bridge
    suite.start()
    names = {"a": 2, "b": 3}
    for name, number in names.items():
        suite.write_definition(name, suite.guest(f"drover.net=10.9.0.{number}/24",
                                                 nic=nic(number, "mtu = 1400;")))
    for name in names:
        suite.vmstatedctl("start", name)
    for name in names:
        suite.log_wait(name, "NET-UP", 90)
    assert sorted(taps().values()) == ["br0", "br0"]
    assert tables() == sorted(f"drover_{tap}" for tap in taps())
    (of_a,) = taps_of(vm(suite, "a")["pid"])
    assert of_a in taps()

    console = suite.console(suite.uuid("a"))
    console.send("echo MTU=$(cat /sys/class/net/eth0/mtu).\n")
    console.wait("MTU=1400.", 30)
    ping(console, "-c 1 -W 5 10.9.0.3", True)
    console.send("ping -c 1 -W 5 10.9.0.1\n")  # the host gets to know it
    with suite.events() as events:
        events.wait_vm("a", lambda o: o["nics"][0].get("addresses") == ["10.9.0.2"], 20, "address")
    # Another IP address, by which the other would answer.
    console.send("ip addr add 10.9.0.66/24 dev eth0\n")
    ping(console, "-c 1 -W 1 -I 10.9.0.66 10.9.0.3", False)
    # Allowed while it runs.
    suite.write_definition("a", suite.guest("drover.net=10.9.0.2/24",
                                            nic=nic(2, "mtu = 1400; allow_ip_spoofing = yes;")))
    suite.log_wait("a", "network filter and limits changed")
    ping(console, "-c 1 -W 5 -I 10.9.0.66 10.9.0.3", True)
    # Another Ethernet address.
    console.send("ip link set eth0 down; ip link set eth0 address 52:54:00:66:66:66; "
                 "ip link set eth0 up\n")
    ping(console, "-c 1 -W 1 10.9.0.3", False)
    console.sock.close()

    # A second NIC while it runs, known to a vmstated that was not there then.
    suite.vmadm("update", "b", stdin={"add_nics": [{"nic_tag": "br0", "model": "virtio"}]})
    assert len(taps()) == len(tables()) == len(taps_of(vm(suite, "b")["pid"])) + 1 == 3
    suite.kill9("vmstated")
    suite.start("vmstated")
    assert len(taps()) == len(tables()) == 3

    with suite.events() as events:
        os.kill(vm(suite, "a")["pid"], 9)
        events.wait_vm("a", lambda o: o.get("state") == "stopped", 20, "stopped")
    assert of_a not in links()
    assert f"drover_{of_a}" not in tables() and len(tables()) == 2
    suite.vmstatedctl("stop", "-F", "b")
    assert taps() == {} and tables() == []


@pytest.mark.campaign
def test_plugged(bridge):
    """A NIC on a bridge in and out of a running machine, its filter with it; nothing stays."""
    suite = bridge
    suite.start()
    suite.write_definition("web0", suite.guest("drover.modules", nic=nic(2)))
    suite.vmstatedctl("start", "web0", seconds=60)
    suite.log_wait("web0", "GUEST-UP", 60)
    (first,) = taps()
    second = {"mac": "52:54:00:00:00:77", "nic_tag": "br0", "model": "virtio",
              "ips": ["10.9.0.7/24"]}
    refused = suite.vmadm("update", "web0", stdin={"add_nics": [dict(second, nic_tag="br7")]},
                          check=1)
    assert "bridge br7 does not exist on this host" in refused.stderr
    assert list(taps()) == [first] and tables() == [f"drover_{first}"]

    suite.vmadm("update", "web0", stdin={"add_nics": [second]})
    (tap,) = set(taps()) - {first}
    assert sorted(taps_of(vm(suite, "web0")["pid"])) == sorted([first, tap])
    assert tables() == sorted(f"drover_{name}" for name in (first, tap))
    assert not suite.vm(suite.uuid("web0")).get("pending")
    suite.kill9("vmstated")
    suite.start("vmstated")
    console = suite.console(suite.uuid("web0"))
    console.send("until ip link set eth1 up; do sleep 0.1; done; ip addr add 10.9.0.7/24 dev eth1; "
                 "ip addr add 10.9.0.8/24 dev eth1\n")
    ping(console, "-c 2 -W 5 -I 10.9.0.7 10.9.0.1", True)
    ping(console, "-c 2 -W 1 -I 10.9.0.8 10.9.0.1", False)
    console.sock.close()
    assert tables() == sorted(f"drover_{name}" for name in (first, tap))

    suite.vmadm("update", "web0", stdin={"remove_nics": [second["mac"]]})
    assert list(taps()) == [first] and tables() == [f"drover_{first}"]
    suite.vmadm("update", "web0", stdin={"add_nics": [second]})
    assert len(taps()) == 2
    suite.vmstatedctl("stop", "-F", "web0")
    assert taps() == {} and tables() == []


def linux_bridge(suite):
    """br0 with VLANs apart; yields its name and what lists its ports."""
    if subprocess.run(["ip", "link", "set", "br0", "type", "bridge", "vlan_filtering", "1"],
                      capture_output=True, check=False).returncode:
        pytest.skip("the kernel's bridges do not filter VLANs")
    yield "br0", taps


def open_vswitch(suite):
    if not shutil.which("ovs-vswitchd"):
        pytest.skip("Open vSwitch is not installed")
    folder = suite.root / "ovs"
    folder.mkdir()
    database, socket = folder / "conf.db", folder / "db.sock"
    suite.env.update(OVS_RUNDIR=str(folder), OVS_LOGDIR=str(folder))
    run("ovsdb-tool", "create", str(database), "/usr/share/openvswitch/vswitch.ovsschema")
    daemons = []
    try:
        daemons.append(subprocess.Popen(["ovsdb-server", str(database), f"--remote=punix:{socket}"],
                                        env=suite.env, cwd=folder, stderr=subprocess.DEVNULL))
        asked = ["ovs-vsctl", "--retry", "--timeout=10", f"--db=unix:{socket}"]
        run(*asked, "--no-wait", "init")
        daemons.append(subprocess.Popen(["ovs-vswitchd", f"unix:{socket}"], env=suite.env,
                                        cwd=folder, stderr=subprocess.DEVNULL))
        run(*asked, "add-br", "ov0", "--", "set", "bridge", "ov0", "datapath_type=netdev")
        yield "ov0", lambda: run(*asked, "list-ports", "ov0").split()
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(10)


@pytest.mark.campaign
@pytest.mark.parametrize("made", [linux_bridge, open_vswitch])
def test_vlans_are_apart(bridge, made):
    suite = bridge
    kind = made(suite)
    name, ports = next(kind)
    try:
        suite.start()
        vlans = {2: 12, 3: 12, 4: 13}
        for number, vlan in vlans.items():
            suite.write_definition(f"g{number}", suite.guest(
                f"drover.net=10.9.0.{number}/24", nic=nic(number, f"vlan_id = {vlan};", name)))
            suite.vmstatedctl("start", f"g{number}")
        for number in vlans:
            suite.log_wait(f"g{number}", "NET-UP", 120)
        assert len(ports()) == 3
        console = suite.console(suite.uuid("g2"))
        ping(console, "-c 2 -W 5 10.9.0.3", True)
        ping(console, "-c 2 -W 2 10.9.0.4", False)
        console.sock.close()
        suite.vmstatedctl("stop", "-F", "g3")
        assert len(ports()) == 2
        # Killed together with their supervisor: the next one takes away what they left.
        pids = [vm(suite, f"g{number}")["pid"] for number in (2, 4)]
        suite.kill9("vmstated")
        for pid in pids:
            os.kill(pid, 9)
        suite.start("vmstated")
        with suite.events() as events:
            for number in (2, 4):
                events.wait_vm(f"g{number}", lambda o: o.get("state") == "stopped", 20, "stopped")
        assert ports() == [] and taps() == {} and tables() == []
        suite.finish()
    finally:
        kind.close()


def test_tap_as_asked(bridge):
    """MTU, limits, rules and hooks' view of a NIC; what is live changes, also after a SIGKILL."""
    suite = bridge
    suite.use_fake_qemu()
    suite.start()
    hooks = {"running": 'echo "taps=[$VM_TAPS]"'}
    body = suite.guest(nic=nic(2, "mtu = 1400; bandwidth_in = 8000; bandwidth_out = 4000;"))
    suite.write_definition("web", body, hooks)
    suite.vmstatedctl("start", "web")
    (tap,) = taps()
    assert taps_of(vm(suite, "web")["pid"]) == [tap]
    shown = link(tap)
    assert shown["mtu"] == 1400 and "UP" in shown["flags"]
    assert shown["address"] == "fe" + suite.vm(suite.uuid("web"))["nics"][0]["mac"][2:]
    shaped = json.loads(run("tc", "-j", "qdisc", "show", "dev", tap))[0]
    assert (shaped["kind"], shaped["options"]["rate"]) == ("tbf", 1000000)
    assert "limit rate over 500000 bytes/second" in run("nft", "list", "ruleset")
    suite.log_wait("web", f"taps=[{tap}]")

    suite.kill9("vmstated")
    suite.write_definition("web", body.replace("8000", "16000").replace("4000", "0"))
    suite.start("vmstated")
    suite.log_wait("web", "network filter and limits changed")
    shaped = json.loads(run("tc", "-j", "qdisc", "show", "dev", tap))[0]
    assert shaped["options"]["rate"] == 2000000
    assert "limit rate" not in run("nft", "list", "ruleset")
    suite.vmstatedctl("stop", "-F", "web")
    assert taps() == {} and tables() == []


def test_several_nics(bridge):
    suite = bridge
    suite.use_fake_qemu()
    suite.start()
    ip("tuntap", "add", "dev", "byhand", "mode", "tap")
    ip("link", "set", "byhand", "mtu", "1350", "address", "02:00:00:00:00:77")

    def by_hand():
        """All of a tap that is somebody else's, but for what says that it is open."""
        shown = link("byhand")
        return {key: shown[key] for key in ("ifindex", "mtu", "address", "qdisc", "group")}, \
            shown.get("master"), shown["linkinfo"]["info_data"]["persist"]

    before = by_hand()
    suite.write_definition("many", suite.guest(nic=[
        "net0 { bridge = br0; }", "net1 { bridge = user; }", "net2 { tap = byhand; }",
        'net3 { bridge = br0; allow_mac_spoofing = yes; allow_dhcp_spoofing = yes; '
        'allow_restricted_traffic = yes; allow_unfiltered_promisc = yes; }']))
    suite.vmstatedctl("start", "many")
    assert len(taps_of(vm(suite, "many")["pid"])) == 3
    assert len(taps()) == 2
    assert len(tables()) == 1  # the last NIC may do everything
    assert by_hand() == before
    suite.vmstatedctl("stop", "-F", "many")
    assert sorted(links()) == ["br0", "byhand", "lo"] and by_hand() == before
    assert tables() == []


def test_refused(bridge):
    suite = bridge
    suite.use_fake_qemu()
    suite.start()
    ip("tuntap", "add", "dev", "dummy0", "mode", "tap")
    for number, (bridge_name, more, why) in enumerate([
            ("br7", "", "nics[0]: bridge br7 does not exist on this host"),
            ("dummy0", "", "nics[0]: interface dummy0 is no bridge"),
            ("br0", "vlan_id = 12;", "nics[0]: vlan_id: bridge br0 does not filter VLANs")]):
        name = f"web{number}"
        suite.write_definition(name, suite.guest(maxrestart=0, onfailure="fail",
                                                 nic=nic(2 + number, more, bridge_name)))
        done = suite.vmstatedctl("start", name, check=1)
        assert why in done.stderr
        assert why in log_of(suite, name)
        assert taps() == {} and tables() == []


IP4, ARP, IP6 = 0x0800, 0x0806, 0x86dd
MACS = {"a": "52:54:00:00:00:0a", "b": "52:54:00:00:00:0b"}


def pair(suite, of_a, of_b):
    """Two guests that are only taps; definitions of their NICs to them."""
    suite.use_fake_qemu()
    suite.start()
    taps_by_name = []
    for name, more in (("a", of_a), ("b", of_b)):
        suite.write_definition(name, suite.guest(
            nic=[f'net0 {{ bridge = br0; mac = "{MACS[name]}"; {more} }}']))
        suite.vmstatedctl("start", name)
        taps_by_name.append(Tap(vm(suite, name)["pid"], MACS[name]))
    return taps_by_name


def test_packets_of_others(bridge):
    """What a guest sends in another's name does not come to its neighbour: packet by packet."""
    own = 'ips = [ "10.9.0.2/24", "2001:db8::2/64" ];'
    a, b = pair(bridge, own, 'ips = [ "10.9.0.3/24" ]; dhcp_server = yes;')
    other = bytes.fromhex("525400000066")
    for passes, ethertype, payload, source in [
            (True, IP4, udp4("10.9.0.2", (1000, 1000)), None),
            (False, IP4, udp4("10.9.0.66", (1000, 1000)), None),
            (False, IP4, udp4("10.9.0.2", (1000, 1000)), other),
            (True, IP4, udp4("0.0.0.0", (68, 67)), None),
            (True, ARP, arp(a.mac, "10.9.0.2"), None),
            (False, ARP, arp(a.mac, "10.9.0.66"), None),
            (False, ARP, arp(other, "10.9.0.2"), None),
            (True, IP6, udp6("2001:db8::2", (1000, 1000)), None),
            (True, IP6, udp6("fe80::2", (1000, 1000)), None),
            (False, IP6, udp6("2001:db8::66", (1000, 1000)), None),
            (True, IP6, advertisement("fe80::2", "2001:db8::2"), None),
            (False, IP6, advertisement("fe80::2", "2001:db8::66"), None),
            (False, IP6, router("fe80::2"), None),
            (False, IP6, udp6("fe80::2", (547, 546)), None),
            (False, IP4, udp4("10.9.0.2", (67, 68)), None),
            (False, 0x88cc, b"a neighbour's protocol", None)]:
        assert a.reaches(b, ethertype, payload, source) == passes, (ethertype, payload, source)
    # A guest that serves DHCP may.
    assert b.reaches(a, IP4, udp4("10.9.0.3", (67, 68)))
    assert b.reaches(a, IP6, router("fe80::3"))
    a.close()
    b.close()


def soon(check, seconds=10):
    """What vmstated hears is in the filter a moment later."""
    deadline = Deadline(seconds)
    while not check():
        assert not deadline.over()


def alike(sends, claims):
    """Whether it may send by an address, and with it, but for a moment, may claim to have it."""
    deadline = Deadline(10)
    while True:
        passes = sends()
        if claims() == passes:
            return passes
        assert not deadline.over()


def test_lease_is_followed(bridge):
    """With ips = dhcp a guest has the addresses it was leased, as long as they are; also behind
    new rules, after a flush, and what was leased while no vmstated was there."""
    suite = bridge
    a, b = pair(suite, 'ips = [ "dhcp" ];', 'ips = [ "10.9.0.3/24" ]; dhcp_server = yes;')

    def serves(address, mac=a.mac, **more):
        assert b.reaches(a, IP4, udp4("10.9.0.3", (67, 68), dhcp(mac, address, **more)))

    def may(address):
        return alike(lambda: a.reaches(b, IP4, udp4(address, (1000, 1000))),
                     lambda: a.reaches(b, ARP, arp(a.mac, address)))

    assert a.reaches(b, IP4, udp4("0.0.0.0", (68, 67)))
    assert not may("10.9.0.50")
    serves("10.9.0.50", kind=2)  # an offer is no lease
    assert not may("10.9.0.50")
    serves("10.9.0.50")
    serves("10.9.0.51", mac=b.mac)
    assert may("10.9.0.50") and not may("10.9.0.51")
    # Renewed to another one, for a short while; given back.
    serves("10.9.0.52", seconds=2)
    assert may("10.9.0.52")
    soon(lambda: not may("10.9.0.52"))
    assert may("10.9.0.50")
    run("nft", "flush", "ruleset")
    suite.daemons["vmstated"].send(signal.SIGHUP)
    suite.log_wait("a", "network filter and limits changed")
    assert may("10.9.0.50") and not may("10.9.0.52")
    assert a.reaches(b, IP4, udp4("10.9.0.50", (68, 67), dhcp(a.mac, "10.9.0.50", kind=7)))
    soon(lambda: not may("10.9.0.50"))
    suite.kill9("vmstated")
    serves("10.9.0.53")
    assert may("10.9.0.53")
    suite.write_definition("a", suite.guest(nic=[
        f'net0 {{ bridge = br0; mac = "{MACS["a"]}"; ips = [ "dhcp" ]; bandwidth_out = 90000; }}']))
    suite.start("vmstated")
    soon(lambda: "limit rate" in run("nft", "list", "ruleset"))
    assert may("10.9.0.53") and not may("10.9.0.50")
    serves("10.9.0.53", seconds=2)
    soon(lambda: not may("10.9.0.53"))
    a.close()
    b.close()


def test_routers_word_is_followed(bridge):
    """With ips = addrconf a guest has any address of the prefixes a router announced, those a
    DHCPv6 server leased to it, and no others."""
    suite = bridge
    a, b = pair(suite, 'ips = [ "addrconf" ];', 'ips = [ "10.9.0.3/24" ]; dhcp_server = yes;')

    def may(address):
        return alike(lambda: a.reaches(b, IP6, udp6(address, (1000, 1000))),
                     lambda: a.reaches(b, IP6, advertisement("fe80::2", address)))

    assert may("fe80::2") and a.reaches(b, IP6, udp6("::", (1000, 1000)))
    assert not may("2001:db8:1::5")
    assert b.reaches(a, IP6, router("fe80::3", ("2001:db8:1::", 600), ("2001:db8:2::", 3)))
    soon(lambda: may("2001:db8:2::9"))
    assert may("2001:db8:1::5") and may("2001:db8:1::dead:beef:1") and not may("2001:db8:3::5")
    assert b.reaches(a, IP6, dhcp6("fe80::3", "2001:db8:3::7", 600))
    soon(lambda: may("2001:db8:3::7"))
    assert not may("2001:db8:3::8")
    soon(lambda: not may("2001:db8:2::9"))  # over
    # Given back.
    assert a.reaches(b, IP6, dhcp6("fe80::2", "2001:db8:3::7", 0, kind=8))
    soon(lambda: not may("2001:db8:3::7"))
    run("nft", "flush", "ruleset")
    suite.daemons["vmstated"].send(signal.SIGHUP)
    suite.log_wait("a", "network filter and limits changed")
    assert may("2001:db8:1::6") and not may("2001:db8:3::7")
    # Withdrawn; and a guest is no router.
    assert b.reaches(a, IP6, router("fe80::3", ("2001:db8:1::", 0)))
    soon(lambda: not may("2001:db8:1::6"))
    assert not a.reaches(b, IP6, router("fe80::2", ("2001:db8:4::", 600)))
    assert not may("2001:db8:4::1")
    a.close()
    b.close()


def through(a, b, seconds=2):
    """Bytes a second that come from one tap to the other when it sends all it can."""
    packet = udp4("10.9.0.2", (1000, 1000), bytes(1300))
    got, begun = 0, time.monotonic()
    deadline = Deadline(seconds)
    while not deadline.over():
        a.send(b, IP4, packet)
        while select.select([b.fd], [], [], 0)[0]:
            frame = b.next_frame(deadline)
            got += len(frame) if frame[12:14] == b"\x08\x00" else 0
    return got / (time.monotonic() - begun)


@pytest.mark.campaign
@pytest.mark.parametrize("of_a,of_b", [("bandwidth_out = 4000;", ""), ("", "bandwidth_in = 4000;")])
def test_rate_is_what_was_asked(bridge, of_a, of_b):
    """4000 kbit/s are half a million bytes a second, once the burst is used up; without it many
    times that."""
    a, b = pair(bridge, of_a, of_b)
    through(a, b, 3)
    slow = through(a, b, 3)
    assert 400_000 < slow < 550_000, slow
    other = bridge.guest(nic=[f'net0 {{ bridge = br0; mac = "{MACS["a" if of_a else "b"]}"; }}'])
    bridge.write_definition("a" if of_a else "b", other)
    bridge.log_wait("a" if of_a else "b", "network filter and limits changed")
    assert through(a, b) > 4 * slow
    a.close()
    b.close()


def test_one_mac_in_one_network(bridge):
    suite = bridge
    suite.use_fake_qemu()
    suite.start()
    for name in ("a", "b"):
        suite.write_definition(name, suite.guest(
            maxrestart=0, onfailure="fail",
            nic=['net0 { bridge = br0; mac = "52:54:00:00:00:09"; }']))
    suite.vmstatedctl("start", "a")
    done = suite.vmstatedctl("start", "b", check=1)
    assert "nics[0].mac: 52:54:00:00:00:09 is in use by a on br0" in done.stderr
    assert len(taps()) == 1


def test_leftovers_go_at_start(bridge):
    """A table whose tap is gone is taken away, one whose tap is there stays."""
    suite = bridge
    ip("tuntap", "add", "dev", "vmlives", "mode", "tap")
    run("nft", "-f", "-", text="table netdev drover_vmdead { }\ntable netdev drover_vmlives { }\n"
                               "table netdev others { }\n")
    suite.start("vmstated")
    wait_file(suite.root / "vmstated.out", lambda data: b"removed: vmdead" in data, 10)
    assert tables() == ["drover_vmlives"]


def test_without_privilege(bridge):
    """Who may not make taps is told so."""
    plan = {"make": [{"index": 1, "tap": "vmx", "bridge": "br0", "mac": "52:54:00:00:00:01"}]}
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
         "--inh-caps=-all", str(bridge.binary("vmstated")), "--worker", "-1"],
        input=json.dumps(plan), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("nics[1]: ") and "use bridge = user" in done.stderr


def test_nft_takes_the_golden_rules(bridge):
    ip("tuntap", "add", "dev", "vmgolden", "mode", "tap")
    files = sorted((TOP / "tests/golden/filter").glob("*.nft"))
    assert files
    for file in files:
        run("nft", "-f", str(file))
        run("nft", "-f", str(file))  # in place of those before
