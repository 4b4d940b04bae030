# SPDX-License-Identifier: Apache-2.0
"""Snapshots of a VM as one set: taken, gone back to, deleted; cut short at every step."""

import http.client
import json
import os
import signal
import subprocess

import drover
import pytest
from test_vmadmd_jobs import ended

DISKS = [{"size": 16, "model": "virtio"}, {"size": 16, "model": "virtio"}]


def made(suite, boot=True, **members):
    """A VM of two qcow2 disks; without boot its machine has nothing to run, which is enough."""
    payload = suite.payload("web0", disks=DISKS, **members)
    if not boot:
        for key in ("kernel", "initrd", "cmdline", "readyline"):
            payload.pop(key)
    return json.loads(suite.vmadm("create", "--json", stdin=payload).stdout)["uuid"]


def call(suite, method, uuid, path="", body=None, want=200):
    reply = suite.http("vmadmd", method, f"/vm/{uuid}/snapshots{path}", body)
    assert reply.status == want, reply
    return reply.json()


def images(suite, uuid):
    return sorted(suite.data_dir(uuid).glob("*.qcow2"))


def tags(path):
    out = subprocess.run(["qemu-img", "info", "-U", "--output=json", path], check=True,
                         capture_output=True).stdout
    return [one["name"] for one in json.loads(out).get("snapshots", [])]


def names(suite, uuid):
    return [one["name"] for one in call(suite, "GET", uuid)["snapshots"]]


def audit(suite, uuid, want):
    """Index, object, images and copies agree; no journal is left; the images are whole."""
    assert sorted(names(suite, uuid)) == sorted(want)
    with suite.events() as events:
        events.wait_vm(uuid, lambda vm: sorted(one["name"] for one in vm["snapshots"]) ==
                       sorted(want), 10, f"snapshots {want}")
    for image in images(suite, uuid):
        assert sorted(tags(image)) == sorted(f"vmsnap-{name}" for name in want), image
        # An image in use looks as if it had leaks: what QEMU has not written back.
        code = subprocess.run(["qemu-img", "check", "-q", "-U", image], check=False).returncode
        assert code in ((0, 3) if suite.vm(uuid)["state"] == "running" else (0,)), (image, code)
    assert not (suite.data_dir(uuid) / "operation").exists()


def write(console, text, disk="vda"):
    """Text on the guest's disk, past its caches."""
    console.send(f"echo {text} | dd of=/dev/{disk} bs=512 conv=sync,fsync 2>/dev/null; echo W-$?\n")
    console.wait("W-0")


def content(console, disk="vda"):
    console.send(f'echo 3 > /proc/sys/vm/drop_caches; echo X""Y$(head -c 4 /dev/{disk})Y""X\n')
    console.wait("XY")
    begin = console.at
    return console.wait("YX")[begin:console.at - 2].decode()


def boot(suite, uuid):
    suite.vmadm("start", uuid)
    suite.console_wait(uuid, "GUEST-UP")
    console = suite.console(uuid)
    console.send("insmod() { busybox insmod /modules/$1.ko; }; for m in virtio_ring virtio "
                 "virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do insmod $m; "
                 "done; echo L-OK\n")
    console.wait("L-OK\r\n")
    return console


