# SPDX-License-Identifier: Apache-2.0
"""Where a guest's addresses are known from: leases of this host's DHCP servers, its neighbour
table, the guest's agent (that in test_live_agent.py); how long; and what each says of them."""

import contextlib
import os
import shutil
import signal
import subprocess
import time

import pytest

from drover import Deadline
from netns import arp, ip
from test_net import ARP, MACS, bridge, pair  # noqa: F401 - bridge is a fixture
from vmstated_help import vm

MAC = "52:54:00:00:00:0a"


def known(o, source=None):
    """Addresses of the first NIC, of one source or all."""
    sources = o["nics"][0].get("address_sources", {})
    assert sorted(sources) == sorted(o["nics"][0].get("addresses", [])), o["nics"][0]
    assert all(set(each) == {"source", "since"} for each in sources.values()), sources
    return sorted(address for address, each in sources.items()
                  if source in (None, each["source"]))


def wait_known(events, name, want, source=None, seconds=20):
    return events.wait_vm(name, lambda o: known(o, source) == want, seconds,
                          f"addresses {want} from {source or 'anywhere'}")


@contextlib.contextmanager
def dnsmasq(folder, *arguments):
    if not shutil.which("dnsmasq"):
        pytest.skip("dnsmasq is not installed")
    done = subprocess.Popen(
        ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root",
         "--interface=br0", "--bind-interfaces", f"--dhcp-leasefile={folder}/dnsmasq.leases",
         "--pid-file=", "--no-ping", "--dhcp-authoritative", *arguments],
        stderr=subprocess.DEVNULL)
    try:
        yield done
    finally:
        done.terminate()
        done.wait(10)


@pytest.mark.root
def test_lease_of_dnsmasq(bridge):  # noqa: F811
    """A guest asks a real server: its lease is its address until it gives it back."""
    suite = bridge
    folder = suite.root / "var/lib/misc"  # where vmadmd looks unasked
    folder.mkdir(parents=True)
    suite.start()
    with dnsmasq(folder, "--dhcp-range=10.9.0.100,10.9.0.110,10m"), suite.events() as events:
        suite.write_definition("a", suite.guest(
            "drover.net=dhcp", nic=[f'net0 {{ bridge = br0; mac = "{MAC}"; ips = [ "dhcp" ]; }}']))
        suite.vmstatedctl("start", "a", seconds=60)
        suite.log_wait("a", "NET-UP 10.9.0.", 60)
        leased = events.wait_vm("a", lambda o: known(o, "lease"), 20, "a lease")
        (address,) = known(leased, "lease")
        suite.kill9("vmadmd")
        suite.start("vmadmd")
        wait_known(events, "a", [address], "lease")
        with suite.console(suite.uuid("a")) as console:
            console.wait("guest# ", 30)
            console.send("udhcpc -i eth0 -p /pid -s /bin/true; "
                         "until [ -s /pid ]; do sleep 0.1; done; kill -USR2 $(cat /pid)\n")
        wait_known(events, "a", [], "lease")
        suite.vmstatedctl("stop", "-F", "a")


DHCPD = """lease {} {{
  ends {};
  binding state {};
  hardware ethernet {};
}}
"""


@pytest.mark.root
def test_files_of_servers(bridge):  # noqa: F811
    """Files of three servers, named by option: read as they change, and until a lease is over."""
    suite = bridge
    folder = suite.root / "leases"
    folder.mkdir()
    files = {name: folder / name for name in ("dnsmasq", "dhcpd", "kea")}
    a, b = pair(suite, "", "")
    suite.stop("vmadmd")
    files["dhcpd"].write_text(DHCPD.format("10.9.0.20", "never", "active", a.text))
    suite.start("vmadmd", arguments=[word for file in files.values()
                                     for word in ("--lease-file", str(file))])
    with suite.events() as events:
        wait_known(events, "a", ["10.9.0.20"], "lease")
        # Appended to, as dhcpd does; by rename, as at its start; over at a time.
        with open(files["dhcpd"], "a", encoding="ascii") as out:
            out.write(DHCPD.format("10.9.0.20", "never", "free", a.text))
        wait_known(events, "a", [])
        new = folder / "new"
        new.write_text(DHCPD.format("10.9.0.21", f"epoch {int(time.time()) + 3}", "active", a.text))
        os.rename(new, files["dhcpd"])
        wait_known(events, "a", ["10.9.0.21"], "lease")
        files["dnsmasq"].write_text(f"0 {b.text} 10.9.0.22 b *\n")
        files["kea"].write_text("address,hwaddr,expire,state\n"
                                f"fd00::22,{b.text},{int(time.time()) + 3600},0\n")
        wait_known(events, "b", ["10.9.0.22", "fd00::22"], "lease")
        wait_known(events, "a", [])  # over
        # What is no lease file takes no other's leases away, and is told once.
        os.unlink(files["kea"])
        os.mkfifo(files["kea"])
        wait_known(events, "b", ["10.9.0.22"])
        files["dhcpd"].write_bytes(os.urandom(100000))
        files["dnsmasq"].write_text(f"0 {b.text} 10.9.0.23 b *\n" + "x" * (5 << 20))
        wait_known(events, "b", [])
        files["dnsmasq"].write_text(f"0 {b.text} 10.9.0.23 b *\n0 {'x' * 5000}\n")
        wait_known(events, "b", ["10.9.0.23"])
        told = "".join(suite.outputs().values())
        assert told.count("leases not known") >= 2 and "is not a regular file" in told
        suite.vmstatedctl("stop", "-F", "b")
        assert known(suite.vm(suite.uuid("b"))) == []
    a.close()
    b.close()


