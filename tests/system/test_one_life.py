# SPDX-License-Identifier: Apache-2.0
"""The life of a VM by recorded lines of the core: driver, action programs, daemons, QEMU."""

import base64
import os
import re
import subprocess

import drover
import pytest
from one_front import Front
from one_host import ACTIONS

DEPLOYMENTS = drover.TOP / "tests/golden/one/deploy"
# What this host lacks, or has no time for: a bridge, and most of the memory; volatile disks are qcow2, since a
# raw one would keep the VM from being snapshot.
HERE = (("<source bridge='br0'/>", "<source bridge='user'/>"), (">524288<", ">65536<"), (">2097152<", ">65536<"),
        ("type='raw' cache='none'/>\n\t\t\t<address", "type='qcow2' cache='none'/>\n\t\t\t<address"),
        ("type='raw' cache='none' discard='unmap'/>\n\t\t\t<address",
         "type='qcow2' cache='none' discard='unmap'/>\n\t\t\t<address"), ("<![CDATA[2]]></vcpu>", "<![CDATA[1]]></vcpu>"))


class Life:
    def __init__(self, suite, front, version, program, arguments):
        self.suite, self.front, self.version = suite, front, version
        self.place = front.var / "datastores/0/0"
        self.place.mkdir(parents=True)
        for index, size, kind in ((0, 200, "qcow2"), (1, 128, "qcow2"), (3, 64, "raw")):
            subprocess.run(["qemu-img", "create", "-q", "-f", kind, self.place / f"disk.{index}", f"{size}M"],
                           check=True)
        (self.place / "disk.2").write_bytes(b"\0" * 65536)
        for folder in (front.remote / "vmm/kvm", front.var / "remotes/vmm/kvm"):
            for name in ACTIONS:
                (folder / name).unlink(missing_ok=True)
                (folder / name).symlink_to(suite.build / "src/one/drover-vmm")
        (front.remote / "VERSION").write_text(version.replace("x", "1"))
        (front.var / "remotes/VERSION").write_text(version.replace("x", "1"))
        text = front.here((DEPLOYMENTS / f"{version}-kvm-typical.xml").read_text())
        for old, new in HERE:
            text = text.replace(old, new)
        text = text.replace("one-10-", "one-0-").replace("<name>one-10<", "<name>one-0<")
        (front.var / "vms/0/deployment.0").write_text(re.sub(r"datastores/0/\d+", "datastores/0/0", text))
        self.driver = front.driver(arguments, program, DROVER_ROOT=str(suite.root), SHUTDOWN_TIMEOUT="1")

    def do(self, name, want="SUCCESS", **values):
        if "<DEPLOY_ID>" in base64.b64decode(self.front.line(self.version, name)[0].split()[2]).decode():
            values["DEPLOY_ID"] = "one-0"
        line, _ = self.front.line(self.version, name, **values)
        line = self.changed(line)
        lines = self.driver.do(line, 60)
        assert lines[-1].split()[1] == want, lines
        return lines[-1].split(" ", 3)[3] if lines[-1].count(" ") >= 3 else ""

    @staticmethod
    def changed(line):
        head, payload = line.rstrip("\n").rsplit(" ", 1)
        message = base64.b64decode(payload).decode()
        message = message.replace("<BRIDGE><![CDATA[br0]]>", "<BRIDGE><![CDATA[user]]>")
        message = message.replace("snap-1", "snap-0")  # of a second one, taken before the recording
        return f"{head} {base64.b64encode(message.encode()).decode()}\n"

    def state(self):
        vms = self.suite.http("vminfod", "GET", "/vms").json()
        return vms[0]["state"] if vms else None


# By ssh (a recorder in its place, tests of a real one are the driver's), and all on the front-end.
@pytest.mark.parametrize("version, program", [
    ("5.10", "one_vmm_exec"), ("7.x", "one_vmm_sh"),
    pytest.param("7.x", "one_vmm_exec", marks=pytest.mark.campaign),
    pytest.param("5.10", "one_vmm_sh", marks=pytest.mark.campaign)])
def test_life(suite, tmp_path, version, program):
    front = Front(tmp_path / "f")
    life = Life(suite, front, version, program, "-t 15 -r 0 kvm")
    with life.driver:
        assert life.do("deploy") == "one-0"
        assert life.state() == "running"
        vm = suite.vm(suite.uuid("one-0"))
        assert vm["alias"] in ("web-1", "typical") and [one["mac"] for one in vm["nics"]]
        if version == "5.10":
            assert life.do("poll").startswith("STATE=a CPU=")
        life.do("reset")
        assert life.do("snapshotcreate").startswith("snap-")
        life.do("snapshotrevert")
        life.do("snapshotdelete")
        life.do("updateconf")
        assert suite.vm(vm["uuid"])["disks"][2]["path"] == str(life.place / "disk.2")
        life.do("attachdisk-image")
        life.do("attachnic")
        assert len(suite.vm(vm["uuid"])["disks"]) == 4 and len(suite.vm(vm["uuid"])["nics"]) == 2
        life.do("save-suspend")
        assert life.state() is None and (life.place / "checkpoint").exists()
        life.do("restore-resume")
        vm = suite.vm(vm["uuid"])
        assert vm["state"] == "running" and len(vm["disks"]) == 4 and len(vm["nics"]) == 2
        assert not (life.place / "checkpoint").exists()
        assert "not supported" in life.do("migrate", "FAILURE")
        life.do("shutdown-terminate")
        assert life.state() is None
        life.do("cancel-terminate")
        life.do("cleanup")
        assert "VM one-0 not found" in life.do("reboot", "FAILURE")
    assert {"disk.0", "disk.1", "disk.2"} <= set(os.listdir(life.place))
