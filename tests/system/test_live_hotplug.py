# SPDX-License-Identifier: Apache-2.0
"""Disks and NICs in and out of running machines, more room, other media: seen by a real guest."""

import http.client
import json
import os
import signal
import subprocess

import pytest

import drover
from conftest import lifetime
from netns import tables, taps
from test_net import bridge  # noqa: F401
from test_vmadmd_jobs import ended


def call(suite, method, target, body=None):
    return suite.http("vmadmd", method, target, body)


def done(suite, what, body, status=200):
    reply = call(suite, "POST", f"/vm/web0/{what}", body)
    assert reply.status == status, reply
    return reply.json()


def message(reply):
    return reply["error"]["message"]


def raw(suite, name, mib):
    path = suite.root / name
    with open(path, "wb") as file:
        file.truncate(mib << 20)
    return str(path)


def block(suite):
    return {row["device"]: row for row in call(suite, "GET", "/vm/web0?type=block").json()["block"]}


def machine(suite):
    """A guest with all drivers loaded, a disk, a NIC and a CD drive; its console's shell."""
    suite.start()
    root = raw(suite, "root.raw", 8)
    suite.write_definition("web0", suite.guest(
        "drover.modules", nic=['net0 { bridge = user; mac = "52:54:00:00:00:01"; }'],
        disk=[f'root {{ path = "{root}"; }}', "cd { media = cdrom; model = scsi; }"]))
    with suite.events() as events:
        suite.vmstatedctl("start", "web0", seconds=60)
        vm = events.wait_vm("web0", lambda v: v.get("ready"), 60, "ready")
        with drover.Console(suite.run_dir(vm["uuid"]) / "vm.console") as console:
            console.wait("guest# ")
            yield suite, events, Shell(console)
    suite.vmstatedctl("stop", "-F", "web0")


@pytest.fixture(scope="module")
def guest(tmp_path_factory, guest_images):
    """One guest for the tests that leave it as they found it."""
    for suite in lifetime(tmp_path_factory.mktemp("live") / "r"):
        yield from machine(suite)


@pytest.fixture
def own(cold):
    yield from machine(cold)


class Shell:
    """The guest's shell on its console: a command, its output."""

    def __init__(self, console):
        self.console = console
        self.count = 0

    def run(self, command, seconds=20):
        self.count += 1
        self.console.send(f"{command}; echo E''ND{self.count}E\n")
        start = self.console.at
        data = self.console.wait(f"END{self.count}E", seconds)
        return data[start:self.console.at].decode("utf-8", "replace")

    def until(self, test, seconds=20):
        """Wait, in the guest, until test holds."""
        out = self.run(f"i=0; while [ $i -lt 200 ]; do {test} && echo HO''LDS && break; "
                       f"i=$((i+1)); usleep 50000; done", seconds)
        assert "HOLDS" in out, f"{test}: {out}"


def test_disk_in_and_out(guest):
    """A new disk is seen, written and read by the guest, and gone after its removal."""
    suite, events, shell = guest
    path = raw(suite, "data.raw", 16)
    changes = done(suite, "attach", {"disk": {"path": path, "model": "virtio", "serial": "DATA"}})
    assert [c["live"] for c in changes["changes"]] == [True] and changes["confirmed"]
    shell.until("[ -b /dev/vdb ]")
    assert "32768" in shell.run("cat /sys/block/vdb/size") and "DATA" in shell.run(
        "cat /sys/block/vdb/serial")
    shell.run("echo hello-from-guest | dd of=/dev/vdb conv=fsync 2>/dev/null")
    with open(path, "rb") as file:
        assert file.read(16) == b"hello-from-guest"
    vm = suite.vm(suite.uuid("web0"))
    assert [d.get("path") for d in vm["disks"]][-1] == path and not vm.get("pending")
    assert set(block(suite)) == {"disk0", "disk1", "disk2"}
    suite.vmadm("detach", "web0", "disk", path)
    shell.until("[ ! -b /dev/vdb ]")
    assert set(block(suite)) == {"disk0", "disk1"}
    nodes = subprocess.run([str(suite.binary("vmadm")), "--root", str(suite.root), "get", "web0"],
                           capture_output=True, text=True, check=True).stdout
    vm = json.loads(nodes)
    assert path not in nodes and not vm.get("pending") and os.path.exists(path)


