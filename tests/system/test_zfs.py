# SPDX-License-Identifier: Apache-2.0
"""A dataset per VM where zpool names a pool: made, filled, removed; and when we are killed."""

import json
import signal
import subprocess

import pytest

MIB = 1 << 20
DISKS = [{"size": 32, "model": "virtio"}]


def zfs(*argv, check=True):
    done = subprocess.run(["zfs", *map(str, argv)], capture_output=True, text=True, timeout=30,
                          check=False)
    assert not check or done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout.strip()


def datasets(pool):
    return zfs("list", "-H", "-o", "name", "-t", "all", "-r", pool).split("\n")[1:]


def create(suite, pool, check=0, **members):
    payload = {"alias": "z", "brand": "kvm", "ram": 64, "autoboot": False, "zpool": pool,
               "disks": DISKS, **members}
    done = suite.vmadm("create", "--json", stdin=payload, check=check)
    return json.loads(done.stdout)["uuid"] if check == 0 else done.stderr


def clean(suite, pool):
    """Nothing is left of any VM."""
    assert datasets(pool) == []
    assert [p.name for p in (suite.root / "var/lib/vmstated").iterdir()
            if p.is_dir() and p.name != "images"] == []
    assert list(suite.etc.iterdir()) == []


@pytest.mark.root
def test_life(suite, zfs_pool):
    """Created with quota and compression; disks of create and update lie in it; deleted whole."""
    uuid = create(suite, zfs_pool, quota=1, zfs_root_compression="gzip")
    dataset = f"{zfs_pool}/{uuid}"
    assert datasets(zfs_pool) == [dataset]
    assert zfs("get", "-Hp", "-o", "value", "quota,compression,mountpoint", dataset).split("\n") == \
        [str(1 << 30), "gzip", str(suite.data_dir(uuid) / "disks")]
    suite.vmadm("update", uuid, stdin={"add_disks": [{"size": 16, "model": "virtio"}]})
    (first, second) = [disk["path"] for disk in suite.vm(uuid)["disks"]]
    for path in (first, second):
        assert path.startswith(f"{suite.data_dir(uuid)}/disks/disk")
    assert "zfs" in subprocess.run(["findmnt", "-nT", second], capture_output=True, text=True,
                                   check=True).stdout
    with suite.events() as events:
        zfs("snapshot", f"{dataset}@vmsnap-one")
        suite.daemons["vmadmd"].send(signal.SIGHUP)
        vm = events.wait_vm(uuid, lambda vm: vm["snapshots"])
    assert (vm["quota"], vm["zfs_root_compression"]) == (1, "gzip")
    assert [one["name"] for one in vm["snapshots"]] == ["one"]
    suite.vmadm("update", uuid, stdin={"remove_disks": [second]})
    assert not (suite.data_dir(uuid) / "disks/disk1.qcow2").exists()
    suite.vmadm("delete", uuid)
    clean(suite, zfs_pool)


@pytest.mark.root
def test_refused(suite, zfs_pool):
    said = create(suite, "nopool", check=1)
    assert "zpool: there is no pool 'nopool' here" in said
    said = create(suite, zfs_pool, check=1, zfs_root_compression="brotli")
    assert "compression" in said, said
    clean(suite, zfs_pool)
    said = create(suite, zfs_pool, check=1, disks=[{"size": 500, "format": "raw", "model": "virtio",
                                                    "preallocation": "falloc"}])
    assert "no space for" in said, said
    clean(suite, zfs_pool)
    # The usual name of a pool that is not here: files, as everywhere.
    uuid = create(suite, "zones")
    assert suite.vm(uuid)["disks"][0]["path"] == str(suite.data_dir(uuid) / "disk0.qcow2")
    suite.vmadm("delete", uuid)
    # Busy: nothing is changed.
    uuid = create(suite, zfs_pool)
    with open(suite.data_dir(uuid) / "disks/by-hand", "w", encoding="ascii"):
        assert "busy" in suite.vmadm("delete", uuid, check=1).stderr
        assert suite.vm(uuid)["state"] == "stopped"
        assert (suite.data_dir(uuid) / "disks/disk0.qcow2").exists()
    suite.vmadm("delete", uuid)
    clean(suite, zfs_pool)


