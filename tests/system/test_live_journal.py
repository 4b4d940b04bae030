# SPDX-License-Identifier: Apache-2.0
"""A guest that writes a numbered journal to its disk and answers a counter lives through everything
that is done to it while it runs, under injected failures: its journal has no hole. Only a rollback
takes records back, exactly those since its snapshot."""

import http.client
import subprocess

import pytest

import drover
from conftest import lifetime
from test_live_snapshot import boot
from test_live_migrate import machine, other, settled, to  # noqa: F401
from test_vmadmd_jobs import ended

MAC = "52:54:00:00:00:02"
# A record of a sector, on the disk before it counts.
WRITER = ("( i=0; while :; do i=$((i+1)); printf '%-511s\\n' \"J $i\" | busybox dd of=/dev/vda bs=512 "
          "seek=$i conv=notrunc,fsync 2>/dev/null && echo $i > /count; done ) & echo STAR''TED\n")


class Life:
    """The guest, wherever it is, and what it has said."""

    def __init__(self, here, there, spare):
        self.here, self.there, self.spare = here, there, spare
        self.uuid = machine(here, cmdline="drover.modules", boots=True)
        self.console = boot(here, self.uuid)
        self.console.send(WRITER)
        self.console.wait("STARTED\r\n")
        self.asked = 0
        self.last = 0
        self.count(10)

    def open(self):
        self.console.sock.close()
        self.console = self.here.console(self.uuid)

    def count(self, more=0):
        """The guest's counter, at least so much higher than when it was last asked."""
        want = self.last + more
        deadline = drover.Deadline(60)
        while True:
            self.asked += 1
            self.console.send(f"\necho C''OUNT{self.asked}-$(cat /count)-\n")
            self.console.wait(f"COUNT{self.asked}-")
            begin = self.console.at
            number = int(self.console.wait("-")[begin:self.console.at - 1] or self.last)
            assert number >= self.last, f"the counter went back from {self.last} to {number}"
            if number >= want:
                self.last = number
                return number
            assert not deadline.over(), f"the counter stands at {number}, wanted {want}"

    def disk(self, suite=None):
        suite = suite or self.here
        return next(d for d in suite.vm(self.uuid)["disks"] if "disk0" in d["path"])["path"]

    def journal(self, suite=None):
        """Records on the disk of a VM that does not run: how many, without a hole."""
        suite = suite or self.here
        raw = suite.root / "journal.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", self.disk(suite), raw], check=True)
        data = raw.read_bytes()
        records = [data[at:at + 512] for at in range(512, len(data), 512)]
        there = [number for number, one in enumerate(records, 1) if one.startswith(b"J ")]
        assert there == list(range(1, len(there) + 1)), f"a hole in {there}"
        assert all(one.split() == [b"J", b"%d" % number]
                   for number, one in enumerate(records[:len(there)], 1))
        raw.unlink()
        return len(there)


# --- what is done to it; each leaves it running ---

def snapshot_and_back(life):
    before = life.count(2)
    life.here.vmadm("create-snapshot", life.uuid, "s")
    after = life.count(30)
    life.here.vmadm("rollback-snapshot", life.uuid, "s")
    life.last = before
    now = life.count()
    assert before <= now < after, (before, now, after)
    life.here.vmadm("delete-snapshot", life.uuid, "s")


def disk_and_nic(life):
    path = life.here.root / "more.raw"
    with open(path, "wb") as file:
        file.truncate(16 << 20)
    life.here.vmadm("attach", life.uuid, "disk", f"path={path}", "model=virtio")
    life.here.vmadm("attach", life.uuid, "nic", "nic_tag=user", f"mac={MAC}", "model=virtio")
    life.count(2)
    life.here.vmadm("detach", life.uuid, "disk", str(path))
    life.here.vmadm("detach", life.uuid, "nic", MAC)


def more_room(life):
    disk = next(d for d in life.here.vm(life.uuid)["disks"] if d["path"] == life.disk())
    life.here.vmadm("resize-disk", life.uuid, life.disk(), f"{disk['size'] + 8}M")


def save_and_restore(life):
    life.here.vmadm("save", life.uuid, life.here.root / "state")
    assert life.journal() >= life.last
    life.here.vmadm("restore", life.uuid, life.here.root / "state")
    life.open()


def backup(life):
    before = life.count()
    file = life.here.root / "backup"
    file.unlink(missing_ok=True)
    life.here.vmadm("backup", life.uuid, file)
    life.spare.vmadm("receive", "-f", file)
    assert life.journal(life.spare) >= before
    life.spare.vmadm("delete", life.uuid)


