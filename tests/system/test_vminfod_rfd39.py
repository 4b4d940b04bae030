# SPDX-License-Identifier: Apache-2.0
"""The examples of RFD 39, with vmadm and `vminfo events`; docs/rfd39.md shows what came of them."""

import re
import signal
import subprocess

import drover
import pytest

UUID = "698fed0c-b754-4073-e230-9f37c6b4d79f"
MAC = "b2:1e:ba:a5:6e:71"


class Watch:
    """`vminfo events`, line by line."""

    def __init__(self, suite):
        self.suite = suite
        self.process = subprocess.Popen(
            [suite.binary("vminfo"), "--root", "r", "events", "-r"], cwd=suite.root.parent,
            stdout=subprocess.PIPE, env=suite.env, bufsize=0)
        assert self.line().endswith("] ready")

    def line(self):
        assert drover.wait_readable(self.process.stdout, drover.Deadline(20)), "no line"
        return self.process.stdout.readline().decode().rstrip("\n")

    def until(self, pattern):
        """Lines up to the first that matches, without their times."""
        lines = []
        while not lines or not re.search(pattern, lines[-1]):
            lines.append(self.line().split("] ", 1)[1])
        return lines

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def watch(cold):
    cold.use_fake_qemu()
    cold.start()
    made = Watch(cold)
    yield made
    made.close()


def show(title, lines):
    print(f"\n--- {title}")
    print("\n".join(lines))


@pytest.mark.root
def test_quota_of_a_dataset(cold, zfs_pool, watch):
    """By vmadm and by zfs: what the document shows for both."""
    dataset = f"{zfs_pool}/{UUID}"
    subprocess.run(["zfs", "create", "-o", "canmount=noauto", "-o", "quota=10G", dataset],
                   check=True, capture_output=True)
    cold.vmadm("create", stdin={"uuid": UUID, "alias": "bar", "ram": 256, "autoboot": False,
                                "zpool": zfs_pool, "quota": 10})
    cold.daemons["vmadmd"].send(signal.SIGHUP)
    watch.until("zfs_root_compression added")
    cold.vmadm("update", UUID, "quota=20")
    # vmstated's first word on the new VM may come as late as here.
    lines = [line for line in watch.until("last_modified changed") if "supervisor_" not in line]
    show("vmadm update quota=20", lines)
    assert lines[0] == "698fed0c bar modify: quota changed :: 10 -> 20" and len(lines) == 2
    subprocess.run(["zfs", "set", "quota=10G", dataset], check=True, capture_output=True)
    cold.daemons["vmadmd"].send(signal.SIGHUP)
    lines = watch.until("quota")
    show("zfs set quota=10G", lines)
    assert lines == ["698fed0c bar modify: quota changed :: 20 -> 10"]


def test_examples(cold, watch):
    created = {"uuid": UUID, "alias": "foo", "ram": 256, "autoboot": True, "quota": 10,
               "disks": [{"size": 64, "model": "virtio"}]}
    done = cold.vmadm("create", stdin=created)
    assert done.stderr.endswith(f"Successfully created VM {UUID}\n")
    lines = watch.until("provisioning removed")
    assert '698fed0c foo modify: state changed :: "provisioning" -> "running"' in lines
    show("create", lines)
    assert lines[0] == "698fed0c foo create"
    states = [line for line in lines if " zone_state changed" in line]
    chain = [re.findall(r'"(\w+)"', line) for line in states]
    assert [pair[1] for pair in chain][-3:] == ["installed", "ready", "running"], chain
    assert all(a[1] == b[0] for a, b in zip(chain, chain[1:])), chain
    assert any("zoneid changed :: null -> " in line for line in lines)

    for title, arguments, expected in (
            ("alias", ["alias=bar"], ['alias changed :: "foo" -> "bar"']),
            ("memory", ["max_physical_memory=2048"],
             ["max_physical_memory changed :: 1280 -> 2048"]),
            ("quota", ["quota=20"], ["quota changed :: 10 -> 20"])):
        cold.vmadm("update", UUID, *arguments)
        lines = watch.until("last_modified changed")
        show(title, lines)
        for text in expected:
            assert f"698fed0c bar modify: {text}" in lines, lines

    cold.vmadm("stop", "-F", UUID)
    watch.until("autoboot changed")
    watch.until("last_modified changed")
    cold.vmadm("update", UUID, stdin={"add_nics": [
        {"nic_tag": "external", "mac": MAC, "model": "virtio", "ip": "dhcp"}]})
    lines = watch.until("last_modified changed")
    show("nic", lines)
    assert f'"mac":"{MAC}"' in lines[0] and "nics.* added :: undefined -> {" in lines[0]

    disk = cold.vm(UUID)["disks"][0]
    subprocess.run(["qemu-img", "resize", disk["path"], "128M"], check=True, capture_output=True)
    lines = watch.until("disks.*size")
    show("disk", lines)
    assert lines == ["698fed0c bar modify: disks.*.size changed :: 64 -> 128"]

    cold.vmadm("delete", UUID)
    lines = watch.until("delete$")
    show("delete", lines)
    assert lines[-1] == "698fed0c - delete"
    assert any('zone_state changed :: "installed" -> "configured"' in line for line in lines), lines
