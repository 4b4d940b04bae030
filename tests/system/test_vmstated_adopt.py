# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of vmstated in every state of the table: who comes after takes up all of it."""

import fcntl
import json
import os
import select
import signal

import pytest

import drover
from vmstated_help import (CHAIN, RESETS, START, STOP, Gate, Qmp, all_vms, hooks, small, start_time,
                           trace, vm, wait_settled, wait_trace)

HOUR = 3600

# A guest per row: the state it is held in, the hook that holds it (None: no hook runs), and all
# hooks it has run in the end.
HELD = {hook: (hook.upper(), hook, START) for hook in START}
HELD.update({hook: (hook.upper(), hook, START + STOP) for hook in STOP})
HELD.update({hook: (hook.upper(), hook, START + CHAIN + ["running"]) for hook in CHAIN})
FAILING = ["start_network", "stop_network", "stopped", "failed"]
HELD["failed"] = ("FAILED", "failed", FAILING)
CALM = {
    "calm": ("RUNNING", None, START),
    "deaf": ("STOPPING", None, START + ["stopping"]),
    "mute": ("START_STORAGE", None, START[:2]),
    "fresh": ("INIT", None, []),
    "over": ("STOPPED", None, START + STOP),
    "broken": ("FAILED", None, FAILING),
}


def vm_name(row):
    return "vm-" + row.replace("_", "-")


class Herd:
    """A guest held in every state at once."""

    def __init__(self, suite):
        self.suite, self.gates, self.pids = suite, {}, {}
        suite.use_fake_qemu({"timeline": RESETS})
        suite.use_fake_qemu({"timeline": RESETS, "powerdown_ms": None}, name="vm-deaf")
        suite.use_fake_qemu({"greeting": "none"}, name="vm-mute")
        for row in {**HELD, **CALM}:
            name = vm_name(row)
            more = {"start_network": "exit 1"} if row in ("failed", "broken") else {}
            suite.write_definition(name, small(onreboot="restart", stoptimeout=HOUR),
                                   hooks=hooks(**more))
        suite.start("vmstated", "vminfod")

    def prepare(self):
        suite = self.suite
        with suite.events() as events:
            for row, (state, hook, _) in HELD.items():
                if hook in START + ["failed"]:
                    self.gates[row] = Gate(suite, vm_name(row), hook)
            for row in {**HELD, **CALM}:
                if row != "fresh":
                    suite.http("vmstated", "POST", f"/vms/{vm_name(row)}/start", {"wait": False})
            for row in list(HELD) + ["calm", "deaf", "over"]:
                if row not in START + ["failed"]:
                    self.settled_running(events, row)
            for row, (state, hook, _) in HELD.items():
                if row not in self.gates:
                    self.gates[row] = Gate(suite, vm_name(row), hook)
            self.send_on()
            for row, (state, hook, _) in {**HELD, **CALM}.items():
                if hook:
                    wait_trace(suite, vm_name(row), hook)
                events.wait_vm(vm_name(row), lambda o, s=state: o["supervisor_state"] == s, 20,
                               state)

    def settled_running(self, events, row):
        wait_trace(self.suite, vm_name(row), "running")
        events.wait_state(vm_name(row), "running", 20)

    def send_on(self):
        suite = self.suite
        for row in STOP + ["deaf"]:
            suite.http("vmstated", "POST", f"/vms/{vm_name(row)}/stop", {"wait": False})
        suite.http("vmstated", "POST", f"/vms/{vm_name('over')}/stop", {})
        for row in CHAIN:
            Qmp(suite, suite.uuid(vm_name(row))).send("inject-nmi")

    def seen(self):
        """What is compared over the restart, by VM."""
        found = {}
        for name, one in all_vms(self.suite).items():
            found[name] = {key: one.get(key) for key in (
                "supervisor_state", "state", "zone_state", "pid", "zoneid", "hook",
                "transition_to", "transition_expire", "failed")}
            if one.get("pid"):
                found[name]["start"] = start_time(one["pid"])
        return found

    def release(self):
        for gate in self.gates.values():
            gate.path.unlink()
            gate.open()

    def close(self):
        for gate in self.gates.values():
            gate.close()

    def finish(self):
        """All go on to their ends: every hook of the row ran once and in order."""
        suite = self.suite
        for row, (_, _, whole) in HELD.items():
            times = whole.count(whole[-1])
            wait_trace(suite, vm_name(row), whole[-1], 30, times)
        with suite.events() as events:
            for row, (_, _, whole) in {**HELD, **CALM}.items():
                name = vm_name(row)
                goal = "running" if whole[-1:] == ["running"] else None
                if goal:
                    events.wait_state(name, goal, 20)
        for row, (state, _, whole) in {**HELD, **CALM}.items():
            assert trace(suite, vm_name(row)) == whole, row