def move(life):
    life.here.vmadm("migrate", life.uuid, to(life.there))
    settled(life.here, life.there, life.uuid)
    life.here, life.there = life.there, life.here
    life.open()


def move_and_back(life):
    move(life)
    life.count(2)
    move(life)


DEEDS = [snapshot_and_back, disk_and_nic, more_room, save_and_restore, backup, move_and_back]


@pytest.fixture
def spare(tmp_path, guest_images):
    for made in lifetime(tmp_path / "s"):
        made.start()
        yield made


def finish(life):
    life.count(5)
    life.console.sock.close()
    life.here.vmadm("stop", "-F", life.uuid)
    assert life.journal() >= life.last


def test_life(suite, other, spare):  # noqa: F811
    life = Life(suite, other, spare)
    for deed in DEEDS:
        deed(life)
        life.count(2)
    finish(life)


# --- and under injected failures ---

def cut(life, place, method, target, body=None):
    """vmadmd dies at a place of an operation; the job as its next start made it end."""
    suite = life.here
    suite.env["DROVER_TEST_KILL_AT"] = place
    suite.restart("vmadmd")
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        suite.http("vmadmd", method, f"/vm/{life.uuid}{target}", body)
    suite.daemons["vmadmd"].expected_end = True
    suite.daemons["vmadmd"].wait_end()
    suite._retire("vmadmd")
    del suite.env["DROVER_TEST_KILL_AT"]
    suite.start("vmadmd")
    return ended(suite, suite.http("vmadmd", "GET", "/jobs").json()["jobs"][0]["id"], 60)


def cut_snapshots(life):
    for place in ("asked", "begun", "recorded"):
        job = cut(life, place, "POST", "/snapshots", {"name": place})
        life.count(2)
        if job["state"] == "done":
            life.here.vmadm("delete-snapshot", life.uuid, place)


def cut_rollback(life):
    for place in ("marked", "asked", "begun"):
        before = life.count(2)
        life.here.vmadm("create-snapshot", life.uuid, "r")
        after = life.count(30)
        job = cut(life, place, "POST", "/snapshots/r/rollback")
        assert job["state"] == "done", job
        life.last = before
        assert before <= life.count() < after
        life.here.vmadm("delete-snapshot", life.uuid, "r")


def cut_plug(life):
    path = life.here.root / "cut.raw"
    with open(path, "wb") as file:
        file.truncate(16 << 20)
    for place in ("step-1-done", "step-2-sent", "plug-stored"):
        job = cut(life, place, "POST", "/attach", {"disk": {"path": str(path), "model": "virtio"}})
        life.count(2)
        if job["state"] != "done":
            life.here.vmadm("attach", life.uuid, "disk", f"path={path}", "model=virtio")
        job = cut(life, place.replace("2", "0"), "POST", "/detach", {"disk": str(path)})
        life.count(2)
        if job["state"] != "done":
            life.here.vmadm("detach", life.uuid, "disk", str(path))


def cut_save(life):
    for place in ("stopped", "ending"):
        job = cut(life, place, "POST", "/save", {"file": str(life.here.root / "cut")})
        if job["state"] == "done":
            assert life.journal() >= life.last
            life.here.vmadm("restore", life.uuid, life.here.root / "cut")
            life.open()
        life.count(2)


def cut_moves(life):
    """Cancelled at once; the other side's vmadmd killed in it: it is in one place, and goes on."""
    for hurt in (lambda job: life.here.http("vmadmd", "DELETE", f"/jobs/{job}"),
                 lambda job: life.there.restart("vmadmd", 9)):
        job = life.here.http("vmadmd", "POST", f"/vm/{life.uuid}/migrate?wait=0",
                             {"to": to(life.there)}).json()["job"]
        hurt(job)
        done = ended(life.here, job, 60)
        if done["state"] == "done":
            life.here, life.there = life.there, life.here
        life.open()
        life.count(2)


def between(life):
    """Both daemons of the root the guest is in, and vminfod, are killed between two deeds."""
    for name in drover.DAEMONS:
        life.here.restart(name, 9)
    life.open()


FAILURES = [cut_snapshots, cut_rollback, cut_plug, cut_save, cut_moves]


@pytest.mark.campaign
def test_life_under_failures(suite, other, spare):  # noqa: F811
    life = Life(suite, other, spare)
    for deed, failure in zip(DEEDS, FAILURES + [between]):
        failure(life)
        life.count(2)
        between(life)
        life.count(2)
        deed(life)
        life.count(2)
    finish(life)