def test_memory_and_disks_go_back_together(suite):
    """A shell variable is the memory, a sector of each disk the disks."""
    uuid = made(suite)
    with boot(suite, uuid) as console:
        write(console, "ONE1")
        write(console, "two1", "vdb")
        console.send("mine=before\n")
        console.wait("guest# ")
        suite.vmadm("create-snapshot", uuid, "first")
        write(console, "ONE2")
        write(console, "two2", "vdb")
        console.send("mine=after\n")
        suite.vmadm("create-snapshot", "--no-memory", uuid, "2nd")
        write(console, "ONE3")
        pid = suite.vm(uuid)["pid"]
        assert "Rolled back" in suite.vmadm("rollback-snapshot", uuid, "first").stderr
        assert suite.vm(uuid)["pid"] == pid
        console.send("echo mine-is-$mine\n")
        console.wait("mine-is-before")
        assert content(console) == "ONE1" and content(console, "vdb") == "two1"
    listed = suite.vmadm("list-snapshots", uuid).stdout
    assert "first" in listed and "2nd" in listed
    audit(suite, uuid, ["first", "2nd"])
    told = suite.vm(uuid)["snapshots"]
    assert [one["memory"] for one in told] == [False, True] and told[0]["parent"] == "first"
    assert told[1]["size"] > 10
    # Without memory: the machine starts anew on the disks of then.
    suite.vmadm("rollback-snapshot", uuid, "2nd")
    assert suite.vm(uuid)["pid"] != pid and suite.vm(uuid)["state"] == "running"
    suite.vmadm("delete-snapshot", uuid, "first")
    audit(suite, uuid, ["2nd"])
    assert "parent" not in suite.vm(uuid)["snapshots"][0]


def test_stopped_vm_goes_on_with_memory(suite):
    """A stopped VM goes back to memory and disks of then; without memory it stays stopped; what
    cannot be loaded leaves it stopped, on the disks of then, and it boots."""
    uuid = made(suite)
    with boot(suite, uuid) as console:
        write(console, "ONE1")
        console.send("mine=before\n")
        console.wait("guest# ")
        suite.vmadm("create-snapshot", uuid, "mem")
        suite.vmadm("create-snapshot", "--no-memory", uuid, "disks")
        write(console, "ONE2")
    suite.vmadm("stop", "-F", uuid)
    assert "has no memory" in suite.vmadm("rollback-snapshot", "--memory", uuid, "disks",
                                          check=1).stderr
    suite.vmadm("rollback-snapshot", "--no-memory", uuid, "mem")
    assert suite.vm(uuid)["state"] == "stopped"
    job = killed_at(suite, "begun", "POST", uuid, "/mem/rollback")
    assert job["state"] == "done", job
    with suite.console(uuid) as console:
        console.send("echo mine-is-$mine\n")
        console.wait("mine-is-before")
        assert content(console) == "ONE1"
        write(console, "ONE3")
    runs(suite, uuid)
    suite.vmadm("stop", "-F", uuid)
    # Another machine: refused before anything is touched, by the property's name.
    suite.vmadm("update", uuid, "ram=144")
    assert "'ram' is another now" in suite.vmadm("rollback-snapshot", uuid, "mem", check=5).stderr
    suite.vmadm("update", uuid, "ram=128")
    spoil(images(suite, uuid)[0])
    job = ended(suite, suite.http("vmadmd", "POST", f"/vm/{uuid}/snapshots/mem/rollback?wait=0"
                                  ).json()["job"])
    assert job["state"] == "failed" and "its disks are those of the snapshot" in \
        job["error"]["message"], job
    assert suite.vm(uuid)["state"] == "stopped"
    audit(suite, uuid, ["mem", "disks"])
    read = subprocess.run(["qemu-io", "-r", "-c", "read -v 0 4", images(suite, uuid)[0]],
                          check=True, capture_output=True)
    assert b"ONE1" in read.stdout
    suite.vmadm("start", uuid)
    runs(suite, uuid)


def runs(suite, uuid):
    with suite.events() as events:
        events.wait_vm(uuid, lambda vm: vm.get("run_state") == "running")


def spoil(image):
    """The memory in that image's snapshot is of no QEMU any more: its first bytes are zeroed."""
    data = bytearray(image.read_bytes())
    at = data.find(b"QEVM")
    assert at >= 0
    data[at:at + 4] = bytes(4)
    image.write_bytes(data)


HELD = ["marked", "held", "asked", "loaded", "going", "recorded", "unmarked"]


