# SPDX-License-Identifier: Apache-2.0
"""The example of the original's manual, as written there but for paths and interface commands."""

import os

import pytest

from netns import ip, links, namespace, taps_of
from vmstated_help import log_of, vm

pytestmark = pytest.mark.root

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
    with namespace():
        ip("link", "add", "bridge0", "type", "bridge")
        yield cold
        cold.finish()


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
