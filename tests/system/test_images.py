# SPDX-License-Identifier: Apache-2.0
"""The image store: import, list, get, export, delete, and what is left when something is killed."""

import hashlib
import json
import os
import pathlib
import pty
import random
import signal
import struct
import subprocess

import drover
import pytest
from test_vmadmd import call, create, message

MIB = 1 << 20


def make_image(path, fmt="qcow2", size="8M", *more):
    subprocess.run(["qemu-img", "create", "-q", "-f", fmt, *more, str(path), size], check=True)
    return path


def raw_bytes(size=3 * MIB + 512, seed=1):
    """Bytes with zeros in the middle."""
    data = bytearray(random.Random(seed).randbytes(size))
    data[MIB:2 * MIB] = bytes(MIB)
    return bytes(data)


def store(cold):
    """What lies in the store, dot names too."""
    folder = cold.root / "var/lib/vmstated/images"
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def listed(cold):
    return {image["name"]: image for image in call(cold, "GET", "/images").json()}


def settled(cold, job):
    """The job once it has ended; each look waits in the daemon for news."""
    revision = 0
    deadline = drover.Deadline(30)
    while True:
        now = call(cold, "GET", f"/jobs/{job}?after={revision}").json()
        if now["state"] != "running":
            return now
        revision = now["revision"]
        assert not deadline.over(), now


@pytest.fixture
def alone(cold):
    cold.start("vmadmd")
    return cold


def test_import_list_get_delete(alone, tmp_path):
    path = make_image(tmp_path / "debian-12.qcow2")
    done = alone.vmadm("image", "import", path)
    assert "Successfully imported image debian-12 (" in done.stderr
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    image = json.loads(alone.vmadm("image", "get", "debian-12").stdout)
    assert (image["format"], image["size"], image["sha256"]) == ("qcow2", 8, sha)
    assert image["bytes"] == path.stat().st_size and image["used_by"] == []
    assert pathlib.Path(image["path"]).read_bytes() == path.read_bytes()
    assert json.loads(alone.vmadm("image", "get", image["uuid"]).stdout) == image
    lines = alone.vmadm("image", "list").stdout.splitlines()
    assert lines[0].split() == ["NAME", "FORMAT", "SIZE", "USED_BY", "IMPORTED", "UUID"]
    assert lines[1].split()[:4] == ["debian-12", "qcow2", "8", "0"] and len(lines) == 2
    assert json.loads(alone.vmadm("--json", "image", "list").stdout) == [image]
    assert "already" in alone.vmadm("image", "import", path, check=5).stderr
    done = alone.vmadm("image", "delete", "debian-12")
    assert done.stderr == "Successfully deleted image debian-12\n"
    assert store(alone) == [] and listed(alone) == {}
    assert "no image 'debian-12'" in alone.vmadm("image", "get", "debian-12", check=1).stderr
    assert "no image" in alone.vmadm("image", "delete", "debian-12", check=1).stderr


def test_from_a_pipe_and_out_again(alone, tmp_path):
    """Raw by its bytes, whatever it is called; holes stay holes; progress as JSON lines."""
    data = raw_bytes()
    done = alone.vmadm("image", "import", "-n", "thing.qcow2", "-", stdin=data)
    lines = done.stderr.splitlines()
    assert "Successfully imported" in lines[-1]
    assert all(json.loads(line)["kind"] == "import" for line in lines[:-1])
    image = listed(alone)["thing.qcow2"]
    assert image["format"] == "raw" and image["size"] == 4 and image["bytes"] == len(data)
    assert image["sha256"] == hashlib.sha256(data).hexdigest()
    assert image["allocated"] < len(data)
    out = tmp_path / "out.raw"
    done = alone.vmadm("image", "export", "thing.qcow2", out)
    assert image["sha256"] in done.stderr and out.read_bytes() == data
    assert "exists" in alone.vmadm("image", "export", "thing.qcow2", out, check=1).stderr
    piped = subprocess.run([alone.binary("vmadm"), "--root", alone.root, "image", "export",
                            "thing.qcow2"], capture_output=True, env=alone.env, check=True)
    assert piped.stdout == data


