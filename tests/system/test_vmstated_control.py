# SPDX-License-Identifier: Apache-2.0
"""Commands of vmstated beyond single guests: check, logs, order of `after`, shutdown, upgrade."""

import http.client
import os
import subprocess

import pytest

import drover
from vmstated_help import small


def status(suite):
    return {vm["name"]: vm for vm in suite.http("vmstated", "GET", "/status").json()["vms"]}


def start(suite, name):
    reply = suite.http("vmstated", "POST", f"/vms/{name}/start", "{}")
    assert reply.status == 200, reply


def ready(events, name, seconds=60):
    return events.wait_vm(name, lambda vm: vm.get("ready"), seconds, "ready")


def check(suite):
    return subprocess.run([str(suite.binary("vmstated")), "--check", "--root", str(suite.root)],
                          capture_output=True, text=True, env=suite.env, check=False)


def test_check_prints_all_problems_and_starts_nothing(cold):
    cold.write_definition("good", cold.guest())
    done = check(cold)
    assert (done.returncode, done.stdout) == (0, ""), done
    cold.write_definition("one", "one { ram = many; colour = red; }")
    cold.write_definition("two", cold.guest(disk=['root { path = "/nowhere/disk.img"; }']),
                          hooks={"running": "exit 0"})
    os.chmod(cold.etc / "two/running", 0o644)
    cold.write_definition("three", 'three { configfile = "/nowhere/bhyve.conf"; }')
    cold.write_definition("four", cold.guest(scriptpath="/nowhere/hooks", bootrom="/nowhere/rom.fd"))
    cold.write_hook(cold.etc / "good", "stopped.d/10-tell", "true", mode=0o644)
    done = check(cold)
    assert done.returncode == 1
    for text in ("one/config:1:13: ram: 'many'", "colour", "/nowhere/disk.img", "not executable",
                 "/nowhere/bhyve.conf", "four: scriptpath '/nowhere/hooks': No such file",
                 "four: bootrom: '/nowhere/rom.fd': No such file", "stopped.d/10-tell' is not exec"):
        assert text in done.stdout, (text, done.stdout)
    assert "4 virtual machines, 7 problems" in done.stderr  # the two of one in a line
    assert cold.guests() == []


def test_check_of_many_tells_conflicts_and_what_is_ignored(cold):
    for name, vnc, mac in (("a", 5901, 1), ("b", 5902, 2), ("c", 5901, 3), ("d", 5903, 2),
                           ("e", 5901, 5)):
        cold.write_definition(name, f"""{name} {{ vnc_port = {vnc};
            nic net0 {{ bridge = user; mac = "52:54:00:00:00:0{mac}"; }} }}""")
    cold.write_definition("VMSTATED", "\nVMSTATED { tap_min = 10; }")
    done = check(cold)
    assert done.returncode == 1 and "5 virtual machines, 3 problems" in done.stderr, done
    for text in ("is ignored", "VMSTATED/config:2:1: warning: section vmstated"):
        assert text in done.stdout, done.stdout
    for text in (": vnc_port 5901 is taken by", ": 52:54:00:00:00:02 is taken by"):
        assert text in done.stdout, done.stdout


def test_reload_tells_of_a_missing_configfile(suite):
    conf = suite.etc / "one/bhyve.conf"
    suite.write_definition("one", "one { configfile = bhyve.conf; }")
    problems = suite.http("vmstated", "POST", "/reload").json()["problems"]
    assert [one["text"] for one in problems] == [
        f"{suite.etc}/one/config:1: configfile: '{conf}' does not exist"]
    conf.write_text("name=one\n")
    assert suite.http("vmstated", "POST", "/reload").json()["problems"] == []


def reset(suite):
    return suite.http("vmstated", "POST", "/vms/web0/reset", "{}")


def test_reset_is_answered_when_it_was_done_and_seen(cold):
    cold.use_fake_qemu({"commands": {"system_reset": [{}, {"ignore": True, "exit": 1}]}})
    cold.start("vmstated", "vminfod")
    cold.write_definition("web0", small())
    assert reset(cold).status == 409
    start(cold, "web0")
    uuid = cold.uuid("web0")
    done = reset(cold)
    assert done.status == 200 and done.json()["confirmed"] is True, done
    assert cold.http("vminfod", "GET", f"/vms/{uuid}").json()["resets"] == 1
    done = reset(cold)  # QEMU says yes to the second, and ends without doing it
    assert done.status == 500 and "ended before it was reset" in str(done), done


