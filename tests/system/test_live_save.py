# SPDX-License-Identifier: Apache-2.0
"""Save to a file and restore from it; damaged, cut and foreign files; cut short at every step."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile

import pytest
from test_live_snapshot import await_stopped, boot, kill, made, tidied, write
from test_vmadmd_jobs import ended


def machine(suite, alias="web0", **members):
    """A VM of one disk that runs nothing, started."""
    payload = suite.payload(alias, disks=[{"size": 16, "model": "virtio"}], **members)
    for key in ("kernel", "initrd", "cmdline", "readyline"):
        payload.pop(key)
    uuid = json.loads(suite.vmadm("create", "--json", stdin=payload).stdout)["uuid"]
    suite.vmadm("start", uuid)
    return uuid


def left(suite):
    """What lies where the file is to be, beside the file."""
    return [name for name in os.listdir(suite.root) if name.startswith(".state")]


def test_life_goes_on(suite):
    """Memory, disk and devices of a booted guest, over a restart of both daemons."""
    uuid = made(suite)
    file = suite.root / "state"
    with boot(suite, uuid) as console:
        write(console, "ONE1")
        console.send("mine=before\n")
        console.wait("guest# ")
        assert "Saved VM" in suite.vmadm("save", uuid, "state").stderr
    vm = suite.vm(uuid)
    assert vm["state"] == "stopped" and vm["last_exit"]["cause"] == "admin"
    assert file.stat().st_mode & 0o777 == 0o600 and not left(suite)
    assert not (suite.data_dir(uuid) / "operation").exists()
    head = file.read_bytes()[:200000]
    assert head.startswith(b"DROVER-STREAM-1\n") and uuid.encode() in head
    suite.restart("vmstated")
    suite.restart("vmadmd")
    assert "Restored VM" in suite.vmadm("restore", uuid, file).stderr
    vm = suite.vm(uuid)
    assert vm["state"] == "running" and vm["run_state"] == "running"
    with suite.console(uuid) as console:
        console.send("echo mine-is-$mine; head -c 4 /dev/vda\n")
        console.wait("mine-is-before")
        console.wait("ONE1")
        write(console, "ONE2")
    assert "must be \"stopped\"" in suite.vmadm("restore", uuid, file, check=5).stderr
    suite.vmadm("stop", "-F", uuid)
    assert "was written since" in suite.vmadm("restore", uuid, file, check=5).stderr
    suite.vmadm("restore", "--force", uuid, file)
    assert suite.vm(uuid)["run_state"] == "running"
    suite.stop("vminfod")
    for verb, name in [("save", "unseen"), ("restore", "unseen")]:
        target = f"/vm/{uuid}/{verb}?wait=1"
        reply = suite.http("vmadmd", "POST", target, {"file": str(suite.root / name)})
        assert reply.json()["confirmed"] is False, reply


def test_files_that_are_refused(suite):
    """Damaged, cut, of another VM, no file of ours: nothing is started."""
    uuid = machine(suite)
    file = suite.root / "state"
    other = machine(suite, "web1")
    suite.vmadm("save", other, suite.root / "other")
    suite.vmadm("save", uuid, file)
    data = file.read_bytes()
    cases = {"flipped": data[:len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) +
                        data[len(data) // 2 + 1:],
             "short": data[:-1], "half": data[:len(data) // 2], "long": data + b"x",
             "empty": b"", "text": b"hello\n" * 100, "later": data.replace(b"M-1\n", b"M-2\n", 1),
             "nosum": data[:-32], "other": (suite.root / "other").read_bytes()}
    words = {"flipped": "checksum is wrong", "short": "cut off", "half": "cut off",
             "long": "something follows", "empty": "no stream", "text": "no stream",
             "later": "later version", "nosum": "cut off", "other": f"is of VM {other}"}
    for name, content in cases.items():
        bad = suite.root / "bad"
        bad.write_bytes(content)
        said = suite.vmadm("restore", uuid, bad, check=1).stderr
        assert words[name] in said and str(bad) in said, (name, said)
        assert suite.vm(uuid)["state"] == "stopped"
    suite.vmadm("update", uuid, "ram=192")
    assert "'ram' is another now" in suite.vmadm("restore", uuid, file, check=5).stderr
    suite.vmadm("update", uuid, "ram=128")
    assert suite.vm(uuid)["state"] == "stopped" and suite.vm(uuid)["zoneid"] is None
    suite.vmadm("restore", uuid, file)
    assert suite.vm(uuid)["run_state"] == "running"


def test_refusals(suite):
    uuid = machine(suite)
    suite.vmadm("save", uuid, suite.root / "no" / "folder", check=1)
    tidied(suite, uuid)
    with suite.events() as events:
        events.wait_vm(uuid, lambda vm: vm["run_state"] == "running")
    for file in ("relative", "/tmp/", None, ""):
        reply = suite.http("vmadmd", "POST", f"/vm/{uuid}/save", {"file": file})
        assert reply.status == 400 and "absolute path" in reply.json()["error"]["message"]
    suite.vmadm("stop", "-F", uuid)
    assert "must be \"running\"" in suite.vmadm("save", uuid, "state", check=5).stderr
    assert "no such file" in suite.vmadm("restore", uuid, "state", check=1).stderr.lower()


def killed(suite, place, uuid, verb, file):
    suite.env["DROVER_TEST_KILL_AT"] = place
    suite.restart("vmadmd")
    kill(suite, lambda: suite.http("vmadmd", "POST", f"/vm/{uuid}/{verb}", {"file": str(file)}))
    suite.start("vmadmd")
    job = suite.http("vmadmd", "GET", "/jobs").json()["jobs"][0]
    return ended(suite, job["id"])


def test_killed_while_it_is_saved(suite):
    """Before the memory is whole the VM goes on, after it the file is made whole."""
    uuid = machine(suite)
    file = suite.root / "state"
    for place in ("marked", "stopped", "moving", "ending", "ended", "written", "unmarked"):
        job = killed(suite, place, uuid, "save", file)
        assert not left(suite) and not (suite.data_dir(uuid) / "operation").exists()
        saved = place in ("ending", "ended", "written", "unmarked")
        with suite.events() as events:
            if saved:
                events.wait_vm(uuid, lambda vm: vm["state"] == "stopped")
            else:
                events.wait_vm(uuid, lambda vm: vm.get("run_state") == "running")
        assert file.exists() == saved, (place, job)
        assert (job["state"] == "done") == saved, (place, job)
        if saved:
            suite.vmadm("restore", uuid, file)
            file.unlink()


def test_killed_while_it_is_restored(suite):
    """It runs with its memory or not at all; the file is good for another time."""
    uuid = machine(suite)
    file = suite.root / "state"
    suite.vmadm("save", uuid, file)
    for place in ("marked", "held", "moving", "moved", "going"):
        job = killed(suite, place, uuid, "restore", file)
        state = "running" if place == "going" else "stopped"
        with suite.events() as events:
            events.wait_vm(uuid, lambda vm: vm["state"] == state)  # pylint: disable=W0640
        assert (job["state"] == "done") == (place == "going"), (place, job)
        assert not (suite.data_dir(uuid) / "operation").exists()
    assert suite.vm(uuid)["run_state"] == "running"


@pytest.mark.parametrize("who", [pytest.param("qemu", marks=pytest.mark.campaign), "disk"])
def test_failures_of_others(suite, who):
    """QEMU killed while it is saved; a disk without room."""
    uuid = machine(suite, onfailure="fail")
    if who == "qemu":
        suite.env["DROVER_TEST_KILL_AT"] = "stopped"
        suite.restart("vmadmd")
        pid = suite.vm(uuid)["pid"]
        kill(suite, lambda: suite.http("vmadmd", "POST", f"/vm/{uuid}/save",
                                       {"file": str(suite.root / "state")}))
        os.kill(pid, signal.SIGKILL)
        await_stopped(suite, uuid)
        suite.start("vmadmd")
        ended(suite, suite.http("vmadmd", "GET", "/jobs").json()["jobs"][0]["id"])
        assert not left(suite) and not (suite.root / "state").exists()
        suite.vmadm("start", uuid)
        return
    shutil.rmtree(suite.root / "full", ignore_errors=True)
    said = suite.vmadm("save", uuid, "/dev/full/state", check=1).stderr
    assert "cannot make" in said
    tidied(suite, uuid)
    with suite.events() as events:
        events.wait_vm(uuid, lambda vm: vm.get("run_state") == "running")


ORDER_AS = """
import http.client, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(f"/proc/self/fd/{sys.argv[1]}/vmadmd.http")
connection = http.client.HTTPConnection("localhost")
connection.sock = sock
connection.request("POST", sys.argv[2], sys.argv[3], {"Content-Type": "application/json"})
reply = connection.getresponse()
print(reply.status, reply.read().decode())
"""


def order_as(suite, uid, target, body):
    folder = os.open(suite.root / "run", os.O_PATH | os.O_DIRECTORY)
    try:
        done = subprocess.run(["/usr/bin/python3", "-c", ORDER_AS, str(folder), target,
                               json.dumps(body)], user=uid, group=uid, extra_groups=[],
                              pass_fds=[folder], cwd="/", capture_output=True, text=True,
                              timeout=60, check=True)
    finally:
        os.close(folder)
    status, text = done.stdout.split(" ", 1)
    return int(status), text


@pytest.mark.root
def test_files_are_opened_in_the_callers_name(suite):
    """The VM's owner saves where he may write, and restores what he may read; not elsewhere."""
    owner = pwd.getpwnam("nobody")
    uuid = machine(suite, owner="nobody")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        file = f"{folder}/state"
        status, text = order_as(suite, owner.pw_uid, f"/vm/{uuid}/save", {"file": file})
        assert status == 500 and "Permission denied" in text, text
        tidied(suite, uuid)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        status, text = order_as(suite, owner.pw_uid, f"/vm/{uuid}/save", {"file": file})
        assert status == 200, text
        assert os.stat(file).st_uid == owner.pw_uid and os.stat(file).st_mode & 0o777 == 0o600
        os.chown(file, 0, 0)
        status, text = order_as(suite, owner.pw_uid, f"/vm/{uuid}/restore", {"file": file})
        assert status == 500 and "Permission denied" in text, text
        os.chown(file, owner.pw_uid, owner.pw_gid)
        status, text = order_as(suite, owner.pw_uid, f"/vm/{uuid}/restore", {"file": file})
        assert status == 200 and suite.vm(uuid)["run_state"] == "running", text
        status, text = order_as(suite, 64321, f"/vm/{uuid}/save", {"file": file})
        assert status == 403, text
