# SPDX-License-Identifier: Apache-2.0
"""Why a VM ended: every cause produced for real, and told apart wherever it is told."""

import contextlib
import json
import os
import pathlib
import select
import signal
import subprocess

import pytest

import drover
from vmstated_help import Qmp, hooks, log_of, small, vm, wait_settled

MEMORY = pathlib.Path("/sys/fs/cgroup/memory")


def start(suite, name="web0"):
    reply = suite.http("vmstated", "POST", f"/vms/{name}/start", {})
    assert reply.status == 200, reply
    return vm(suite, name)


def told(suite, events, cause, name="web0", seconds=30, text=""):
    """The end as the event, the object, the log and the record on disk tell it: all the same."""
    seen = events.wait_vm(name, lambda o: o.get("last_exit") and o["supervisor_state"] in (
        "STOPPED", "FAILED"), seconds, f"its end by {cause}")["last_exit"]
    one = vm(suite, name)
    end = one["last_exit"]
    assert end["cause"] == seen["cause"] == cause, end
    assert text in end["detail"], end
    assert f"ended: {cause} (" in log_of(suite, name)
    record = json.loads((suite.data_dir(one["uuid"]) / "lastexited").read_text())
    assert record["cause"] == cause and record["detail"] == end["detail"]
    assert f"cause={cause} " in suite.daemons["vmstated"].output()
    return end


@contextlib.contextmanager
def running(suite, definition=None, **properties):
    """A real QEMU that runs and an event reader: (events, its object)."""
    suite.write_definition("web0", definition or small(onfailure="fail", **properties))
    with suite.events() as events:
        yield events, start(suite)


@contextlib.contextmanager
def away(suite, pid):
    """vmstated is away until the process has ended and was reaped."""
    pidfd = os.pidfd_open(pid)
    suite.kill9("vmstated")
    yield
    poll = select.poll()
    poll.register(pidfd, 0)
    assert poll.poll(15000), "the guest did not end"
    os.close(pidfd)
    suite.start("vmstated")


@pytest.fixture
def two(cold):
    cold.start("vmstated", "vminfod")
    return cold


def test_guest(two):
    with running(two, two.guest("drover.poweroff=0")) as (events, _):
        end = told(two, events, "guest", text="guest-shutdown")
    assert end["status"] == 0 and "signal" not in end


@pytest.mark.parametrize("body,text", [({"force": True}, "host-qmp-quit"), ({}, "guest-shutdown")])
def test_admin(cold, body, text):
    if not body:
        cold.use_fake_qemu()
    cold.start("vmstated", "vminfod")
    with running(cold) as (events, _):
        cold.http("vmstated", "POST", "/vms/web0/stop", body)
        told(cold, events, "admin", text=text)


def test_admin_kill(two):
    with running(two) as (events, _):
        two.vmstatedctl("kill", "web0")
        told(two, events, "admin")


def test_timeout_forced(two):
    """The firmware of a machine without a disk does not hear the button."""
    with running(two) as (events, _):
        two.vmstatedctl("stop", "-t", "1", "web0")
        told(two, events, "timeout-forced", text="host-qmp-quit")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_crash_by_signal(two, number):
    with running(two) as (events, one):
        os.kill(one["pid"], number)
        end = told(two, events, "crash", text=f"killed by signal {number.value}")
    assert end["signal"] == number and end["status"] == 128 + number
    assert vm(two, "web0")["state"] == "failed"


def test_crash_with_status(cold):
    cold.use_fake_qemu({"timeline": [{"when": "inject-nmi", "delay_ms": 10, "exit": 3}]})
    cold.start("vmstated", "vminfod")
    with running(cold) as (events, one):
        Qmp(cold, one["uuid"]).send("inject-nmi")
        end = told(cold, events, "crash", text="exited with status 3")
    assert end["status"] == 3 and "signal" not in end


def test_crash_without_a_word(cold):
    """Exit status 0 and no SHUTDOWN: a QEMU that just left did not end in order."""
    cold.use_fake_qemu({"timeline": [{"when": "inject-nmi", "delay_ms": 10, "exit": 0}]})
    cold.start("vmstated", "vminfod")
    with running(cold) as (events, one):
        Qmp(cold, one["uuid"]).send("inject-nmi")
        told(cold, events, "crash", text="without a word")


@pytest.mark.parametrize("there", [True, False])
def test_panic(two, there):
    definition = two.guest("drover.panic=1", onfailure="fail")
    with running(two, definition) as (events, one):
        if not there:
            two.kill9("vmstated")
            drover.wait_file(two.run_dir(one["uuid"]) / "events.out",
                             lambda data: b"GUEST_PANICKED" in data, 30)
            two.start("vmstated")
        told(two, events, "panic")
    assert vm(two, "web0")["state"] == "failed" and two.guests() == []


