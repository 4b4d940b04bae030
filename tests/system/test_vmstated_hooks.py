# SPDX-License-Identifier: Apache-2.0
"""Hooks that misbehave, and what the failure of each of them leads to."""

import os
import pathlib
import signal

import pytest

import drover
from vmstated_help import (ALL, CHAIN, NOTE, RESETS, START, STOP, Gate, Qmp, hooks, log_of, small,
                           trace, vm, wait_rest, wait_settled, wait_trace)

@pytest.fixture
def fake(cold):
    cold.use_fake_qemu({"timeline": RESETS})
    cold.start("vmstated", "vminfod")
    return cold


def start(suite, name="web0", **body):
    return suite.http("vmstated", "POST", f"/vms/{name}/start", body)


def stop(suite, name="web0", **body):
    return suite.http("vmstated", "POST", f"/vms/{name}/stop", body)


def start_until(suite, hook, text):
    """Define, bring to the hook and let it fail; a reader of events that saw it all."""
    suite.write_definition("web0", small(onreboot="restart"), hooks=hooks(**{hook: text}))
    events = suite.events()
    reply = start(suite)
    if hook in CHAIN:
        assert reply.status == 200, reply
        Qmp(suite, suite.uuid("web0")).send("inject-nmi")
    elif hook in STOP:
        assert reply.status == 200, reply
        stop(suite, wait=False)
    return events


UNDO_NETWORK = ["stop_network", "stopped", "failed"]
UNDO = ["stop_storage"] + UNDO_NETWORK
# What ran before the hook, and what runs after it failed.
RULES = {
    "start_network": ([], UNDO_NETWORK),
    "start_storage": (START[:1], UNDO),
    "running": (START[:2], STOP + ["failed"]),
    "stopping": (START, STOP[1:] + ["failed"]),
    "stop_storage": (START + STOP[:1], STOP[2:] + ["failed"]),
    "stop_network": (START + STOP[:2], STOP[3:] + ["failed"]),
    "stopped": (START + STOP[:3], ["failed"]),
    **{hook: (START + CHAIN[:i], UNDO) for i, hook in enumerate(CHAIN[:-1])},
    "restarted": (START + CHAIN[:-1], STOP + ["failed"]),
    "failed": (FAILING := ["start_network", "stop_network", "stopped"], []),
}


@pytest.mark.parametrize("hook", ALL)
def test_failure_of_each_hook(fake, hook):
    """Undone in reverse, the rest still run, then FAILED with the hook's name; no guest is left."""
    if hook == "failed":
        fake.write_definition("web0", small(), hooks=hooks(start_network="exit 1",
                                                           failed="exit 4"))
        events = fake.events()
        assert start(fake).status == 500
    else:
        events = start_until(fake, hook, "exit 4")
    with events:
        wait_rest(events, "web0", state="FAILED")
    before, after = RULES[hook]
    wait_settled(fake, "web0")
    assert trace(fake, "web0") == before + [hook] + after
    one = vm(fake, "web0")
    assert "exited with status" in one["failed"]
    assert ("start_network" if hook == "failed" else f"/{hook} ") in one["failed"]
    assert not one.get("pid") and "hook" not in one
    assert f"{hook} exited with status 4" in log_of(fake, "web0")
    assert start(fake).status == 409
    assert fake.http("vmstated", "POST", "/vms/web0/failreset", {}).status == 200
    assert vm(fake, "web0")["supervisor_state"] == "INIT"


@pytest.mark.parametrize("how,text", [("exit 7", "exited with status 7"),
                                      ("kill -SEGV $$", "killed by signal 11"),
                                      ("exec /nowhere/else", "exited with status 127")])
def test_ends_of_a_hook_are_told_apart(fake, how, text):
    fake.write_definition("web0", small(), hooks={"start_network": how})
    reply = start(fake)
    assert reply.status == 500 and "start_network" in reply.json()["error"]["message"]
    assert text in vm(fake, "web0")["failed"]


def test_megabytes_of_output(fake):
    """Five megabytes: a bounded part is logged, the rest counted, and another VM goes on."""
    fake.write_definition("loud", small(), hooks={
        "start_network": f"{NOTE}\nyes 0123456789012345678901234567890 | head -c 5000000"})
    fake.write_definition("quick", small())
    start(fake, "loud", wait=False)
    assert start(fake, "quick").status == 200
    assert start(fake, "loud", wait=True).status in (200, 409)
    with fake.events() as events:
        events.wait_state("loud", "running", 30)
    text = log_of(fake, "loud")
    assert "bytes were not logged" in text
    assert 900_000 < text.count("0123456789012345678901234567890") * 31 < 1_100_000
    for name in ("loud", "quick"):
        stop(fake, name, force=True)


