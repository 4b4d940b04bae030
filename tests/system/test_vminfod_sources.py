# SPDX-License-Identifier: Apache-2.0
"""Where vminfod knows things from, when they are silent, wrong, or go away."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading

import drover
import pytest

UUID = "2f5f1a7e-6a1b-4b7e-9a51-7f2a3c4d5e6f"


def body(ram=128, more=""):
    return f'uuid = "{UUID}"; ram = {ram}; autoboot = no; {more}'


def status(suite):
    return suite.http("vminfod", "GET", "/status?full=1").json()


def scan(suite):
    """Ask for a round of the scan; its row of the log."""
    before = status(suite)["refreshLog"][-1]["ended"]
    suite.daemons["vminfod"].send(signal.SIGHUP)
    deadline = drover.Deadline(10)
    while True:
        row = status(suite)["refreshLog"][-1]
        if row["ended"] != before:
            return row
        assert not deadline.over()


def has_hooks(suite):
    """Was this build made with -Dtest_hooks=true?"""
    return b"DROVER_TEST_DEAF" in suite.binary("vminfod").read_bytes()


def test_host_facts(cold):
    (cold.root / "etc").mkdir()
    (cold.root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (cold.root / "etc/os-release").write_text('NAME="Some"\nID=some\nVERSION_ID="12"\n')
    cold.write_definition("web0", body())
    cold.start("vminfod")
    vm = cold.vm(UUID)
    assert vm["server_uuid"] == "01234567-89ab-cdef-0123-456789abcdef"
    assert vm["platform_buildstamp"] == "some-12" and "datacenter_name" not in vm
    host = cold.etc / "host.json"
    with cold.events() as events:
        host.write_text(json.dumps({"datacenter_name": "dc1", "headnode_id": "h",
                                    "server_uuid": UUID}))
        vm = cold.vm(UUID)
        assert (vm["datacenter_name"], vm["headnode_id"], vm["server_uuid"]) == ("dc1", "h", UUID)
        events.wait_vm("web0", lambda vm: vm.get("datacenter_name") == "dc1")
        host.write_text("{")
        assert any(p["file"] == "host.json" for p in status(cold)["problems"])
        host.unlink()
        assert "datacenter_name" not in cold.vm(UUID)
        assert not status(cold)["problems"]


def links(suite):
    host = status(suite)["host"]
    assert "unknown" not in host
    return {link["name"]: link for link in host["links"]}


def test_links(cold):
    cold.start("vminfod")
    found = links(cold)
    assert sorted(found) == sorted(os.listdir("/sys/class/net"))
    assert found["lo"]["index"] == int(open("/sys/class/net/lo/ifindex", encoding="ascii").read())
    assert all(link["mtu"] > 0 and link["state"] for link in found.values())


@pytest.mark.root
def test_links_come_and_go(cold):
    """The list is exact at once, with vminfod confined long since."""
    name = f"dr{os.getpid()}"

    def ip(*words):
        return subprocess.run(["ip", "link", *words], capture_output=True, check=False).returncode

    cold.start("vminfod")
    before = links(cold)
    if not shutil.which("ip") or ip("add", name, "type", "bridge"):
        pytest.skip("no bridge can be made here")
    try:
        made = links(cold)[name]
        assert made["kind"] == "bridge" and len(made["mac"]) == 17
        assert ip("set", name, "mtu", "1400") == 0
        assert links(cold)[name]["mtu"] == 1400
        assert ip("set", name, "name", f"{name}x") == 0
        assert f"{name}x" in links(cold) and name not in links(cold)
        if ip("add", f"{name}d", "type", "dummy") == 0:
            assert ip("set", f"{name}d", "master", f"{name}x") == 0
            assert links(cold)[f"{name}d"]["master"] == f"{name}x"
            assert ip("set", f"{name}d", "nomaster") == 0
            assert "master" not in links(cold)[f"{name}d"]
    finally:
        for each in (f"{name}d", name, f"{name}x"):
            ip("del", each)
    assert links(cold).keys() == before.keys()


@pytest.mark.parametrize("deaf", ["vminfod", "vmadmd"])
def test_silent_kernel(cold, deaf):
    """Without a single event from the kernel a command's success still means: visible."""
    if not has_hooks(cold):
        pytest.skip("needs a build with -Dtest_hooks=true")
    for name in ("vmstated", "vminfod", "vmadmd"):
        if name in ("vminfod", deaf):
            cold.env["DROVER_TEST_DEAF"] = "1"
        cold.start(name)
        cold.env.pop("DROVER_TEST_DEAF", None)
    cold.vmadm("create", stdin={"uuid": UUID, "alias": "web0", "ram": 128, "autoboot": False})
    for ram in (130, 131, 132):
        cold.vmadm("update", UUID, f"ram={ram}")
        assert cold.vm(UUID)["ram"] == ram
    cold.vmadm("update", UUID, stdin={"set_tags": {"k": "v"}})
    assert cold.vm(UUID)["tags"] == {"k": "v"}
    # An editor's change is found by the scan, logged and counted.
    lost = status(cold)["files"]["lost"]
    assert lost >= 4
    tags = cold.data_dir(UUID) / "config/tags.json"
    tags.write_text('{"k":"w"}')
    assert cold.vm(UUID)["tags"] == {"k": "v"}
    with cold.events(query="?cause=1") as events:
        row = scan(cold)
        record = events.wait(lambda ev: ev["type"] == "modify")
        assert record["cause"] == {"by": "scan"} and record["vm"]["tags"] == {"k": "w"}
    assert row["lost"] == 1 and row["slices"] >= 1
    assert any(c["prettyPath"] == "tags.k" for c in row["cacheChanges"])
    assert [(c["zonename"], c["action"]) for c in row["vmChanges"]] == [(UUID, "modify")]
    assert status(cold)["files"]["lost"] == lost + 1
    assert "no event told of" in cold.daemons["vminfod"].output()