def test_refused(alone, tmp_path):
    """By what the bytes say; nothing is left of any of them."""
    base = make_image(tmp_path / "base.qcow2")
    over = make_image(tmp_path / "over.qcow2", "qcow2", "8M", "-b", str(base), "-F", "qcow2")
    away = make_image(tmp_path / "away.qcow2", "qcow2", "8M", "-o",
                      f"data_file={tmp_path}/data.raw")
    disk = make_image(tmp_path / "disk.raw", "vmdk")
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    short = tmp_path / "short.qcow2"
    short.write_bytes(base.read_bytes()[:60])

    def refused(*arguments, stdin=None, check=1):
        return alone.vmadm("image", "import", *arguments, stdin=stdin, check=check).stderr

    assert f"reads from another file, '{base}'" in refused(over)
    assert "keeps its data in another file" in refused(away)
    assert "neither raw nor qcow2" in refused(disk)
    assert "is empty" in refused(empty)
    assert "header is cut off" in refused(short)
    assert "has the SHA-256" in refused("--sha256", "0" * 64, base)
    assert "not a SHA-256" in refused("--sha256", "12", base)
    assert "not a uuid" in refused("-u", "12", base)
    for name in ["../x", ".x", "", "a/b", "-x", "x" * 65]:
        assert "is no name for an image" in refused("-n", name, base)
    assert "needs a name" in refused("-", stdin=b"x", check=2)
    assert "No such file" in refused(tmp_path / "nothing")
    assert "is a directory" in refused(tmp_path)
    for query, reason in [("name=x", "want path=FILE or fd=NUMBER"),
                          ("name=x&path=rel", "not absolute"), ("name=x&fd=a", "not a number"),
                          (f"name=x&path={tmp_path}", "neither a file"),
                          ("name=x&path=/dev/null", "neither a file")]:
        assert reason in message(call(alone, "POST", f"/images?{query}", status=400).json())
    assert store(alone) == [] and listed(alone) == {}


def frames(*pieces):
    return b"".join(struct.pack(">I", len(piece)) + piece for piece in pieces)


def pipe_import(cold, name="cut"):
    """An import that waits for what is written to the returned descriptor: (fd, job)."""
    read, write = os.pipe()
    try:
        reply = call(cold, "POST", f"/images?name={name}&fd={read}&wait=0", status=202).json()
    finally:
        os.close(read)
    return write, reply["job"]


def test_cut_short(alone):
    """A writer that dies at any byte leaves nothing; one that ends rightly leaves an image."""
    whole = frames(b"a" * 5000, random.Random(5).randbytes(100000)) + struct.pack(">I", 0)
    for size in [0, 1, 4, 5, 5003, 5004, 5006, 60000, len(whole) - 4, len(whole) - 1]:
        fd, job = pipe_import(alone)
        os.write(fd, whole[:size])
        os.close(fd)
        ended = settled(alone, job)
        assert "cut short" in ended["error"]["message"], (size, ended)
        assert store(alone) == [] and listed(alone) == {}
    fd, job = pipe_import(alone)
    os.write(fd, whole)
    assert settled(alone, job)["state"] == "done"  # without the pipe's end
    os.close(fd)
    assert list(listed(alone)) == ["cut"]


def partial(cold, size):
    """Wait until so many bytes of the import under way have arrived in the store."""
    folder = cold.root / "var/lib/vmstated/images"
    folder.mkdir(exist_ok=True)
    watch = drover.Inotify(folder)
    deadline = drover.Deadline(20)
    while sum(p.stat().st_size for p in folder.glob(".import-*")) < size:
        assert watch.wait(deadline)
    watch.close()


def test_vmadmd_killed(alone):
    """SIGKILL at several points: the next start finds nothing half."""
    data = random.Random(2).randbytes(MIB)
    for count in [0, 1, 3]:
        fd, job = pipe_import(alone)
        for _ in range(count):
            os.write(fd, frames(data))
        partial(alone, count * MIB)
        alone.kill9("vmadmd")
        os.close(fd)
        alone.start("vmadmd")
        assert call(alone, "GET", f"/jobs/{job}").json()["state"] == "failed"
        assert store(alone) == [] and listed(alone) == {}


def test_cancel_and_end(alone):
    """A cancel and vmadmd's own orderly end both kill an import that hangs."""
    fd, job = pipe_import(alone)
    os.write(fd, frames(b"x" * 1000))
    assert listed(alone) == {}
    call(alone, "DELETE", f"/jobs/{job}", status=202)
    assert settled(alone, job)["state"] == "cancelled" and store(alone) == []
    os.close(fd)
    fd, job = pipe_import(alone)
    alone.stop("vmadmd")
    os.close(fd)
    alone.start("vmadmd")
    assert store(alone) == []


