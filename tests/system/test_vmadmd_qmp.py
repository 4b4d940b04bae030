# SPDX-License-Identifier: Apache-2.0
"""vmadmd against QEMUs that lie, hang and die: every request has its answer within its deadline."""

import json
import os
import pwd
import signal
import time

import drover
import pytest
from test_vmadmd import act, ask_as, call, create, message

NAMES = {"status": "query-status", "version": "query-version", "chardev": "query-chardev",
         "block": "query-block", "blockstats": "query-blockstats", "cpus": "query-cpus-fast",
         "pci": "query-pci", "kvm": "query-kvm", "spice": "query-spice"}
DEADLINE_S = 5.0
SLACK_S = 2.5


def fake(suite, script, *names):
    """Running VMs whose QEMU is scripted; their uuids."""
    suite.use_fake_qemu()
    if names:
        for name in names[1:]:
            suite.use_fake_qemu({}, name)
        suite.use_fake_qemu(script, names[0])
    suite.start()
    made = [create(suite, suite.payload(name, autoboot=True, vnc_port=-1)) for name in names]
    assert all(vm["state"] == "running" for vm in made)
    return [vm["uuid"] for vm in made]


def timed(suite, method, target):
    began = time.monotonic()
    reply = suite.http("vmadmd", method, target)
    return reply, time.monotonic() - began


def trace_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_refused_queries_are_null(cold):
    """Each type alone and all together, with QEMU refusing every query: null, in order, 200."""
    script = {"commands": {f"qmp:{command}": {"error": {"class": "GenericError", "desc": "no"}}
                           for command in NAMES.values()}}
    uuid, = fake(cold, script, "web0")
    everything = call(cold, "GET", f"/vm/{uuid}").json()
    assert list(everything) == ["status", "version", "chardev", "block", "blockstats", "cpus",
                                "pci", "kvm", "vnc", "spice"]
    assert {key: everything[key] for key in NAMES} == {key: None for key in NAMES}
    assert everything["vnc"] == {}
    for kind in NAMES:
        assert call(cold, "GET", f"/vm/{uuid}?type={kind}").json() == {kind: None}


def test_answers_of_the_wrong_kind(cold):
    """Numbers, texts and objects where lists belong: null or as they are, never a crash."""
    kinds = [7, "text", {}, [7, None, {"qdev": 3, "stats": [], "cpu-index": "x"}], None, True]
    script = {"commands": {f"qmp:{command}": [{"reply": kind} for kind in kinds]
                           for command in NAMES.values()}}
    uuid, = fake(cold, script, "web0")
    for _ in kinds:
        reply = call(cold, "GET", f"/vm/{uuid}").json()
        assert len(reply) == 10
    call(cold, "GET", "/stats")


@pytest.mark.parametrize("how", [
    {"raw": "{\"return\": \x01garbage\r\n"}, {"half": True}, {"wrong_id": True}, {"hang": True},
    {"close": True, "hang": True}, {"raw": "x" * 70000},
], ids=["garbage", "half", "wrong-id", "hang", "close", "endless"])
def test_one_bad_answer(cold, how):
    """A bounded error that names VM; the other VM is served at once meanwhile and afterwards."""
    script = {"commands": {"qmp:query-pci": [how, {}]}}
    bad, good = fake(cold, script, "web0", "web1")
    asking = drover.UnixHTTPConnection(cold.socket("vmadmd"), 20)
    began = time.monotonic()
    asking.request("GET", f"/vm/{bad}?type=pci")
    reply, took = timed(cold, "GET", f"/vm/{good}")
    assert reply.status == 200 and took < 1
    answer = asking.getresponse()
    text = answer.read().decode()
    asking.close()
    assert time.monotonic() - began < DEADLINE_S + SLACK_S
    assert answer.status in (500, 504) and "web0" in text, (answer.status, text)
    assert call(cold, "GET", f"/vm/{good}?type=pci").json() == {"pci": []}