@pytest.mark.root
def test_out_of_memory(two):
    """A guest in a memory group too small for it: the kernel kills, and that is told."""
    folder = MEMORY / f"drover-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text("40M")
    except OSError as error:
        folder.exists() and folder.rmdir()
        pytest.skip(f"no memory group of version 1 to write to: {error}")
    try:
        with running(two, two.guest(onfailure="fail")) as (events, one):
            (folder / "cgroup.procs").write_text(str(one["pid"]))
            end = told(two, events, "out-of-memory", text="signal 9")
        assert end["signal"] == 9
    finally:
        folder.rmdir()


def test_kill_beside_somebody_elses_shortage(cold):
    """The kernel kills another process for memory; the guest is killed by a person: outside."""
    if os.geteuid() != 0 or os.readlink("/proc/self/ns/pid") != "pid:[4026531836]":
        pytest.skip("the kernel's log is not ours to read")
    folder = MEMORY / f"drover-other-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text("20M")
    except OSError as error:
        folder.exists() and folder.rmdir()
        pytest.skip(f"no memory group of version 1 to write to: {error}")
    cold.use_fake_qemu()
    cold.start("vmstated", "vminfod")
    try:
        with running(cold) as (events, one):
            hog = subprocess.run(
                ["sh", "-c", f"echo $$ > {folder}/cgroup.procs; exec python3 -c 'b\"x\" * (200 << 20)'"],
                check=False, capture_output=True)
            assert hog.returncode == -signal.SIGKILL
            os.kill(one["pid"], signal.SIGKILL)
            told(cold, events, "outside", text="signal 9")
    finally:
        folder.rmdir()


def test_start_error(two):
    two.write_definition("web0", small(onfailure="fail",
                                       qemu_extra_opts="-device no-such-device"))
    with two.events() as events:
        assert two.http("vmstated", "POST", "/vms/web0/start", {}).status == 500
        end = told(two, events, "start-error", text="no-such-device")
    assert end["status"] == 1


def test_hook(two):
    two.write_definition("web0", small(stoptimeout=1), hooks=hooks(running="exit 9"))
    with two.events() as events:
        assert two.http("vmstated", "POST", "/vms/web0/start", {}).status == 500
        told(two, events, "hook")
    wait_settled(two, "web0")
    assert "running exited with status 9" in vm(two, "web0")["failed"]


def test_host_shutdown(cold):
    cold.use_fake_qemu()
    cold.start("vmstated", "vminfod")
    with running(cold) as (events, _):
        cold.vmstatedctl("shutdown-all")
        told(cold, events, "host-shutdown", text="guest-shutdown")


def test_host_crash(two):
    """Power cut: run/ is empty after it, and the mark of the running VM is of another boot."""
    with running(two) as (_, one):
        pass
    for name in ("vmstated", "vminfod"):
        two.kill9(name)
    pidfd = os.pidfd_open(one["pid"])
    os.kill(one["pid"], signal.SIGKILL)
    assert drover.wait_readable(pidfd, drover.Deadline(5))
    os.close(pidfd)
    for path in sorted((two.root / "run").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (two.data_dir(one["uuid"]) / "running").write_text("11111111-2222-3333-4444-555555555555")
    two.start("vmstated", "vminfod")
    now = vm(two, "web0")
    assert now["last_exit"]["cause"] == "host-crash" and now["state"] == "stopped"
    with two.events() as events:
        assert events.find("web0")["last_exit"]["cause"] == "host-crash"
    assert not (two.data_dir(one["uuid"]) / "running").exists()
    start(two)
    two.vmstatedctl("stop", "-F", "web0")


@pytest.mark.parametrize("how,text", [("quit", "host-qmp-quit"), (signal.SIGTERM, "host-signal"),
                                      (signal.SIGKILL, "signal 9")])
@pytest.mark.parametrize("there", [True, False])
def test_outside(two, how, text, there):
    """Somebody else's quit or signal; a SIGKILL that nobody saw leaves no trace and is unknown."""
    with running(two) as (events, one):
        with contextlib.nullcontext() if there else away(two, one["pid"]):
            if how == "quit":
                Qmp(two, one["uuid"]).call("quit")
            else:
                os.kill(one["pid"], how)
        if how == signal.SIGKILL and not there:
            told(two, events, "unknown")
        else:
            told(two, events, "outside", text=text)


def test_crash_while_away(two):
    with running(two) as (events, one):
        with away(two, one["pid"]):
            os.kill(one["pid"], signal.SIGABRT)
        told(two, events, "unknown")


def test_adopted_guest_crashes(two):
    """Not its parent any more, vmstated still learns the signal of a guest it adopted."""
    with running(two) as (events, one):
        two.kill9("vmstated")
        two.start("vmstated")
        os.kill(one["pid"], signal.SIGSEGV)
        end = told(two, events, "crash", text="signal 11")
    assert end["signal"] == 11


def test_record_survives_the_daemons(two):
    with running(two) as (events, _):
        two.vmstatedctl("stop", "-F", "web0")
        before = told(two, events, "admin")
    for name in ("vmstated", "vminfod"):
        two.stop(name)
    two.start("vmstated", "vminfod")
    assert vm(two, "web0")["last_exit"] == before