def test_output_without_line_end_and_with_anything_in_it(fake):
    fake.write_definition("web0", small(), hooks={
        "start_network": r"printf 'half\033[2J\001 a line'; head -c 9000 /dev/zero | tr '\0' x"})
    assert start(fake).status == 200
    text = log_of(fake, "web0")
    assert "start_network/out: half" in text and "\x1b" not in text and "\x01" not in text
    assert text.count("x" * 100) >= 1
    stop(fake, force=True)


def test_hook_replaced_while_it_runs(fake):
    """The one that runs ends as it is; the new file counts from the next time on."""
    fake.write_definition("web0", small(), hooks=hooks("start_network"))
    gate = Gate(fake, "web0", "start_network")
    start(fake, wait=False)
    wait_trace(fake, "web0", "start_network")
    fake.write_hook(fake.etc / "web0", "start_network", 'echo new >> "$VM_DIR/trace"')
    gate.open()
    with fake.events() as events:
        events.wait_state("web0", "running")
        assert trace(fake, "web0") == ["start_network"]
        stop(fake, force=True)
    assert start(fake).status == 200
    assert trace(fake, "web0") == ["start_network", "new"]
    stop(fake, force=True)
    gate.close()


def test_hook_removed_while_it_runs(fake):
    fake.write_definition("web0", small(), hooks=hooks(*START))
    gate = Gate(fake, "web0", "start_network")
    start(fake, wait=False)
    wait_trace(fake, "web0", "start_network")
    (fake.etc / "web0" / "start_network").unlink()
    gate.open()
    with fake.events() as events:
        events.wait_state("web0", "running")
    wait_trace(fake, "web0", "running")
    assert trace(fake, "web0") == START
    stop(fake, force=True)
    gate.close()


def test_hang_ends_its_whole_group(fake):
    """A hook over its limit is killed with all it started; what it ignores does not help it."""
    text = f"""trap '' TERM INT HUP
{NOTE}
tail -f /dev/null &
echo $! > "$VM_DIR/child"
wait; tail -f /dev/null"""
    fake.write_definition("web0", small(hooktimeout=2), hooks={"start_network": text})
    start(fake, wait=False)
    pid = int(drover.wait_file(fake.etc / "web0/child", lambda data: data.endswith(b"\n"), 10))
    pidfd = os.pidfd_open(pid)
    with fake.events() as events:
        one = wait_rest(events, "web0", state="FAILED")
    assert drover.wait_readable(pidfd, drover.Deadline(1))
    os.close(pidfd)
    assert "ran longer than 2000 ms and was killed" in one["failed"]


def test_folder_runs_in_order_and_stops_at_the_first_failure(fake):
    note = 'echo "$VM_HOOK" >> "$VM_DIR/trace"'
    fake.write_definition("web0", small(), hooks={
        "start_network": note, "start_network.d/20-b": note, "start_network.d/10-a": note,
        "start_network.d/30-c": f"{note}; exit 1", "start_network.d/40-d": note,
        "start_network.d/.hidden": note, "start_network.d/10-a~": note})
    assert start(fake).status == 500
    assert trace(fake, "web0") == ["start_network", "10-a", "20-b", "30-c"]
    assert "30-c exited with status 1" in vm(fake, "web0")["failed"]


def test_folder_without_a_single_file(fake):
    fake.write_definition("web0", small(), hooks={"running.d/5-only": NOTE})
    assert start(fake).status == 200
    assert trace(fake, "web0") == ["5-only"]
    stop(fake, force=True)


@pytest.mark.root
def test_hook_of_another_user_is_refused(fake):
    """Who may write a hook would be root by it: only root (or the suite's user) may own one."""
    fake.write_definition("web0", small(), hooks=hooks("start_network"))
    os.chown(fake.etc / "web0/start_network", 65534, 65534)
    reply = start(fake)
    message = reply.json()["error"]["message"]
    assert reply.status == 500 and "start_network" in message and "65534" in message, message
    assert trace(fake, "web0") == []


@pytest.mark.parametrize("kind", ["folder", "dangling", "no interpreter"])
def test_hook_that_is_no_program_is_named(fake, kind):
    fake.write_definition("web0", small())
    path = fake.etc / "web0/start_network"
    if kind == "folder":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to("/nowhere/at-all")
    else:
        fake.write_hook(path.parent, path.name, "#!/nowhere/shell\n")
    reply = start(fake)
    if kind == "dangling":
        assert reply.status in (200, 500)
        return
    assert reply.status == 500 and "start_network" in reply.json()["error"]["message"], reply