@pytest.mark.parametrize("command, request_", [
    ("query-version", "GET /vm/{}?type=version"), ("query-block", "GET /vm/{}"),
    ("screendump", "POST /vm/{}?action=sysrq&request=screenshot"),
    ("inject-nmi", "POST /vm/{}?action=sysrq&request=nmi"),
    ("send-key", "POST /vm/{}?action=send_key&keys=ctrl-alt-delete"),
    ("stop", "POST /vm/{}?action=pause"), ("cont", "POST /vm/{}?action=resume"),
    ("query-blockstats", "GET /stats"),
])
def test_dies_inside(cold, command, request_):
    """QEMU dies of a signal inside a command: the answer comes at once, vmadmd lives."""
    script = {"commands": {f"qmp:{command}": {"hang": True, "signal": 9}}}
    uuid, = fake(cold, script, "web0")
    method, target = request_.format(uuid).split(" ")
    reply, took = timed(cold, method, target)
    assert took < DEADLINE_S
    if target == "/stats":
        assert reply.status == 200
    else:
        assert reply.status in (409, 500), reply
    assert call(cold, "GET", "/ping").status == 200


def test_actions_reach_qemu(cold, tmp_path):
    """What each action sends, and what QEMU refuses comes back as its words."""
    trace = tmp_path / "trace"
    script = {"trace": str(trace), "commands": {"qmp:inject-nmi": [
        {}, {"error": {"class": "GenericError", "desc": "machine does not provide NMIs"}}]}}
    uuid, = fake(cold, script, "web0")
    trace.write_text("")
    for query in ["sysrq&request=nmi", "sysrq&request=screenshot",
                  "sysrq&request=screenshot&format=png", "pause", "resume",
                  "send_key&keys=ctrl-alt-f2"]:
        act(cold, uuid, query, 202)
    seen = [(line["execute"], line["arguments"]) for line in trace_of(trace)
            if line["monitor"] == "qmp" and line["execute"] != "qmp_capabilities"
            and not line["execute"].startswith("query-")]  # what vmadmd asks of its own
    shift = {"keys": [{"type": "qcode", "data": "shift"}]}
    assert seen == [
        ("inject-nmi", {}), ("send-key", shift), ("screendump", {"filename": "vm.ppm"}),
        ("send-key", shift), ("screendump", {"filename": "vm.png", "format": "png"}),
        ("stop", {}), ("cont", {}),
        ("send-key", {"keys": [{"type": "qcode", "data": key} for key in ("ctrl", "alt", "f2")]})]
    assert "machine does not provide NMIs" in message(
        act(cold, uuid, "sysrq&request=nmi", 500).json())
    assert "no keys given" in message(act(cold, uuid, "send_key", 400).json())
    many = "-".join("a" * 17)
    assert "at most 16" in message(act(cold, uuid, f"send_key&keys={many}", 400).json())
    assert "want nmi, screenshot or powerdown" in message(act(cold, uuid, "sysrq", 400).json())


def test_no_greeting(cold):
    """A monitor that is silent is bounded, and named."""
    bad, good = fake(cold, {"greeting": {"qmp": "none"}}, "web0", "web1")
    reply, took = timed(cold, "GET", f"/vm/{bad}?type=status")
    assert reply.status in (500, 504) and "web0" in message(reply.json())
    assert took < DEADLINE_S + SLACK_S
    assert call(cold, "GET", f"/vm/{good}").status == 200


