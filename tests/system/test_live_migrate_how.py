# SPDX-License-Identifier: Apache-2.0
"""Live migration: what goes along, how, and how it is ended."""

import json
import os
import signal
import subprocess

import drover
import pytest

from test_live_migrate import (  # noqa: F401 (other and pair are fixtures)
    await_place, gone, machine, one_has_it, other, pair, runs, settled, stopped_at, to)


def image(path, size="16M"):
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, size], check=True)
    return str(path)


def job_at(suite, uuid, text, seconds=40):
    """Wait for the migration of the VM to tell this of its progress; its job."""
    deadline = drover.Deadline(seconds)
    while True:
        jobs = suite.http("vmadmd", "GET", "/jobs").json()["jobs"]
        mine = [one for one in jobs if one["kind"] == "migrate" and one["state"] == "running"]
        if mine and text in mine[0].get("step", ""):
            return mine[0]["id"]
        assert not deadline.over(), jobs
        signal.sigtimedwait([signal.SIGUSR2], 0.05)


def begin(suite, uuid, target, **options):
    reply = suite.http("vmadmd", "POST", f"/vm/{uuid}/migrate?wait=0", {"to": target, **options})
    assert reply.status == 202, reply
    return reply.json()["job"]


def test_disks_that_are_shared_or_plugged(suite, other, tmp_path):
    """A file both sides have stays where it is; devices plugged in while it ran are in their slots."""
    shared = image(tmp_path / "shared.qcow2")
    uuid = machine(suite, disks=[{"path": shared, "model": "virtio", "nocreate": True}],
                   nics=[{"nic_tag": "user", "model": "virtio"}])
    suite.vmadm("start", uuid)
    more = image(tmp_path / "more.qcow2")
    suite.vmadm("update", uuid, stdin={"add_disks": [{"path": more, "model": "virtio", "nocreate": True}],
                                       "add_nics": [{"nic_tag": "user", "model": "virtio"}]})
    said = suite.vmadm("migrate", "--copy-disks", uuid, to(other), check=None).stderr
    assert f"disk '{shared}' is here already" in said
    suite.vmadm("migrate", uuid, to(other))
    gone(suite, uuid)
    vm = other.vm(uuid)
    assert vm["run_state"] == "running" and [d["path"] for d in vm["disks"]] == [shared, more]
    assert len(vm["nics"]) == 2
    os.unlink(more)
    image(more)
    elsewhere = other.vmadm("migrate", uuid, to(suite), check=None).stderr
    assert f"disk '{more}' was replaced while the VM runs" in elsewhere
    other.vmadm("stop", "-F", uuid)
    subprocess.run(["qemu-img", "check", "-q", shared], check=True)


@pytest.mark.parametrize("where", [pytest.param("disks", marks=pytest.mark.campaign), "memory"])
def test_cancelled(suite, other, where):
    """While disks or memory move it can be ended; it goes on here and nothing is left there."""
    uuid = machine(suite, disks=[{"size": 64 if where == "disks" else 1, "model": "virtio"}])
    suite.vmadm("start", uuid)
    begin(suite, uuid, to(other), bandwidth_mib=1)
    suite.vmadm("jobs", "cancel", job_at(suite, uuid, where))
    assert one_has_it(suite, other, uuid, "running") is suite
    assert suite.vm(uuid)["run_state"] == "running"
    gone(other, uuid)
    # What bounds one migration bounds no other.
    result = json.loads(suite.vmadm("migrate", "--json", "--downtime", "500", uuid,
                                    to(other)).stdout)
    assert result["downtime_ms"] < 20000 and runs(other, uuid)
    settled(suite, other, uuid)


def test_force_here(pair, tmp_path):
    """Handed over, and nobody answers there: it stands still until a person says so."""
    suite, other = pair  # noqa: F811
    for one in pair:
        one.start()
    uuid = machine(suite)
    suite.vmadm("start", uuid)
    said = suite.vmadm("migrate", "--force-here", uuid, check=None).stderr
    assert "does not wait for word from another side" in said
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    try:
        daemon = stopped_at(other, "whole")
        begin(suite, uuid, to(other))
        await_place(daemon)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    other.kill9("vmadmd")
    job_at(suite, uuid, "whether it runs there")
    assert suite.vm(uuid)["run_state"] != "running"
    said = suite.http("vmadmd", "POST", f"/vm/{uuid}?action=resume")
    assert said.status == 409 and b"must not run here" in said.body, said
    suite.vmadm("migrate", "--force-here", uuid)
    runs(suite, uuid)
    other.start("vmadmd")
    assert one_has_it(suite, other, uuid, "running") is suite
    gone(other, uuid)


FIRMWARE = "/usr/share/OVMF/OVMF_CODE_4M.fd"


@pytest.mark.campaign
@pytest.mark.skipif(not os.path.exists(FIRMWARE), reason="needs ovmf")
def test_firmware_variables(suite, other):
    """They are memory of the machine: what was written there is in the other side's file."""
    uuid = machine(suite, bootrom=FIRMWARE)
    suite.vmadm("start", uuid)
    suite.vmadm("stop", "-F", uuid)
    mine = suite.data_dir(uuid) / "nvram.fd"
    with mine.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)  # spare space of the variable store
        file.write(b"drover was here")
    suite.vmadm("start", uuid)
    suite.vmadm("migrate", uuid, to(other))
    runs(other, uuid)
    other.vmadm("stop", "-F", uuid)
    assert (other.data_dir(uuid) / "nvram.fd").read_bytes()[-4096:].startswith(b"drover was here")
