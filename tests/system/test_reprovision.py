# SPDX-License-Identifier: Apache-2.0
"""Another image under the same VM, and disks of hand-written definitions made ahead of a start."""

import json
import subprocess

import pytest

import drover
from test_images import make_image
from test_vmadm_killed import ALL, World
from test_vmadmd import call, create, message


def backing(path):
    info = subprocess.run(["qemu-img", "info", "-U", "--output=json", str(path)],
                          capture_output=True, check=True)
    return json.loads(info.stdout).get("full-backing-filename", "").rsplit("/", 1)[-1]


def images(cold, tmp_path, *names):
    for name in names:
        cold.vmadm("image", "import", make_image(tmp_path / f"{name}.qcow2"))


DISKS = [{"image": "old", "size": 16, "model": "virtio", "boot": True},
         {"size": 8, "model": "virtio"}]


def test_reprovision(cold, tmp_path):
    """The boot disk is another image's, the data disk the same file; the VM runs again."""
    cold.use_fake_qemu({})
    cold.start()
    images(cold, tmp_path, "old", "new")
    uuid = create(cold, cold.payload("web0", disks=DISKS))["uuid"]
    boot, data = (cold.data_dir(uuid) / f"disk{n}.qcow2" for n in (0, 1))
    before = boot.stat().st_ino, data.stat().st_ino
    call(cold, "POST", f"/vm/{uuid}?action=start&wait=1")
    pid = cold.vm(uuid)["pid"]
    done = cold.vmadm("reprovision", "web0", "image=new")
    assert done.stderr.endswith(f"Successfully reprovisioned VM {uuid}\n")
    vm = cold.vm(uuid)
    assert vm["state"] == "running" and vm["pid"] != pid
    assert vm["disks"][0]["image"] == "new" and vm["disks"][0]["size"] == 16
    assert vm["disks"][0]["path"] == str(boot) and backing(boot) == "new.qcow2"
    assert (boot.stat().st_ino, data.stat().st_ino) != before
    assert data.stat().st_ino == before[1]
    assert not (cold.data_dir(uuid) / "changing").exists()
    used = {image["name"]: image["used_by"] for image in call(cold, "GET", "/images").json()}
    assert used == {"new": [uuid], "old": []}
    cold.vmadm("reprovision", "web0", "image=new")  # the same once more is a fresh disk too
    call(cold, "POST", f"/vm/{uuid}?action=stop&force=1&wait=1")
    wanted = next(image for image in call(cold, "GET", "/images").json() if image["name"] == "old")
    cold.vmadm("reprovision", uuid, stdin={"image_uuid": wanted["uuid"]})
    vm = cold.vm(uuid)
    assert vm["state"] == "stopped" and backing(boot) == "old.qcow2"
    assert vm["disks"][0]["image_uuid"] == wanted["uuid"] and "image" not in vm["disks"][0]
    cold.restart("vmadmd")
    assert call(cold, "PUT", f"/vm/{uuid}", {"alias": "other"}).json()["confirmed"]


def test_refused(cold, tmp_path):
    cold.start("vmadmd")
    images(cold, tmp_path, "old")
    uuid = create(cold, cold.payload("web0", disks=DISKS))["uuid"]

    def refused(body, status=400):
        return message(call(cold, "POST", f"/vm/{uuid}/reprovision", body, status).json())

    assert "no image 'nothing'" in refused({"image": "nothing"})
    assert "want one of" in refused({}) and "want one of" in refused(
        {"image": "old", "image_uuid": uuid})
    assert "ram: is not known here" in refused({"image": "old", "ram": 5})
    assert "not a uuid" in refused({"image_uuid": "x"})
    call(cold, "PUT", f"/vm/{uuid}", {"indestructible_zoneroot": True})
    assert "indestructible_zoneroot is set" in refused({"image": "old"}, 409)
    said = cold.vmadm("reprovision", uuid, "image=old", check=5).stderr
    assert said.startswith(f"Failed to reprovision VM {uuid}: indestructible_zoneroot is set")
    bare = create(cold, cold.payload("db0"))["uuid"]
    said = call(cold, "POST", f"/vm/{bare}/reprovision", {"image": "old"}, 400).json()
    assert "has no disk of its own" in message(said)
    assert backing(cold.data_dir(uuid) / "disk0.qcow2") == "old.qcow2"