def test_tool_killed(alone):
    """Ctrl-C of the tool in the middle of a pipe."""
    tool = subprocess.Popen([alone.binary("vmadm"), "--root", alone.root, "image", "import", "-n",
                             "cut", "-"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
                            env=alone.env)
    tool.stdin.write(random.Random(3).randbytes(2 * MIB))
    tool.stdin.flush()
    partial(alone, MIB)
    tool.send_signal(signal.SIGKILL)
    tool.wait()
    tool.stdin.close()
    job = call(alone, "GET", "/jobs").json()["jobs"][0]["id"]
    assert "cut short" in settled(alone, job)["error"]["message"]
    assert store(alone) == []


def test_leftovers_of_a_crash(cold):
    """A record without its image, half a record, half a copy: no images, and gone at the start."""
    images = cold.root / "var/lib/vmstated/images"
    (images / ".info").mkdir(parents=True)
    (images / ".import-x").write_bytes(b"half")
    (images / ".info/gone.qcow2.json").write_text("{}")
    (images / ".info/.gone.json.abcdef").write_text("{")
    (images / "byhand.raw").write_bytes(b"x" * 4096)
    cold.start("vmadmd")
    assert store(cold) == ["byhand.raw"]
    assert "uuid" not in listed(cold)["byhand"]


def test_bar_on_a_terminal(alone, tmp_path):
    """How far an import is, with its percentage, and nothing left of it in the end."""
    image = tmp_path / "big.raw"
    image.write_bytes(random.Random(6).randbytes(8 * MIB))
    ours, theirs = pty.openpty()
    subprocess.run([str(alone.binary("vmadm")), "--root", str(alone.root), "image", "import", image],
                   check=True, stderr=theirs, stdout=theirs, env=alone.env, timeout=30)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert "%" in said and "\033[K" in said and "{" not in said, said


def test_references(alone, tmp_path):
    """An image disks read from stays; the refusal names them. By definition and by header."""
    alone.vmadm("image", "import", "-n", "base", make_image(tmp_path / "b.qcow2"))
    uuid = create(alone, alone.payload("web0", disks=[{"image": "base", "model": "virtio"}]))["uuid"]
    raw = create(alone, alone.payload("db0", disks=[
        {"image": "base", "model": "virtio", "format": "raw"}]))["uuid"]
    image = listed(alone)["base"]
    assert image["used_by"] == [uuid]
    said = alone.vmadm("image", "delete", "base", check=5).stderr
    assert f"is used by VM web0 ({uuid})" in said and raw not in said
    over = make_image(tmp_path / "over.qcow2", "qcow2", "8M", "-b", image["path"], "-F", "qcow2")
    top = make_image(tmp_path / "top.qcow2", "qcow2", "8M", "-b", "over.qcow2", "-F", "qcow2")
    by_header = create(alone, alone.payload("app0", disks=[
        {"path": str(top), "nocreate": True, "model": "virtio"}]))["uuid"]
    call(alone, "DELETE", f"/vm/{uuid}")
    said = alone.vmadm("image", "delete", "base", check=5).stderr
    assert by_header in said and over.exists()
    call(alone, "DELETE", f"/vm/{by_header}")
    alone.vmadm("image", "delete", "base")
    assert store(alone) == []


def test_by_uuid(alone, tmp_path):
    """image_uuid of a disk finds what was imported under it."""
    uuid = "0c6e0a5e-6d5f-4b0a-9f5e-2f0d7c1b3a99"
    alone.vmadm("image", "import", "-u", uuid, make_image(tmp_path / "b.qcow2"))
    assert "already" in alone.vmadm("image", "import", "-n", "c", "-u", uuid, tmp_path / "b.qcow2",
                                    check=5).stderr
    too_small = {"image_uuid": uuid, "image_size": 4, "model": "virtio"}
    assert "is less than the 8 MiB" in message(create(alone, alone.payload(
        "web0", disks=[too_small]), 400))
    made = create(alone, alone.payload("web0", disks=[
        {"image_uuid": uuid, "model": "virtio"}]))["uuid"]
    info = json.loads(subprocess.run(["qemu-img", "info", "--output=json", str(
        alone.data_dir(made) / "disk0.qcow2")], capture_output=True, check=True).stdout)
    assert info["full-backing-filename"] == listed(alone)["b"]["path"]
    assert listed(alone)["b"]["used_by"] == [made]


@pytest.mark.root
def test_no_room(cold, tmp_path):
    """A file that cannot fit is refused before, a stream by name while it comes."""
    images = cold.root / "var/lib/vmstated/images"
    images.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(images)],
                          capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no mount here")
    try:
        cold.start("vmadmd")
        path = tmp_path / "big.raw"
        path.write_bytes(random.Random(4).randbytes(4 * MIB))
        said = cold.vmadm("image", "import", path, check=1).stderr
        assert "it takes 4 MiB" in said and "are free" in said
        said = cold.vmadm("image", "import", "-n", "big", "-", stdin=path.read_bytes(),
                          check=1).stderr
        assert "no space left on device for image 'big'" in said
        assert store(cold) == []
        cold.stop("vmadmd")
    finally:
        subprocess.run(["umount", str(images)], check=True)


@pytest.mark.root
def test_who_may(cold, tmp_path):
    """Admins alone change the store; readers of everything may look."""
    from test_vmadmd import ask_as
    cold.start("vmadmd", arguments=["--feed-user", "daemon"])
    stranger = 64321
    path = make_image(tmp_path / "b.qcow2")
    for method, target in [("POST", f"/images?name=x&path={path}"), ("GET", "/images"),
                           ("DELETE", "/images/x")]:
        assert ask_as(cold, stranger, method, target)[0] == 403
    assert listed(cold) == {}
