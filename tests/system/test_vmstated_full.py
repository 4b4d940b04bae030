# SPDX-License-Identifier: Apache-2.0
"""Full disks: a small file system below each kind of file, filled; named errors, nothing lost."""

import contextlib
import errno
import json
import os
import signal
import subprocess

import pytest

import drover
from vmstated_help import hooks, log_of, small, trace, vm, wait_ended, wait_trace

pytestmark = pytest.mark.root

SIZE = 256 << 10
START_STOP = ["start_network", "start_storage", "running", "stopping", "stop_storage",
              "stop_network", "stopped"]


class Disk:
    """A small file system in the place of a folder; fill() leaves not one byte."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=755", "none", str(folder)],
                       check=True, capture_output=True)

    def fill(self):
        with open(self.folder / "ballast", "ab", buffering=0) as ballast:
            for size in (65536, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        ballast.write(b"x" * size)

    def free(self):
        (self.folder / "ballast").unlink()

    def close(self):
        subprocess.run(["umount", "-l", str(self.folder)], check=False, capture_output=True)


@pytest.fixture
def disk(cold):
    """disk(relative path) puts one there; they go when the daemons have ended."""
    made = []

    def mount(path):
        try:
            made.append(Disk(cold.root / path))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"cannot mount: {error.stderr.decode().strip()}")
        return made[-1]

    yield mount
    cold.finish()
    for one in made:
        one.close()


def post(suite, target, **body):
    return suite.http("vmstated", "POST", f"/vms/{target}", body)


def up(suite, name="web0", **more):
    suite.use_fake_qemu()
    suite.write_definition(name, small(**more), hooks=hooks())
    suite.start("vmstated", "vminfod")


def said(suite):
    return suite.daemons["vmstated"].output()


def end_at_page(path):
    """Space is given out by pages: the rest of the last one is still the file's own."""
    with open(path, "ab") as file:
        file.write(b"-" * (4095 - file.tell() % 4096) + b"\n")


def test_log(cold, disk):
    """No log lines any more, but guests start and stop; logging goes on when there is space."""
    full = disk("var/log/vmstated")
    up(cold)
    assert post(cold, "web0/start").status == 200
    end_at_page(cold.logs / "web0.log")
    before = log_of(cold, "web0")
    full.fill()
    assert post(cold, "web0/stop", force=True).status == 200
    assert post(cold, "web0/start").status == 200
    assert trace(cold, "web0") == START_STOP + START_STOP[:3]
    assert os.strerror(errno.ENOSPC) in said(cold) and "log" in said(cold)
    full.free()
    assert post(cold, "web0/stop", force=True).status == 200
    after = log_of(cold, "web0")
    assert after.startswith(before) and "ended: admin" in after[len(before):]


def test_state(cold, disk):
    """run/: nothing new is started that could not be taken up again; what runs goes on."""
    full = disk("run/vmstated")
    up(cold)
    cold.write_definition("db0", small())
    assert post(cold, "web0/start").status == 200
    pid = vm(cold, "web0")["pid"]
    full.fill()
    reply = post(cold, "db0/start")
    assert reply.status == 500, reply
    assert os.strerror(errno.ENOSPC) in reply.json()["error"]["message"] + said(cold)
    assert vm(cold, "web0")["pid"] == pid
    assert post(cold, "web0/stop", force=True).status == 200
    assert vm(cold, "web0")["last_exit"]["cause"] == "admin"
    assert "state not written" in said(cold)
    full.free()
    assert post(cold, "web0/start").status == 200
    pid = vm(cold, "web0")["pid"]
    cold.kill9("vmstated")
    cold.start("vmstated")
    assert vm(cold, "web0")["pid"] == pid
    post(cold, "web0/stop", force=True)