def test_by_hand(cold, tmp_path):
    """Comments and order of a hand-written file stay; install makes what is not there."""
    cold.use_fake_qemu({})
    cold.start()
    images(cold, tmp_path, "old", "new")
    config = cold.write_definition("web0", "\n".join([
        "web0 {", "    ram = 128; # enough", "    disk root { size = 20; image = old; boot = yes; }",
        "    disk data { size = 8; }", "}", ""]))
    uuid = cold.uuid("web0")
    done = cold.vmadm("install", "web0")
    assert f"Successfully installed VM {uuid}" in done.stderr
    root, data = (cold.data_dir(uuid) / f"{name}.qcow2" for name in ("root", "data"))
    assert backing(root) == "old.qcow2" and data.exists()
    assert "is installed already" in cold.vmadm("install", "web0").stderr
    cold.vmadm("reprovision", "web0", "image=new")
    text = config.read_text()
    assert "# enough" in text and 'image = "new"' in text and backing(root) == "new.qcow2"
    # A disk that vanished is not made anew behind the administrator's back.
    made = create(cold, cold.payload("db0", disks=[{"size": 8, "model": "virtio"}]))["uuid"]
    (cold.data_dir(made) / "disk0.qcow2").unlink()
    said = call(cold, "POST", f"/vm/{made}?action=start&wait=1", status=500).json()
    assert "disk0.qcow2' is missing" in message(said)


class Reprovision(World):
    """A VM reprovisioned with vmadmd killed at a step: wholly of one image or of the other."""

    def once(self, steps):
        self.number += 1
        uuid = f"00000000-0000-4000-8000-{self.number:012x}"
        self.suite.vmadm("create", stdin={
            "uuid": uuid, "alias": f"vm{self.number}", "ram": 64, "accel": "tcg",
            "autoboot": False, "disks": DISKS})
        self.killat.arm(steps)
        code, text = self.tool("reprovision", uuid, "image=new")
        taken, killed = self.killat.disarm()
        self.bring_back(killed)
        where = f"killed at step {steps}: exit {code} {text.strip()!r}"
        self.suite.vmadm("update", uuid, "alias=judged")
        named = self.suite.vm(uuid)["disks"][0]["image"]
        disk = self.suite.data_dir(uuid) / "disk0.qcow2"
        assert backing(disk) == f"{named}.qcow2", where
        left = {path.name for path in self.suite.data_dir(uuid).iterdir()}
        assert left <= {"config", "disk0.qcow2", "disk1.qcow2", "lock", "formats"}, (where, left)
        assert code not in (0, 7) or named == "new", where
        self.suite.vmadm("delete", uuid)
        return taken, named


@pytest.fixture
def world(cold, tmp_path):
    if not (cold.build / "tests/killat/killat.so").exists() or "asan" in str(cold.build):
        pytest.skip("killat.so cannot be preloaded into this build")
    world = Reprovision(cold, "vmadmd")
    images(cold, tmp_path, "old", "new")
    yield world
    world.close()


def test_killed_at_some_steps(world):
    total, named = world.once(ALL)
    assert total > 10 and named == "new"
    seen = {world.once(step)[1] for step in (total // 3, 2 * total // 3, total - 3)}
    assert seen <= {"old", "new"}


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_killed_at_every_step(world):
    total, _ = world.once(ALL)
    seen = [world.once(step)[1] for step in range(1, total + 1)]
    assert {"old", "new"} == set(seen)


@pytest.mark.campaign
def test_guest_on_the_new_disk(suite):
    """Under the real QEMU the guest writes to the new boot disk."""
    path = make_image(suite.root / "base.qcow2")
    suite.vmadm("image", "import", path)
    uuid = create(suite, suite.payload("web0", "drover.disk=/dev/vda",
                                       disks=[{"image": "base", "model": "virtio"}]))["uuid"]
    suite.vmadm("reprovision", uuid, "image=base")
    with suite.events() as events:
        call(suite, "POST", f"/vm/{uuid}?action=start&wait=1")
        events.wait_vm(uuid, lambda vm: vm.get("ready"), 60)
    suite.log_wait("web0", "DISK-OK", drover.READY_S * 3)