@pytest.mark.campaign
@pytest.mark.parametrize("place", HELD)
def test_killed_while_a_stopped_one_goes_on(suite, place):
    """Done again from its beginning: it runs with the memory of then, once."""
    uuid = made(suite, boot=False)
    suite.vmadm("start", uuid)
    suite.vmadm("create-snapshot", uuid, "s")
    suite.vmadm("stop", "-F", uuid)
    job = killed_at(suite, place, "POST", uuid, "/s/rollback")
    assert job["state"] == "done", job
    runs(suite, uuid)
    audit(suite, uuid, ["s"])


def test_stopped_vm(suite):
    """The same without QEMU; any order of deletion, also of what is gone from a disk already."""
    uuid = made(suite, boot=False)
    first, second = images(suite, uuid)
    subprocess.run(["qemu-io", "-c", "write -P 1 0 64k", first], check=True, capture_output=True)
    for name in ("1", "a.b-c_d:e%f", "n" * 64):
        suite.vmadm("create-snapshot", uuid, name)
    subprocess.run(["qemu-io", "-c", "write -P 2 0 64k", first], check=True, capture_output=True)
    audit(suite, uuid, ["1", "a.b-c_d:e%f", "n" * 64])
    before = suite.vm(uuid)["last_modified"]
    suite.vmadm("rollback-snapshot", uuid, "1")
    read = subprocess.run(["qemu-io", "-r", "-c", "read -P 1 0 64k", first], check=True,
                          capture_output=True)
    assert b"verification failed" not in read.stdout
    assert call(suite, "GET", uuid)["current"] == "1" and suite.vm(uuid)["state"] == "stopped"
    subprocess.run(["qemu-img", "snapshot", "-d", "vmsnap-1", second], check=True)
    suite.vmadm("delete-snapshot", uuid, "1")
    assert suite.vm(uuid)["last_modified"] > before
    suite.vmadm("delete-snapshot", uuid, "n" * 64)
    audit(suite, uuid, ["a.b-c_d:e%f"])
    suite.restart("vmadmd")
    audit(suite, uuid, ["a.b-c_d:e%f"])


def test_refusals(suite):
    """Each by name, with nothing touched."""
    uuid = made(suite, boot=False)
    for name in ("", "a b", "x/y", "n" * 65, None):
        assert "Invalid snapshot name" in suite.http(
            "vmadmd", "POST", f"/vm/{uuid}/snapshots", {"name": name}).json()["error"]["message"]
    suite.vmadm("create-snapshot", uuid, "s")
    assert "already" in suite.vmadm("create-snapshot", uuid, "s", check=5).stderr
    assert "no memory to keep" in suite.vmadm("create-snapshot", "--memory", uuid, "t",
                                              check=5).stderr
    assert "has no snapshot 'q'" in suite.vmadm("rollback-snapshot", uuid, "q", check=1).stderr
    assert "has no snapshot 'q'" in suite.vmadm("delete-snapshot", uuid, "q", check=1).stderr
    raw = suite.root / "raw.img"
    raw.write_bytes(bytes(1 << 20))
    suite.vmadm("update", uuid, stdin={"add_disks": [
        {"path": str(raw), "nocreate": True, "format": "raw", "model": "virtio"}]})
    said = suite.vmadm("create-snapshot", uuid, "t", check=1).stderr
    assert str(raw) in said and "only qcow2 images hold snapshots" in said
    assert str(raw) in suite.vmadm("rollback-snapshot", uuid, "s", check=1).stderr
    suite.vmadm("update", uuid, stdin={"remove_disks": [str(raw)]})
    suite.vmadm("update", uuid, stdin={"add_disks": [{"size": 16, "model": "virtio"}]})
    assert "came after snapshot" in suite.vmadm("rollback-snapshot", uuid, "s", check=5).stderr
    added = suite.vm(uuid)["disks"][2]["path"]
    suite.vmadm("update", uuid, stdin={"remove_disks": [added]})
    image = images(suite, uuid)[1]
    subprocess.run(["qemu-img", "snapshot", "-d", "vmsnap-s", image], check=True)
    said = suite.vmadm("rollback-snapshot", uuid, "s", check=1).stderr
    assert "somebody removed it" in said and str(image) in said


