# SPDX-License-Identifier: Apache-2.0
"""Disks as guests see them: models and formats, network sources, what is not there."""

import json
import subprocess

import pytest

import drover
from test_images import make_image
from test_vmadmd import call, create, message


def ready(suite, uuid):
    with suite.events() as events:
        call(suite, "POST", f"/vm/{uuid}?action=start&wait=1")
        return events.wait_vm(uuid, lambda vm: vm.get("ready"), 60)


def test_models_and_formats(suite, tmp_path):
    """Made, cloned, existing, raw and qcow2, on every controller the test guest has a driver for."""
    suite.vmadm("image", "import", "-n", "base", make_image(tmp_path / "b.qcow2", "qcow2", "24M"))
    existing = make_image(tmp_path / "existing.raw", "raw", "40M")
    cd = make_image(tmp_path / "cd.iso", "raw", "2M")
    uuid = create(suite, suite.payload("web0", "drover.devices", disks=[
        {"image": "base", "model": "virtio", "serial": "CLONE"},
        {"size": 16, "format": "raw", "model": "scsi", "serial": "RAW", "cache": "none"},
        {"path": str(existing), "nocreate": True, "model": "nvme", "readonly": True},
        {"size": 32, "model": "virtio", "serial": "IOTHREAD", "iothread": True, "discard": True},
        {"path": str(cd), "media": "cdrom", "model": "scsi"}]))["uuid"]
    ready(suite, uuid)
    said = suite.log_wait("web0", "DEV end", 60).decode()
    for line in ["vda 24 MiB CLONE", "sda 16 MiB", "vdb 32 MiB IOTHREAD", "nvme0n1 40 MiB",
                 "sr0 2 MiB"]:
        assert f"DEV block {line}" in said, said[-1500:]


def test_preallocation(cold):
    """Laid out as asked; what cannot be is refused before anything is made."""
    cold.start("vmadmd")
    uuid = create(cold, cold.payload("web0", disks=[
        {"size": 8, "format": "raw", "preallocation": "falloc", "model": "virtio"},
        {"size": 8, "preallocation": "full", "model": "virtio"},
        {"size": 8, "model": "virtio"}]))["uuid"]
    blocks = [(cold.data_dir(uuid) / name).stat().st_blocks * 512
              for name in ("disk0.raw", "disk1.qcow2", "disk2.qcow2")
              if (cold.data_dir(uuid) / name).exists()]
    assert len(blocks) == 3 and min(blocks[:2]) >= 8 << 20 and blocks[2] < 1 << 20, blocks
    make_image(cold.root / "b.qcow2")
    for disk, why in [
            ({"size": 8, "format": "raw", "preallocation": "metadata"}, "has no metadata"),
            ({"image": str(cold.root / "b.qcow2"), "preallocation": "full"}, "want format raw"),
            ({"size": 1 << 32, "preallocation": "full"}, "are free"),
            ({"size": 8, "preallocation": "some"}, "off,metadata,falloc")]:
        said = message(create(cold, cold.payload("x", disks=[{"model": "virtio", **disk}]), 400))
        assert why in said, said


def test_nbd(suite, tmp_path):
    """A guest writes to a disk another process serves, and reads it back."""
    image, socket = make_image(tmp_path / "served.raw", "raw", "8M"), tmp_path / "nbd"
    watch = drover.Inotify(tmp_path)
    server = subprocess.Popen(["qemu-nbd", "-f", "raw", "-k", socket, "-x", "web0", "-t", image])
    try:
        deadline = drover.Deadline(20)
        while not socket.exists():
            assert watch.wait(deadline)
        uuid = create(suite, suite.payload("web0", "drover.disk=/dev/vda", disks=[
            {"path": f"nbd:unix:{socket}:exportname=web0", "nocreate": True, "model": "virtio"}]))["uuid"]
        ready(suite, uuid)
        suite.log_wait("web0", "DISK-OK", 30)
        assert b"drover" in image.read_bytes()[:64]
        assert "missing" not in suite.vm(uuid)["disks"][0]
        call(suite, "POST", f"/vm/{uuid}?action=stop&force=1&wait=1")
    finally:
        server.kill()
        server.wait(10)
        watch.close()


def test_drivers_not_installed(cold, tmp_path):
    """Refused by name before anything is made, and at the start of a hand-written VM."""
    (tmp_path / "modules").mkdir()
    cold.env["QEMU_MODULE_DIR"] = str(tmp_path / "modules")
    cold.use_fake_qemu({})
    cold.start()
    for path, driver in [("rbd:vms/web0", "rbd"),
                         ("iscsi://10.0.0.9/iqn.2026-01.net.example:web0/1", "iscsi")]:
        said = message(create(cold, cold.payload("web0", disks=[
            {"path": path, "nocreate": True, "model": "virtio"}]), 400))
        assert f"needs QEMU's block driver {driver}, which is not installed" in said
        cold.write_definition("hand", cold.guest(disk=[f'root {{ path = "{path}"; }}']))
        said = message(call(cold, "POST", "/vm/hand?action=start&wait=1", status=500).json())
        assert f"block driver {driver}, which is not installed" in said
    (tmp_path / "modules/block-rbd.so").write_bytes(b"")
    cold.write_definition("hand", cold.guest(disk=['root { path = "rbd:vms/web0"; }']))
    made = create(cold, cold.payload("web0", disks=[{"path": "rbd:vms/web0", "nocreate": True, "model": "virtio"}]))
    call(cold, "POST", f"/vm/{made['uuid']}?action=start&wait=1")
    for bad in ["nbd:storage", "iscsi://u%25s@h/t/1", "rbd:vms/web0:key=c2VjcmV0", "ssh://h/x"]:
        said = message(create(cold, cold.payload("x", disks=[
            {"path": bad, "nocreate": True, "model": "virtio"}]), 400))
        assert "no such disk" in said or "is not served" in said
        assert "c2VjcmV0" not in said