@pytest.fixture
def herd(cold):
    made = Herd(cold)
    yield made
    made.close()


@pytest.mark.parametrize("hooks_end", ["after", "while away"])
def test_sigkill_in_every_state_at_once(herd, hooks_end):
    """Twenty guests, each in another state of the table; hooks end after or during the absence."""
    suite = herd.suite
    herd.prepare()
    before = herd.seen()
    for row, (state, hook, _) in {**HELD, **CALM}.items():
        one = before[vm_name(row)]
        assert one["supervisor_state"] == state, row
        assert (one["hook"] or "").endswith(hook or ""), row
    suite.kill9("vmstated")
    if hooks_end == "while away":
        pidfds = [os.pidfd_open(pid) for pid in suite.guests() if is_hook(pid)]
        assert len(pidfds) == len(HELD)
        herd.release()
        for pidfd in pidfds:
            assert drover.wait_readable(pidfd, drover.Deadline(10))
            os.close(pidfd)
    suite.start("vmstated")
    if hooks_end == "after":
        assert herd.seen() == before
        herd.release()
    herd.finish()
    now = herd.seen()
    for row in ("calm", "deaf", "mute", "fresh", "over", "broken", "running"):
        assert now[vm_name(row)] | {"hook": None} == before[vm_name(row)] | {"hook": None}, row


