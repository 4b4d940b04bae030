# SPDX-License-Identifier: Apache-2.0
"""vmstated as root gives each guest a user of its own."""

import os
import pathlib
import shutil

import pytest

import drover

pytestmark = pytest.mark.root


@pytest.fixture
def shared(cold):
    """A root that other users can reach: pytest's own folders are closed to them."""
    folder = pathlib.Path("/tmp") / f"drover-owner-{os.getpid()}"
    suite = drover.Suite(folder)
    folder.chmod(0o755)
    yield suite
    complaints = suite.finish()
    shutil.rmtree(folder)
    assert not complaints, complaints


def owners(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return set(fields["Uid"].split()), set(fields["Gid"].split()), fields["Groups"].split()


def test_each_guest_has_its_user_and_files(shared, guest_images):
    suite = shared
    for part in ("vmlinuz", "initramfs.gz"):
        shutil.copy(guest_images / part, suite.root / part)
        (suite.root / part).chmod(0o644)
    body = suite.guest(disk=["root { size = 8; }"]).replace(str(guest_images), str(suite.root))
    suite.write_definition("one", body)
    suite.write_definition("two", body)
    suite.start("vminfod")
    suite.start("vmstated", arguments=("--guest-uids", "230000-230001"))
    with suite.events() as events:
        seen = []
        for name in ("one", "two"):
            suite.vmstatedctl("start", name)
            vm = events.wait_vm(name, lambda v: v.get("ready"), 60, "ready")
            uids, gids, groups = owners(vm["pid"])
            assert len(uids) == 1 and not groups and len(gids) == 1
            uid = int(uids.pop())
            assert {f.stat().st_uid for f in suite.data_dir(vm["uuid"]).glob("*.qcow2")} == {uid}
            seen.append(uid)
        assert sorted(seen) == [230000, 230001]
        suite.write_definition("three", body)
        done = suite.vmstatedctl("start", "three", check=1)
        assert "230000-230001" in done.stderr
        suite.kill9("vmstated")
        suite.start("vmstated", arguments=("--guest-uids", "230000-230001"))
        for name in ("one", "two"):
            suite.vmstatedctl("stop", name)
            suite.vmstatedctl("start", name)
            vm = events.wait_vm(name, lambda v: v.get("pid") and v.get("run_state"), 30)
            assert owners(suite.vm(vm["uuid"])["pid"])[0] == {str(seen.pop(0))}
            suite.vmstatedctl("stop", "-F", name)


def test_a_path_it_cannot_open_is_named(shared, guest_images):
    suite = shared
    disk = suite.root / "closed.img"
    disk.write_bytes(b"\0" * 4096)
    disk.chmod(0o600)
    suite.write_definition("web0", suite.guest(disk=[f'root {{ path = "{disk}"; }}']))
    suite.start("vminfod")
    suite.start("vmstated", arguments=("--guest-uids", "230000-230001"))
    done = suite.vmstatedctl("start", "web0", check=1)
    assert "disks[0].path: user 230000" in done.stderr and str(disk) in done.stderr


def test_a_range_that_is_none(cold):
    status, text = cold.refused("vmstated", "--guest-uids", "5")
    assert status == 1 and "FIRST-LAST" in text