@pytest.mark.root
def test_dataset_of_others(suite, zfs_pool):
    """One that somebody made before is used as it is, and stays."""
    uuid = "698fed0c-b754-4073-e230-9f37c6b4d790"
    zfs("create", f"{zfs_pool}/{uuid}")
    create(suite, zfs_pool, uuid=uuid)
    assert suite.vm(uuid)["disks"][0]["path"] == str(suite.data_dir(uuid) / "disk0.qcow2")
    suite.vmadm("delete", uuid)
    assert datasets(zfs_pool) == [f"{zfs_pool}/{uuid}"]


def killed(suite, place, *argv, **options):
    suite.env["DROVER_TEST_KILL_AT"] = place
    suite.restart("vmadmd")
    assert suite.vmadm(*argv, check=None, **options).returncode != 0
    daemon = suite.daemons["vmadmd"]
    daemon.expected_end = True
    daemon.wait_end()
    suite._retire("vmadmd")
    del suite.env["DROVER_TEST_KILL_AT"]
    suite.start("vmadmd")


@pytest.mark.root
def test_killed(suite, zfs_pool):
    """A creation cut short leaves nothing; a deletion either nothing or the VM, disks and all."""
    payload = {"alias": "z", "brand": "kvm", "ram": 64, "autoboot": False, "zpool": zfs_pool,
               "disks": DISKS}
    killed(suite, "dataset", "create", stdin=payload)
    clean(suite, zfs_pool)
    uuid = create(suite, zfs_pool)
    killed(suite, "unmounted", "delete", uuid)
    assert (suite.data_dir(uuid) / "disks/disk0.qcow2").exists()
    killed(suite, "undefined", "delete", uuid)
    clean(suite, zfs_pool)


@pytest.mark.root
def test_received(suite, zfs_pool):
    """A stream of a VM on a dataset makes one with the same properties, or in the pool that is named;
    cut short, none is left. Its compression changes live; without a dataset that is refused."""
    uuid = create(suite, zfs_pool, quota=1, zfs_root_compression="gzip")
    dataset, file = f"{zfs_pool}/{uuid}", suite.root / "b"
    suite.vmadm("update", uuid, "zfs_root_compression=lzjb")
    assert zfs("get", "-H", "-o", "value", "compression", dataset) == "lzjb"
    assert suite.vm(uuid)["zfs_root_compression"] == "lzjb"
    said = suite.vmadm("update", uuid, "zfs_root_compression=brotli", check=1).stderr
    assert "zfs did not set zfs_root_compression" in said, said
    assert suite.vm(uuid)["zfs_root_compression"] == "lzjb"
    suite.vmadm("backup", uuid, file)
    suite.vmadm("update", uuid, stdin={"zfs_root_compression": None})
    assert zfs("get", "-H", "-o", "value", "compression", dataset) == "off"
    suite.vmadm("delete", uuid)
    said = suite.vmadm("receive", "-f", file, "-z", "nopool", check=1).stderr
    assert "zpool: there is no pool 'nopool' here" in said and datasets(zfs_pool) == []
    killed(suite, "receiving", "receive", "-f", file)
    clean(suite, zfs_pool)
    suite.vmadm("receive", "-f", file)
    assert zfs("get", "-Hp", "-o", "value", "quota,compression", dataset).split("\n") == \
        [str(1 << 30), "lzjb"]
    assert [disk["path"] for disk in suite.vm(uuid)["disks"]] == \
        [str(suite.data_dir(uuid) / "disks/disk0.qcow2")]
    suite.vmadm("delete", uuid)
    suite.vmadm("receive", "-f", file, "-z", "zones")
    assert datasets(zfs_pool) == [] and suite.vm(uuid)["zpool"] == "zones"
    said = suite.vmadm("update", uuid, "zfs_root_compression=gzip", check=None).stderr
    assert "lies on no dataset" in said, said
    suite.vmadm("delete", uuid)
