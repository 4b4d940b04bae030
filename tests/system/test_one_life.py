# SPDX-License-Identifier: Apache-2.0
"""The life of a VM by recorded lines of the core: driver, action programs, daemons, QEMU."""

import base64
import json
import os
import pathlib
import re
import shutil

import drover
import pytest
from one_front import Front
from one_host import ACTIONS, HALT, make_disk
from one_nodes import nodes

DEPLOYMENTS = drover.TOP / "tests/golden/one/deploy"
# What there is no time for here: most of the memory, and a second CPU; volatile disks are qcow2, since a raw one
# would keep the VM from being snapshot.
HERE = ((">524288<", ">131072<"), (">2097152<", ">131072<"), (">1048576<", ">131072<"),
        ("type='raw' cache='none'/>\n\t\t\t<address", "type='qcow2' cache='none'/>\n\t\t\t<address"),
        ("type='raw' cache='none' discard='unmap'/>\n\t\t\t<address",
         "type='qcow2' cache='none' discard='unmap'/>\n\t\t\t<address"), ("<![CDATA[2]]></vcpu>", "<![CDATA[1]]></vcpu>"))


USER = ("<source bridge='br0'/>", "<source bridge='user'/>")  # where there is no bridge
KERNEL = f"<kernel>{drover.GUEST}/vmlinuz</kernel><initrd>{drover.GUEST}/initramfs.gz</initrd>"

class Life:
    """A VM that the recorded lines of a version lead through its life."""

    def __init__(self, front, version, cmdline=None, replace=()):
        self.front, self.version = front, version
        self.place = front.var / "datastores/0/0"
        self.driver = None
        text = front.here((DEPLOYMENTS / f"{version}-kvm-typical.xml").read_text())
        for old, new in (*HERE, *replace):
            text = text.replace(old, new)
        text = text.replace("one-10-", "one-0-").replace("<name>one-10<", "<name>one-0<")
        if cmdline is not None:
            kernel = f"{KERNEL}<cmdline>{drover.Suite.cmdline(cmdline)}</cmdline></os>"
            text = text.replace("</os>", kernel)
        self.deployment = re.sub(r"datastores/0/\d+", "datastores/0/0", text)
        for folder in (front.remote / "vmm/kvm", front.var / "remotes/vmm/kvm"):
            for name in ACTIONS:
                (folder / name).unlink(missing_ok=True)
                (folder / name).symlink_to(drover.build_dir() / "src/one/drover-vmm")
        for folder in (front.remote, front.var / "remotes"):
            (folder / "VERSION").write_text(version.replace("x", "1"))

    def fill(self, own=None):
        """Disks of the VM; own: the node's datastores, where they are not seen as they are."""
        place = (own or self.front.var / "datastores") / "0/0"
        place.mkdir(parents=True)
        make_disk(place / "disk.0", 200, "qcow2", HALT)
        make_disk(place / "disk.1", 128, "qcow2")
        make_disk(place / "disk.3", 64, "raw")
        (place / "disk.2").write_bytes(b"context " * 8192)
        return place

    def start(self, arguments, program="one_vmm_exec", **env):
        self.driver = self.front.driver(arguments, program, **env)

    def do(self, name, want="SUCCESS", **values):
        """Send the recorded line, elements of its message changed; the information of the answer."""
        message = self.front.line(self.version, name)[1]
        if "<DEPLOY_ID>" in message:
            values["DEPLOY_ID"] = "one-0"
        for path in re.findall("<LOCAL_DEPLOYMENT_FILE>(.+?)<", message):
            pathlib.Path(path).write_text(self.deployment)
        line = self.changed(self.front.line(self.version, name, **values)[0])
        lines = self.driver.do(line, 120)
        assert lines[-1].split()[1] == want, lines
        return lines[-1].split(" ", 3)[3] if lines[-1].count(" ") >= 3 else ""

    def changed(self, line):
        head, payload = line.rstrip("\n").rsplit(" ", 1)
        message = base64.b64decode(payload).decode()
        if (self.front.var / "bridge").exists():
            message = message.replace("<BRIDGE><![CDATA[br0]]>", "<BRIDGE><![CDATA[user]]>")
        message = message.replace("snap-1", "snap-0")  # of a second one, taken before the recording
        return f"{head} {base64.b64encode(message.encode()).decode()}\n"


