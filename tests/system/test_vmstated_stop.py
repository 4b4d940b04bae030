# SPDX-License-Identifier: Apache-2.0
"""The stop engine against guests and QEMUs that do not do as they should."""

import json
import os
import signal
import time

import pytest

import drover
from vmstated_help import Qmp, log_of, small, vm, wait_settled

DAY_MS = 86400000


@pytest.fixture
def fake(cold):
    """start(script, name) with the scripted QEMU; the daemons are up."""
    cold.use_fake_qemu()
    cold.start("vmstated", "vminfod")

    def begin(script, name="web0", **properties):
        trace = str(cold.root / "fake" / f"qmp.{name}")
        cold.use_fake_qemu({"trace": trace, **script}, name=name)
        cold.write_definition(name, small(**properties))
        reply = cold.http("vmstated", "POST", f"/vms/{name}/start", {})
        assert reply.status == 200, reply
        return vm(cold, name)

    cold.begin = begin
    return cold


def stop(suite, name="web0", status=(200, 202), **body):
    reply = suite.http("vmstated", "POST", f"/vms/{name}/stop", body)
    assert reply.status in status, reply
    return reply


def asked(suite, name="web0"):
    """Commands QEMU was given, in order."""
    lines = (suite.root / "fake" / f"qmp.{name}").read_text().splitlines()
    return [json.loads(line)["execute"] for line in lines]


def test_guest_that_obeys(fake):
    fake.begin({})
    with fake.events() as events:
        uuid = fake.uuid("web0")
        stop(fake)
        events.wait_state("web0", "stopped")
        states = [new for path, _, new in events.changes(uuid) if path == "supervisor_state"]
        shown = [path for path, _, _ in events.changes(uuid)]
    assert states == ["STOPPING", "STOP_STORAGE", "STOP_NETWORK", "STOPPED"]
    assert "transition_to" in shown and "transition_expire" in shown
    assert asked(fake)[-1] == "system_powerdown" and "quit" not in asked(fake)
    assert "transition_to" not in vm(fake, "web0")


def test_guest_that_ignores(fake):
    fake.begin({"powerdown_ms": None})
    began = time.monotonic()
    stop(fake, timeout_ms=500)
    assert 0.5 <= time.monotonic() - began < 2
    assert asked(fake)[-2:] == ["system_powerdown", "quit"]
    assert vm(fake, "web0")["last_exit"]["cause"] == "timeout-forced"
    assert "did not stop in time" in log_of(fake, "web0")


@pytest.mark.parametrize("action", [{"freeze": True}, {"hang": True}, {"close": True},
                                    {"raw": "no JSON at all\r\n"}, {"half": True}])
def test_monitor_that_is_dead_or_mad(fake, action):
    """Whatever the monitor does, the deadline holds: quit in vain, then SIGKILL."""
    fake.begin({"powerdown_ms": None,
                "commands": {"system_powerdown": action, "quit": {"hang": True}}})
    began = time.monotonic()
    stop(fake, timeout_ms=300)
    assert time.monotonic() - began < 5
    end = vm(fake, "web0")["last_exit"]
    assert end["cause"] == "timeout-forced" and end["signal"] == 9
    assert fake.guests() == []


def test_guest_that_dies_of_being_asked(fake):
    fake.begin({"commands": {"system_powerdown": {"signal": 11}}})
    stop(fake, timeout_ms=5000)
    one = vm(fake, "web0")
    assert one["last_exit"]["cause"] == "crash" and one["last_exit"]["signal"] == 11
    assert one["supervisor_state"] == "STOPPED"


def test_paused_guest_is_let_go_first(fake):
    one = fake.begin({})
    client = Qmp(fake, one["uuid"])
    client.call("stop")
    with fake.events() as events:
        events.wait_vm("web0", lambda o: o.get("run_state") == "paused", 10, "paused")
    stop(fake, timeout_ms=5000)
    assert asked(fake)[-2:] == ["cont", "system_powerdown"]
    assert vm(fake, "web0")["last_exit"]["cause"] == "admin"
    client.close()


def test_no_time_at_all(fake):
    fake.begin({"powerdown_ms": None})
    began = time.monotonic()
    stop(fake, timeout_ms=0)
    assert time.monotonic() - began < 1
    assert vm(fake, "web0")["last_exit"]["cause"] == "admin"


