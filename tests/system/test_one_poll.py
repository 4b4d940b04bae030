# SPDX-License-Identifier: Apache-2.0
"""What OpenNebula's monitoring is told, of both eras; VMs that are imported; the installation."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import zlib

import drover
import pytest
from one_host import ACTIONS, Host, probe

INSTALL = drover.TOP / "contrib/opennebula/install"


@pytest.fixture
def host(suite):
    return Host(suite)


def vms(text):
    """The attributes of each VM=[...] line, coded ones as text."""
    found = []
    for line in re.findall(r"^VM *= *\[(.*)\]$", text, re.M):
        one = dict(re.findall(r'(\w+)="(.*?)"', line))
        for key in ("MONITOR", "IMPORT_TEMPLATE"):
            if key in one:
                one[key] = base64.b64decode(one[key], validate=True).decode()
        found.append(one)
    return {one["DEPLOY_ID"]: one for one in found}


def wild(suite, boots=False, **members):
    payload = suite.payload("shop", "drover.modules", disks=[{"size": 8, "model": "virtio"}], vnc_port=0, **members)
    for key in [] if boots else ["kernel", "initrd", "cmdline", "readyline"]:
        payload.pop(key)
    return json.loads(suite.vmadm("create", "--json", stdin=payload).stdout)["uuid"]


def test_states(suite, host):
    """One letter and one word each; what nobody can see is never gone."""
    uuid = wild(suite)
    assert vms(probe(host, "status"))[uuid]["STATE"] == "POWEROFF"
    host.disk(0)
    host.deploy()
    one = suite.uuid("one-7")
    assert probe(host, "status").startswith("SYNC_STATE=yes\nMISSING_STATE=POWEROFF\nVM = ")
    assert vms(probe(host, "status"))["one-7"] == {"ID": "7", "DEPLOY_ID": "one-7", "STATE": "RUNNING"}
    suite.http("vmadmd", "POST", f"/vm/{one}?action=pause&wait=1")
    with suite.events() as events:
        events.wait_vm(one, lambda vm: vm.get("run_state") == "paused")
    assert host.state() == "p" and vms(probe(host, "status"))["one-7"]["STATE"] == "SUSPENDED"
    suite.http("vmadmd", "POST", f"/vm/{one}?action=resume&wait=1")
    suite.kill9("vmstated")
    with suite.events() as events:
        events.wait_vm(one, lambda vm: "vmstated" in vm.get("unknown", {}))
    assert host.state() == "-"
    text = probe(host, "status")
    assert "MISSING_STATE=UNKNOWN" in text and vms(text)["one-7"]["STATE"] == "UNKNOWN"
    assert "VM_POLL" not in probe(host, "host5")
    suite.kill9("vminfod")
    for kind in ("status", "host5"):
        done = subprocess.run([suite.build / "src/one/drover-vmm", "probe", kind], input="", text=True,
                              capture_output=True, env={**os.environ, "DROVER_ROOT": str(suite.root)})
        assert done.returncode == 1 and done.stdout == "" and "cannot reach vminfod" in done.stderr
    suite.start("vmstated", "vminfod")
    host.do("cancel", "one-7")
    assert "one-7" not in vms(probe(host, "status"))


def test_counters_and_sizes(suite, host):
    host.disk(0, 4, "raw").write_bytes(b"x" * (4 << 20))
    (host.dir / "disk.0.snap").mkdir()
    (host.dir / "disk.0.snap/3").write_bytes(b"x" * (2 << 20))
    host.deploy(disks="<DISK><DISK_ID>0</DISK_ID><TARGET>vda</TARGET></DISK>")
    monitor = vms(probe(host, "vm_monitor"))["one-7"]["MONITOR"]
    keys = dict(line.split("=", 1) for line in monitor.splitlines())
    assert set(keys) == set("CPU MEMORY NETRX NETTX DISKRDBYTES DISKWRBYTES DISKRDIOPS DISKWRIOPS "
                            "DISK_SIZE".split())
    assert int(keys["MEMORY"]) > 10000 and keys["DISK_SIZE"] == "[ID=0,SIZE=4]"
    keys = dict(line.split("=", 1) for line in
                vms(probe(host, "vm_monitor"))["one-7"]["MONITOR"].splitlines())
    assert 0 <= float(keys["CPU"]) <= 400
    assert vms(probe(host, "vm_snapshot"))["one-7"]["MONITOR"] == "SNAPSHOT_SIZE=[ID=3,DISK_ID=0,SIZE=2]\n"
    assert "SNAPSHOT_SIZE=[ID=3,DISK_ID=0,SIZE=2]" in host.poll()
    five = probe(host, "host5", "drover-probes", str(host.dir.parent.parent), "4124", "20", "0", "node1")
    assert "VM_POLL=YES\n" in five
    assert re.match(r"STATE=a CPU=[\d.]+ MEMORY=\d+ ", vms(five)["one-7"]["POLL"])
    for key in "HYPERVISOR HOSTNAME ARCH MODELNAME CPUSPEED TOTALCPU USEDCPU FREECPU TOTALMEMORY USEDMEMORY " \
               "FREEMEMORY NETRX NETTX DS_LOCATION_TOTAL_MB DS_LOCATION_USED_MB DS_LOCATION_FREE_MB".split():
        assert re.search(rf"^{key}=\S", five, re.M), key
    host.do("cancel", "one-7")


def test_pushed(suite, host):
    """A change reaches monitord by itself, once the status probe has been run; one process does it."""
    monitord = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    monitord.bind(("127.0.0.1", 0))
    monitord.settimeout(20)
    config = (f"<MONITOR_CONFIGURATION><NETWORK><MONITOR_ADDRESS>127.0.0.1</MONITOR_ADDRESS><PORT>"
              f"{monitord.getsockname()[1]}</PORT></NETWORK><HOST_ID>4</HOST_ID></MONITOR_CONFIGURATION>")

    def told():
        kind, status, number, _, coded = monitord.recv(65536).decode().split()
        assert (kind, status, number) == ("STATE_VM", "SUCCESS", "4")
        text = zlib.decompress(base64.b64decode(coded)).decode()
        return vms(text)["one-7"]["STATE"]

    host.disk(0)
    for _ in range(2):
        probe(host, "status", "drover", "4", "node1", stdin=config)
    deadline, listeners = drover.Deadline(10), []
    while not listeners:  # the second run has not started another
        assert not deadline.over()
        listeners = suite.http("vminfod", "GET", "/status").json()["eventsListeners"]
    assert len(listeners) == 1
    host.deploy()
    assert told() == "RUNNING"
    os.kill(suite.vm(suite.uuid("one-7"))["pid"], signal.SIGKILL)
    assert told() in ("FAILURE", "POWEROFF")
    suite.kill9("vminfod")  # with its stream the process ends
    monitord.close()


def test_pushed_to_collectd(suite, host):
    """Older cores get the whole report at each change; a VM that went is named in it once."""
    collectd = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    collectd.bind(("127.0.0.1", 0))
    collectd.settimeout(20)
    arguments = ["host5", "drover-probes", str(host.dir.parent.parent), str(collectd.getsockname()[1]), "60", "4",
                 "node1"]

    def told():
        kind, status, number, coded = collectd.recv(65536).decode().split()
        assert (kind, status, number) == ("MONITOR", "SUCCESS", "4")
        text = zlib.decompress(base64.b64decode(coded, validate=True)).decode()
        assert "\nTOTALCPU=" in text and "\nTOTALMEMORY=" in text and "VM_POLL=YES\n" in text
        return vms(text)

    uuid = wild(suite)
    host.disk(0)
    host.env["SSH_CLIENT"] = "127.0.0.1 40000 22"
    probe(host, *arguments)
    deadline = drover.Deadline(10)
    while not suite.http("vminfod", "GET", "/status").json()["eventsListeners"]:
        assert not deadline.over()
    host.deploy()
    first = told()
    assert first["one-7"]["POLL"] == "STATE=a" and "IMPORT_TEMPLATE" in first[uuid]
    os.kill(suite.vm(suite.uuid("one-7"))["pid"], signal.SIGKILL)
    while (last := told())["one-7"]["POLL"] != "STATE=d":
        assert last["one-7"]["POLL"] in ("STATE=a", "STATE=e")
    suite.kill9("vminfod")  # with its stream the process ends
    collectd.close()


def test_system(suite, host):
    uuid = wild(suite)
    config = f"<MONITOR_CONFIGURATION><DATASTORE_LOCATION>{host.dir.parent.parent}</DATASTORE_LOCATION>" \
             "</MONITOR_CONFIGURATION>"
    (host.dir.parent / ".monitor").touch()
    text = probe(host, "system", "drover", "3", "node1", stdin=config)
    assert re.search(rf"^TOTALCPU={100 * os.cpu_count()}$", text, re.M) and "DS = [ ID=0, USED_MB=" in text
    one = vms(text)[uuid]
    assert one["ID"] == "-1" and 'NAME="shop"' in one["IMPORT_TEMPLATE"]
    assert f'DEPLOY_ID="{uuid}"' in one["IMPORT_TEMPLATE"] and "MEMORY=128" in one["IMPORT_TEMPLATE"]
    assert re.search(r"^USEDMEMORY=\d+$", probe(host, "monitor"), re.M)
    assert probe(host, "beacon").strip().isdigit()
    assert "there is no probe 'x'" in subprocess.run(
        [suite.build / "src/one/drover-vmm", "probe", "x"], input="", capture_output=True, text=True).stderr


def actions_of_block():
    block = re.search(r'IMPORTED_VMS_ACTIONS = \\"(.*?)\\"', INSTALL.read_text()).group(1)
    return set(block.replace(" ", "").split(","))


def test_imported(suite, host):
    """Every word of our VM_MAD block, on a VM the core did not deploy; its definition stays."""
    (host.remotes / "etc/vmm/drover/droverrc").write_text("SHUTDOWN_TIMEOUT=1\n")
    uuid = wild(suite)
    disk, file = host.disk(3, 4, "raw"), host.dir / "checkpoint"
    text = host.message(host.vm("<DISK><ATTACH>YES</ATTACH><DISK_ID>3</DISK_ID><TARGET>vdd</TARGET></DISK>"
                                "<NIC><ATTACH>YES</ATTACH><MAC>02:00:00:00:00:09</MAC><BRIDGE>user</BRIDGE></NIC>"))
    suite.vmadm("start", uuid)
    words = {
        "disk-attach": ("attach_disk", uuid, disk, "vdd", 3), "nic-attach":
        ("attach_nic", uuid, "02:00:00:00:00:09", "user", "-", "x", "t"),
        "reboot-hard": ("reset", uuid), "snapshot-create": ("snapshot_create", uuid, 0),
        "suspend": ("save", uuid, file, "node1"), "resume": ("restore", file, "node1", uuid),
        "snapshot-delete": ("snapshot_delete", uuid, "snap-0"),
        "terminate": ("shutdown", uuid, "node1"), "terminate-hard": ("cancel", uuid),
    }
    # No guest is there to let go of a device or to reboot: that is below.
    assert actions_of_block() == set(words) | WITH_A_GUEST
    # A raw disk keeps no snapshot; it comes after it.
    order = ["snapshot-create", "reboot-hard", "suspend", "resume", "snapshot-delete", "disk-attach",
             "nic-attach", "terminate", "terminate-hard"]
    for word in order:
        if word == "terminate-hard":
            suite.vmadm("start", uuid)
        host.do(*words[word], stdin=text)
        want = "stopped" if word in ("suspend", "terminate", "terminate-hard") else "running"
        assert suite.vm(uuid)["state"] == want, word
    assert len(suite.vm(uuid)["disks"]) == 2 and len(suite.vm(uuid)["nics"]) == 1


WITH_A_GUEST = {"disk-detach", "nic-detach", "reboot"}


@pytest.mark.campaign
def test_imported_with_a_guest(suite, host):
    uuid = wild(suite, boots=True)
    disk = host.disk(3, 4, "raw")
    text = host.message(host.vm("<DISK><ATTACH>YES</ATTACH><DISK_ID>3</DISK_ID><TARGET>vdd</TARGET></DISK>"
                                "<NIC><ATTACH>YES</ATTACH><MAC>02:00:00:00:00:09</MAC><BRIDGE>user</BRIDGE></NIC>"))
    suite.vmadm("start", uuid)
    suite.console_wait(uuid, "GUEST-UP", 60)
    host.do("attach_disk", uuid, disk, "vdd", 3, stdin=text)
    host.do("attach_nic", uuid, "02:00:00:00:00:09", "user", "-", "x", "t", stdin=text)
    done = set()
    for word, action in (("disk-detach", ("detach_disk", uuid, disk, "vdd", 3)),
                         ("nic-detach", ("detach_nic", uuid, "02:00:00:00:00:09"))):
        host.do(*action, stdin=text)
        done.add(word)
    vm = suite.vm(uuid)
    assert len(vm["disks"]) == 1 and vm["nics"] == []
    with suite.events() as events:
        host.do("reboot", uuid, "node1", stdin=text)
        done.add("reboot")
        events.wait_vm(uuid, lambda seen: seen.get("pid") not in (None, vm["pid"]) and
                       seen["state"] == "running", 60)
    assert done == WITH_A_GUEST and not suite.vm(uuid).get("transient")
    host.do("cancel", uuid)
    assert suite.vm(uuid)["state"] == "stopped" and disk.exists()


@pytest.mark.parametrize("era", [5, 6])
def test_install(suite, host, tmp_path, era):
    one = tmp_path / "front"
    stock = one / "var/remotes"
    (stock / ("im/kvm-probes.d/host" if era == 6 else "im/kvm-probes.d")).mkdir(parents=True)
    (stock / "im/kvm.d").mkdir()
    (stock / "im/kvm.d/client.sh").write_text("#!/bin/sh\n")
    (stock / "vmm/kvm").mkdir(parents=True)
    (stock / "vmm/kvm/save.ceph").write_text("#!/bin/sh\n")
    (one / "etc").mkdir()
    (one / "etc/oned.conf").write_text('VM_MAD = [\n    NAME = "kvm" ]\n')

    def install(*arguments):
        return subprocess.run([INSTALL, "--program", suite.build / "src/one/drover-vmm", *arguments], text=True,
                              capture_output=True, check=True, env={**os.environ, "ONE_LOCATION": str(one)}).stdout

    assert "VM_MAD = [" in install() and "drover" not in (one / "etc/oned.conf").read_text()
    for _ in range(2):
        install("--configure")
    assert (one / "etc/oned.conf").read_text().count('NAME           = "drover"') == 1
    im = (one / "etc" / ("oned.conf" if era == 5 else "monitord.conf")).read_text()
    assert im.count("IM_MAD") == 1
    assert sorted(os.listdir(stock / "vmm/drover")) == sorted([*ACTIONS, "save.ceph"])
    done = subprocess.run([stock / "vmm/drover/poll", "one-1", "node1"], input="", text=True, capture_output=True,
                          env={**os.environ, "DROVER_ROOT": str(suite.root)}, check=True)
    assert done.stdout == "STATE=d\n"
    found = {str(path.relative_to(stock / "im/drover-probes.d").parent)
             for path in (stock / "im/drover-probes.d").rglob("*.sh")}
    assert found == ({"."} if era == 5 else {"host/beacon", "host/system", "host/monitor", "vm/status",
                                             "vm/monitor", "vm/snapshot", "vm/execution"})
    for path in (stock / "im/drover-probes.d").rglob("*.sh"):
        subprocess.run([path, "drover", "0", "node1"], input="", text=True, check=True, capture_output=True,
                       env={**os.environ, "DROVER_ROOT": str(suite.root), "DROVER_ONE_REMOTES": str(tmp_path)})
    install("--remove")
    assert not (stock / "vmm/drover").exists() and (stock / "vmm/kvm/save.ceph").exists()