def kill(suite, request):
    """The request ends vmadmd at the place asked for."""
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        request()
    daemon = suite.daemons["vmadmd"]
    daemon.expected_end = True
    daemon.wait_end()
    suite._retire("vmadmd")
    del suite.env["DROVER_TEST_KILL_AT"]


def killed_at(suite, place, method, uuid, path="", body=None):
    """Let vmadmd die at a place of an operation, start it again, and wait until it has tidied up.
    The job as it ended."""
    suite.env["DROVER_TEST_KILL_AT"] = place
    suite.restart("vmadmd")
    kill(suite, lambda: suite.http("vmadmd", method, f"/vm/{uuid}/snapshots{path}", body))
    suite.start("vmadmd")
    job = suite.http("vmadmd", "GET", "/jobs").json()["jobs"][0]
    return ended(suite, job["id"])


STOPPED = ["marked", "image", "taken", "recorded", "unmarked"]
RUNNING = ["marked", "before", "asked", "begun", "recorded"]


LONG = pytest.mark.campaign
BOTH = [pytest.param(False, marks=LONG), True]


@pytest.mark.parametrize("running", BOTH)
def test_killed_while_it_is_taken(suite, running):
    """Wholly there or wholly gone, as the job says; and what came before is untouched."""
    uuid = made(suite, boot=False)
    suite.vmadm("create-snapshot", uuid, "old")
    if running:
        suite.vmadm("start", uuid)
    there = ["old"]
    for place in RUNNING if running else STOPPED:
        job = killed_at(suite, place, "POST", uuid, body={"name": place})
        there += [place] if job["state"] == "done" else []
        assert job["state"] in ("done", "failed") and job["interrupted"], job
        assert (job["state"] == "done") == (place in ("recorded", "unmarked")), (place, job)
        audit(suite, uuid, there)
    assert suite.vm(uuid)["state"] == ("running" if running else "stopped")
    assert not running or suite.vm(uuid)["run_state"] == "running"
    suite.vmadm("create-snapshot", uuid, "new")
    if running:
        suite.vmadm("stop", "-F", uuid)
    audit(suite, uuid, there + ["new"])


@pytest.mark.parametrize("running", [False, pytest.param(True, marks=LONG)])
def test_killed_while_it_is_deleted(suite, running):
    """It is gone in the end, whatever the place."""
    uuid = made(suite, boot=False)
    places = ["marked", "recorded", "before", "image", "deleted", "unmarked"]
    if running:
        places.remove("image")
    for place in places:
        suite.vmadm("create-snapshot", uuid, place)
    if running:
        suite.vmadm("start", uuid)
    left = list(places)
    for place in places:
        job = killed_at(suite, place, "DELETE", uuid, f"/{place}")
        assert job["state"] == "done", (place, job)
        left.remove(place)
        audit(suite, uuid, left)


@pytest.mark.parametrize("case", [pytest.param("stopped", marks=LONG), "memory", "disks"])
def test_killed_while_it_goes_back(suite, case):
    """It comes to its end at the next start: all disks are those of then."""
    uuid = made(suite, boot=False)
    places = {"stopped": ["marked", "image", "reverted", "recorded", "unmarked"],
              "memory": ["marked", "asked", "begun", "recorded"],
              "disks": ["marked", "image", "reverted", "recorded"]}[case]
    for image in images(suite, uuid):
        subprocess.run(["qemu-io", "-c", "write -P 1 0 64k", image], check=True,
                       capture_output=True)
    if case == "memory":
        suite.vmadm("start", uuid)
    suite.vmadm("create-snapshot", uuid, "s")
    if case == "memory":
        suite.vmadm("stop", "-F", uuid)
    for image in images(suite, uuid):
        subprocess.run(["qemu-io", "-c", "write -P 2 0 64k", image], check=True,
                       capture_output=True)
    if case != "stopped":
        suite.vmadm("start", uuid)
    for place in places:
        job = killed_at(suite, place, "POST", uuid, "/s/rollback")
        assert job["state"] == "done", (place, job)
        audit(suite, uuid, ["s"])
        assert suite.vm(uuid)["state"] == ("stopped" if case == "stopped" else "running")
    if case != "stopped":
        assert suite.vm(uuid)["run_state"] == "running"
        suite.vmadm("stop", "-F", uuid)
    for image in images(suite, uuid):
        read = subprocess.run(["qemu-io", "-r", "-c", "read -P 1 0 64k", image], check=True,
                              capture_output=True)
        assert b"verification failed" not in read.stdout, image