def test_lease_file_is_judged(suite):
    for path, why in (("leases", "'leases' is no absolute path of a file"),
                      ("/tmp/", "'/tmp/' is no absolute path of a file")):
        done = subprocess.run([str(suite.binary("vmadmd")), "--lease-file", path], check=False,
                              capture_output=True, text=True)
        assert done.returncode == 2 and why in done.stderr, done.stderr
    many = [word for i in range(9) for word in ("--lease-file", f"/x/{i}")]
    done = subprocess.run([str(suite.binary("vmadmd")), *many], check=False, capture_output=True,
                          text=True)
    assert done.returncode == 2 and "want at most 8" in done.stderr, done.stderr


@pytest.mark.root
def test_neighbours_that_are_gone(bridge):  # noqa: F811
    """A silent guest is asked for; one that does not answer has the address no more."""
    suite = bridge
    for name, value in (("delay_first_probe_time", 1), ("retrans_time_ms", 100),
                        ("ucast_solicit", 1), ("mcast_solicit", 1), ("base_reachable_time_ms", 1000)):
        with open(f"/proc/sys/net/ipv4/neigh/br0/{name}", "w", encoding="ascii") as out:
            out.write(str(value))
    a, b = pair(suite, "", "")
    vmstated = suite.daemons["vmstated"]
    with suite.events() as events:
        for guest, number in ((a, 2), (b, 3)):
            for last in (number, number + 10):
                guest.send_to(b"\xff" * 6, ARP, arp(guest.mac, f"10.9.0.{last}", "10.9.0.1"))
        wait_known(events, "a", ["10.9.0.12", "10.9.0.2"], "neighbour")
        wait_known(events, "b", ["10.9.0.13", "10.9.0.3"], "neighbour")
        since = suite.vm(suite.uuid("b"))["nics"][0]["address_sources"]["10.9.0.3"]["since"]
        # One is taken away by hand, one moves to another MAC.
        ip("neigh", "del", "10.9.0.12", "dev", "br0")
        wait_known(events, "a", ["10.9.0.2"])
        ip("neigh", "replace", "10.9.0.13", "lladdr", MACS["a"], "dev", "br0", "nud", "stale")
        wait_known(events, "a", ["10.9.0.13", "10.9.0.2"])
        wait_known(events, "b", ["10.9.0.3"])
        vmstated.send(signal.SIGHUP)
        answered, deadline = False, Deadline(10)
        while not answered and not deadline.over():
            asked = b.next_frame(deadline)
            if asked[12:14] == b"\x08\x06" and asked[20:22] == b"\0\1" and asked[38:42] == \
                    bytes([10, 9, 0, 3]):
                b.send_to(asked[6:12], ARP, arp(b.mac, "10.9.0.3", "10.9.0.1", reply=asked[6:12]))
                answered = True
        assert answered
        wait_known(events, "a", [])
        o = suite.vm(suite.uuid("b"))
        assert o["nics"][0]["address_sources"] == {"10.9.0.3": {"source": "neighbour",
                                                              "since": since}}
        # The next vmstated reads the table; the end of the guest ends it.
        suite.kill9("vmstated")
        suite.start("vmstated")
        wait_known(events, "b", ["10.9.0.3"], "neighbour")
        os.kill(vm(suite, "b")["pid"], 9)
        wait_known(events, "b", [])
    a.close()
    b.close()