def test_overflow(cold):
    """More events than the kernel keeps: noticed, counted, and read again in slices; an answer
    about one VM waits for that VM alone, one about all is as exact."""
    limit = int(open("/proc/sys/fs/inotify/max_queued_events", encoding="ascii").read())
    if limit > 20000:
        pytest.skip("fs.inotify.max_queued_events is large here")
    names = [f"web{i}" for i in range(200)]
    for name in names:
        cold.write_definition(name, "ram = 64;")
    cold.write_definition("c", body())
    cold.start("vminfod")
    daemon = cold.daemons["vminfod"]

    def flood(ram):
        daemon.send(signal.SIGSTOP)
        for i in range(limit // 2):
            for name in names[:3]:
                os.utime(cold.etc / name / "config", (1, i))
        cold.write_definition("c", body(ram))
        cold.write_definition(f"new{ram}", "ram = 64;")
        daemon.send(signal.SIGCONT)

    flood(199)
    assert cold.vm(UUID)["ram"] == 199
    row = settled(cold)
    assert row["slices"] > 2 and row["lost"] >= 2
    files = status(cold)["files"]
    assert files["overflows"] == 1 and files["slices"] >= row["slices"]
    everything = cold.http("vminfod", "GET", "/vms?fields=alias").json()
    assert {"alias": "new199"} in everything and len(everything) == 202

    flood(198)
    (ram,) = [vm["ram"] for vm in cold.http("vminfod", "GET", "/vms").json() if vm["alias"] == "c"]
    assert ram == 198 and not status(cold)["files"]["doubtful"]
    assert settled(cold)["lost"] >= 2 and status(cold)["files"]["overflows"] == 2


def settled(suite):
    """The row of the log of the round that follows lost events."""
    deadline = drover.Deadline(10)
    while True:
        row = status(suite)["refreshLog"][-1]
        if row["lost"] and not status(suite)["files"]["doubtful"]:
            return row
        assert not deadline.over()


def test_scan_is_cut_in_slices(cold):
    """Whatever a round finds, names or files, it stops after half a millisecond and goes on later."""
    for i in range(600):
        cold.write_definition(f"web{i}", "ram = 64;")
    cold.start("vminfod")
    row = scan(cold)
    assert row["lost"] == 0 and row["vmChanges"] == []
    assert row["longestUs"] > 0 and row["slices"] > 2
    assert status(cold)["numVms"] == 600


def test_withheld_changes_are_the_queue(suite):
    shown = status(suite)["queue"]
    assert shown["idle"] is True and shown["vasync_queue"]["nqueued"] == 0


def test_unreadable_disk_is_unknown(cold):
    image = cold.root / "a.qcow2"
    image.write_bytes(b"QFI\xfb" + b"\xff" * 200)
    cold.write_definition("web0", body(more=f'disk root {{ path = "{image}"; size = 1G; }}'))
    cold.start("vminfod")
    vm = cold.vm(UUID)
    assert vm["disks"][0]["size"] == 1024 and "missing" not in vm["disks"][0]
    assert "disks" in vm["unknown"]
    image.write_bytes(b"x" * 4096)
    assert "disks" not in cold.vm(UUID).get("unknown", {})


def metrics(suite):
    """{name with labels: value} of /metrics, whose form is checked."""
    reply = suite.http("vminfod", "GET", "/metrics")
    assert reply.status == 200 and reply.headers["Content-Type"].startswith("text/plain")
    found, types = {}, {}
    for line in reply.body.decode().splitlines():
        if line.startswith("#"):
            kind, name = line.split()[1:3]
            types.setdefault(name, []).append(kind)
            continue
        key, value = line.rsplit(" ", 1)
        assert key not in found and types[key.split("{")[0]] == ["HELP", "TYPE"], line
        found[key] = float(value)
    return found


STATS = {"vms": [{"uuid": UUID, "age_ms": 1500,
                  "cpu": {"time_ns": 2500000000, "vcpus": [{"time_ns": 10}, {"time_ns": 20}]},
                  "memory": {"rss_bytes": 4096},
                  "block": [{"device": "disk\"0", "rd_bytes": 7, "wr_bytes": 8}],
                  "net": [{"device": "tap0", "rx_bytes": 9, "tx_bytes": 10}]}]}


class FakeVmadmd(threading.Thread):
    """Answers each connection with the next of some texts, None: not at all."""

    def __init__(self, suite, answers):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(suite.root / "run/vmadmd.http"))
        self.listener.listen(5)
        self.answers = answers
        self.start()

    def run(self):
        kept = []
        for answer in self.answers:
            peer, _ = self.listener.accept()
            kept.append(peer)
            peer.recv(65536)
            if answer is not None:
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" %
                             (len(answer), answer.encode()))