def test_update_makes_and_removes_a_disk(guest):
    """vmadm update with add_disks: the image is made, plugged in; remove_disks removes it."""
    suite, events, shell = guest
    done_ = suite.vmadm("update", "web0", stdin={"add_disks": [
        {"size": 32, "model": "virtio"}, {"size": 33, "model": "nvme"}],
        "add_nics": [{"nic_tag": "user", "mac": "52:54:00:00:00:02", "model": "virtio"}]})
    assert "next start" not in done_.stderr + done_.stdout
    shell.until("[ -b /dev/vdb ]")
    shell.until("[ -b /dev/nvme0n1 ]")
    shell.until("grep -q 52:54:00:00:00:02 /sys/class/net/*/address")
    vm = suite.vm(suite.uuid("web0"))
    paths = [d["path"] for d in vm["disks"][-2:]]
    assert all(os.path.exists(path) for path in paths)
    suite.vmadm("update", "web0", stdin={"remove_disks": paths,
                                         "remove_nics": ["52:54:00:00:00:02"]})
    shell.until("[ ! -b /dev/vdb ] && [ ! -b /dev/nvme0n1 ]")
    shell.until("! grep -q 52:54:00:00:00:02 /sys/class/net/*/address")
    assert not any(os.path.exists(path) for path in paths)


@pytest.mark.campaign
def test_next_start_gives_the_same_place(own):
    """A NIC and a disk plugged in are at the same PCI address after the next start."""
    suite, events, shell = own
    path = raw(suite, "data.raw", 16)
    done(suite, "attach", {"disk": {"path": path, "model": "virtio"}})
    done(suite, "attach", {"nic": {"nic_tag": "user", "mac": "52:54:00:00:00:02",
                                   "model": "virtio"}})
    pci = call(suite, "GET", "/vm/web0?type=pci").json()
    uuid = suite.uuid("web0")
    suite.vmstatedctl("stop", "-F", "web0")
    with suite.events() as again:
        suite.vmstatedctl("start", "web0", seconds=60)
        again.wait_vm("web0", lambda v: v.get("ready"), 60, "ready")

    def places(answer):
        return {behind["qdev_id"]: bridge["qdev_id"] for bus in answer["pci"]
                for bridge in bus["devices"] if "pci_bridge" in bridge
                for behind in bridge["pci_bridge"].get("devices", [])}

    again = places(call(suite, "GET", f"/vm/{uuid}?type=pci").json())
    assert again == places(pci) and again["nic1"] == "port1" and again["disk2"] == "port9"


def test_more_room(guest):
    """A disk grows under the guest; smaller and odd sizes are refused."""
    suite, events, shell = guest
    shell.until("[ -b /dev/vda ]")
    suite.vmadm("update", "web0", stdin={"update_disks": [
        {"path": str(suite.root / "root.raw"), "size": 24}]})
    shell.until("[ $(cat /sys/block/vda/size) = 49152 ]")
    assert os.path.getsize(suite.root / "root.raw") == 24 << 20
    suite.vmadm("resize-disk", "web0", "root", "32M")
    shell.until("[ $(cat /sys/block/vda/size) = 65536 ]")
    assert "can only grow" in message(done(suite, "resize", {"disk": "root", "size": 16}, 400))
    assert "no disk 'none'" in message(done(suite, "resize", {"disk": "none", "size": 64}, 404))
    assert "size" in message(done(suite, "resize", {"disk": "root", "size": "x"}, 400))
    vm = suite.vm(suite.uuid("web0"))
    assert vm["disks"][0]["size"] == 32 and not vm.get("pending")


