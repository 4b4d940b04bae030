# SPDX-License-Identifier: Apache-2.0
"""What many VMs from an image leave behind: nothing; what is sent of a VM, and when. The walk is
docs/image-to-host.md."""

import hashlib
import json
import os
import pathlib
import pty
import re
import signal
import subprocess

import drover
import pytest
from test_live_snapshot import boot, tidied, write
from test_vmadmd_jobs import ended


def descriptors(suite, name):
    return len(os.listdir(f"/proc/{suite.daemons[name].pid}/fd"))


def left(suite):
    """All files of the suite but logs and the bounded history of jobs, and open descriptors."""
    files = sorted(str(path.relative_to(suite.root)) for path in pathlib.Path(suite.root).rglob("*")
                   if not {"log", "vmadmd.jobs"} & set(path.parts))
    return files, {name: descriptors(suite, name) for name in suite.daemons}


def rounds(suite, count, boot):
    """Creations from an image and deletions; every tenth VM runs in between."""
    for number in range(count):
        payload = suite.payload(f"vm{number}", disks=[{"image": "base", "model": "virtio"},
                                                      {"size": 8, "model": "virtio"}],
                                nics=[{"nic_tag": "user", "model": "virtio"}],
                                tags={"n": number})
        suite.vmadm("create", stdin=payload)
        if number % 10 == 0:
            suite.vmadm("start", f"vm{number}")
            if boot:
                suite.console_wait(suite.uuid(f"vm{number}"), "GUEST-UP")
        suite.vmadm("delete", f"vm{number}")


@pytest.mark.parametrize("count", [4, pytest.param(100, marks=pytest.mark.campaign)])
def test_nothing_is_left(suite, tmp_path, count):
    """The few with a QEMU that does nothing, the many with guests that boot."""
    image = tmp_path / "base.raw"
    image.write_bytes(os.urandom(1 << 20))
    if count < 100:
        suite.use_fake_qemu()
    suite.vmadm("image", "import", "-n", "base", image)
    rounds(suite, 1, count == 100)  # what is made once: the accelerator's verdict, connections
    files, before = left(suite)
    rounds(suite, count, count == 100)
    deadline = drover.Deadline(10)
    after, now = left(suite)
    while any(now[name] > before[name] for name in now) and not deadline.over():
        after, now = left(suite)  # the last connection is being closed
    assert after == files
    assert all(now[name] <= before[name] for name in now), (before, now)
    assert suite.guests() == [] and suite.vmadm("list", "-H").stdout == ""
    suite.vmadm("image", "delete", "base")


def made(suite, **members):
    done = suite.vmadm("create", "--json", stdin={"alias": "web0", "brand": "kvm", "ram": 64,
                                                  "autoboot": False, **members})
    return json.loads(done.stdout)["uuid"]


def test_progress(suite):
    """A bar with the percentage on a terminal; elsewhere nothing of what is over at once."""
    uuid = made(suite, disks=[{"size": 16, "model": "virtio"}])
    subprocess.run(["qemu-io", "-c", "write -P 5 0 8M", suite.data_dir(uuid) / "disk0.qcow2"],
                   check=True, capture_output=True)
    argv = [str(suite.binary("vmadm")), "--root", str(suite.root), "send", uuid]
    ours, theirs = pty.openpty()
    with open(suite.root / "stream", "wb") as out:
        subprocess.run(argv, check=True, stdout=out, stderr=theirs, env=suite.env, timeout=30)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert "sending" in said and "MiB" in said and "%" in said and said.endswith("\033[K"), said
    quiet = subprocess.run(argv, check=True, capture_output=True, env=suite.env, timeout=30)
    assert quiet.stderr == b"" and len(quiet.stdout) > 8 << 20
    suite.vmadm("delete", uuid)
    assert "Received" in suite.vmadm("receive", "-f", suite.root / "stream").stderr


