# SPDX-License-Identifier: Apache-2.0
"""vmadmd and what only root can set up on a host: taps with traffic, users of the host group vmadm."""

import ctypes
import os
import pathlib
import pwd
import socket
import subprocess
import threading

import pytest

import drover
from test_vmadmd import ask_as

pytestmark = pytest.mark.root

CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
GROUP = 64077
LIBC = ctypes.CDLL(None, use_errno=True)


def ip(*arguments):
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def network(cold):
    """A network namespace of our own, for this process and all it starts."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if LIBC.unshare(CLONE_NEWNET) != 0:
        os.close(home)
        pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    try:
        ip("link", "set", "lo", "up")
        yield cold
        cold.finish()
    finally:
        assert LIBC.setns(home, CLONE_NEWNET) == 0
        os.close(home)


def net_of(suite):
    (vm,) = suite.http("vmadmd", "GET", "/stats").json()["vms"]
    return vm["net"]


def test_counters_of_a_tap(network):
    """What the guest sends is tx, what the host sends it is rx; another tap's counters are not taken."""
    suite = network
    for tap in ("drv1", "drv10"):
        ip("tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr")
        ip("link", "set", tap, "up")
    suite.start()
    suite.write_definition("web0", suite.guest("drover.net=10.77.0.2/24",
                                               nic=['net0 { bridge = br0; tap = drv1; }']))
    ip("addr", "add", "10.77.0.1/24", "dev", "drv1")
    with suite.events() as events:
        suite.vmstatedctl("start", "web0", seconds=60)
        vm = events.wait_vm("web0", lambda v: v.get("ready"), 60, "ready")
        with drover.Console(suite.run_dir(vm["uuid"]) / "vm.console") as console:
            console.wait("NET-UP 10.77.0.2/24")
            before = net_of(suite)[0]
            assert before["device"] == "drv1" and {"rx_bytes", "tx_bytes"} <= set(before)
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind(("drv1", 0x88b5))
                for _ in range(100):
                    raw.send(b"\xff" * 6 + b"\x02\0\0\0\0\x01\x88\xb5" + b"x" * 1000)
            console.send("cat /sys/class/net/eth0/statistics/rx_bytes && echo COUNT''ED\n")
            seen = int(console.wait("COUNTED").split(b"rx_bytes && echo COUNT''ED")[-1].split()[0])
            after = net_of(suite)[0]
            assert after["rx_bytes"] - before["rx_bytes"] >= 100 * 1014 and seen >= 100 * 1014
            assert after["tx_bytes"] - before["tx_bytes"] < 20000
            console.send("ping -c 1 -s 1400 10.77.0.1 > /dev/null; echo SE''NT\n")
            console.wait("SENT")
            assert net_of(suite)[0]["tx_bytes"] - after["tx_bytes"] >= 1442
        suite.vmstatedctl("stop", "-F", "web0")


def in_mount_namespace(work):
    """Run work() in a thread with mounts of its own; what it starts has them too."""
    failed = []

    def body():
        try:
            assert LIBC.unshare(CLONE_NEWNS) == 0
            assert LIBC.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0
            work()
        except BaseException as problem:  # pylint: disable=broad-except
            failed.append(problem)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def test_members_of_vmadm_read_everything_but_secrets(cold):
    """A user of the host group vmadm, by its supplementary groups, reads and does nothing else."""
    suite = cold
    groups = suite.root / "group"
    kept = [line for line in pathlib.Path("/etc/group").read_text().splitlines()
            if not line.startswith("vmadm:")]
    groups.write_text("\n".join(kept) + f"\nvmadm:x:{GROUP}:\n")
    user = pwd.getpwnam("nobody").pw_uid

    def work():
        assert LIBC.mount(bytes(groups), b"/etc/group", None, MS_BIND, None) == 0
        suite.use_fake_qemu()
        suite.start()

    in_mount_namespace(work)
    suite.write_definition("web0", 'web0 { ram = 64; accel = tcg; vnc_password = "secret"; }\n')
    with suite.events() as events:
        suite.vmstatedctl("start", "web0")
        events.wait_state("web0", "running")
    status, body = ask_as(suite, user, "GET", "/vm/web0?type=vnc,version", [GROUP])
    assert status == 200 and '"port"' in body and "secret" not in body
    assert "secret" in ask_as(suite, 0, "GET", "/vm/web0?type=vnc")[1]
    status, body = ask_as(suite, user, "GET", "/stats", [GROUP])
    assert status == 200 and '"uuid"' in body
    assert '"vms":[]' in ask_as(suite, user, "GET", "/stats")[1]
    assert ask_as(suite, user, "GET", "/vm/web0?type=vnc")[0] == 403
    for method, target in [("POST", "/vm/web0?action=stop&force=1"), ("PUT", "/vm/web0"),
                           ("DELETE", "/vm/web0"), ("POST", "/vms")]:
        status, body = ask_as(suite, user, method, target, [GROUP])
        assert status == 403 and f"uid {user} may not" in body, (method, target, body)