def test_weeks(fake):
    """Weeks do not overflow, and a later request ends the wait."""
    fake.begin({"powerdown_ms": None})
    now = time.time() * 1000
    stop(fake, wait=False, timeout_ms=60 * DAY_MS)
    one = vm(fake, "web0")
    assert abs(one["transition_expire"] - now - 60 * DAY_MS) < 5000
    assert one["supervisor_state"] == "STOPPING"
    stop(fake, status=(400,), wait=False, timeout_ms=400 * DAY_MS)
    stop(fake, force=True)
    assert vm(fake, "web0")["state"] == "stopped"


@pytest.mark.parametrize("first,second", [(DAY_MS, 300), (300, DAY_MS)])
def test_second_stop_replaces_the_deadline(fake, first, second):
    fake.begin({"powerdown_ms": None})
    stop(fake, wait=False, timeout_ms=first)
    before = vm(fake, "web0")["transition_expire"]
    stop(fake, wait=False, timeout_ms=second)
    after = vm(fake, "web0")["transition_expire"]
    assert (after < before) == (second < first)
    with fake.events() as events:
        if second < first:
            events.wait_state("web0", "stopped", 5)
        else:
            with pytest.raises(drover.TimedOut):
                events.wait_state("web0", "stopped", 1)
            stop(fake, force=True)
            events.wait_state("web0", "stopped", 5)
    assert vm(fake, "web0")["last_exit"]["cause"] == "timeout-forced"


def test_stop_then_restart_then_stop(fake):
    """The later target counts: a stop on its way may become a restart and a stop again."""
    one = fake.begin({"powerdown_ms": 400})
    stop(fake, wait=False)
    assert fake.http("vmstated", "POST", "/vms/web0/restart", {"wait": False}).status == 202
    assert vm(fake, "web0")["transition_to"] == "start"
    with fake.events() as events:
        events.wait_vm("web0", lambda o: o.get("pid") not in (None, one["pid"]), 20, "a new process")
        events.wait_state("web0", "running")
    stop(fake, force=True)
    assert vm(fake, "web0")["state"] == "stopped"


def test_refused_when_there_is_nothing_to_stop(fake):
    fake.begin({})
    stop(fake, force=True)
    assert "not 'running'" in stop(fake, status=(409,)).json()["error"]["message"]


def test_stopped_qemu_is_named_and_delays_nobody(fake):
    """SIGSTOP to one of five: named within three seconds, the others answer and stop as ever."""
    deaf = fake.begin({}, "deaf")
    others = [fake.begin({}, f"vm{i}")["name"] for i in range(4)]
    with fake.events() as events:
        os.kill(deaf["pid"], signal.SIGSTOP)
        began = time.monotonic()
        events.wait_vm("deaf", lambda o: o.get("qmp") == "unresponsive", 5, "named")
        assert time.monotonic() - began < 3
        for name in others:
            began = time.monotonic()
            stop(fake, name)
            assert time.monotonic() - began < 1
        assert vm(fake, "deaf")["state"] == "running"
        os.kill(deaf["pid"], signal.SIGCONT)
        events.wait_vm("deaf", lambda o: o.get("qmp") != "unresponsive", 10, "answers again")
    stop(fake, "deaf")
    wait_settled(fake, "deaf")


def test_stopped_qemu_is_forced_in_time(fake):
    deaf = fake.begin({})
    os.kill(deaf["pid"], signal.SIGSTOP)
    began = time.monotonic()
    stop(fake, timeout_ms=300)
    assert time.monotonic() - began < 5
    assert vm(fake, "web0")["last_exit"]["signal"] == 9


@pytest.mark.campaign
def test_button_is_pressed_again_every_ten_seconds(fake):
    """A guest that does not hear is asked again and again until its deadline, by both vmstateds."""
    fake.begin({"powerdown_ms": None}, stoptimeout=60)
    presses = []
    stop(fake, wait=False, timeout_ms=35000)
    for count in range(1, 4):
        drover.wait_file(fake.root / "fake/qmp.web0",
                         lambda data, n=count: data.count(b"system_powerdown") >= n, 15, "a press")
        presses.append(time.monotonic())
    for before, after in zip(presses, presses[1:]):
        assert 9.5 < after - before < 11
    with fake.events() as events:
        one = events.wait_state("web0", "stopped", 30)
    assert one["last_exit"]["cause"] == "timeout-forced"
    assert asked(fake).count("system_powerdown") == 4