def test_limits_and_cable(guest):
    """Limits, the cable and the balloon apply at once."""
    suite, events, shell = guest
    path = str(suite.root / "root.raw")
    suite.vmadm("update", "web0", stdin={
        "update_disks": [{"path": path, "bps": 1000000, "iops_wr": 50}], "balloon": 100,
        "update_nics": [{"mac": "52:54:00:00:00:01", "link_down": True}]})
    row = block(suite)["disk0"]["inserted"]
    assert row["bps"] == 1000000 and row["iops_wr"] == 50
    shell.run("ip link set eth0 up")
    shell.until("[ $(cat /sys/class/net/eth0/carrier) = 0 ]")
    suite.vmadm("update", "web0", stdin={
        "update_nics": [{"mac": "52:54:00:00:00:01", "link_down": False}]})
    shell.until("[ $(cat /sys/class/net/eth0/carrier) = 1 ]")
    # The VM's own limits: of the disks that have none, together.
    suite.vmadm("update", "web0", stdin={"io_bps": 5000000})
    assert block(suite)["disk0"]["inserted"]["bps"] == 1000000
    suite.vmadm("update", "web0", stdin={"update_disks": [{"path": path, "bps": 0, "iops_wr": 0}],
                                         "balloon": 0})
    row = block(suite)["disk0"]["inserted"]
    assert (row["bps"], row["iops_wr"], row["group"]) == (5000000, 0, "drover")
    suite.vmadm("update", "web0", stdin={"io_bps": 0})
    assert block(suite)["disk0"]["inserted"]["bps"] == 0
    assert not suite.vm(suite.uuid("web0")).get("pending")


@pytest.mark.campaign
def test_limits_after_a_start(own):
    """QEMU is told limits, cable and balloon again when it was started."""
    suite, events, shell = own
    suite.vmadm("update", "web0", stdin={"update_disks": [
        {"path": str(suite.root / "root.raw"), "bps": 1000000}], "balloon": 100})
    suite.kill9("vmadmd")
    suite.vmstatedctl("stop", "-F", "web0")
    suite.vmstatedctl("start", "web0", seconds=60)
    suite.start("vmadmd")
    deadline = drover.Deadline(10)
    while block(suite)["disk0"]["inserted"]["bps"] != 1000000:
        assert not deadline.over()


def test_medium(guest):
    """A CD is put in, changed and ejected; a locked drive only by force."""
    suite, events, shell = guest
    iso = {}
    for name, text in (("one", "first"), ("two", "second")):
        folder = suite.root / name
        folder.mkdir()
        (folder / "name").write_text(text)
        iso[name] = str(suite.root / f"{name}.iso")
        subprocess.run(["xorriso", "-as", "genisoimage", "-quiet", "-V", name, "-J", "-r", "-o",
                        iso[name], str(folder)], check=True, capture_output=True)
    suite.vmadm("medium", "web0", "cd", iso["one"])
    shell.run("mkdir -p /cd")
    shell.until("mount -t iso9660 -o ro /dev/sr0 /cd 2>/dev/null")
    assert "first" in shell.run("cat /cd/name")
    reply = done(suite, "medium", {"disk": "cd", "path": iso["two"]}, 409)
    assert "locked the drive 'cd'" in message(reply)
    assert suite.vm(suite.uuid("web0"))["disks"][1]["path"] == iso["one"]
    shell.run("umount /cd")
    done(suite, "medium", {"disk": "cd", "path": iso["two"]})
    shell.until("mount -t iso9660 -o ro /dev/sr0 /cd 2>/dev/null")
    assert "second" in shell.run("cat /cd/name")
    done(suite, "medium", {"disk": "cd", "force": True})
    assert "inserted" not in block(suite)["disk1"]
    assert "path" not in suite.vm(suite.uuid("web0"))["disks"][1]
    assert "no such file" in message(done(suite, "medium", {"path": "/none"}, 400))


def test_refused_before_anything_is_changed(guest):
    suite, events, shell = guest
    path = raw(suite, "data.raw", 16)
    before = suite.vm(suite.uuid("web0"))
    for what, body, status, text in [
            ("attach", {"disk": {"path": path, "model": "ide"}}, 500, "ide cannot be plugged"),
            ("attach", {"nic": {"nic_tag": "br0", "model": "virtio"}}, 500, "nics[1]: "),
            ("attach", {}, 400, "either disk or nic"),
            ("attach", {"disk": 5}, 400, "want an object"),
            ("detach", {"disk": "none"}, 404, "no disk 'none'"),
            ("detach", {"nic": "52:54:00:00:00:77"}, 404, "no NIC"),
            ("detach", {"nic": 1}, 400, "want a string"),
            ("attach", {"disk": {"path": str(suite.root / "root.raw"), "model": "virtio"}}, 400,
             "root.raw")]:
        assert text in message(done(suite, what, body, status)), (what, body)
    after = suite.vm(suite.uuid("web0"))
    assert before["disks"] == after["disks"] and before["nics"] == after["nics"]
    assert set(block(suite)) == {"disk0", "disk1"}


