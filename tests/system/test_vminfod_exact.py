# SPDX-License-Identifier: Apache-2.0
"""Exact reads: a reader in another process sees each write that ended before it asked, never half."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import drover
import pytest
from test_vminfod import FakeFeed

UUID = "2f5f1a7e-6a1b-4b7e-9a51-7f2a3c4d5e6f"

# Per line of its input one read; answers with what was read.
READER = """
import socket, sys, json
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
target = sys.argv[2]
request = f"GET {target} HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n".encode()
for line in sys.stdin:
    sock.sendall(request)
    data = b""
    while b"\\r\\n\\r\\n" not in data:
        data += sock.recv(65536)
    head, body = data.split(b"\\r\\n\\r\\n", 1)
    size = int(head.lower().split(b"content-length:")[1].split(b"\\r\\n")[0])
    while len(body) < size:
        body += sock.recv(65536)
    print(body.decode(), flush=True)
"""


def body(ram=128, more=""):
    return f'uuid = "{UUID}"; ram = {ram}; autoboot = no; {more}'


@contextlib.contextmanager
def reader(suite, target):
    """read(): what another process reads now."""
    process = subprocess.Popen([sys.executable, "-c", READER, "r/run/vminfod.http", target],
                               cwd=suite.root.parent, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)

    def read():
        process.stdin.write("\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    try:
        yield read
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


class Editors:
    """Ways in which people save a file."""

    def __init__(self, suite):
        self.folder = suite.etc / "web0"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = self.folder / "config"
        self.elsewhere = pathlib.Path(tempfile.mkdtemp(dir="/dev/shm"))

    def text(self, ram):
        return f"web0 {{ {body(ram)} }}\n"

    def in_place(self, ram):
        self.config.write_text(self.text(ram))

    def rename(self, ram):
        new = self.folder / ".config.swp"
        new.write_text(self.text(ram))
        os.rename(new, self.config)

    def backup_and_rename(self, ram):
        new = self.folder / "config.new"
        new.write_text(self.text(ram))
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.config, self.folder / "config~")
        os.rename(new, self.config)

    def across(self, ram):
        new = self.elsewhere / "config"
        new.write_text(self.text(ram))
        shutil.move(new, self.config)

    def anew(self, ram):
        with contextlib.suppress(FileNotFoundError):
            self.config.unlink()
        self.config.write_text(self.text(ram))

    def append(self, ram):
        with open(self.config, "r+", encoding="ascii") as out:
            out.truncate(0)
            out.write(self.text(ram)[:20])
            out.flush()
            out.write(self.text(ram)[20:])

    def all(self):
        return [self.in_place, self.rename, self.backup_and_rename, self.across, self.anew,
                self.append]


def alternate(suite, rounds):
    """Stale reads among that many pairs of a write here and a read there."""
    editors = Editors(suite)
    editors.in_place(64)
    suite.start("vminfod")
    tags = suite.data_dir(UUID) / "config/tags.json"
    tags.parent.mkdir(parents=True)
    ways, stale = editors.all(), 0
    try:
        with reader(suite, f"/vms/{UUID}?fields=ram,tags") as read:
            for i in range(rounds):
                ram = 64 + i % 4000
                ways[i % len(ways)](ram)
                if i % 5 == 0:
                    tags.write_text(json.dumps({"n": i}))
                stale += read() != {"tags": {"n": i - i % 5}, "ram": ram}
    finally:
        shutil.rmtree(editors.elsewhere)
    status = suite.http("vminfod", "GET", "/status").json()
    return stale, status["files"]


def test_alternating(cold):
    stale, files = alternate(cold, 600)
    assert stale == 0 and files["lost"] == 0


@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_a_hundred_thousand(cold):
    stale, files = alternate(cold, 100000)
    print(f"\n100000 writes and reads, stale {stale}, events {files['events']}")
    assert stale == 0 and files["lost"] == 0


# Reads on and on; each read must be one of the whole objects.
WATCHER = READER.split("for line in sys.stdin:")[0] + """
import select
reads = halves = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    sock.sendall(request)
    data = b""
    while b"\\r\\n\\r\\n" not in data or not data.endswith(b"}"):
        data += sock.recv(65536)
    vm = json.loads(data.split(b"\\r\\n\\r\\n", 1)[1])
    reads += 1
    halves += vm["tags"] != {"n": vm["ram"]}
