# SPDX-License-Identifier: Apache-2.0
"""A VM as a stream, while it runs or stopped, and back; damaged and cut streams leave nothing."""

import socket
import subprocess

import pytest
from test_live_snapshot import audit, boot, content, images, kill, made, tags, tidied, write
from test_vmadmd_jobs import ended


def gone(suite, uuid):
    """Nothing of the VM is left."""
    assert not suite.data_dir(uuid).exists() and not (suite.etc / uuid).exists()
    suite.vmadm("get", uuid, check=3)


def test_backup_of_a_running_guest(suite):
    """To a file and through a pipe; the point in time is the begin, the guest goes on."""
    uuid = made(suite)
    with boot(suite, uuid) as console:
        write(console, "ONE1")
        write(console, "two1", "vdb")
        suite.vmadm("create-snapshot", uuid, "s")
        before = suite.vm(uuid)
        assert "Backed up" in suite.vmadm("backup", uuid, suite.root / "b").stderr
        write(console, "ONE2")
        assert suite.vm(uuid)["pid"] == before["pid"]
    audit(suite, uuid, ["s"])
    assert (suite.root / "b").stat().st_mode & 0o777 == 0o600
    said = suite.vmadm("receive", "-f", suite.root / "b", check=5).stderr
    assert "already exists" in said
    suite.vmadm("delete", uuid)
    gone(suite, uuid)
    assert "Received VM" in suite.vmadm("receive", "-f", suite.root / "b").stderr
    after = suite.vm(uuid)
    for member in ("alias", "ram", "vcpus", "kernel", "cmdline", "create_timestamp", "nics"):
        assert after.get(member) == before.get(member), member
    assert after["state"] == "stopped" and after["snapshots"] == []
    for image in images(suite, uuid):
        subprocess.run(["qemu-img", "check", "-q", image], check=True)
        assert tags(image) == []
    with boot(suite, uuid) as console:
        assert content(console) == "ONE1" and content(console, "vdb") == "two1"


def test_stopped_by_pipe(suite):
    """send is backup; raw disks too, metadata and tags."""
    uuid = made(suite, boot=False, tags={"a": 1}, customer_metadata={"k": "v"})
    argv = [str(suite.binary("vmadm")), "--root", str(suite.root)]
    data = subprocess.run([*argv, "send", uuid], check=True, capture_output=True,
                          env=suite.env).stdout
    suite.vmadm("delete", uuid)
    done = subprocess.run([*argv, "receive"], check=False, input=data, capture_output=True,
                          env=suite.env)
    assert done.returncode == 0, done
    vm = suite.vm(uuid)
    assert vm["tags"] == {"a": 1} and vm["customer_metadata"] == {"k": "v"}
    assert len(images(suite, uuid)) == 2


def test_streams_that_are_refused(suite):
    uuid = made(suite, boot=False)
    file = suite.root / "b"
    suite.vmadm("backup", uuid, file)
    suite.vmadm("delete", uuid)
    data = file.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    for bad, words in ((bytes(flipped), "checksum is wrong"), (data[:-1], "cut off"),
                       (data[:len(data) // 2], "cut off"), (data + b"x", "something follows"),
                       (b"hello", "no stream"), (b"", "no stream")):
        file.write_bytes(bad)
        said = suite.vmadm("receive", "-f", file, check=1).stderr
        assert words in said, said
        gone(suite, uuid)
    said = suite.vmadm("backup", uuid, suite.root / "c", check=3).stderr
    assert "not found" in said and not list(suite.root.glob("c*"))
    assert "not found" in suite.vmadm("send", "nobody", check=3).stderr
    file.write_bytes(data)
    suite.vmadm("receive", "-f", file)


@pytest.mark.parametrize("running", [pytest.param(False, marks=pytest.mark.campaign), True])
def test_killed_in_the_middle(suite, running):
    """vmadmd dies while it sends: no snapshot is left; while it receives: no VM is."""
    uuid = made(suite, boot=False)
    if running:
        suite.vmadm("start", uuid)
    nowhere = {"file": str(suite.root / "nobody"), "uuid": uuid}
    for place in ("marked", "taken"):
        killed_at(suite, place, lambda: suite.http("vmadmd", "POST", f"/vm/{uuid}/backup", nowhere))
        job = suite.http("vmadmd", "GET", "/jobs").json()["jobs"][0]
        assert ended(suite, job["id"])["state"] == "failed"
        tidied(suite, uuid)
        audit(suite, uuid, [])
    suite.vmadm("backup", uuid, suite.root / "b")
    suite.vmadm("delete", uuid)
    killed_at(suite, "marked", lambda: suite.http("vmadmd", "POST", "/receive", nowhere))
    gone(suite, uuid)
    suite.env["DROVER_TEST_KILL_AT"] = "receiving"
    suite.restart("vmadmd")
    assert suite.vmadm("receive", "-f", suite.root / "b", check=None).returncode != 0
    daemon = suite.daemons["vmadmd"]
    daemon.expected_end = True
    daemon.wait_end()
    suite._retire("vmadmd")
    del suite.env["DROVER_TEST_KILL_AT"]
    suite.start("vmadmd")
    gone(suite, uuid)
    suite.vmadm("receive", "-f", suite.root / "b")


def killed_at(suite, place, request):
    suite.env["DROVER_TEST_KILL_AT"] = place
    suite.restart("vmadmd")
    kill(suite, request)
    suite.start("vmadmd")


def test_the_receiver_goes_away(suite):
    """A tool that is killed, and a socket nobody listens on: the job fails, nothing is left."""
    uuid = made(suite, boot=False)
    suite.vmadm("start", uuid)
    job = suite.http("vmadmd", "POST", f"/vm/{uuid}/backup?wait=0",
                     {"file": str(suite.root / "nobody")}).json()["job"]
    assert ended(suite, job)["state"] == "failed"
    tidied(suite, uuid)
    audit(suite, uuid, [])
    path = str(suite.root / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        job = suite.http("vmadmd", "POST", f"/vm/{uuid}/backup?wait=0", {"file": path}).json()["job"]
        connection, _ = listener.accept()
        assert connection.recv(16, socket.MSG_WAITALL) == b"DROVER-STREAM-1\n"
        connection.close()
    assert ended(suite, job)["state"] == "failed"
    tidied(suite, uuid)
    audit(suite, uuid, [])
    assert not list(suite.data_dir(uuid).glob("*.part"))


def test_no_start_while_it_is_read(suite):
    """A VM that is stopped stays so until the stream is out; and the job can be cancelled."""
    uuid = made(suite, boot=False)
    for image in images(suite, uuid):
        subprocess.run(["qemu-io", "-c", "write -P 5 0 8M", image], check=True, capture_output=True)
    path = str(suite.root / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        job = suite.http("vmadmd", "POST", f"/vm/{uuid}/backup?wait=0", {"file": path}).json()["job"]
        connection, _ = listener.accept()  # and nothing is read: it is in the middle
        said = suite.vmadm("start", uuid, check=5).stderr
        assert "stays stopped until 'vmadm backup' is done" in said
        suite.vmadm("jobs", "cancel", job)
        assert ended(suite, job)["state"] == "cancelled"
        connection.close()
    tidied(suite, uuid)
    audit(suite, uuid, [])
    suite.vmadm("start", uuid)