def state(suite):
    vms = suite.http("vminfod", "GET", "/vms").json()
    return vms[0]["state"] if vms else None


# All of it on one host, by ssh (a recorder in its place) and on the front-end.
@pytest.mark.parametrize("version, program", [
    ("5.10", "one_vmm_sh"), *[pytest.param(version, program, marks=pytest.mark.campaign) for version, program in (
        ("5.10", "one_vmm_exec"), ("7.x", "one_vmm_exec"), ("7.x", "one_vmm_sh"))]])
def test_life(suite, tmp_path, version, program):
    front = Front(tmp_path / "f")
    (front.var / "bridge").touch()
    life = Life(front, version, replace=[USER])
    place = life.fill()
    life.start("-t 15 -r 0 kvm", program, DROVER_ROOT=str(suite.root), SHUTDOWN_TIMEOUT="1")
    with life.driver:
        assert life.do("deploy") == "one-0"
        assert state(suite) == "running"
        vm = suite.vm(suite.uuid("one-0"))
        assert vm["alias"] in ("web-1", "typical") and [one["mac"] for one in vm["nics"]]
        if version == "5.10":
            assert life.do("poll").startswith("STATE=a CPU=")
        life.do("reset")
        assert life.do("snapshotcreate").startswith("snap-")
        life.do("snapshotrevert")
        life.do("snapshotdelete")
        life.do("updateconf")
        assert suite.vm(vm["uuid"])["disks"][2]["path"] == str(place / "disk.2")
        life.do("attachdisk-image")
        life.do("attachnic")
        assert len(suite.vm(vm["uuid"])["disks"]) == 4 and len(suite.vm(vm["uuid"])["nics"]) == 2
        life.do("save-suspend")
        assert state(suite) is None and (place / "checkpoint").exists()
        life.do("restore-resume")
        vm = suite.vm(vm["uuid"])
        assert vm["state"] == "running" and len(vm["disks"]) == 4 and len(vm["nics"]) == 2
        assert not (place / "checkpoint").exists()
        life.do("shutdown-terminate")
        assert state(suite) is None
        life.do("cancel-terminate")
        life.do("cleanup")
        assert "VM one-0 not found" in life.do("reboot", "FAILURE")
    assert {"disk.0", "disk.1", "disk.2"} <= set(os.listdir(place))


def front_at(tmp_path, folder):
    front = Front(tmp_path / "f")
    front.env["PATH"] = f"{folder}:{os.environ['PATH']}"
    return front


# --- two hosts ---

def taps(node):
    """Ports of the node's bridge."""
    return [link["ifname"] for link in json.loads(node.run("ip", "-j", "link", "show", "master", "br0"))]


@pytest.mark.root
@pytest.mark.parametrize("version, shared", [("5.10", True), ("7.x", False)])
def test_migrate(tmp_path, version, shared):
    """Begun on the front-end or the host; with a snapshot where disks are shared, else with copies of them."""
    with nodes(tmp_path / "f/var/datastores", shared) as (one, two, ssh):
        front = front_at(tmp_path, ssh)
        life = Life(front, version)
        place = life.fill(one.own)
        life.start("-t 15 -r 0 kvm" + (" -l migrate=migrate_local" if shared else ""))
        with life.driver:
            life.do("deploy")
            uuid = one.suite.uuid("one-0")
            assert taps(one) == ["one-0-0"]  # what the network drivers look for
            if shared:
                life.do("snapshotcreate")
            else:
                two.suite.kill9("vmadmd")
                assert "cannot be reached" in life.do("migrate", "FAILURE")
                assert one.suite.vm(uuid)["run_state"] == "running"
                two.start("vmadmd")
            life.do("migrate")
            assert one.state() is None
            vm = two.suite.vm(uuid)
            assert vm["transient"] and vm["run_state"] == "running" and taps(two) == ["one-0-0"]
            if shared:
                assert [kept["name"] for kept in vm["snapshots"]] == ["snap-0"]
                life.do("snapshotrevert", HOST="node2")
                life.do("snapshotdelete", HOST="node2")
            else:
                assert (two.own / "0/0/disk.2").read_bytes() == (place / "disk.2").read_bytes()
                life.do("migrate")  # a retry: it is there already
            life.do("cancel-terminate", HOST="node2")
            assert two.state() is None
            if shared:
                assert "no VM 'one-0'" in life.do("migrate", "FAILURE")