def await_stopped(suite, uuid):
    with suite.events() as events:
        events.wait_vm(uuid, lambda vm: vm["state"] in ("stopped", "failed"))
    if suite.vm(uuid)["state"] == "failed":
        suite.vmstatedctl("failreset", uuid)


def tidied(suite, uuid):
    """The journal has been worked off."""
    journal = suite.data_dir(uuid) / "operation"
    drover.wait_file(journal, lambda _: not journal.exists(), 20, "end of the journal")


def test_qemu_dies_in_the_middle(suite):
    """QEMU killed once the journal is there: taken or not, the job, the index and the images agree."""
    uuid = made(suite, boot=False, onfailure="fail")
    suite.vmadm("start", uuid)
    pid = suite.vm(uuid)["pid"]
    job = suite.http("vmadmd", "POST", f"/vm/{uuid}/snapshots?wait=0", {"name": "s"}).json()
    index = suite.data_dir(uuid) / "snapshots.json"
    drover.wait_file(suite.data_dir(uuid) / "operation", lambda data: data or index.exists(), 20)
    os.kill(pid, signal.SIGKILL)
    done = ended(suite, job["job"])
    await_stopped(suite, uuid)
    tidied(suite, uuid)
    audit(suite, uuid, ["s"] if done["state"] == "done" else [])


@pytest.mark.parametrize("place", [pytest.param("asked", marks=LONG), "begun"])
def test_power_cut(suite, place):
    """vmadmd and QEMU die together: nothing half is left, and the VM starts."""
    uuid = made(suite, boot=False, onfailure="fail")
    suite.vmadm("create-snapshot", uuid, "old")
    suite.vmadm("start", uuid)
    pid = suite.vm(uuid)["pid"]
    suite.env["DROVER_TEST_KILL_AT"] = place
    suite.restart("vmadmd")
    kill(suite, lambda: suite.http("vmadmd", "POST", f"/vm/{uuid}/snapshots", {"name": "s"}))
    os.kill(pid, signal.SIGKILL)
    await_stopped(suite, uuid)
    suite.start("vmadmd")
    tidied(suite, uuid)
    audit(suite, uuid, ["old"])
    suite.vmadm("start", uuid)


OVMF = "/usr/share/OVMF/OVMF_CODE_4M.fd"


@pytest.mark.skipif(not os.path.exists(OVMF), reason="no OVMF")
def test_firmware_variables(suite):
    """They go with the disks, also of a guest that goes on: it stands still for the copy alone."""
    uuid = made(suite, boot=False, bootrom=OVMF)
    suite.vmadm("start", uuid)
    nvram = suite.data_dir(uuid) / "nvram.fd"
    suite.vmadm("create-snapshot", uuid, "mem")
    suite.vmadm("create-snapshot", "--no-memory", uuid, "disks")
    for name in ("mem", "disks"):
        assert (suite.data_dir(uuid) / f"nvram.fd.vmsnap-{name}").stat().st_size == \
            nvram.stat().st_size
    job = killed_at(suite, "paused", "POST", uuid, body={"name": "cut", "memory": False})
    assert job["state"] == "failed", job
    with suite.events() as events:
        events.wait_vm(uuid, lambda vm: vm.get("run_state") == "running")
    audit(suite, uuid, ["mem", "disks"])
    suite.vmadm("rollback-snapshot", uuid, "mem")
    assert suite.vm(uuid)["run_state"] == "running"
    suite.vmadm("stop", "-F", uuid)
    was = (suite.data_dir(uuid) / "nvram.fd.vmsnap-disks").read_bytes()
    nvram.write_bytes(bytes(len(was)))
    suite.vmadm("rollback-snapshot", uuid, "disks")
    assert nvram.read_bytes() == was
    for name in ("mem", "disks"):
        suite.vmadm("delete-snapshot", uuid, name)
    assert not list(suite.data_dir(uuid).glob("*vmsnap*"))
    audit(suite, uuid, [])


