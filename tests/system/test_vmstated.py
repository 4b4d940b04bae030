# SPDX-License-Identifier: Apache-2.0
"""vmstated with real guests: hooks, stops, ends, adoption, bad definitions."""

import json
import os
import signal

import pytest

import drover

HOOKS = ["start_network", "start_storage", "running", "stopping", "stop_storage", "stop_network",
         "stopped"]
NOTE = 'echo "$VM_HOOK $VM_NAME $VM_STATE $VM_EVENT" >> "$VM_DIR/trace"'


def trace(suite, name):
    path = suite.etc / name / "trace"
    return path.read_text().splitlines() if path.exists() else []


def up(suite, events, name, seconds=60):
    """Start and wait until the guest is ready; returns its object."""
    suite.vmstatedctl("start", name)
    return events.wait_vm(name, lambda vm: vm.get("ready"), seconds, "ready")


def ended(events, name, seconds=30):
    """Wait until the guest came to its end and the object says why."""
    return events.wait_vm(name, lambda vm: vm.get("last_exit") and vm["supervisor_state"] in (
        "STOPPED", "FAILED"), seconds, "its end")


def traced(suite, name, count):
    """The trace as soon as it has count lines: the hook of a state runs after the state is seen."""
    drover.wait_file(suite.etc / name / "trace", lambda data: data.count(b"\n") >= count, 10)
    return [line.split()[0] for line in trace(suite, name)]


def end_of(suite, name):
    return suite.http("vmstated", "GET", f"/vms/{name}").json()["last_exit"]


@pytest.mark.smoke
def test_walk_by_hand(suite, guest_images):
    """An editor writes a definition; the next list shows it; start boots; stop is by ACPI."""
    suite.write_definition("web0", suite.guest(), hooks={hook: NOTE for hook in HOOKS})
    assert "web0" in suite.vmadm("list").stdout
    uuid = suite.uuid("web0")
    with suite.events() as events:
        vm = up(suite, events, "web0")
        assert vm["state"] == "running" and vm["pid"] > 0
        suite.vmadm("stop", "web0")
        ended(events, "web0")
        seen = [new for path, _, new in events.changes(uuid) if path == "supervisor_state"]
    assert seen == ["START_NETWORK", "START_STORAGE", "RUNNING", "STOPPING", "STOP_STORAGE",
                    "STOP_NETWORK", "STOPPED"]
    assert [line.split()[0] for line in trace(suite, "web0")] == HOOKS
    end = end_of(suite, "web0")
    assert end["cause"] == "admin" and "guest-shutdown" in end["detail"]
    assert suite.guests() == []


def test_hook_environment_and_output(suite, guest_images):
    text = 'echo "dir=$PWD taps=[$VM_TAPS] pid=[$VM_PID] uuid=$VM_UUID config=$VM_CONFIG"; echo bad >&2'
    suite.write_definition("web0", suite.guest(), hooks={"start_network": text,
                                                          "start_network.d/10-more": "echo more",
                                                          "running": 'echo "pid=[$VM_PID]"'})
    suite.vmstatedctl("start", "web0")
    log = (suite.logs / "web0.log").read_text()
    assert f"start_network/out: dir={suite.etc / 'web0'} taps=[] pid=[] uuid=" in log
    assert "start_network/err: bad" in log
    assert "10-more/out: more" in log
    pid = suite.http("vmstated", "GET", "/vms/web0").json()["pid"]
    assert f"running/out: pid=[{pid}]" in log
    suite.vmstatedctl("stop", "-F", "web0")


@pytest.mark.parametrize("hook,undo", [("start_network", ["stop_network", "stopped", "failed"]),
                                       ("start_storage", ["stop_storage", "stop_network", "stopped",
                                                          "failed"])])
