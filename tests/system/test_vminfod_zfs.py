# SPDX-License-Identifier: Apache-2.0
"""VMs on ZFS datasets: with zfs-fuse where it runs, and with a `zfs` that lies, hangs or is gone."""

import json
import os
import signal
import subprocess

import drover
import pytest

UUID = "698fed0c-b754-4073-e230-9f37c6b4d79f"
GIB = 1 << 30


def run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


def ask(suite):
    """Have vmadmd ask ZFS now."""
    suite.daemons["vmadmd"].send(signal.SIGHUP)


def next_change(events, path):
    """All changes of the next record that has one of path, but for last_modified."""
    record = events.wait(lambda ev: any(c["prettyPath"] == path for c in ev.get("changes", [])))
    return [(c["prettyPath"], c["action"], c.get("oldValue"), c.get("newValue"))
            for c in record["changes"] if c["prettyPath"] != "last_modified"]


@pytest.mark.root
def test_dataset(cold, zfs_pool):
    """RFD 39's quota: by vmadm and by zfs, each one event; compression and snapshots as well."""
    dataset = f"{zfs_pool}/{UUID}"
    # Never mounted: zfs-fuse finds a mounted one busy.
    run("zfs", "create", "-o", "canmount=noauto", "-o", "quota=10G", dataset)
    cold.start()
    cold.vmadm("create", stdin={"uuid": UUID, "alias": "bar", "ram": 128, "autoboot": False,
                                "zpool": zfs_pool, "quota": 10})
    with cold.events() as events:
        ask(cold)
        vm = events.wait_vm("bar", lambda vm: "zfs_root_compression" in vm)
        assert (vm["zfs_filesystem"], vm["quota"], vm["zfs_root_compression"],
                vm["snapshots"]) == (dataset, 10, "off", [])

        cold.vmadm("update", UUID, "quota=20")
        assert cold.vm(UUID)["quota"] == 20
        assert run("zfs", "get", "-Hp", "-o", "value", "quota", dataset) == f"{20 * GIB}\n"
        assert next_change(events, "quota") == [("quota", "changed", 10, 20)]

        run("zfs", "set", "quota=12G", dataset)
        run("zfs", "set", "compression=on", dataset)
        run("zfs", "snapshot", f"{dataset}@vmsnap-one")
        run("zfs", "snapshot", f"{dataset}@by-hand")
        ask(cold)
        changes = next_change(events, "quota")
        assert ("quota", "changed", 20, 12) in changes
        assert ("zfs_root_compression", "changed", "off", "on") in changes
        (snapshot,) = cold.vm(UUID)["snapshots"]
        assert snapshot["name"] == "one" and snapshot["created_at"].startswith("20")

        # The definition said 20 all the time.
        cold.vmadm("update", UUID, "quota=20")
        assert next_change(events, "quota") == [("quota", "changed", 12, 20)]
        cold.vmadm("update", UUID, "quota=0")
        assert cold.vm(UUID)["quota"] == 0

        run("zfs", "destroy", "-r", dataset)
        ask(cold)
        vm = events.wait_vm("bar", lambda vm: "zfs_root_compression" not in vm)
        assert vm["snapshots"] == []


def fake(cold, script):
    """A `zfs` before the real one; what it prints is in files of the root."""
    folder = cold.root / "zfs-bin"
    folder.mkdir(exist_ok=True)
    new = folder / "zfs.new"
    new.write_text(f"#!/bin/sh\n{script}\n")
    new.chmod(0o755)
    new.rename(folder / "zfs")
    cold.env["PATH"] = f"{folder}:{cold.env.get('PATH', os.environ['PATH'])}"


def lines(name, **values):
    return "".join(f"{name}\t{key}\t{value}\n" for key, value in values.items())


ANSWER = (lines("tank", type="filesystem", quota=0)
          + lines(f"tank/{UUID}", type="filesystem", quota=10 * GIB + GIB // 2, compression="lz4",
                  creation=1523466233, used=4096)
          + lines(f"tank/{UUID}@vmsnap-a", type="snapshot", quota="-", creation=1523466233,
                  used=1 << 20)
          + lines(f"tank/{UUID}@vmsnap-b", type="snapshot", quota="-", creation=1523466234,
                  used=(1 << 20) + (1 << 19))
          + lines(f"tank/{UUID}-disk0", type="volume", quota="-", compression="gzip-3")
          + lines(f"tank/{UUID}/child", type="filesystem", quota=5)
          + "nonsense\n\t\t\n")


def define(cold):
    disk = f'disk root {{ path = "/dev/null"; zfs_filesystem = "tank/{UUID}-disk0"; }}'
    cold.write_definition("web0", f'uuid = "{UUID}"; zpool = tank; ram = 64; autoboot = no; {disk}')


def test_facts(cold):
    define(cold)
    (cold.root / "answer").write_text(ANSWER)
    fake(cold, f'cat {cold.root}/answer; echo "$@" > {cold.root}/asked')
    cold.start()
    with cold.events() as events:
        vm = events.wait_vm("web0", lambda vm: vm["snapshots"])
        assert vm["quota"] == 10.5 and vm["zfs_root_compression"] == "lz4"
        assert vm["snapshots"] == [
            {"name": "b", "size": 1.5, "created_at": "2018-04-11T17:03:54.000Z"},
            {"name": "a", "size": 1, "created_at": "2018-04-11T17:03:53.000Z"}]
        assert vm["disks"][0]["compression"] == "gzip-3"
        assert (cold.root / "asked").read_text().endswith(" tank\n")
        # A new vmadmd asks again; nothing differs.
        cold.restart("vmadmd")
        cold.kill9("vmadmd")
        vm = events.wait_vm("web0", lambda vm: "vmadmd" in vm.get("unknown", {}))
        assert vm["quota"] == 10.5


@pytest.mark.parametrize("script", ["echo 'internal error' >&2; exit 1", "kill -9 $$",
                                    "yes | head -c 9000000"])
def test_no_answer(cold, script):
    define(cold)
    (cold.root / "answer").write_text(ANSWER)
    fake(cold, f"cat {cold.root}/answer")
    cold.start()
    with cold.events() as events:
        events.wait_vm("web0", lambda vm: vm["snapshots"])
        fake(cold, script)
        ask(cold)
        vm = events.wait_vm("web0", lambda vm: "zfs" in vm.get("unknown", {}))
        assert vm["quota"] == 10.5 and len(vm["snapshots"]) == 2
        done = cold.vmadm("update", UUID, "quota=3", check=None)
        assert (done.returncode == 0) == script.startswith("yes")
        fake(cold, "echo \"cannot open 'tank': dataset does not exist\" >&2; exit 1")
        ask(cold)
        vm = events.wait_vm("web0", lambda vm: "zfs" not in vm.get("unknown", {}))
        assert vm["snapshots"] == [] and "zfs_root_compression" not in vm


def test_never_an_answer(cold):
    """A definition that names its pool, and a ZFS that never spoke."""
    define(cold)
    cold.write_definition("other", "ram = 64; autoboot = no;")
    fake(cold, "echo 'no module' >&2; exit 1")
    cold.start()
    with cold.events() as events:
        events.wait_vm("web0", lambda vm: "zfs" in vm.get("unknown", {}))
    (other,) = [vm for vm in json.loads(cold.http("vminfod", "GET", "/vms").body)
                if vm["alias"] == "other"]
    assert "unknown" not in other