def boots(node, mark):
    """Until the guest is up (once more, when mark counts what was up before)."""
    log = node.suite.logs / "one-0.log"
    drover.wait_file(log, lambda data: data.count(b"GUEST-UP") > mark, 90, "GUEST-UP")


def ups(node):
    log = node.suite.logs / "one-0.log"
    return log.read_bytes().count(b"GUEST-UP") if log.exists() else 0


def move_files(life, source, target):
    """What the transfer driver does, whose place a recorder has."""
    if source.own:
        shutil.rmtree(target.own / "0/0", ignore_errors=True)
        shutil.copytree(source.own / "0/0", target.own / "0/0")
        shutil.rmtree(source.own / "0/0")


@pytest.mark.root
@pytest.mark.campaign
@pytest.mark.parametrize("version, shared", [("5.10", True), ("7.x", False), ("5.10", False), ("7.x", True)])
def test_whole_life(tmp_path, version, shared):
    """Every action on a guest that has booted, on two hosts."""
    with nodes(tmp_path / "f/var/datastores", shared) as (one, two, ssh):
        front = front_at(tmp_path, ssh)
        life = Life(front, version, "drover.modules")
        place = life.fill(one.own)
        life.start("-t 15 -r 0 kvm")
        with life.driver:
            assert life.do("deploy") == "one-0"
            boots(one, 0)
            uuid = one.suite.uuid("one-0")
            if version == "5.10":
                assert life.do("poll").startswith("STATE=a CPU=")
            before = ups(one)
            life.do("reset")
            boots(one, before)
            assert life.do("snapshotcreate") == "snap-0"
            life.do("snapshotrevert")
            if shared:
                life.do("migrate")
                assert [kept["name"] for kept in two.suite.vm(uuid)["snapshots"]] == ["snap-0"]
                life.do("snapshotrevert", HOST="node2")
                life.do("snapshotdelete", HOST="node2")
                life.do("migrate", HOST="node2", MIGR_HOST="node1")
            else:
                assert "snapshots" in life.do("migrate", "FAILURE")
                life.do("snapshotdelete")
            life.do("attachdisk-image")
            life.do("attachnic")
            vm = one.suite.vm(uuid)
            assert len(vm["disks"]) == 4 and len(vm["nics"]) == 2
            assert sorted(taps(one)) == ["one-0-0", "one-0-1"]
            life.do("updateconf")
            life.do("migrate")
            assert one.state() is None and len(two.suite.vm(uuid)["disks"]) == 4
            life.do("detachnic", HOST="node2")
            life.do("detachdisk-image", HOST="node2")
            vm = two.suite.vm(uuid)
            assert len(vm["disks"]) == 3 and len(vm["nics"]) == 1
            life.do("save-coldmigrate")
            assert two.state() is None
            move_files(life, two, one)
            life.do("restore-coldmigrate")
            assert one.suite.vm(uuid)["run_state"] == "running"
            before = ups(one)
            pid = one.suite.vm(uuid)["pid"]
            with one.suite.events() as events:
                life.do("reboot")
                events.wait_vm(uuid, lambda seen: seen.get("pid") not in (None, pid), 60)
            boots(one, before)
            life.do("save-suspend")
            life.do("restore-resume")
            life.do("shutdown-poweroff")
            assert one.state() is None
            life.do("deploy-from-poweroff")
            life.do("cancel-terminate")
            life.do("cleanup")
            assert one.state() is None and two.state() is None
        for node in (one, two):
            assert not list((node.suite.root / "var/lib/vmstated").glob("*-*-*-*-*"))
        assert place.exists()