def test_metrics(cold):
    cold.write_definition("web0", body())
    cold.start("vminfod")
    alone = metrics(cold)
    assert alone[f'drover_vm_state{{uuid="{UUID}",alias="web0",state="unknown"}}'] == 1
    assert alone["drover_vms"] == 1 and alone["drover_vm_stats_up"] == 0
    assert alone['drover_feed_connected{daemon="vmadmd"}'] == 0
    assert alone["drover_lost_events_total"] == 0 and alone["drover_listeners"] == 0
    FakeVmadmd(cold, [json.dumps(STATS), "nonsense", '{"vms":5}', None])
    told = metrics(cold)
    label = f'uuid="{UUID}"'
    for name, value in ((f"vm_stats_age_seconds{{{label}}}", 1.5),
                        (f"vm_cpu_seconds_total{{{label}}}", 2.5),
                        (f'vm_vcpu_seconds_total{{{label},vcpu="1"}}', 2e-8),
                        (f"vm_memory_rss_bytes{{{label}}}", 4096),
                        (f'vm_block_written_bytes_total{{{label},device="disk\\"0"}}', 8),
                        (f'vm_net_received_bytes_total{{{label},device="tap0"}}', 9),
                        ("vm_stats_up", 1)):
        assert told[f"drover_{name}"] == pytest.approx(value), name
    for _ in range(3):  # two that make no sense, one that never comes
        assert metrics(cold)["drover_vm_stats_up"] == 0