# --- vmadmd killed at every step: definition and machine agree again ---

LONG = pytest.mark.campaign
MAC = "52:54:00:00:00:02"


def qmp(suite, command, **arguments):
    """Past vmadmd, whose monitor has one client: vmstated's own has another."""
    suite.kill9("vmadmd")
    sock = drover.unix_connect(str(suite.run_dir(suite.uuid("web0")) / "vm.qmp"))
    try:
        lines = sock.makefile("rw")
        lines.readline()
        for name, args in (("qmp_capabilities", {}), (command, arguments)):
            lines.write(json.dumps({"execute": name, "arguments": args}) + "\n")
            lines.flush()
            while "event" in (answer := json.loads(lines.readline())):
                pass
        return answer["return"]
    finally:
        sock.close()
        suite.start("vmadmd")


def killed(suite, place, what, body):
    """Let vmadmd die at that place of a change; its job as it ended after the next start. None:
    it never came there, and was done."""
    suite.env["DROVER_TEST_KILL_AT"] = place
    suite.restart("vmadmd")
    try:
        reply = call(suite, "POST" if what else "PUT", f"/vm/web0{what}", body)
        assert reply.status == 200, (place, reply)
        cut = False
    except (http.client.HTTPException, ConnectionError):
        cut = True
        daemon = suite.daemons["vmadmd"]
        daemon.expected_end = True
        daemon.wait_end()
        suite._retire("vmadmd")
    del suite.env["DROVER_TEST_KILL_AT"]
    suite.restart("vmadmd")
    job = suite.http("vmadmd", "GET", "/jobs").json()["jobs"][0]
    return ended(suite, job["id"], 40) if cut else None


def audit(suite, there):
    """Definition, machine and vmstated agree; there: what the job's word makes of it."""
    uuid = suite.uuid("web0")
    assert not (suite.data_dir(uuid) / "operation").exists()
    vm = suite.vm(uuid)
    defined = {d["path"] for d in vm["disks"] if "path" in d}
    in_machine = {row["inserted"]["file"] for row in block(suite).values() if "inserted" in row}
    assert defined == in_machine, (defined, in_machine)
    assert not there or there in str(defined) + str([n["mac"] for n in vm["nics"]])
    with suite.events() as events:
        events.wait_vm(uuid, lambda v: not v.get("pending"), 10, "nothing pending")


def nodes(suite):
    return {one["node-name"] for one in qmp(suite, "query-named-block-nodes", flat=True)}


IN = ["plug-marked"] + [f"step-{n}-{at}" for n in range(3) for at in ("sent", "done")] + [
    "plug-stored", "plug-told", "unmarked"]


def some(places, default):
    return [place if place in default else pytest.param(place, marks=LONG) for place in places]


@pytest.mark.parametrize("place", some(IN, ["step-1-done", "step-2-sent", "plug-stored"]))
def test_disk_on_its_way_in(guest, place):
    """Wholly there or wholly gone, as the job says; and the next attempt finds nothing in its way."""
    suite, events, shell = guest
    path = raw(suite, "data.raw", 16)
    job = killed(suite, place, "/attach", {"disk": {"path": path, "model": "virtio"}})
    there = place in ("plug-stored", "plug-told", "unmarked")
    assert job["state"] == ("done" if there else "failed"), (place, job)
    assert there or "taken back" in job["error"]["message"]
    audit(suite, path if there else None)
    assert (path in {d.get("path") for d in suite.vm(suite.uuid("web0"))["disks"]}) == there
    shell.until(f"[ {'' if there else '!'} -b /dev/vdb ]")
    if not there:
        assert not [name for name in nodes(suite) if name.startswith("disk2")]
        suite.vmadm("attach", "web0", "disk", f"path={path}")
    suite.vmadm("detach", "web0", "disk", path)
    audit(suite, None)