def test_busy_is_not_unresponsive(suite):
    """What is announced to vmstated is told as busy; when it is over, silence is silence."""
    uuid = made(suite, boot=False)
    suite.vmadm("start", uuid)
    pid = suite.vm(uuid)["pid"]

    def busy(ms, want=202):
        assert suite.http("vmstated", "POST", f"/vms/{uuid}/busy", {"ms": ms}).status == want

    busy(-1, 400)
    busy(60000)
    with suite.events() as events:
        events.wait_vm(uuid, lambda vm: vm.get("qmp") == "busy")
        os.kill(pid, signal.SIGSTOP)
        try:
            busy(0)
            events.wait_vm(uuid, lambda vm: vm.get("qmp") == "unresponsive")
            busy(60000)
            events.wait_vm(uuid, lambda vm: vm.get("qmp") == "busy")
        finally:
            os.kill(pid, signal.SIGCONT)
        busy(0)
        events.wait_vm(uuid, lambda vm: "qmp" not in vm)


JOURNAL = """
n=$((from)); while :; do n=$((n + 1)); printf '%-511d\\n' $n |
dd of=/dev/vda bs=512 seek=$n conv=notrunc,fsync 2>/dev/null; echo "COUNT $n"; sleep 0.05; done
"""


def journal_holds(image):
    """The last number of the journal; every one before it is there."""
    out = image.with_suffix(".journal")
    subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", image, out], check=True)
    lines = out.read_bytes()[512:].split(b"\0", 1)[0].split()
    out.unlink()
    assert [int(one) for one in lines] == list(range(1, len(lines) + 1))
    return len(lines)


@pytest.mark.campaign
def test_a_guest_that_counts_lives_through_it(suite):
    """A numbered journal on the disk and a counter: snapshot, hot-plug, save, restore, rollback."""
    uuid = made(suite)
    extra = suite.root / "extra.raw"
    extra.write_bytes(bytes(1 << 20))
    saved = suite.root / "saved"
    with boot(suite, uuid) as console:
        console.send("from=0; " + JOURNAL.strip().replace("\n", " ") + "\n")
        console.wait("COUNT 20\r")
        suite.vmadm("create-snapshot", uuid, "mark", seconds=60)
        console.wait("COUNT 60\r")
        for _ in range(3):
            suite.vmadm("attach", uuid, "disk", "name=extra", f"path={extra}", "model=virtio",
                        seconds=60)
            suite.vmadm("detach", uuid, "disk", "extra", seconds=60)
        console.wait("COUNT 90\r")
    # The daemons die in between; the guest does not notice.
    for name in drover.DAEMONS:
        suite.kill9(name)
        suite.start(name)
    suite.vmadm("save", uuid, str(saved), seconds=60)
    held = journal_holds(images(suite, uuid)[0])
    assert held >= 90
    suite.vmadm("restore", uuid, str(saved), seconds=60)
    with suite.console(uuid) as console:
        console.wait(f"COUNT {held + 20}\r", 60)
        suite.vmadm("rollback-snapshot", uuid, "mark", seconds=60)
        console.wait(f"COUNT {held + 30}\r", 90)
    suite.vmstatedctl("stop", "-F", uuid)
    assert journal_holds(images(suite, uuid)[0]) >= held + 30