def test_stats(suite):
    """Counters of all; one that hangs is there with its age and what the kernel knows of it."""
    made = [create(suite, suite.payload(f"web{i}", autoboot=True, ram=80,
                                        disks=[{"model": "virtio", "size": 8}]))
            for i in range(2)]
    first = {vm["uuid"]: vm for vm in call(suite, "GET", "/stats").json()["vms"]}
    assert set(first) == {vm["uuid"] for vm in made}
    for vm in first.values():
        assert vm["age_ms"] < 500 and vm["cpu"]["time_ns"] > 0
        assert vm["memory"]["rss_bytes"] > 20 << 20
        assert vm["memory"]["balloon_bytes"] == 80 << 20
        assert len(vm["cpu"]["vcpus"]) == 1 and vm["cpu"]["vcpus"][0]["time_ns"] >= 0
        assert vm["block"][0]["device"] == "disk0"
        assert set(vm["block"][0]) == {"device", "rd_bytes", "wr_bytes", "rd_operations",
                                       "wr_operations"}
        assert vm["net"] == []
    stuck = made[0]["uuid"]
    pid = suite.vm(stuck)["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        for limit in (1.0 + SLACK_S, 0.5):  # the second time it is known not to answer
            began = time.monotonic()
            vms = {vm["uuid"]: vm for vm in call(suite, "GET", "/stats").json()["vms"]}
            assert time.monotonic() - began < limit
            assert vms[stuck]["age_ms"] > vms[made[1]["uuid"]]["age_ms"]
            assert vms[stuck]["block"] == first[stuck]["block"]
            assert vms[stuck]["memory"]["rss_bytes"] > 20 << 20
    finally:
        os.kill(pid, signal.SIGCONT)


def test_spellings(cold):
    """The manual's words and the original program's, in the query and in a form's body."""
    uuid, = fake(cold, {}, "web0")
    for target in (f"/vm/{uuid}?type=status", f"/vm/{uuid}/info?types=status",
                   f"//vm/{uuid}/?types=status"):
        assert list(call(cold, "GET", target).json()) == ["status"]
    for name in ("reload_vnc", "reload_display"):
        told = act(cold, uuid, name, 202)
        assert told.body.decode() == f"Sent request to reload VNC for {uuid}"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    reply = cold.http("vmadmd", "POST", f"/vm/{uuid}?action=nothing", "action=reset&wait=1", form)
    assert reply.status == 200, reply
    for bad in ("action=stop&timeout=never", "action=stop&timeout=-1", "action=stop",
                "action=sysrq&request=", "action="):
        reply = cold.http("vmadmd", "POST", f"/vm/{uuid}", bad, form)
        assert reply.status == 400 and message(reply.json()), (bad, reply)
    assert call(cold, "GET", "/vm/nobody", status=404).json()["error"]["code"] == "ENOENT"


def test_reboot_is_forced(cold):
    """A guest that ignores the button is forced at the deadline, and started again."""
    uuid, = fake(cold, {"powerdown_ms": None}, "web0")
    before = cold.vm(uuid)
    began = time.monotonic()
    told = act(cold, uuid, "reboot&timeout=1&wait=1").json()
    assert told["state"] == "running" and 1 <= time.monotonic() - began < 6
    after = cold.vm(uuid)
    assert after["pid"] != before["pid"] and after["zoneid"] != before["zoneid"]
    assert after["last_exit"]["cause"] == "timeout-forced"


@pytest.mark.root
def test_looking_without_secrets(cold):
    """Who may look at everything sees no password, and may not act."""
    cold.use_fake_qemu()
    cold.start("vmstated", "vminfod")
    cold.start("vmadmd", arguments=["--feed-user", "daemon"])
    uuid = create(cold, cold.payload("web0", autoboot=True, vnc_password="secret",
                                     owner="nobody"))["uuid"]
    for user, password in (("daemon", None), ("nobody", "secret")):
        uid = pwd.getpwnam(user).pw_uid
        status, body = ask_as(cold, uid, "GET", f"/vm/{uuid}?type=vnc")
        assert status == 200 and json.loads(body)["vnc"].get("password") == password
    assert ask_as(cold, pwd.getpwnam("daemon").pw_uid, "POST", f"/vm/{uuid}?action=pause")[0] == 403


@pytest.mark.parametrize("how, status", [
    ({"error": {"class": "GenericError", "desc": "Could not set password"}}, 500),
    ({"hang": True}, 500), ({"hang": True, "close": True}, 500)],
    ids=["refuses", "hangs", "closes"])
def test_password_not_taken(cold, how, status):
    """QEMU does not take a password: a clear, bounded refusal, and nothing is changed."""
    uuid, = fake(cold, {"commands": {"qmp:set_password": how}}, "web0")
    config = (cold.etc / uuid / "config").read_text()
    began = time.monotonic()
    reply = cold.http("vmadmd", "PUT", f"/vm/{uuid}", {"vnc_password": "secret", "vnc_port": 0})
    assert reply.status == status and "vnc_password" in message(reply.json()), reply
    assert "nothing was changed" in message(reply.json())
    assert time.monotonic() - began < DEADLINE_S + SLACK_S
    assert (cold.etc / uuid / "config").read_text() == config
    assert call(cold, "GET", f"/vm/{uuid}?type=vnc").json() == {"vnc": {}}
    assert call(cold, "PUT", f"/vm/{uuid}", {"ram": 200}).json()["changes"][0]["new"] == 200