@pytest.mark.parametrize("place", some(IN, ["step-0-sent", "step-0-done", "plug-stored"]))
def test_disk_on_its_way_out(guest, place):
    suite, events, shell = guest
    path = raw(suite, "data.raw", 16)
    suite.vmadm("attach", "web0", "disk", f"path={path}")
    job = killed(suite, place, "/detach", {"disk": path})
    gone = place in ("plug-stored", "plug-told", "unmarked")
    assert job["state"] == ("done" if gone else "failed"), (place, job)
    audit(suite, None if gone else path)
    shell.until(f"[ {'!' if gone else ''} -b /dev/vdb ]")
    if not gone:
        shell.run("echo still-mine | dd of=/dev/vdb conv=fsync 2>/dev/null")
        with open(path, "rb") as file:
            assert file.read(10) == b"still-mine"
        suite.vmadm("detach", "web0", "disk", path)
    audit(suite, None)
    assert os.path.exists(path)


NIC = ["plug-marked"] + [f"step-{n}-{at}" for n in range(2) for at in ("sent", "done")] + [
    "plug-stored", "plug-told"]


@pytest.mark.parametrize("way", ["attach", "detach"])
@pytest.mark.parametrize("place", some(NIC, ["step-0-done"]))
def test_nic(guest, place, way):
    """The same of a NIC, in and out."""
    suite, events, shell = guest
    nic = {"nic": {"nic_tag": "user", "mac": MAC, "model": "virtio"}}
    if way == "detach":
        assert call(suite, "POST", "/vm/web0/attach", nic).status == 200
    job = killed(suite, place, f"/{way}", nic if way == "attach" else {"nic": MAC})
    done = place in ("plug-stored", "plug-told")
    assert job["state"] == ("done" if done else "failed"), (place, job)
    there = done == (way == "attach")
    audit(suite, MAC if there else None)
    shell.until(f"{'' if there else '!'} grep -q {MAC} /sys/class/net/*/address")
    net = qmp(suite, "human-monitor-command", **{"command-line": "info network"})
    assert ("nic1-net" in net) == there, net
    if there:
        suite.vmadm("detach", "web0", "nic", MAC)


MANY = ["plug-marked"] + [f"step-{n}-{at}" for n in range(6) for at in ("sent", "done")] + [
    "plug-stored"]


@pytest.mark.parametrize("place", some(MANY, ["step-4-sent"]))
def test_several_things_at_once(guest, place):
    """Made disks, limits, a cable and more room in one update: one side for all, but for room."""
    suite, events, shell = guest
    root = next(d for d in suite.vm(suite.uuid("web0"))["disks"] if d.get("path", "").endswith("root.raw"))
    size = os.path.getsize(root["path"]) >> 20
    job = killed(suite, place, "", {
        "add_disks": [{"size": 32, "model": "virtio"}],
        "update_disks": [{"path": root["path"], "size": size + 8, "bps": 1000000}],
        "update_nics": [{"mac": "52:54:00:00:00:01", "link_down": True}]})
    assert job["state"] == ("done" if place == "plug-stored" else "failed"), (place, job)
    audit(suite, None)
    vm = suite.vm(suite.uuid("web0"))
    made = [d["path"] for d in vm["disks"] if d.get("path", "").endswith(".qcow2")]
    images = [str(p) for p in suite.data_dir(vm["uuid"]).glob("*.qcow2")]
    assert made == images and len(made) == (place == "plug-stored")
    now = next(d for d in vm["disks"] if d.get("path") == root["path"])
    assert now["size"] == os.path.getsize(root["path"]) >> 20
    row = next(r for r in block(suite).values() if r.get("inserted", {}).get("file") == root["path"])
    assert row["inserted"]["bps"] == now.get("bps", 0)
    down = vm["nics"][0].get("link_down", False)
    shell.run("ip link set eth0 up")
    shell.until(f"[ $(cat /sys/class/net/eth0/carrier) = {0 if down else 1} ]")
    suite.vmadm("update", "web0", stdin={
        "remove_disks": made, "update_disks": [{"path": root["path"], "bps": 0}],
        "update_nics": [{"mac": "52:54:00:00:00:01", "link_down": False}]})


