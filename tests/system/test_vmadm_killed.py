# SPDX-License-Identifier: Apache-2.0
"""
Create and delete with the client or a daemon killed at every step: the VM is wholly there or wholly
gone once the daemons are back. A step is a call of the victim that changes files or talks to
somebody (tests/killat counts them and kills before the N-th). The default run takes a few of them;
the campaign takes all and writes what it saw to $DROVER_KILLED (docs/killed.md).
"""

import json
import mmap
import os
import pathlib
import struct
import subprocess

import pytest

import drover

VICTIMS = ["vmadm", *drover.DAEMONS]
OPERATIONS = ["create", "create and start", "delete", "delete while it runs"]
ALL = 1 << 40  # armed beyond any step: only counts


class KillAt:
    """The counter a victim shares with us."""

    def __init__(self, suite, victim):
        self.suite, self.victim = suite, victim
        self.path = suite.root / f"killat.{victim}"
        self.path.write_bytes(bytes(16))
        self.file = open(self.path, "r+b")
        self.map = mmap.mmap(self.file.fileno(), 16)
        self.env = {"LD_PRELOAD": str(suite.build / "tests/killat/killat.so"),
                    "KILLAT_FILE": str(self.path), "KILLAT_PROGRAM": victim}

    def arm(self, steps):
        self.map[:] = struct.pack("qq", steps, 0)

    def disarm(self):
        """(steps counted, whether the last one armed for was reached)"""
        left, count = struct.unpack("qq", self.map[:])
        self.arm(0)
        return count, left == 0

    def close(self):
        self.map.close()
        self.file.close()


class World:
    """Daemons of which one may be killed at a step, and what must hold then."""

    def __init__(self, suite, victim):
        self.suite, self.victim, self.number = suite, victim, 0
        self.killat = KillAt(suite, victim)
        suite.use_fake_qemu({})
        for name in drover.DAEMONS:
            self.up(name)

    def up(self, name):
        plain = dict(self.suite.env)
        if name == self.victim:
            self.suite.env.update(self.killat.env)
        self.suite.start(name)
        self.suite.env.clear()
        self.suite.env.update(plain)

    def tool(self, *words, stdin=None):
        """vmadm, killed at its step when it is the victim: its exit code."""
        env = {**self.suite.env, **(self.killat.env if self.victim == "vmadm" else {})}
        argv = [str(self.suite.binary("vmadm")), "--root", str(self.suite.root), "--timeout", "30",
                *words]
        done = subprocess.run(argv, input=json.dumps(stdin or {}).encode(), env=env, check=False,
                              capture_output=True, timeout=60)
        return done.returncode, done.stderr.decode()

    def payload(self, start):
        self.number += 1
        uuid = f"00000000-0000-4000-8000-{self.number:012x}"
        return {"uuid": uuid, "alias": f"vm{self.number}", "ram": 64, "accel": "tcg",
                "autoboot": start, "disks": [{"size": 16, "model": "virtio"}],
                "tags": {"number": self.number}}

    def there(self, uuid):
        """Every place a VM has something: all of them, or none."""
        suite = self.suite
        places = {"definition": suite.etc / uuid / "config", "data": suite.data_dir(uuid),
                  "disk": suite.data_dir(uuid) / "disk0.qcow2"}
        return {name: path.exists() for name, path in places.items()}

    def bring_back(self, killed):
        if killed and self.victim != "vmadm":
            self.suite.daemons[self.victim].wait_end()
            self.suite.kill9(self.victim)
            self.up(self.victim)

    def judge(self, uuid, said):
        # A change whose client was killed goes on: a creation as a job, and changes of one VM are
        # made one after the other, so that this one's answer is the end of that one.
        for job in json.loads(self.suite.vmadm("jobs", "--json").stdout):
            if job["state"] == "running":
                self.suite.vmadm("jobs", "watch", job["id"], check=None)
        known = self.suite.vmadm("update", uuid, "alias=judged", check=None).returncode
        seen = self.there(uuid)
        shown = self.suite.vmadm("lookup", f"uuid={uuid}").stdout.strip() == uuid
        held = uuid in self.suite.vmstatedctl("status", "--json").stdout
        where = f"{said}: {seen} vminfod={shown} vmstated={held} update={known}"
        whole = seen["definition"]
        assert set(seen.values()) == {whole}, where
        assert shown == whole and held == whole and known == (0 if whole else 3), where
        if whole:
            assert "provisioning" not in self.suite.vmadm("get", uuid).stdout, where
            self.suite.vmadm("delete", uuid)
        left = [str(path) for folder in (self.suite.etc, self.suite.root / "var/lib/vmstated",
                                         self.suite.root / "run/vmstated")
                for path in folder.iterdir() if uuid in path.name]
        assert left == [], where
        return whole

    def run(self, operation, steps):
        """The operation with the victim killed before this step: (steps taken, VM there?)."""
        payload = self.payload(operation in ("create and start", "delete while it runs"))
        uuid = payload["uuid"]
        if operation.startswith("delete"):
            self.suite.vmadm("create", stdin=payload)
            self.killat.arm(steps)
            code, text = self.tool("delete", uuid)
        else:
            self.killat.arm(steps)
            code, text = self.tool("create", stdin=payload)
        taken, killed = self.killat.disarm()
        self.bring_back(killed)
        said = f"{operation}, {self.victim} killed at step {steps}: exit {code} {text.strip()!r}"
        whole = self.judge(uuid, said)
        if code in (0, 7):  # done, told so
            assert whole == operation.startswith("create"), said
        return taken, whole

    def close(self):
        self.killat.close()


@pytest.fixture(params=VICTIMS)
def world(cold, request):
    if not (cold.build / "tests/killat/killat.so").exists() or "asan" in str(cold.build):
        pytest.skip("killat.so cannot be preloaded into this build")
    world = World(cold, request.param)
    yield world
    world.close()


def test_killed_at_some_steps(world):
    """A few steps of each victim, spread over the operation."""
    for operation in OPERATIONS[:1] + OPERATIONS[2:3]:
        total, _ = world.run(operation, ALL)
        assert total > 0
        for step in sorted({1 + total // 3, 1 + 2 * total // 3}):
            world.run(operation, step)


def note(line):
    path = os.environ.get("DROVER_KILLED")
    if path:
        with open(pathlib.Path(path), "a", encoding="utf-8") as out:
            out.write(line + "\n")


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_at_every_step(world, operation):
    total, _ = world.run(operation, ALL)
    there = [world.run(operation, step)[1] for step in range(1, total + 1)]
    note(f"| {operation} | `{world.victim}` | {total} | {sum(there)} | {total - sum(there)} |")