print(reads, halves, flush=True)
"""


def test_no_half_of_an_update(cold):
    """While vmadmd changes two files of a VM, readers see the old pair or the new one."""
    cold.write_definition("web0", body(64))
    tags = cold.data_dir(UUID) / "config/tags.json"
    tags.parent.mkdir(parents=True)
    tags.write_text('{"n":64}')
    feed = FakeFeed(cold, "vmadmd")
    with contextlib.closing(feed):
        daemon = drover.Daemon(cold, "vminfod", ())
        cold.daemons["vminfod"] = daemon
        feed.accept()
        daemon.wait_ready()
        process = subprocess.Popen(
            [sys.executable, "-c", WATCHER, "r/run/vminfod.http", f"/vms/{UUID}?fields=ram,tags"],
            cwd=cold.root.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for ram in range(65, 265):
            feed.say("begin", uuid=UUID, cause={"uid": 0, "command": "vmadm update"})
            (tags if ram % 2 else cold.etc / "web0/config").write_text(
                f'{{"n":{ram}}}' if ram % 2 else f"web0 {{ {body(ram)} }}\n")
            (cold.etc / "web0/config" if ram % 2 else tags).write_text(
                f"web0 {{ {body(ram)} }}\n" if ram % 2 else f'{{"n":{ram}}}')
            feed.say("commit", uuid=UUID)
            assert cold.vm(UUID)["ram"] == ram
        out, _ = process.communicate("\n", timeout=20)
    reads, halves = map(int, out.split())
    assert reads > 20 and halves == 0, out


def test_lifecycle(cold):
    """A command that succeeded is seen by the next read."""
    cold.use_fake_qemu()
    cold.write_definition("web0", body())
    cold.start("vmstated", "vminfod")
    with reader(cold, f"/vms/{UUID}?fields=state") as read:
        for _ in range(4):
            cold.vmstatedctl("start", "web0")
            assert read() == {"state": "running"}
            cold.vmstatedctl("stop", "-F", "web0")
            assert read() == {"state": "stopped"}


def test_disk(cold):
    """A disk made, enlarged, removed, by other programs."""
    image = cold.root / "disks/a.qcow2"
    cold.write_definition("web0", body(more=f'disk root {{ path = "{image}"; }}'))
    cold.start("vminfod")
    with reader(cold, f"/vms/{UUID}?fields=disks") as read, cold.events(query="?cause=1") as events:
        assert read()["disks"][0]["missing"] is True
        image.parent.mkdir()

        def qemu_img(*words):
            subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)

        qemu_img("create", "-f", "qcow2", image, "64M")
        disk = read()["disks"][0]
        assert "missing" not in disk and disk["size"] == 64 and disk["format"] == "qcow2"
        for size in range(65, 75):
            qemu_img("resize", image, f"{size}M")
            assert read()["disks"][0]["size"] == size
        event = events.wait(lambda ev: any(c["path"] == ["disks", None, "size"] and
                                           c.get("newValue") == 74 for c in ev.get("changes", [])))
        change = next(c for c in event["changes"] if c["path"] == ["disks", None, "size"])
        assert change["ident"] == str(image) and event["cause"] == {"by": "disk"}
        qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", image, image.with_name("b.qcow2"))
        os.rename(image.with_name("b.qcow2"), image.with_name("c.qcow2"))
        os.rename(image, image.with_name("moved.qcow2"))
        assert read()["disks"][0]["missing"] is True
        os.rename(image.with_name("c.qcow2"), image)
        assert read()["disks"][0]["backing"] == str(image)
        shutil.rmtree(image.parent)
        assert read()["disks"][0]["missing"] is True
        image.parent.mkdir()
        image.write_bytes(b"x" * (3 << 20))
        disk = read()["disks"][0]
        assert (disk["size"], disk["format"]) == (3, "raw") and disk["allocated"] >= 3