@pytest.mark.root
def test_undone_after_a_failed_store(guest):
    """The definition cannot be written: the guest has lost, or got back, what it had before."""
    suite, events, shell = guest
    path = raw(suite, "data.raw", 16)
    folder = str(suite.etc / "web0")
    suite.vmadm("attach", "web0", "disk", f"path={path}")
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        for what, body in (("attach", {"nic": {"nic_tag": "user", "mac": MAC, "model": "virtio"}}),
                           ("detach", {"disk": path})):
            assert "Read-only" in message(done(suite, what, body, 500)), what
            audit(suite, path)
            shell.until("[ -b /dev/vdb ]")
            shell.until(f"! grep -q {MAC} /sys/class/net/*/address")
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
    suite.vmadm("detach", "web0", "disk", path)
    audit(suite, None)


def test_network_disk(guest):
    """A disk behind nbd goes in and out; a server that is not there is a refusal, nothing is left."""
    suite, events, shell = guest
    path, at = raw(suite, "net.raw", 16), str(suite.root / "nbd")
    url = f"nbd:unix:{at}"
    assert "Failed to connect" in message(done(suite, "attach", {"disk": {
        "path": url, "nocreate": True, "model": "virtio"}}, 500))
    audit(suite, None)
    watch = drover.Inotify(suite.root)
    server = subprocess.Popen(["qemu-nbd", "-t", "-f", "raw", "-k", at, path])
    try:
        deadline = drover.Deadline(20)
        while not os.path.exists(at):
            assert watch.wait(deadline), "qemu-nbd does not listen"
        done(suite, "attach", {"disk": {"path": url, "nocreate": True, "model": "virtio"}})
        shell.until("[ -b /dev/vdb ]")
        shell.run("echo over-the-net | dd of=/dev/vdb conv=fsync 2>/dev/null")
        with open(path, "rb") as file:
            assert file.read(12) == b"over-the-net"
        done(suite, "detach", {"disk": url})
        shell.until("[ ! -b /dev/vdb ]")
        assert not [name for name in nodes(suite) if name.startswith("disk2")]
    finally:
        server.kill()
        server.wait()
        watch.close()


@pytest.mark.campaign
@pytest.mark.root
def test_bridged_nic(bridge):
    """A NIC on a bridge in, out, and killed meanwhile: its tap and filter with it; a given tap is
    the definition file's alone."""
    nic = {"nic": {"mac": MAC, "model": "virtio", "nic_tag": "br0", "ips": ["10.9.0.7/24"]}}
    there = f"grep -q {MAC} /sys/class/net/*/address"
    for suite, events, shell in machine(bridge):
        assert "only be given in a definition file" in message(done(
            suite, "attach", {"nic": {"mac": MAC, "model": "virtio", "tap": "byhand"}}, 400))
        for place in ("step-0-sent", "step-0-done", "step-1-sent", "step-1-done", "plug-stored"):
            kept = place == "plug-stored"
            job = killed(suite, place, "/attach", nic)
            assert job["state"] == ("done" if kept else "failed"), (place, job)
            audit(suite, MAC if kept else None)
            shell.until(there if kept else f"! {there}")
            assert len(taps()) == len(tables()) == (1 if kept else 0), (place, taps(), tables())
            if not kept:
                done(suite, "attach", nic)
            job = killed(suite, place, "/detach", {"nic": MAC})
            assert job["state"] == ("done" if kept else "failed"), (place, job)
            audit(suite, None if kept else MAC)
            if not kept:
                done(suite, "detach", {"nic": MAC})
            assert len(taps()) == len(tables()) == 0, (place, taps(), tables())


