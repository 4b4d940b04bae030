# SPDX-License-Identifier: Apache-2.0
"""Guests whose hardware comes from a bhyve_config(5) file."""

import pytest

import drover

CONFIG = """# made by bhyve -o config.dump=1
config.dump=1
name=bsdvm
cpus=1
memory.size=128M
acpi_tables=true
pci.0.0.0.device=hostbridge
pci.0.3.0.device=virtio-blk
pci.0.3.0.path={disk}
pci.0.5.0.device=virtio-net
pci.0.5.0.backend=slirp
pci.0.29.0.device=fbuf
pci.0.29.0.rfb=127.0.0.1:{port}
pci.0.31.0.device=lpc
lpc.com1.path=/dev/nmdm0A
"""


def write(suite, more="", port=5990, text=CONFIG):
    folder = suite.etc / "bsdvm"
    folder.mkdir(parents=True, exist_ok=True)
    disk = suite.root / "disk.img"
    disk.write_bytes(b"\0" * (1 << 20))
    (folder / "bhyve_config").write_text(text.format(disk=disk, port=port))
    (folder / "bhyve_config").chmod(0o644)
    suite.write_definition("bsdvm", f"""bsdvm {{
    configfile = {folder}/bhyve_config;
    accel = tcg;
    kernel = "{drover.GUEST}/vmlinuz"; initrd = "{drover.GUEST}/initramfs.gz";
    cmdline = "{suite.cmdline('drover.devices drover.modules')}"; readyline = "GUEST-UP";
    {more}
}}
""")
    return folder


@pytest.mark.smoke
def test_boots_for_real_with_the_hardware_of_the_file(suite, guest_images):
    folder = write(suite, more='memory = 160; description = "from FreeBSD";')
    with suite.events() as events:
        suite.vmstatedctl("start", "bsdvm")
        vm = events.wait_vm("bsdvm", lambda v: v.get("ready"), 90, "ready")
        assert vm["ram"] == 160 and vm["vcpus"] == 1
        suite.log_wait("bsdvm", "00:05.0")
        generated = folder / "bhyve_config.generated"
        lines = generated.read_text().splitlines()
        assert "memory.size=160M" in lines and "memory.size=128M" in lines
        assert not any(line.startswith("lpc.bootrom") for line in lines)
        assert generated.stat().st_mode & 0o777 == 0o600
        suite.vmstatedctl("stop", "bsdvm")
    log = (suite.logs / "bsdvm.log").read_text()
    assert "00:03.0" in log  # the disk stands in the slot the file gives it
    assert "config.dump" in log and "null-modem device /dev/nmdm0A does not exist" in log


def test_what_cannot_be_mapped_is_refused_with_line_and_text(suite):
    write(suite, text=CONFIG + "pci.1.2.0.device=virtio-rnd\npci.0.9.0.device=teleporter\n")
    done = suite.vmstatedctl("start", "bsdvm", check=None)
    assert done.returncode != 0
    assert "bhyve_config:16: " in done.stderr and "only bus 0" in done.stderr
    assert "bhyve_config:17: " in done.stderr and "teleporter" in done.stderr
    state = suite.http("vmstated", "GET", "/vms/bsdvm").json()["supervisor_state"]
    assert state == "INIT"