def test_missing(cold):
    """The object says when a disk is gone, and the start names it."""
    cold.use_fake_qemu({})
    cold.start()
    uuid = create(cold, cold.payload("web0", disks=[{"size": 8, "model": "virtio"}]))["uuid"]
    (cold.data_dir(uuid) / "disk0.qcow2").unlink()
    with cold.events() as events:
        events.wait_vm(uuid, lambda vm: vm["disks"][0].get("missing"), 15)
    said = call(cold, "POST", f"/vm/{uuid}?action=start&wait=1", status=500).json()
    assert "disk0.qcow2' is missing" in message(said)


@pytest.mark.root
def test_no_room(cold):
    """A preallocated copy that does not fit is refused or undone, by name; nothing is left."""
    lib = cold.root / "var/lib/vmstated"
    lib.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(lib)],
                          capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no mount here")
    try:
        base = cold.root / "base.raw"
        with open(base, "wb") as file:
            file.write(b"x" * (16 << 20))
        cold.start("vmadmd")
        said = message(create(cold, cold.payload("web0", disks=[
            {"image": str(base), "format": "raw", "model": "virtio"}]), 400))
        assert "it takes 16 MiB" in said and "are free" in said, said
        assert sorted(p.name for p in cold.etc.iterdir()) == []
        # What takes more than it seems is undone when it does not fit, by name.
        tight = cold.root / "tight.qcow2"
        subprocess.run(["qemu-img", "convert", "-c", "-O", "qcow2", base, tight], check=True)
        said = message(create(cold, cold.payload("web0", disks=[
            {"image": str(tight), "format": "raw", "model": "virtio"}]), 500))
        assert "cannot make disk" in said and "No space left on device" in said, said
        assert sorted(p.name for p in cold.etc.iterdir()) == []
        assert [p.name for p in lib.iterdir() if p.is_dir() and p.name != "images"] == []
        cold.stop("vmadmd")
    finally:
        subprocess.run(["umount", str(lib)], check=True)


def test_grown_while_stopped(cold):
    """Either format; less than it has is refused, nothing changed."""
    cold.start("vmstated", "vmadmd")
    uuid = create(cold, cold.payload("web0", disks=[
        {"size": 8, "model": "virtio"}, {"size": 8, "format": "raw", "model": "virtio"}]))["uuid"]
    for name in ("disk0.qcow2", "disk1.raw"):
        path = str(cold.data_dir(uuid) / name)
        for size, status in ((16, 200), (12, 400)):
            said = call(cold, "PUT", f"/vm/{uuid}", {"update_disks": [{"path": path, "size": size}]},
                        status).json()
            assert status == 200 or "a disk can only grow" in message(said)
        info = subprocess.run(["qemu-img", "info", "--output=json", path], capture_output=True,
                              check=True).stdout
        assert json.loads(info)["virtual-size"] == 16 << 20


@pytest.mark.root
def test_block_device(suite, tmp_path):
    """A machine has a device of the host and an IDE disk; both are sent like images."""
    backing = make_image(tmp_path / "device", "raw", "8M")
    subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 7 1M 3M", backing], check=True,
                   capture_output=True)
    done = subprocess.run(["losetup", "-f", "--show", backing], capture_output=True, text=True,
                          check=False)
    if done.returncode:
        pytest.skip("no loop device here")
    device = done.stdout.strip()
    try:
        uuid = create(suite, {"alias": "web0", "ram": 64, "autoboot": True, "disks": [
            {"path": device, "nocreate": True, "model": "virtio"},
            {"size": 8, "model": "ide"}]})["uuid"]
        block = call(suite, "GET", f"/vm/{uuid}/info?types=block").json()["block"]
        assert [row["device"] for row in block][:2] == ["disk0", "disk1"]
        call(suite, "POST", f"/vm/{uuid}?action=stop&force=1&wait=1")
        suite.vmadm("backup", uuid, suite.root / "b")
        suite.vmadm("delete", uuid)
        suite.vmadm("receive", "-f", suite.root / "b")
        for disk, kind in zip(suite.vm(uuid)["disks"], (device, None)):
            assert disk["path"].startswith(str(suite.data_dir(uuid)))
            assert not kind or not subprocess.run(
                ["qemu-img", "compare", "-q", "-F", "raw", disk["path"], kind], check=False).returncode
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


@pytest.mark.campaign
@pytest.mark.parametrize("more", ["aio = threads; cache = none;", "aio = native; cache = none;",
                                  "aio = io_uring;", "aio = io_uring; cache = none;"])
def test_aio(cold, guest_images, more):
    """A guest writes and reads back by each way of waiting for its disk."""
    cold.start()
    cold.write_definition("web0", cold.guest("drover.disk=/dev/vda",
                                             disk=[f'a {{ size = 16; {more} }}']))
    done = cold.vmstatedctl("start", "web0", seconds=60, check=None)
    if done.returncode:
        assert "disks[0].aio: this host's kernel gives no io_uring" in done.stderr
        pytest.skip("no io_uring here")
    cold.log_wait("web0", "DISK-OK", 90)
    cold.vmstatedctl("stop", "-F", "web0")