@pytest.mark.root
def test_full_disk_pauses(cold):
    """A full disk pauses the guest, the object says why within a second, ioretry lets it go on."""
    suite = cold
    small = suite.root / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], check=True)
    try:
        path = str(small / "d.raw")
        with open(path, "wb") as file:
            file.truncate(8 << 20)
        filler = small / "filler"
        filler.write_bytes(b"x" * (2 << 20))
        for shell in full_disk(suite, path):
            suite, events, shell = shell
            shell.console.send("dd if=/dev/zero of=/dev/vda bs=65536 count=40 conv=fsync; echo DD''E$?\n")
            vm = events.wait_vm("web0", lambda v: v.get("paused", {}).get("disk"), 20, "paused")
            assert vm["paused"]["disk"] == path and vm["paused"]["nospace"] is True
            assert vm["paused"]["operation"] == "write" and vm["paused"]["cause"] == "io-error"
            suite.restart("vmadmd", signal.SIGKILL)
            again = suite.events()
            with again as later:
                later.wait_vm("web0", lambda v: v.get("paused", {}).get("disk") == path, 20)
                filler.unlink()
                suite.vmadm("resume", "web0")
                shell.console.wait("DDE0", 20)
                later.wait_vm("web0", lambda v: "paused" not in v, 10)
                suite.vmadm("update", "web0", "ioretry=1")
                shell.console.send("dd if=/dev/zero of=/dev/vda bs=65536 seek=40 count=16 "
                                   "conv=fsync; echo TW''O$?\n")
                later.wait_vm("web0", lambda v: v.get("paused", {}).get("nospace"), 20, "paused")
                subprocess.run(["mount", "-o", "remount,size=9m", str(small)], check=True)
                shell.console.wait("TWO0", 20)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def full_disk(suite, path):
    suite.start()
    suite.write_definition("web0", suite.guest("drover.modules", disk=[f'd {{ path = "{path}"; }}']))
    with suite.events() as events:
        suite.vmstatedctl("start", "web0", seconds=60)
        vm = events.wait_vm("web0", lambda v: v.get("ready"), 60, "ready")
        with drover.Console(suite.run_dir(vm["uuid"]) / "vm.console") as console:
            console.wait("guest# ")
            yield suite, events, Shell(console)
    suite.vmstatedctl("stop", "-F", "web0")


def test_a_guest_that_holds_on(cold):
    """A device the guest does not let go of: 504 names it, and the definition is as before; so is the machine, should it let go later."""
    suite = cold
    path = raw(suite, "data.raw", 1)
    suite.use_fake_qemu({"commands": {
        "query-block": {"reply": [{"device": "", "qdev": "/machine/peripheral/disk0/virtio-backend",
                                   "inserted": {"file": path, "node-name": "disk0", "drv": "raw"}}]},
        "qom-list": {"reply": []},
        "device_del": {"events": [{"event": "DEVICE_DELETED", "after_ms": 4000,
                                   "data": {"device": "disk0", "path": "/"}}]}},
        "trace": str(suite.root / "trace")})
    suite.start()
    suite.write_definition("web0", f'web0 {{ ram = 64; accel = tcg; disk d {{ path = "{path}"; }} }}')
    with suite.events() as events:
        suite.vmstatedctl("start", "web0")
        events.wait_state("web0", "running")
        before = suite.vm(suite.uuid("web0"))
        reply = call(suite, "POST", "/vm/web0/detach?deadline=2", {"disk": "d"})
        assert reply.status in (504, 408) and "deadline" in message(reply.json()), reply
        assert suite.vm(before["uuid"])["disks"] == before["disks"] and os.path.exists(path)
    # It lets go after all: who was told no finds the device where it was.
    trace = drover.wait_file(suite.root / "trace", lambda data: b"device_add" in data, 20).decode()
    put_back = [one for one in map(json.loads, trace.splitlines()) if one["execute"] == "device_add"]
    assert [one["arguments"]["id"] for one in put_back] == ["disk0"]
    assert "device_del" in trace and "blockdev-del" not in trace


def test_an_image_vanishes(cold):
    """Unlinked under a guest, which has it open and goes on: the object says so, nothing is paused."""
    suite = cold
    path = raw(suite, "data.raw", 1)
    suite.start()
    suite.write_definition("web0", f'web0 {{ ram = 64; accel = tcg; disk d {{ path = "{path}"; }} }}')
    with suite.events() as events:
        suite.vmstatedctl("start", "web0", seconds=60)
        events.wait_state("web0", "running")
        os.unlink(path)
        vm = events.wait_vm("web0", lambda vm: vm["disks"][0].get("missing"), 10, "missing")
        assert vm["state"] == "running" and "paused" not in vm
    suite.vmstatedctl("stop", "-F", "web0")
