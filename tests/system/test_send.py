# SPDX-License-Identifier: Apache-2.0
"""What many VMs from an image leave behind: nothing. The walk is docs/image-to-host.md."""

import json
import os
import pathlib
import pty
import subprocess

import pytest


def descriptors(suite, name):
    return len(os.listdir(f"/proc/{suite.daemons[name].pid}/fd"))


def left(suite):
    """All files of the suite but logs and the bounded history of jobs, and open descriptors."""
    files = sorted(str(path.relative_to(suite.root)) for path in pathlib.Path(suite.root).rglob("*")
                   if not {"log", "vmadmd.jobs"} & set(path.parts))
    return files, {name: descriptors(suite, name) for name in suite.daemons}


def rounds(suite, count, boot):
    """Creations from an image and deletions; every tenth VM runs in between."""
    for number in range(count):
        payload = suite.payload(f"vm{number}", disks=[{"image": "base", "model": "virtio"},
                                                      {"size": 8, "model": "virtio"}],
                                nics=[{"nic_tag": "user", "model": "virtio"}],
                                tags={"n": number})
        suite.vmadm("create", stdin=payload)
        if number % 10 == 0:
            suite.vmadm("start", f"vm{number}")
            if boot:
                suite.console_wait(suite.uuid(f"vm{number}"), "GUEST-UP")
        suite.vmadm("delete", f"vm{number}")


@pytest.mark.parametrize("count", [4, pytest.param(100, marks=pytest.mark.campaign)])
def test_nothing_is_left(suite, tmp_path, count):
    """The few with a QEMU that does nothing, the many with guests that boot."""
    image = tmp_path / "base.raw"
    image.write_bytes(os.urandom(1 << 20))
    if count < 100:
        suite.use_fake_qemu()
    suite.vmadm("image", "import", "-n", "base", image)
    rounds(suite, 1, count == 100)  # what is made once: the accelerator's verdict, connections
    files, before = left(suite)
    rounds(suite, count, count == 100)
    after, now = left(suite)
    assert after == files
    assert all(now[name] <= before[name] for name in now), (before, now)
    assert suite.guests() == [] and suite.vmadm("list", "-H").stdout == ""
    suite.vmadm("image", "delete", "base")


def made(suite, **members):
    done = suite.vmadm("create", "--json", stdin={"alias": "web0", "brand": "kvm", "ram": 64,
                                                  "autoboot": False, **members})
    return json.loads(done.stdout)["uuid"]


def test_progress(suite):
    """A bar with the percentage on a terminal; elsewhere nothing of what is over at once."""
    uuid = made(suite, disks=[{"size": 16, "model": "virtio"}])
    subprocess.run(["qemu-io", "-c", "write -P 5 0 8M", suite.data_dir(uuid) / "disk0.qcow2"],
                   check=True, capture_output=True)
    argv = [str(suite.binary("vmadm")), "--root", str(suite.root), "send", uuid]
    ours, theirs = pty.openpty()
    with open(suite.root / "stream", "wb") as out:
        subprocess.run(argv, check=True, stdout=out, stderr=theirs, env=suite.env, timeout=30)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert "sending" in said and "MiB" in said and "%" in said and said.endswith("\033[K"), said
    quiet = subprocess.run(argv, check=True, capture_output=True, env=suite.env, timeout=30)
    assert quiet.stderr == b"" and len(quiet.stdout) > 8 << 20
    suite.vmadm("delete", uuid)
    assert "Received" in suite.vmadm("receive", "-f", suite.root / "stream").stderr


def test_what_is_sent_of_a_running_vm(suite, tmp_path):
    """No disk at all is fine; a raw one is refused by name, and sent when the VM is stopped."""
    suite.use_fake_qemu()
    uuid = made(suite)
    suite.vmadm("start", uuid)
    suite.vmadm("backup", uuid, suite.root / "none")
    suite.vmadm("delete", uuid)
    suite.vmadm("receive", "-f", suite.root / "none")
    suite.vmadm("delete", uuid)
    cd = tmp_path / "cd.iso"
    cd.write_bytes(bytes(1 << 20))
    ro = tmp_path / "ro.raw"
    ro.write_bytes(bytes(1 << 20))
    uuid = made(suite, disks=[{"size": 4, "format": "raw", "model": "virtio"},
                              {"path": str(cd), "media": "cdrom", "model": "ide"},
                              {"path": str(ro), "nocreate": True, "readonly": True,
                               "format": "raw", "model": "virtio"}])
    raw = suite.data_dir(uuid) / "disk0.raw"
    raw.write_bytes(b"raw!" * (1 << 20))
    suite.vmadm("backup", uuid, suite.root / "three")
    suite.vmadm("delete", uuid)
    suite.vmadm("receive", "-f", suite.root / "three")
    first, second, third = suite.vm(uuid)["disks"]
    assert (second["path"], third["path"]) == (str(cd), str(ro))
    assert first["path"] == str(suite.data_dir(uuid) / "disk0.qcow2")
    out = subprocess.run(["qemu-img", "dd", "-O", "raw", "bs=4", "count=1", f"if={first['path']}",
                          f"of={tmp_path}/begin"], check=False, capture_output=True, text=True)
    assert out.returncode == 0 and (tmp_path / "begin").read_bytes()[:4] == b"raw!", out


def test_raw_disk_of_a_running_vm(suite):
    uuid = made(suite, disks=[{"size": 4, "format": "raw", "model": "virtio"}])
    suite.vmadm("start", uuid)
    said = suite.vmadm("backup", uuid, suite.root / "b", check=None).stderr
    assert "disk0.raw" in said and "a stopped VM may have any disk" in said, said
    suite.vmadm("stop", "-F", uuid)
    suite.vmadm("backup", uuid, suite.root / "b")


def test_made_macs_give_way(suite):
    """A MAC made for a NIC of add_nics is another one where somebody has it; old ones stay."""
    nic = {"nic_tag": "user", "model": "virtio"}
    uuid = made(suite, nics=[nic])
    suite.vmadm("update", uuid, stdin={"add_nics": [nic]})
    old, made_first = [n["mac"] for n in suite.vm(uuid)["nics"]]
    suite.vmadm("update", uuid, stdin={"remove_nics": [made_first]})
    made(suite, alias="other", nics=[{**nic, "mac": made_first}])
    suite.vmadm("update", uuid, stdin={"add_nics": [nic]})
    kept, made_then = [n["mac"] for n in suite.vm(uuid)["nics"]]
    assert kept == old and made_then not in (made_first, old)