def test_what_is_sent_of_a_running_vm(suite, tmp_path):
    """No disk at all is fine; a raw one of a stopped VM comes as qcow2; CDs keep their paths."""
    suite.use_fake_qemu()
    uuid = made(suite)
    suite.vmadm("start", uuid)
    suite.vmadm("backup", uuid, suite.root / "none")
    suite.vmadm("delete", uuid)
    suite.vmadm("receive", "-f", suite.root / "none")
    suite.vmadm("delete", uuid)
    cd = tmp_path / "cd.iso"
    cd.write_bytes(bytes(1 << 20))
    ro = tmp_path / "ro.raw"
    ro.write_bytes(bytes(1 << 20))
    uuid = made(suite, disks=[{"size": 4, "format": "raw", "model": "virtio"},
                              {"path": str(cd), "media": "cdrom", "model": "ide"},
                              {"path": str(ro), "nocreate": True, "readonly": True,
                               "format": "raw", "model": "virtio"}])
    raw = suite.data_dir(uuid) / "disk0.raw"
    raw.write_bytes(b"raw!" * (1 << 20))
    suite.vmadm("backup", uuid, suite.root / "three")
    suite.vmadm("delete", uuid)
    suite.vmadm("receive", "-f", suite.root / "three")
    first, second, third = suite.vm(uuid)["disks"]
    assert (second["path"], third["path"]) == (str(cd), str(ro))
    assert first["path"] == str(suite.data_dir(uuid) / "disk0.qcow2")
    out = subprocess.run(["qemu-img", "dd", "-O", "raw", "bs=4", "count=1", f"if={first['path']}",
                          f"of={tmp_path}/begin"], check=False, capture_output=True, text=True)
    assert out.returncode == 0 and (tmp_path / "begin").read_bytes()[:4] == b"raw!", out


BOTH = [{"size": 16, "model": "virtio"}, {"size": 12, "format": "raw", "model": "virtio"}]


def copies(suite, uuid):
    return sorted(path.name for path in suite.data_dir(uuid).glob("*.part"))


def test_point_in_time(suite):
    """qcow2 and raw disks of a guest that runs, as they were at one moment: what it writes from then
    on is not in the stream. Twice, so nothing of ours is left in QEMU."""
    uuid = made(suite, **suite.payload("web0", disks=BOTH))
    suite.env["DROVER_TEST_STOP_AT"] = "taken"
    suite.restart("vmadmd")
    del suite.env["DROVER_TEST_STOP_AT"]
    daemon = suite.daemons["vmadmd"]
    with boot(suite, uuid) as console:
        for number in (1, 2):
            write(console, f"OLD{number}")
            write(console, f"old{number}", "vdb")
            argv = [str(suite.binary("vmadm")), "--root", str(suite.root), "backup", uuid,
                    str(suite.root / f"b{number}")]
            with subprocess.Popen(argv, env=suite.env, stderr=subprocess.PIPE) as backup:
                os.waitid(os.P_PID, daemon.pid, os.WSTOPPED)
                assert copies(suite, uuid) == ["backup0.part", "backup1.part"]
                write(console, "NEW!")
                write(console, "new!", "vdb")
                daemon.send(signal.SIGCONT)
                assert backup.wait(60) == 0, backup.stderr.read()
            assert copies(suite, uuid) == []
    suite.vmadm("delete", uuid)
    suite.vmadm("receive", "-f", suite.root / "b2")
    for disk, text in zip(suite.vm(uuid)["disks"], (b"OLD2", b"old2")):
        raw = suite.root / "raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", disk["path"], raw], check=True)
        assert raw.read_bytes()[:4] == text


def copying(suite, trace):
    """A VM of a raw disk and a QEMU that copies until it is told not to; the job."""
    uuid = made(suite, disks=[BOTH[1]])
    block = [{"device": "", "qdev": "disk0", "inserted": {
        "file": str(suite.data_dir(uuid) / "disk0.raw"), "drv": "raw", "ro": False,
        "node-name": "disk0", "image": {"virtual-size": 12 << 20}}}]
    suite.use_fake_qemu({"trace": str(trace), "commands": {"query-block": {"reply": block}}})
    suite.restart("vmstated")
    suite.vmadm("start", uuid)
    job = suite.http("vmadmd", "POST", f"/vm/{uuid}/backup?wait=0",
                     {"file": str(suite.root / "nobody")}).json()["job"]
    drover.wait_file(trace, lambda data: b'"transaction"' in data, 20, "the copying")
    return uuid, job


@pytest.mark.parametrize("cut", ["cancelled", "killed"])
def test_cut_short_while_it_is_copied(suite, cut):
    """QEMU's job is cancelled and dismissed, its node closed, the copy removed; the guest goes on."""
    trace = suite.root / "trace"
    uuid, job = copying(suite, trace)
    pid = suite.vm(uuid)["pid"]
    assert copies(suite, uuid) == ["backup0.part"]
    if cut == "cancelled":
        suite.vmadm("jobs", "cancel", job)
        assert ended(suite, job)["state"] == "cancelled"
    else:
        suite.kill9("vmadmd")
        suite.start("vmadmd")
        assert ended(suite, job)["state"] == "failed"
    tidied(suite, uuid)
    done = [json.loads(line)["execute"] for line in trace.read_text().splitlines()]
    for command in ("job-cancel", "job-dismiss", "blockdev-del"):
        assert command in done, done
    assert copies(suite, uuid) == [] and suite.vm(uuid)["pid"] == pid


