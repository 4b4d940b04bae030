# SPDX-License-Identifier: Apache-2.0
"""The example of the original's manual, as written there but for paths and interface commands."""

import ctypes
import json
import os
import subprocess

import pytest

from vmstated_help import log_of, vm

pytestmark = pytest.mark.root

CLONE_NEWNET = 0x40000000
FIRMWARE = "/usr/share/OVMF/OVMF_CODE_4M.fd"
# bhyve -c 2 -m 4G -w -H -s 0,hostbridge -s 4,ahci-hd,disk.img -s 5,virtio-net,tap0
#   -s 29,fbuf,tcp=[::]:5900,w=800,h=600 -s 30,xhci,tablet -s 31,lpc -l com1,stdio
#   -l bootrom,... -o config.dump=1 bsdvm
BHYVE_CONFIG = """cpus=2
lpc.bootrom={firmware}
lpc.com1.path=stdio
memory.size=4G
name=bsdvm
pci.0.0.0.device=hostbridge
pci.0.29.0.device=fbuf
pci.0.29.0.h=600
pci.0.29.0.tcp=[::]:5900
pci.0.29.0.w=800
pci.0.30.0.device=xhci
pci.0.30.0.slot.1.device=tablet
pci.0.31.0.device=lpc
pci.0.4.0.device=ahci
pci.0.4.0.port.0.path={disk}
pci.0.4.0.port.0.type=hd
pci.0.5.0.backend=tap0
pci.0.5.0.device=virtio-net
x86.strictmsr=false
x86.vmexit_on_hlt=true
"""


@pytest.fixture
def network(cold):
    """The suite in a network namespace with bridge0; all of this process is in it meanwhile."""
    if not os.path.exists(FIRMWARE):
        pytest.skip(f"{FIRMWARE} is not installed")
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if libc.unshare(CLONE_NEWNET) != 0:
        os.close(home)
        pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    try:
        ip("link", "set", "lo", "up")
        ip("link", "add", "bridge0", "type", "bridge")
        yield cold
        cold.finish()
    finally:
        assert libc.setns(home, CLONE_NEWNET) == 0
        os.close(home)


def ip(*arguments):
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def links():
    """{interface: its bridge or None} in the namespace."""
    shown = json.loads(ip("-j", "link"))
    return {link["ifname"]: link.get("master") for link in shown}


def taps_of(pid):
    """Names of the tap interfaces a process has open."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fdinfo"):
        with open(f"/proc/{pid}/fdinfo/{fd}", encoding="utf-8") as info:
            found += [line.split()[1] for line in info if line.startswith("iff:")]
    return found


def test_bsdvm(network):
    suite = network
    folder = suite.etc / "bsdvm"
    folder.mkdir(parents=True)
    disk = folder / "disk.img"
    with open(disk, "wb") as image:
        image.truncate(64 << 20)
    (folder / "bhyve_config").write_text(BHYVE_CONFIG.format(firmware=FIRMWARE, disk=disk))
    suite.write_hook(folder, "start_network", "ip tuntap add dev tap0 mode tap\n"
                                              "ip link set tap0 master bridge0")
    suite.write_hook(folder, "stop_network", "ip link del tap0")
    suite.write_definition("bsdvm", f"bsdvm {{\n    configfile = {folder}/bhyve_config;\n}}\n")
    suite.start()
    assert suite.vmstatedctl("start", "bsdvm").stdout == "bsdvm: running\n"
    assert links()["tap0"] == "bridge0"
    pid = vm(suite, "bsdvm")["pid"]
    assert taps_of(pid) == ["tap0"]
    assert "RUNN" in suite.vmstatedctl("status").stdout
    assert (folder / "bhyve_config.generated").read_text().startswith(
        BHYVE_CONFIG.format(firmware=FIRMWARE, disk=disk).splitlines()[0])
    suite.vmstatedctl("stop", "-F", "bsdvm")
    assert sorted(links()) == ["bridge0", "lo"]
    assert "ended: admin" in log_of(suite, "bsdvm")

    # A guest that is killed leaves no tap either.
    suite.vmstatedctl("start", "bsdvm")
    with suite.events() as events:
        os.kill(vm(suite, "bsdvm")["pid"], 9)
        events.wait_vm("bsdvm", lambda o: o.get("state") == "stopped", 5, "stopped")
    assert sorted(links()) == ["bridge0", "lo"]
