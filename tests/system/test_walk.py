# SPDX-License-Identifier: Apache-2.0
"""The walk of a new user: a definition by hand, start, stop, events; daemons killed under a guest."""

import json
import os

import pytest

import drover


def qemu_pid(suite, uuid):
    pid = suite.vm(uuid)["pid"]
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        assert b"-nodefaults" in file.read()
    return pid


@pytest.mark.smoke
@pytest.mark.slow
def test_by_hand(suite):
    """A file written while the daemons run is a VM that list shows, start boots, stop shuts down."""
    with suite.events() as events:
        suite.write_definition("web0", suite.guest(description="shop front"))
        assert "web0" in suite.vmadm("list").stdout  # exact reads: no waiting in between
        uuid = events.wait_vm("web0", lambda vm: True, 5)["uuid"]

        suite.vmstatedctl("start", "web0")
        assert suite.vm(uuid)["zone_state"] == "running"
        events.wait_vm(uuid, lambda vm: vm.get("ready") is True, 60)
        assert "web0" in suite.vmadm("list", "state=running").stdout

        suite.vmadm("stop", uuid)
        assert suite.vm(uuid)["state"] == "stopped"
        events.wait_state(uuid, "stopped", 10)
        assert suite.vm(uuid)["last_exit"]["cause"] == "admin"
        states = [new for path, _, new in events.changes(uuid) if path == "state"]
        assert "running" in states and "stopping" in states and states[-1] == "stopped"


@pytest.mark.slow
def test_kill_each_daemon(suite):
    """SIGKILL of each daemon in turn: the guest runs on, commands work after the restart."""
    suite.write_definition("web0", suite.guest())
    suite.vmstatedctl("start", "web0")
    uuid = suite.uuid("web0")
    with suite.events() as events:
        events.wait_vm(uuid, lambda vm: vm.get("ready") is True, 60)
    pid = qemu_pid(suite, uuid)
    for name in drover.DAEMONS:
        suite.kill9(name)
        os.kill(pid, 0)
        suite.start(name)
        with suite.events() as events:
            events.wait_vm(uuid, lambda vm: vm.get("pid") == pid and vm["state"] == "running", 10)
        assert qemu_pid(suite, uuid) == pid
        suite.vmstatedctl("status")
        assert "running" in json.dumps(json.loads(suite.vmadm("get", uuid).stdout))
    suite.vmadm("stop", uuid)
    assert suite.vm(uuid)["state"] == "stopped"


@pytest.mark.slow
def test_console_and_disk(suite):
    """vmadm create with a disk: the guest writes and reads it; its console answers."""
    payload = suite.payload("db0", "drover.disk=/dev/vda",
                            disks=[{"size": 16, "model": "virtio", "boot": True}])
    suite.vmadm("create", stdin=payload)
    uuid = suite.uuid("db0")
    if suite.vm(uuid)["state"] == "stopped":
        suite.vmadm("start", uuid)
    with suite.console(uuid) as console:
        console.wait("GUEST-UP", 60)
        console.wait("DISK-OK", 30)
        console.send("echo $((40 + 2)) is it\n")
        console.wait("42 is it", 10)
    suite.vmadm("stop", uuid, "-F")
    suite.vmadm("delete", uuid)
    assert suite.http("vminfod", "GET", f"/vms/{uuid}").status == 404
    assert not suite.data_dir(uuid).exists()


@pytest.mark.slow
def test_a_guest_that_ignores_the_button(suite):
    suite.write_definition("deaf", suite.guest("drover.ignore-button"))
    suite.vmstatedctl("start", "deaf")
    uuid = suite.uuid("deaf")
    with suite.events() as events:
        events.wait_vm(uuid, lambda vm: vm.get("ready") is True, 60)
        suite.vmadm("stop", uuid, "-t", "2")
        assert suite.vm(uuid)["last_exit"]["cause"] == "timeout-forced"


@pytest.mark.slow
def test_long_paths(long_root):
    long_root.start()
    long_root.write_definition("web0", long_root.guest())
    long_root.vmstatedctl("start", "web0")
    uuid = long_root.uuid("web0")
    with long_root.events() as events:
        events.wait_vm(uuid, lambda vm: vm.get("ready") is True, 60)
    long_root.vmadm("stop", uuid, "-F")
