# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of vmstated at any moment: each hook runs exactly once, and its end is never lost."""

import contextlib
import os
import random
import select
import signal

import pytest

import drover
from vmstated_help import (NOTE, START, STOP, Gate, hooks, log_of, small, trace, vm, wait_ended,
                           wait_rest, wait_settled, wait_trace)


def post(suite, name, what, **body):
    return suite.http("vmstated", "POST", f"/vms/{name}/{what}", body)


def pause(milliseconds):
    """Return when so much time has passed: a timer is the source that is waited on."""
    select.poll().poll(milliseconds)


class Walks:
    """VMs that start and stop again and again while vmstated is killed under them."""

    def __init__(self, suite, count, seed):
        self.suite, self.random = suite, random.Random(seed)
        self.names = [f"vm{i}" for i in range(count)]
        suite.use_fake_qemu()
        for name in self.names:
            suite.write_definition(name, small(onfailure="fail"), hooks={
                hook: NOTE for hook in START + STOP})
        self.suite.start("vmstated", "vminfod")

    def kill(self, most_ms):
        pause(self.random.uniform(0, most_ms))
        self.suite.kill9("vmstated")
        self.suite.start("vmstated")

    def round(self, kills, most_ms):
        """All up and down once, with kills in both walks."""
        for what, goal, body in (("start", "RUNNING", {}), ("stop", "STOPPED", {"force": True})):
            for name in self.names:
                post(self.suite, name, what, wait=False, **body)
            for _ in range(kills):
                self.kill(most_ms)
            for name in self.names:
                self.wait(name, goal)

    def wait(self, name, goal):
        """Settled in the state, without a failure."""
        wait_settled(self.suite, name, 30)
        one = vm(self.suite, name)
        assert one["supervisor_state"] == goal and not one.get("failed"), (name, one)

    def judge(self, rounds):
        for name in self.names:
            assert trace(self.suite, name) == (START + STOP) * rounds, name
        for pid in self.suite.guests():  # a probe of the host by one that was killed ends by itself
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
                    what = cmdline.read()
                assert drover.wait_readable(pidfd, drover.Deadline(10)), what
                os.close(pidfd)


def test_hooks_run_once_over_random_kills(cold):
    walks = Walks(cold, 4, 1)
    walks.round(2, 60)
    walks.judge(1)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(4))
def test_hooks_run_once_over_160_kills(cold, seed):
    """Ten rounds of four kills for eight VMs, four times."""
    walks = Walks(cold, 8, seed)
    for _ in range(10):
        walks.round(2, 25 + 60 * seed)
    walks.judge(10)


def held_hook(suite, hook, text="exit 3", **properties):
    """A VM whose hook waits at a gate and then does `text`; vmstated is killed while it waits."""
    suite.use_fake_qemu()
    suite.write_definition("web0", small(**properties), hooks=hooks(**{hook: text}))
    suite.start("vmstated", "vminfod")
    gate = Gate(suite, "web0", hook)
    post(suite, "web0", "start", wait=hook in STOP)
    if hook in STOP:
        post(suite, "web0", "stop", wait=False)
    wait_trace(suite, "web0", hook)
    suite.kill9("vmstated")
    return gate


def end_of_hooks(suite):
    """The hooks of this root that run now, as descriptors to wait on."""
    found = []
    for pid in suite.guests():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as cmdline:
            if b"/etc/vmstated/" in cmdline.read():
                found.append(os.pidfd_open(pid))
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("hook,after", [
    ("start_network", ["stop_network", "stopped", "failed"]),
    ("running", STOP + ["failed"]),
    ("stop_storage", ["stop_network", "stopped", "failed"])])
def test_failed_end_while_away_is_a_failure(cold, hook, after):
    gate = held_hook(cold, hook)
    pidfd = end_of_hooks(cold)
    gate.open()
    assert drover.wait_readable(pidfd, drover.Deadline(10))
    os.close(pidfd)
    cold.start("vmstated")
    with cold.events() as events:
        one = wait_rest(events, "web0", state="FAILED")
    assert f"/{hook} exited with status 3" in one["failed"]
    wait_settled(cold, "web0")
    ran = (START + STOP)[:(START + STOP).index(hook) + 1]
    assert trace(cold, "web0") == ran + after
    gate.close()


def test_hook_and_its_recorder_killed_while_away(cold):
    """Nobody is left to say how it ended: it was killed, which is a failure."""
    gate = held_hook(cold, "start_storage", "true")
    pidfd = end_of_hooks(cold)
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="utf-8") as info:
        pid = next(int(line.split()[1]) for line in info if line.startswith("Pid:"))
    os.killpg(os.getpgid(pid), signal.SIGKILL)
    assert drover.wait_readable(pidfd, drover.Deadline(10))
    os.close(pidfd)
    cold.start("vmstated")
    with cold.events() as events:
        one = wait_rest(events, "web0", state="FAILED")
    assert "start_storage killed by signal 9" in one["failed"]
    assert trace(cold, "web0").count("start_storage") == 1
    gate.close()


def test_limit_passes_while_away(cold):
    """A hook over its limit when a new vmstated comes is ended at once, and named."""
    gate = held_hook(cold, "start_network", hooktimeout=1)
    pause(1000)
    cold.start("vmstated")
    with cold.events() as events:
        one = wait_rest(events, "web0", state="FAILED")
    assert "start_network ran longer than 1000 ms and was killed" in one["failed"]
    gate.close()


def test_signals_to_its_own_group_leave_the_record(cold):
    """A hook may signal its process group; how it ends is known all the same."""
    cold.use_fake_qemu()
    cold.write_definition("web0", small(), hooks={
        "start_network": f"{NOTE}\ntrap : TERM\nkill -TERM 0\nexit 0"})
    cold.start("vmstated", "vminfod")
    assert post(cold, "web0", "start").status == 200
    post(cold, "web0", "stop", force=True)


LEFTOVER = """( exec </dev/null; i=0
  while [ $i -lt 30000 ]; do echo "line of what stayed behind $i"; i=$((i + 1)); done
  echo over > "$VM_DIR/done" ) &"""


@pytest.mark.parametrize("away", [False, True])
def test_what_a_hook_leaves_behind_never_blocks(cold, away):
    """It writes megabytes after its hook ended; also when vmstated was replaced meanwhile."""
    cold.use_fake_qemu()
    cold.write_definition("web0", small(), hooks={"start_network": f"{NOTE}\n{LEFTOVER}"})
    cold.start("vmstated", "vminfod")
    assert post(cold, "web0", "start").status == 200
    if away:
        cold.kill9("vmstated")
        cold.start("vmstated")
    drover.wait_file(cold.etc / "web0/done", lambda data: data == b"over\n", 30, "the end")
    assert "start_network/out: line of what stayed" in log_of(cold, "web0") or away
    post(cold, "web0", "stop", force=True)
    wait_ended(cold, "web0")