def test_hook_without_a_record(cold, disk):
    """run/: a start whose hooks could not be told over a SIGKILL is refused; cleaning up goes on."""
    full = disk("run/vmstated")
    up(cold)
    uuid = vm(cold, "web0")["uuid"]
    (cold.run_dir(uuid)).mkdir(exist_ok=True)
    full.fill()
    reply = post(cold, "web0/start")
    assert reply.status == 500, reply
    assert "start_network' not run: " in reply.json()["error"]["message"], reply
    assert os.strerror(errno.ENOSPC) in reply.json()["error"]["message"]
    wait_trace(cold, "web0", "stopped")
    assert "start_network" not in trace(cold, "web0")
    assert "hook without a record" in said(cold)
    full.free()
    assert post(cold, "web0/failreset").status == 200
    assert post(cold, "web0/start").status == 200
    assert trace(cold, "web0")[-3:] == START_STOP[:3]
    post(cold, "web0/stop", force=True)


def test_data(cold, disk):
    """lib/: the mark of running gives room for the record of its end; after that it is told."""
    full = disk("var/lib/vmstated")
    up(cold, onfailure="fail")
    assert post(cold, "web0/start").status == 200
    record = cold.data_dir(vm(cold, "web0")["uuid"]) / "lastexited"
    full.fill()
    assert post(cold, "web0/stop", force=True).status == 200
    assert json.loads(record.read_text())["cause"] == "admin"
    os.kill(started(cold), signal.SIGKILL)
    wait_ended(cold, "web0")
    assert vm(cold, "web0")["last_exit"]["cause"] == "outside"
    assert "lastexited" in said(cold) and os.strerror(errno.ENOSPC) in said(cold)
    assert json.loads(record.read_text())["cause"] == "admin"  # whole, never half a record
    full.free()
    os.kill(started(cold), signal.SIGABRT)
    wait_ended(cold, "web0")
    assert json.loads(record.read_text())["cause"] == "crash"


def started(suite):
    assert post(suite, "web0/start").status == 200
    return vm(suite, "web0")["pid"]


def test_data_is_written_when_space_returns(cold, disk):
    """lib/: mark and record that could not be written are, without anything else happening."""
    full = disk("var/lib/vmstated")
    up(cold, onfailure="fail")
    assert post(cold, "web0/start").status == 200
    folder = cold.data_dir(vm(cold, "web0")["uuid"])
    assert post(cold, "web0/stop", force=True).status == 200
    full.fill()
    pid = started(cold)
    assert "running" in said(cold) and os.strerror(errno.ENOSPC) in said(cold)
    full.free()
    drover.wait_file(folder / "running", lambda data: data.endswith(b" 2\n"), 10, "the mark")
    full.fill()
    os.kill(pid, signal.SIGABRT)
    wait_ended(cold, "web0")
    assert json.loads((folder / "lastexited").read_text())["cause"] in ("admin", "crash")
    full.free()
    drover.wait_file(folder / "lastexited", lambda data: b'"crash"' in data, 10, "the record")
    drover.wait_file(folder / "failed", lambda data: b"reason" in data, 10, "failure mode")


def test_generated(cold, disk):
    """The merged hypervisor file cannot be written: the start is refused by its name."""
    full = disk("hw")
    config = full.folder / "bhyve_config"
    config.write_text("cpus=1\nmemory.size=64M\npci.0.0.0.device=hostbridge\n"
                      "pci.0.31.0.device=lpc\n")
    up(cold, configfile=str(config))
    full.fill()
    reply = post(cold, "web0/start")
    assert reply.status in (409, 500, 400), reply
    message = reply.json()["error"]["message"]
    assert "bhyve_config" in message and os.strerror(errno.ENOSPC) in message, message
    assert config.read_text().startswith("cpus=1")
    full.free()
    assert not (full.folder / "bhyve_config.generated").exists() or \
        (full.folder / "bhyve_config.generated").stat().st_size > 0


def test_hook_output_on_a_full_disk(cold, disk):
    """A hook's megabytes do not block it when they cannot be logged."""
    full = disk("var/log/vmstated")
    cold.use_fake_qemu()
    cold.write_definition("web0", small(), hooks={
        **hooks(), "start_network": 'yes 0123456789 | head -c 600000; echo n >> "$VM_DIR/trace"'})
    cold.start("vmstated", "vminfod")
    full.fill()
    assert post(cold, "web0/start").status == 200
    wait_trace(cold, "web0", "n")
    full.free()
    post(cold, "web0/stop", force=True)