def test_failing_start_hook_undoes_and_fails(suite, hook, undo):
    hooks = {name: NOTE for name in HOOKS + ["failed"]}
    hooks[hook] = NOTE + "; exit 3"
    suite.write_definition("web0", suite.guest(), hooks=hooks)
    done = suite.vmstatedctl("start", "web0", check=1)
    assert f"{hook} exited with status 3" in done.stderr
    vm = suite.http("vmstated", "GET", "/vms/web0").json()
    assert vm["supervisor_state"] == "FAILED"
    names = [line.split()[0] for line in trace(suite, "web0")]
    assert names[names.index(hook) + 1:] == undo
    refused = suite.vmstatedctl("start", "web0", check=5)
    assert "failreset" in refused.stderr
    suite.vmstatedctl("failreset", "web0")
    assert suite.http("vmstated", "GET", "/vms/web0").json()["supervisor_state"] == "INIT"


def test_hanging_hook_is_killed_and_others_go_on(suite, guest_images):
    suite.write_definition("slow", suite.guest(hooktimeout=2), hooks={
        "start_network": "exec tail -f /dev/null"})
    suite.write_definition("quick", suite.guest())
    with suite.events() as events:
        suite.vmstatedctl("--no-wait", "start", "slow")
        up(suite, events, "quick")
        events.wait_state("slow", "failed", 20)
    vm = suite.http("vmstated", "GET", "/vms/slow").json()
    assert "ran longer than 2000 ms" in vm["failed"]
    suite.vmstatedctl("stop", "-F", "quick")


def test_hook_leaves_daemon_holding_its_pipe(suite, guest_images):
    suite.write_definition("web0", suite.guest(), hooks={
        "start_network": "tail -f /dev/null &\nexit 0", "stop_network": "kill %1 2>/dev/null; exit 0"})
    suite.vmstatedctl("start", "web0", seconds=30)
    suite.vmstatedctl("stop", "-F", "web0")


def test_guest_that_ignores_the_button_is_forced(suite, guest_images):
    suite.write_definition("web0", suite.guest("drover.ignore-button"))
    with suite.events() as events:
        up(suite, events, "web0")
        suite.vmstatedctl("stop", "-t", "2", "web0")
        vm = ended(events, "web0")
    assert end_of(suite, "web0")["cause"] == "timeout-forced"
    assert "transition_to" not in vm


def test_guest_ends_by_itself(suite, guest_images):
    suite.write_definition("web0", suite.guest("drover.poweroff=1"), hooks={
        hook: NOTE for hook in HOOKS})
    with suite.events() as events:
        suite.vmstatedctl("start", "web0")
        ended(events, "web0", 60)
    assert end_of(suite, "web0")["cause"] == "guest"
    assert traced(suite, "web0", len(HOOKS)) == HOOKS


def test_guest_killed_from_outside(suite, guest_images):
    suite.write_definition("web0", suite.guest())
    with suite.events() as events:
        vm = up(suite, events, "web0")
        os.kill(vm["pid"], signal.SIGKILL)
        ended(events, "web0")
    end = end_of(suite, "web0")
    assert end["cause"] == "outside" and end["signal"] == 9


def test_guest_reboots_in_place(suite, guest_images):
    hooks = {"restarting": NOTE, "restarted": NOTE}
    suite.write_definition("web0", suite.guest("drover.reboot=6"), hooks=hooks)
    with suite.events() as events:
        vm = up(suite, events, "web0")
        again = events.wait_vm("web0", lambda v: v.get("resets", 0) >= 1, 60, "a reset")
        assert again["pid"] == vm["pid"] and again["state"] == "running"
        suite.vmstatedctl("stop", "-F", "web0")
    assert [line.split()[0] for line in trace(suite, "web0")][:2] == ["restarting", "restarted"]


def test_restart_is_a_new_process(suite, guest_images):
    suite.write_definition("web0", suite.guest())
    with suite.events() as events:
        first = up(suite, events, "web0")
        suite.vmstatedctl("restart", "web0")
        second = events.wait_vm("web0", lambda v: v.get("ready") and v["pid"] != first["pid"], 60)
        assert second["zoneid"] == first["zoneid"] + 1
        suite.vmstatedctl("stop", "-F", "web0")