def test_log_of_this_and_the_previous_start(suite, guest_images):
    suite.write_definition("web0", suite.guest(), hooks={"start_network": 'echo "boot is $VM_UUID"'})
    with suite.events() as events:
        for _ in range(2):
            start(suite, "web0")
            ready(events, "web0")
            suite.vmstatedctl("stop", "-F", "web0")
            events.wait_vm("web0", lambda vm: vm["supervisor_state"] == "STOPPED")

    def log(query):
        return suite.http("vmstated", "GET", f"/vms/web0/log{query}").body.decode()

    whole, newest, before = log(""), log("?boot=0"), log("?boot=-1")
    assert whole.count("vmstated: start (") == 2 and whole.endswith(newest)
    assert newest.count("vmstated: start (") == before.count("vmstated: start (") == 1
    assert before + newest == whole and "boot is" in before and "boot is" in newest
    assert log("?boot=-2") == ""
    assert log("?lines=2") == "".join(whole.splitlines(True)[-2:])


def test_log_that_is_followed(suite, guest_images):
    suite.write_definition("web0", suite.guest())
    start(suite, "web0")
    sock = drover.unix_connect(suite.socket("vmstated"))
    sock.sendall(b"GET /vms/web0/log?boot=0&follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    data, deadline = b"", drover.Deadline(60)
    while b"GUEST-UP" not in data:
        assert drover.wait_readable(sock, deadline), data[-500:]
        data += sock.recv(65536)
    assert b" 200 " in data.split(b"\r\n")[0] and b"vmstated: start (" in data
    sock.close()
    suite.vmstatedctl("stop", "-F", "web0")


def test_autostart_in_the_order_of_after(cold, guest_images):
    suite = cold
    suite.write_definition("web0", suite.guest(autostart=True, after=["db0:ready"]))
    suite.write_definition("db0", suite.guest(autostart=True))
    suite.write_definition("idle", suite.guest())
    suite.start("vminfod")
    with suite.events() as events:
        suite.start("vmstated", arguments=("--autostart",))
        web0 = ready(events, "web0")
        db0 = events.find("db0")
        assert db0["ready"] and events.find("idle")["state"] == "stopped"
        assert web0["boot_timestamp"] > db0["boot_timestamp"]
        states = [(event["vm"]["name"], change["path"], change.get("newValue"))
                  for event in events.seen if event["type"] == "modify"
                  for change in event["changes"]]
        assert states.index(("db0", ["ready"], True)) < states.index(
            ("web0", ["supervisor_state"], "RUNNING"))


def test_after_that_never_comes_is_not_waited_for_longer(cold, guest_images):
    suite = cold
    suite.write_definition("web0", suite.guest(autostart=True, after=["nobody"], readytimeout=2))
    suite.start("vminfod")
    with suite.events() as events:
        suite.start("vmstated", arguments=("--autostart",))
        ready(events, "web0")
    assert "without waiting longer" in (suite.logs / "web0.log").read_text()


def test_shutdown_all_in_reverse_order(suite, guest_images):
    suite.write_definition("db0", suite.guest())
    suite.write_definition("web0", suite.guest(after=["db0"]))
    suite.write_definition("stuck", suite.guest("drover.ignore-button"))
    with suite.events() as events:
        for name in ("db0", "web0", "stuck"):
            start(suite, name)
        for name in ("db0", "web0", "stuck"):
            ready(events, name)
        reply = suite.http("vmstated", "POST", "/shutdown-all", '{"timeout_ms": 3000}')
        assert sorted(reply.json()["stopped"]) == ["db0", "stuck", "web0"]
        steps = [(event["vm"]["name"], change.get("newValue")) for event in events.seen
                 if event["type"] == "modify" for change in event["changes"]
                 if change["path"] == ["supervisor_state"]]
        while ("db0", "STOPPED") not in steps:
            assert events.pump(drover.Deadline(10))
            steps = [(event["vm"]["name"], change.get("newValue")) for event in events.seen
                     if event["type"] == "modify" for change in event["changes"]
                     if change["path"] == ["supervisor_state"]]
    assert steps.index(("web0", "STOPPED")) < steps.index(("db0", "STOPPING"))
    ends = {name: vm["last_exit"]["cause"] for name, vm in status(suite).items()}
    assert ends == {"db0": "host-shutdown", "web0": "host-shutdown", "stuck": "timeout-forced"}


def test_shutdown_all_with_a_circle(suite, guest_images):
    suite.write_definition("a", suite.guest(after=["b"]))
    suite.write_definition("b", suite.guest(after=["a"]))
    start(suite, "a")
    start(suite, "b")
    reply = suite.http("vmstated", "POST", "/shutdown-all", '{"timeout_ms": 0}')
    assert sorted(reply.json()["stopped"]) == ["a", "b"]


def test_upgrade_keeps_guests_hooks_and_deadlines(suite, guest_images):
    fifo = suite.root / "hold"
    os.mkfifo(fifo)
    suite.write_definition("web0", suite.guest())
    suite.write_definition("stuck", suite.guest("drover.ignore-button"))
    suite.write_definition("slow", suite.guest(),
                           hooks={"start_network": f'echo ran >> "$VM_DIR/ran"; read x < {fifo}'})
    with suite.events() as events:
        pids = {}
        for name in ("web0", "stuck"):
            start(suite, name)
            pids[name] = ready(events, name)["pid"]
        suite.vmstatedctl("--no-wait", "stop", "-t", "6", "stuck")
        suite.vmstatedctl("--no-wait", "start", "slow")
        drover.wait_file(suite.etc / "slow/ran", lambda data: data == b"ran\n", 10)
        expire = events.wait_vm("stuck", lambda vm: "transition_expire" in vm)["transition_expire"]
        daemon = suite.daemons["vmstated"].pid
        # The feed's socket is made anew: vminfod coming back shows that the new program serves.
        assert suite.http("vmstated", "POST", "/upgrade", "").status == 202
        deadline = drover.Deadline(20)
        while True:
            try:
                now = suite.http("vmstated", "GET", "/status").json()
            except (ConnectionError, http.client.RemoteDisconnected):
                continue  # accepted by the program that went; the next one listens already
            if now["uptime_ms"] < 5000 and all(vm.get("run_state") for vm in now["vms"]
                                               if "pid" in vm):
                break
            assert not deadline.over(), now
        assert now["pid"] == daemon
        vms = status(suite)
        assert {name: vms[name]["pid"] for name in pids} == pids
        assert vms["stuck"]["transition_expire"] == expire
        assert vms["slow"]["supervisor_state"] == "START_NETWORK"
        fifo.write_text("go\n")
        ready(events, "slow")
        events.wait_vm("stuck", lambda vm: vm["supervisor_state"] == "STOPPED", 20)
    assert (suite.etc / "slow/ran").read_text() == "ran\n"
    assert status(suite)["stuck"]["last_exit"]["cause"] == "timeout-forced"
    # Ends of guests are still told: they are children of the new program.
    suite.vmstatedctl("stop", "web0")
    assert status(suite)["web0"]["last_exit"]["status"] == 0


def test_console_history_outlives_vmstated(suite, guest_images):
    suite.write_definition("web0", suite.guest())
    with suite.events() as events:
        start(suite, "web0")
        uuid = ready(events, "web0")["uuid"]
        suite.kill9("vmstated")
        suite.start("vmstated")
        with suite.console(uuid) as one, suite.console(uuid) as two:
            one.wait("GUEST-UP")
            two.wait("GUEST-UP")
            one.send("echo both-$((1+1))\n")
            one.wait("both-2")
            two.wait("both-2")
    suite.vmstatedctl("stop", "-F", "web0")


@pytest.mark.slow
def test_silent_qemu_is_named_and_others_answer(suite, guest_images):
    suite.write_definition("web0", suite.guest())
    suite.write_definition("quick", suite.guest())
    with suite.events() as events:
        for name in ("web0", "quick"):
            start(suite, name)
            ready(events, name)
        pid = events.find("web0")["pid"]
        os.kill(pid, 19)
        vm = events.wait_vm("web0", lambda vm: vm.get("qmp") == "unresponsive", 10)
        assert vm["state"] == "running"
        suite.vmstatedctl("stop", "quick")
        os.kill(pid, 18)
        events.wait_vm("web0", lambda vm: "qmp" not in vm, 70)
    suite.vmstatedctl("stop", "-F", "web0")


def test_detached_daemon_tells_the_truth(cold):
    program = str(cold.binary("vmstated"))
    run = [program, "--root", str(cold.root), "-p", str(cold.root / "other.pid"), "-s",
           str(cold.root / "other.sock")]
    done = subprocess.run(run, capture_output=True, text=True, env=cold.env, timeout=20, check=False)
    assert done.returncode == 0, done
    pid = int((cold.root / "other.pid").read_text())
    pidfd = os.pidfd_open(pid)
    try:
        # It serves when the command returns, in the background and on the socket that was named.
        reply = cold.http("other.sock", "GET", "/status")
        assert reply.json()["pid"] == pid != done.returncode
        again = subprocess.run(run, capture_output=True, text=True, env=cold.env, timeout=20,
                               check=False)
        assert again.returncode == 1
        assert f"already running (pid {pid}" in again.stderr and again.stderr.count("\n") == 1
    finally:
        os.kill(pid, 15)
        assert drover.wait_readable(pidfd, drover.Deadline(10))
        os.close(pidfd)
    broken = subprocess.run([program, "--root", str(cold.root), "-c", "/dev/null/x"],
                            capture_output=True, text=True, env=cold.env, timeout=20, check=False)
    assert broken.returncode == 1 and "/dev/null/x" in broken.stderr