def test_a_disk_that_names_another_file(suite, tmp_path):
    """A stream made elsewhere does not choose what is read here. What is sent is made of the parts of a
    compressed overlay and its base."""
    base, top = tmp_path / "base.raw", tmp_path / "top.qcow2"
    base.write_bytes(b"base" * (1 << 20))
    uuid = made(suite, disks=[{"image": str(base), "model": "virtio"}])
    disk = suite.data_dir(uuid) / "disk0.qcow2"
    subprocess.run(["qemu-io", "-c", "write -P 7 1M 1M", disk], check=True, capture_output=True)
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk, tmp_path / "want"], check=True)
    for kind in ("plain", "compressed"):
        if kind == "compressed":
            subprocess.run(["qemu-img", "convert", "-c", "-O", "qcow2", disk, top], check=True)
            os.replace(top, disk)
        suite.vmadm("backup", uuid, suite.root / kind)
        suite.vmadm("delete", uuid)
        suite.vmadm("receive", "-f", suite.root / kind)
        subprocess.run(["qemu-img", "check", "-q", disk], check=True)
        subprocess.run(["qemu-img", "compare", "-q", disk, tmp_path / "want"], check=True)
    assert copies(suite, uuid) == []
    suite.vmadm("delete", uuid)
    stream = bad_stream(suite.root / "plain", tmp_path / "overlay.qcow2", base)
    (suite.root / "bad").write_bytes(stream)
    said = suite.vmadm("receive", "-f", suite.root / "bad", check=None).stderr
    assert "has a disk that names another file" in said and str(base) in said, said
    assert not suite.data_dir(uuid).exists()


def bad_stream(good, overlay, base):
    """The stream with an overlay in place of its disk, and right sums."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay],
                   check=True)
    data = good.read_bytes()
    out, at, done = data[:16], 16, False
    total = hashlib.sha256(data[:16]).digest()
    while at < len(data):
        kind, length = data[at:at + 4], int.from_bytes(data[at + 4:at + 12], "little")
        body, at = data[at + 12:at + 12 + length], at + 12 + length + 32
        if kind == b"DATA" and done:
            continue
        if kind == b"DATA":
            body, done = overlay.read_bytes(), True
        record = kind + len(body).to_bytes(8, "little") + body
        total = hashlib.sha256(total + record).digest()
        out += record + total
    return out


@pytest.mark.root
def test_no_room_for_the_copy(suite):
    """Refused before anything is made, by name, with the bytes it takes; stopped, it takes none."""
    uuid = made(suite, disks=[BOTH[1]])
    lib = suite.data_dir(uuid)
    disk = lib / "disk0.raw"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", lib],
                          capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no mount here")
    try:
        disk.write_bytes(b"x" * (12 << 20))
        suite.vmadm("backup", uuid, suite.root / "stopped")
        suite.vmadm("start", uuid)
        said = suite.vmadm("backup", uuid, suite.root / "b", check=None).stderr
        assert f"no space in '{lib}" in said, said
        needed, free = map(int, re.search(r"up to (\d+) bytes, (\d+) are free", said).groups())
        assert free < needed == 12 << 20
        assert copies(suite, uuid) == [] and not (suite.root / "b").exists()
        suite.vmadm("stop", "-F", uuid)
    finally:
        for name in list(suite.daemons):
            suite.stop(name)
        subprocess.run(["umount", lib], check=True)


def test_made_macs_give_way(suite):
    """A MAC made for a NIC of add_nics is another one where somebody has it; old ones stay."""
    nic = {"nic_tag": "user", "model": "virtio"}
    uuid = made(suite, nics=[nic])
    suite.vmadm("update", uuid, stdin={"add_nics": [nic]})
    old, made_first = [n["mac"] for n in suite.vm(uuid)["nics"]]
    suite.vmadm("update", uuid, stdin={"remove_nics": [made_first]})
    made(suite, alias="other", nics=[{**nic, "mac": made_first}])
    suite.vmadm("update", uuid, stdin={"add_nics": [nic]})
    kept, made_then = [n["mac"] for n in suite.vm(uuid)["nics"]]
    assert kept == old and made_then not in (made_first, old)