@pytest.mark.smoke
@pytest.mark.parametrize("daemon", drover.DAEMONS)
def test_sigkill_leaves_guest_and_commands_work_after(suite, guest_images, daemon):
    suite.write_definition("web0", suite.guest())
    with suite.events() as events:
        pid = up(suite, events, "web0")["pid"]
    suite.kill9(daemon)
    os.kill(pid, 0)
    suite.start(daemon)
    with suite.events() as events:
        vm = events.wait_vm("web0", lambda v: v.get("state") == "running" and v.get("pid"))
        assert vm["pid"] == pid
        assert f"{pid}" in suite.vmadm("list", "-o", "pid", "-H").stdout
        suite.vmadm("stop", "web0")
        events.wait_state("web0", "stopped")
    assert suite.guests() == []


def test_sigkill_while_stopping_keeps_the_deadline(suite, guest_images):
    suite.write_definition("web0", suite.guest("drover.ignore-button"))
    with suite.events() as events:
        up(suite, events, "web0")
        suite.vmstatedctl("--no-wait", "stop", "-t", "4", "web0")
        expire = events.wait_vm("web0", lambda v: "transition_expire" in v)["transition_expire"]
        suite.kill9("vmstated")
        suite.start("vmstated")
        vm = events.wait_vm("web0", lambda v: "transition_expire" in v)
        assert abs(vm["transition_expire"] - expire) < 50
        ended(events, "web0", 20)
    assert end_of(suite, "web0")["cause"] == "timeout-forced"


def test_end_while_vmstated_was_away_is_known(suite, guest_images):
    suite.write_definition("web0", suite.guest("drover.poweroff=3"), hooks={"stopped": NOTE})
    with suite.events() as events:
        vm = up(suite, events, "web0")
        pidfd = os.pidfd_open(vm["pid"])
        suite.kill9("vmstated")
        assert drover.wait_readable(pidfd, drover.Deadline(30))
        os.close(pidfd)
        suite.start("vmstated")
        ended(events, "web0")
    assert end_of(suite, "web0")["cause"] == "guest"
    assert traced(suite, "web0", 1) == ["stopped"]


def test_vm_that_dies_at_start_fails_after_its_budget(suite):
    suite.write_definition("web0", "    accel = tcg; maxrestart = 2; maxrestarttime = 60;\n"
                                   '    qemu_extra_opts = "-device no-such-device";\n')
    with suite.events() as events:
        done = suite.vmstatedctl("start", "web0", check=1)
        assert "no-such-device" in done.stderr
        events.wait_state("web0", "failed", 60)
    vm = suite.http("vmstated", "GET", "/vms/web0").json()
    assert "no-such-device" in vm["failed"] and "restarted 2 times" in vm["failed"]


def test_second_daemon_is_refused_by_name(suite):
    pid = suite.daemons["vmstated"].pid
    status, text = suite.refused("vmstated")
    assert status == 1
    assert text.count("\n") == 1 and str(pid) in text and "already running" in text