def is_hook(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
        return b"/etc/vmstated/" in cmdline.read()


def test_sigkill_again_and_again_while_hooks_run(cold):
    """Three kills within one walk change nothing: each hook once, in order."""
    cold.use_fake_qemu()
    names = [f"vm{i}" for i in range(4)]
    for name in names:
        cold.write_definition(name, small(), hooks=hooks())
    cold.start("vmstated")
    gates = {(name, hook): Gate(cold, name, hook) for name in names for hook in START}
    for name in names:
        cold.http("vmstated", "POST", f"/vms/{name}/start", {"wait": False})
    for hook in START:
        for name in names:
            wait_trace(cold, name, hook)
        for _ in range(1):
            # The hook is known to run once its state file says so.
            for name in names:
                assert vm(cold, name)["hook"].endswith(hook)
            cold.kill9("vmstated")
            cold.start("vmstated")
        for name in names:
            gates[name, hook].open()
    for name in names:
        cold.http("vmstated", "POST", f"/vms/{name}/stop", {"force": True, "wait": False})
    for name in names:
        cold.http("vmstated", "POST", f"/vms/{name}/stop", {"force": True})
        wait_settled(cold, name)
        assert trace(cold, name) == START + STOP
    for gate in gates.values():
        gate.close()


def test_hook_deadline_is_kept_over_sigkill(cold):
    """A hook that hangs is ended at its limit though another vmstated waits for it by then."""
    cold.use_fake_qemu()
    cold.write_definition("web0", small(hooktimeout=2), hooks=hooks("start_network"))
    cold.start("vmstated", "vminfod")
    gate = Gate(cold, "web0", "start_network")
    cold.http("vmstated", "POST", "/vms/web0/start", {"wait": False})
    wait_trace(cold, "web0", "start_network")
    assert vm(cold, "web0")["hook"]
    cold.kill9("vmstated")
    cold.start("vmstated")
    with cold.events() as events:
        one = events.wait_state("web0", "failed", 15)
    assert "start_network" in one["failed"] and "2000 ms" in one["failed"]
    gate.close()


def test_deadline_passed_while_away(cold):
    """The guest's time ended while nobody watched: it is forced at once, not given more."""
    cold.use_fake_qemu({"powerdown_ms": None})
    cold.write_definition("web0", small())
    cold.start("vmstated", "vminfod")
    cold.http("vmstated", "POST", "/vms/web0/start", {})
    cold.http("vmstated", "POST", "/vms/web0/stop", {"wait": False, "timeout_ms": 400})
    expire = vm(cold, "web0")["transition_expire"]
    cold.kill9("vmstated")
    past(400)
    cold.start("vmstated")
    with cold.events() as events:
        one = events.wait_state("web0", "stopped", 10)
    assert one["last_exit"]["cause"] == "timeout-forced"
    assert expire > 0


def past(milliseconds):
    """Return when so much time has passed: a timer is the source that is waited on."""
    timer = select.poll()
    timer.poll(milliseconds)


def wait_reaped(pidfd, seconds):
    """A process that ended may still be a zombie; only the hang-up tells that it is gone."""
    poll = select.poll()
    poll.register(pidfd, 0)
    return bool(poll.poll(seconds * 1000))


def test_lock_of_somebody_not_yet_known(cold):
    """Killed moments after the fork of QEMU: who holds the lock is asked again, not refused."""
    cold.use_fake_qemu({"greeting": "none"})
    cold.write_definition("web0", small(onfailure="fail"))
    cold.start("vmstated", "vminfod")
    uuid = cold.uuid("web0")
    cold.http("vmstated", "POST", "/vms/web0/start", {"wait": False})
    with cold.events() as events:
        pid = events.wait_vm("web0", lambda o: o.get("pid"), 20, "pid")["pid"]
    pidfd = os.pidfd_open(pid)
    cold.kill9("vmstated")
    os.kill(pid, signal.SIGKILL)
    assert drover.wait_readable(pidfd, drover.Deadline(10))
    os.close(pidfd)
    state = cold.run_dir(uuid) / "vmstated.state"
    facts = json.loads(state.read_text())
    facts.update(pid=0, pid_start=0)
    state.write_text(json.dumps(facts))
    cold.use_fake_qemu()
    with open(cold.data_dir(uuid) / "lock", "rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cold.start("vmstated")
        assert vm(cold, "web0")["state"] == "ready"  # its walk is not over
    with cold.events() as events:
        events.wait_state("web0", "running")
    assert vm(cold, "web0").get("last_exit") is None
    cold.http("vmstated", "POST", "/vms/web0/stop", {"force": True})


def test_lock_without_state_is_never_started_again(cold):
    """All state lost, the guest alive: its lock keeps a second one from being started."""
    cold.use_fake_qemu()
    cold.write_definition("web0", small())
    cold.start("vmstated", "vminfod")
    cold.http("vmstated", "POST", "/vms/web0/start", {})
    one = vm(cold, "web0")
    cold.kill9("vmstated")
    for name in ("vmstated.state", "started.json"):
        (cold.run_dir(one["uuid"]) / name).unlink()
    cold.start("vmstated")
    reply = cold.http("vmstated", "POST", "/vms/web0/start", {})
    assert reply.status != 200 and "held" in reply.json()["error"]["message"], reply
    assert start_time(one["pid"])
    os.kill(one["pid"], signal.SIGKILL)


@pytest.mark.parametrize("hook", ["running", "stopping"])
def test_guest_ends_while_away_and_a_hook_is_at_it(cold, hook):
    """The hook that still runs is waited for; the walk of the end comes after it, once."""
    cold.use_fake_qemu()
    cold.write_definition("web0", small(), hooks=hooks())
    cold.start("vmstated", "vminfod")
    gate = Gate(cold, "web0", hook)
    cold.http("vmstated", "POST", "/vms/web0/start", {"wait": hook == "stopping"})
    if hook == "stopping":
        cold.http("vmstated", "POST", "/vms/web0/stop", {"wait": False})
    wait_trace(cold, "web0", hook)
    one = vm(cold, "web0")
    assert one["hook"]
    cold.kill9("vmstated")
    pidfd = os.pidfd_open(one["pid"])
    os.kill(one["pid"], signal.SIGKILL)
    assert wait_reaped(pidfd, 5)
    os.close(pidfd)
    cold.start("vmstated")
    assert vm(cold, "web0")["hook"].endswith("/" + hook)
    gate.open()
    with cold.events() as events:
        events.wait_vm("web0", lambda o: o["supervisor_state"] == "STOPPED", 10, "STOPPED")
    wait_settled(cold, "web0")
    assert trace(cold, "web0") == START + STOP
    gate.close()


def test_back_off_is_kept_over_sigkill(cold):
    """A crash, a restart that waits for its turn, and no vmstated: the turn comes all the same."""
    cold.use_fake_qemu({"timeline": [{"when": "inject-nmi", "delay_ms": 10, "exit": 3}]})
    cold.write_definition("web0", small(maxrestart=1, maxrestarttime=6))
    cold.start("vmstated", "vminfod")
    cold.http("vmstated", "POST", "/vms/web0/start", {})
    with cold.events() as events:
        first = events.wait_state("web0", "running")
        Qmp(cold, first["uuid"]).send("inject-nmi")
        events.wait_vm("web0", lambda o: o.get("init_restarts") == 1, 10, "restart planned")
    cold.kill9("vmstated")
    cold.start("vmstated")
    with cold.events() as events:
        again = events.wait_state("web0", "running", 10)
    assert again["zoneid"] == first["zoneid"] + 1
    cold.vmstatedctl("stop", "-F", "web0")