def test_scriptpath(fake):
    folder = fake.root / "hooks of web0"
    folder.mkdir()
    fake.write_hook(folder, "start_network", NOTE)
    fake.write_definition("web0", small(scriptpath=str(folder)), hooks=hooks("start_network"))
    assert start(fake).status == 200
    assert trace(fake, "web0") == ["start_network"]
    stop(fake, force=True)


def test_guest_ends_while_the_running_hook_is_at_it(fake):
    """One hook at a time: the walk of the end waits for the hook, then runs once."""
    fake.write_definition("web0", small(), hooks=hooks())
    gate = Gate(fake, "web0", "running")
    start(fake, wait=False)
    wait_trace(fake, "web0", "running")
    os.kill(vm(fake, "web0")["pid"], signal.SIGKILL)
    with fake.events() as events:
        events.wait_vm("web0", lambda o: o.get("last_exit"), 10, "the end")
        assert vm(fake, "web0")["hook"].endswith("/running")
        assert trace(fake, "web0") == START
        gate.open()
        wait_rest(events, "web0", state="STOPPED")
    wait_trace(fake, "web0", "stopped")
    assert trace(fake, "web0") == START + STOP
    gate.close()


@pytest.mark.parametrize("force", [False, True])
def test_stop_while_the_running_hook_is_at_it(fake, force):
    fake.write_definition("web0", small(), hooks=hooks())
    gate = Gate(fake, "web0", "running")
    start(fake, wait=False)
    wait_trace(fake, "web0", "running")
    assert stop(fake, wait=False, force=force).status == 202
    assert vm(fake, "web0")["hook"].endswith("/running")
    assert trace(fake, "web0") == START
    gate.open()
    with fake.events() as events:
        one = wait_rest(events, "web0", state="STOPPED")
    wait_trace(fake, "web0", "stopped")
    assert trace(fake, "web0") == START + STOP
    assert one["last_exit"]["cause"] == "admin"
    gate.close()


@pytest.mark.parametrize("hook", ["start_network", "start_storage"])
def test_stop_while_a_start_hook_is_at_it(fake, hook):
    """The guest never runs; what was set up before is taken down, nothing else."""
    fake.write_definition("web0", small(), hooks=hooks())
    gate = Gate(fake, "web0", hook)
    start(fake, wait=False)
    wait_trace(fake, "web0", hook)
    assert stop(fake, wait=False).status == 202
    gate.open()
    with fake.events() as events:
        wait_rest(events, "web0", state="STOPPED")
    wait_trace(fake, "web0", "stopped")
    undo = STOP[2:] if hook == "start_network" else STOP[1:]
    assert trace(fake, "web0") == START[:START.index(hook) + 1] + undo
    gate.close()


def test_start_without_the_folder_of_its_hooks(cold):
    """Whoever names a folder has hooks there: without it nothing is started half made."""
    cold.use_fake_qemu()
    folder = cold.etc / "elsewhere"
    cold.write_definition("web0", small(scriptpath=str(folder)))
    cold.start("vmstated", "vminfod")
    reply = cold.http("vmstated", "POST", "/vms/web0/start", {})
    assert reply.status == 500, reply
    assert f"scriptpath '{folder}': No such file" in reply.json()["error"]["message"], reply
    folder.mkdir()
    assert cold.http("vmstated", "POST", "/vms/web0/failreset", {}).status == 200
    assert cold.http("vmstated", "POST", "/vms/web0/start", {}).status == 200
    folder.rmdir()  # gone while it runs: it is stopped all the same
    assert cold.http("vmstated", "POST", "/vms/web0/stop", {"force": True}).status == 200


def nice_of(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[16])


@pytest.mark.root
def test_nobody_inherits_the_place_ahead_of_guests(fake):
    """vmstated comes before its guests for a core; hooks and QEMU have the usual place."""
    assert os.getpriority(os.PRIO_PROCESS, 0) == 0, "started niced: nothing to see here"
    fake.write_definition("web0", small(), hooks={"start_network": 'nice > "$VM_DIR/place"'})
    with fake.events() as events:
        assert start(fake).status == 200
        pid = events.wait_vm("web0", lambda o: o.get("pid"), 10, "its pid")["pid"]
    assert nice_of(fake.daemons["vmstated"].pid) == -10
    assert (fake.etc / "web0/place").read_text() == "0\n"
    assert nice_of(pid) == 0
    group = pathlib.Path(f"/proc/{pid}/autogroup")
    if group.exists():
        assert group.read_text().endswith("nice 0\n")