BROKEN = {
    "syntax": ("web0 {\n  ram = 64\n", "config:1:", 'unmatched'),
    "key": ("web0 {\n  memroy = 2G;\n}\n", "config:2:3", "did you mean 'memory'"),
    "type": ("web0 {\n  vcpus = many;\n}\n", "config:2:11", "vcpus"),
    "bool": ('web0 {\n  autoboot = "yes";\n}\n', "config:2:14", "yes or no"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_definition_is_named_and_others_go_on(suite, case):
    text, where, what = BROKEN[case]
    suite.write_definition("good", suite.guest())
    suite.write_definition("web0", text)
    status = suite.http("vmstated", "GET", "/status").json()
    assert [vm["name"] for vm in status["vms"]] == ["good"]
    [problem] = status["problems"]
    assert where in problem["text"] and what in problem["text"], problem
    assert "good" in suite.vmadm("list").stdout


def test_broken_edit_keeps_the_last_good_definition(suite, guest_images):
    suite.write_definition("web0", suite.guest())
    with suite.events() as events:
        up(suite, events, "web0")
        suite.write_definition("web0", "web0 { ram = ; }")
        vm = events.wait_vm("web0", lambda v: v.get("definition") == "broken")
        assert "config:1:" in vm["definition_error"] and vm["state"] == "running"
        assert "config:1:" in suite.vmstatedctl("reload", check=1).stderr
        suite.vmadm("stop", "web0")
        refused = suite.vmstatedctl("start", "web0", check=None)
        assert refused.returncode != 0 and "broken" in refused.stderr
        suite.write_definition("web0", suite.guest())
        up(suite, events, "web0")
        suite.vmadm("stop", "-F", "web0")


def test_vanished_definition_leaves_the_guest_running(suite, guest_images):
    config = suite.write_definition("web0", suite.guest())
    with suite.events() as events:
        uuid = up(suite, events, "web0")["uuid"]
        config.unlink()
        vm = events.wait_vm("web0", lambda v: v.get("definition") == "missing")
        assert vm["state"] == "running"
        suite.vmstatedctl("stop", uuid)
        events.wait_gone("web0")


def test_duplicate_name_keeps_the_first(suite):
    suite.write_definition("web0", "web0 { ram = 128; }")
    suite.write_definition("web0", "web0 { ram = 256; }", directory="other")
    status = suite.http("vmstated", "GET", "/status").json()
    assert len(status["vms"]) == 1 and len(status["problems"]) == 1
    text = status["problems"][0]["text"]
    assert "web0/config" in text and "other/config" in text


@pytest.mark.parametrize("mode,what", [(0o644, "not executable"), (0o777, "writable by others")])
def test_hook_that_may_not_run_is_named(suite, mode, what):
    suite.write_definition("web0", suite.guest())
    suite.write_hook(suite.etc / "web0", "start_network", "exit 0", mode)
    done = suite.vmstatedctl("start", "web0", check=1)
    assert what in done.stderr and "start_network" in done.stderr


def test_missing_image_is_named(suite):
    suite.write_definition("web0", suite.guest(disk=['root { path = "/nowhere/disk.img"; }']))
    done = suite.vmstatedctl("start", "web0", check=1)
    assert "/nowhere/disk.img" in done.stderr and "disks[0]" in done.stderr


def test_missing_qemu_is_named(cold):
    suite = cold
    suite.env["DROVER_QEMU"] = "/nowhere/qemu-system-x86_64"
    suite.start()
    suite.write_definition("web0", suite.guest())
    done = suite.vmstatedctl("start", "web0", check=1)
    assert "/nowhere/qemu-system-x86_64" in done.stderr and "install" in done.stderr


def test_requests_that_are_no_commands(suite):
    suite.write_definition("web0", suite.guest())
    for method, target, body, status in [
            ("GET", "/vms/nobody", None, 404), ("POST", "/vms/nobody/start", "{}", 404),
            ("POST", "/vms/web0/start", "[1]", 400), ("POST", "/vms/web0/start", "{", 400),
            ("POST", "/vms/web0/stop", json.dumps({"timeout_ms": -1}), 400),
            ("POST", "/vms/web0/stop", "{}", 409), ("POST", "/vms/web0/failreset", "{}", 409),
            ("GET", "/what", None, 404)]:
        reply = suite.http("vmstated", method, target, body)
        assert reply.status == status, (method, target, reply)
        assert reply.json()["error"]["message"]


@pytest.mark.parametrize("where,target", [("vmstated", "/vms/web0/start"), ("vmadmd", "/vms")])
def test_body_of_ten_megabytes_is_refused(suite, where, target):
    sock = drover.unix_connect(suite.socket(where))
    sock.setblocking(True)
    sock.sendall(f"POST {target} HTTP/1.1\r\nHost: localhost\r\n"
                 f"Content-Length: {10 << 20}\r\n\r\n".encode())
    try:
        sock.sendall(b" " * (10 << 20))
    except BrokenPipeError:
        pass  # it need not listen to all of that
    assert sock.recv(4096).startswith(b"HTTP/1.1 413 ")
    sock.close()
