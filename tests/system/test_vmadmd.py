# SPDX-License-Identifier: Apache-2.0
"""vmadmd: changes of definitions, actions, information, VNC, autoboot, and its own sudden ends."""

import grp
import http.client
import json
import os
import pwd
import re
import signal
import socket
import subprocess

import drover
import pytest

UUID = "54f1cc77-68f1-42ab-acac-5c4f64f5d6e0"


def create(suite, payload, status=200):
    reply = suite.http("vmadmd", "POST", "/vms", {"brand": "kvm", **payload})
    assert reply.status == status, reply
    return reply.json()


def call(suite, method, target, body=None, status=200):
    reply = suite.http("vmadmd", method, target, body)
    assert reply.status == status, reply
    return reply


def act(suite, vm, query, status=200):
    return call(suite, "POST", f"/vm/{vm}?action={query}", status=status)


def message(reply):
    return reply["error"]["message"]


def nothing_left(suite):
    """Names below the definition and data trees that belong to no VM's life outside of one."""
    etc = sorted(p.name for p in suite.etc.iterdir())
    lib = sorted(p.name for p in (suite.root / "var/lib/vmstated").iterdir()
                 if p.name not in ("host-uuid", "images"))
    return etc + lib


def zone_states(events, uuid):
    states = [event["vm"]["zone_state"] for event in events.seen
              if event["type"] == "create" and event["zonename"] == uuid]
    return states + [new for path, _, new in events.changes(uuid) if path == "zone_state"]


# --- changes ---


def test_alone(cold):
    """Without its peers it serves at once, makes and removes VMs, says what is not confirmed."""
    cold.start("vmadmd")
    assert call(cold, "GET", "/ping").json() == {"ping": "pong"}
    made = create(cold, cold.payload("web0"))
    assert made["name"] == "web0" and made["confirmed"] is False
    assert (cold.etc / made["uuid"] / "config").exists()
    reply = call(cold, "GET", "/vm/web0", status=409).json()
    assert "must be \"running\" or \"stopping\"" in message(reply)
    assert act(cold, "web0", "start&wait=1", 500).json()["error"]["code"] == "ECONNREFUSED"
    assert call(cold, "DELETE", "/vm/web0").json()["uuid"] == made["uuid"]
    assert nothing_left(cold) == []


@pytest.mark.smoke
def test_create_update_delete(suite):
    with suite.events() as events:
        made = create(suite, suite.payload("web0", disks=[{"size": 16, "model": "virtio"}]))
        uuid = made["uuid"]
        assert made == {"uuid": uuid, "name": "web0", "state": "stopped", "confirmed": True}
        vm = suite.vm(uuid)
        assert (vm["state"], vm["zone_state"], vm["autoboot"]) == ("stopped", "installed", False)
        assert vm["create_timestamp"].endswith("Z")
        disk = suite.data_dir(uuid) / "disk0.qcow2"
        assert vm["disks"][0]["path"] == str(disk) and disk.read_bytes()[:4] == b"QFI\xfb"
        assert not (suite.data_dir(uuid) / "provisioning").exists()
        events.wait_state(uuid, "stopped")
        assert zone_states(events, uuid) == ["configured", "incomplete", "installed"]

        done = call(suite, "PUT", "/vm/web0", {"ram": 160, "set_tags": {"role": "shop"}}).json()
        assert done["confirmed"] is True
        assert {c["path"] for c in done["changes"]} >= {"ram", "tags.role"}
        ram = next(c for c in done["changes"] if c["path"] == "ram")
        assert (ram["old"], ram["new"], ram["live"]) == (128, 160, False)
        vm = suite.vm(uuid)
        assert (vm["ram"], vm["tags"]) == (160, {"role": "shop"})

        config = suite.etc / uuid / "config"
        before = config.stat()
        again = call(suite, "PUT", "/vm/web0", {"ram": 160}).json()
        assert again["changes"] == []
        after = config.stat()
        assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)

        assert call(suite, "DELETE", "/vm/web0").json() == {"uuid": uuid, "confirmed": True}
        assert suite.http("vminfod", "GET", f"/vms/{uuid}").status == 404
        events.wait(lambda ev: ev["type"] == "delete" and ev["zonename"] == uuid)
        assert zone_states(events, uuid)[-1] == "configured"
    assert nothing_left(suite) == []
    call(suite, "DELETE", "/vm/web0", status=404)


def test_one_modify_with_cause(suite):
    """An update of definition and metadata is one event for readers."""
    uuid = create(suite, suite.payload("web0"))["uuid"]
    with suite.events() as events:
        call(suite, "PUT", f"/vm/{uuid}", {"ram": 200, "vcpus": 2, "set_tags": {"a": 1}})
        event = events.wait(lambda ev: ev["type"] == "modify" and ev["zonename"] == uuid)
        paths = {change["prettyPath"] for change in event["changes"]}
        assert {"ram", "vcpus", "tags.a"} <= paths


def test_names(suite):
    """The alias is the name while nobody has it; afterwards the uuid is."""
    first = create(suite, suite.payload("web0"))
    second = create(suite, suite.payload("web0", uuid=UUID))
    assert (first["name"], second["name"]) == ("web0", UUID)
    assert "already exists" in message(create(suite, suite.payload("x", uuid=UUID), 409))
    assert message(create(suite, suite.payload("y", name="web0"), 409))
    call(suite, "DELETE", f"/vm/{first['uuid']}")
    assert create(suite, suite.payload("z", name="web0"))["name"] == "web0"


@pytest.mark.parametrize("member, text", [
    ({"ram": "lots"}, "ram"),
    ({"bogus_property": 1}, "bogus_property"),
    ({"kernel": "/nowhere/vmlinuz"}, "/nowhere/vmlinuz"),
    ({"disks": [{"model": "virtio", "image": "no-such-image"}]}, "no-such-image"),
    ({"disks": [{"model": "virtio", "path": "/nowhere/d", "nocreate": True}]}, "/nowhere/d"),
    ({"uuid": "web0"}, "uuid"),
    ({"vnc_password": "far-too-long"}, "VNC password"),
])
def test_bad_payload_leaves_nothing(suite, member, text):
    reply = create(suite, suite.payload("web0", **member), 400)
    assert text in message(reply) and reply["error"]["problems"]
    assert nothing_left(suite) == []


def test_failures_in_the_middle_leave_nothing(suite):
    """qemu-img and the writing of the definition fail: what was made before is gone again."""
    images = suite.root / "var/lib/vmstated/images"
    images.mkdir(parents=True, exist_ok=True)
    (images / "cut.qcow2").write_bytes(b"QFI\xfb\0\0\0\3" + b"\0" * 96)
    reply = create(suite, suite.payload("web0", disks=[
        {"model": "virtio", "size": 8}, {"model": "virtio", "image": "cut"}]), 400)
    assert "cut" in message(reply)
    (suite.etc / UUID).write_text("in the way")
    reply = suite.http("vmadmd", "POST", "/vms", {
        "brand": "kvm", **suite.payload("web0", uuid=UUID, disks=[{"model": "virtio", "size": 8}])})
    assert reply.status >= 400, reply
    (suite.etc / UUID).unlink()
    assert nothing_left(suite) == []
    assert suite.http("vminfod", "GET", "/vms").json() == []
    assert create(suite, suite.payload("web0", uuid=UUID))["uuid"] == UUID


def test_image_is_cloned(suite):
    images = suite.root / "var/lib/vmstated/images"
    images.mkdir(parents=True, exist_ok=True)
    with open(images / "base.raw", "wb") as base:
        base.truncate(8 << 20)
    uuid = create(suite, suite.payload("web0", disks=[
        {"model": "virtio", "image": "base", "boot": True}]))["uuid"]
    assert suite.vm(uuid)["disks"][0]["size"] == 8
    assert str(images / "base.raw").encode() in (suite.data_dir(uuid) / "disk0.qcow2").read_bytes()


def test_indestructible(suite):
    uuid = create(suite, suite.payload("web0", indestructible_zoneroot=True))["uuid"]
    assert "indestructible_zoneroot is set" in message(call(
        suite, "DELETE", f"/vm/{uuid}", status=409).json())
    call(suite, "PUT", f"/vm/{uuid}", {"indestructible_zoneroot": False})
    call(suite, "DELETE", f"/vm/{uuid}")


def test_hand_written_file_with_two(suite):
    """Deleting one VM of a file that defines two is refused; nothing is touched."""
    folder = suite.etc / "pair"
    folder.mkdir()
    text = f"web0 {{\n{suite.guest()}\n}}\nweb1 {{\n{suite.guest()}\n}}\n"
    (folder / ".new").write_text(text)
    os.rename(folder / ".new", folder / "config")
    reply = suite.http("vmadmd", "DELETE", "/vm/web0")
    assert reply.status >= 400 and "web1" in message(reply.json())
    assert (folder / "config").read_text() == text


# --- sudden ends ---


def test_creation_cut_short(cold):
    """What a killed creation left is removed at the next start, and only that."""
    cold.start("vmadmd")
    kept = create(cold, cold.payload("keep", disks=[{"model": "virtio", "size": 8}]))["uuid"]
    cut = create(cold, cold.payload("cut", disks=[{"model": "virtio", "size": 8}]))["uuid"]
    cold.kill9("vmadmd")
    mark = {"format_version": 1, "images": []}
    (cold.data_dir(cut) / "provisioning").write_text(json.dumps(mark))
    daemon = cold.start("vmadmd")
    assert nothing_left(cold) == [kept, kept]
    assert f"vm={cut} creation was cut short" in daemon.output()
    call(cold, "DELETE", "/vm/keep")


def test_deletion_cut_short(cold):
    """A deletion that had begun is finished; one that had not leaves the VM whole."""
    cold.start("vmadmd")
    gone = create(cold, cold.payload("gone", disks=[{"model": "virtio", "size": 8}]))["uuid"]
    kept = create(cold, cold.payload("kept"))["uuid"]
    cold.kill9("vmadmd")
    lib = cold.root / "var/lib/vmstated"
    for uuid in (gone, kept):
        mark = {"format_version": 1, "file": str(cold.etc / uuid / "config")}
        (lib / f".deleting-{uuid}").write_text(json.dumps(mark))
    (cold.etc / gone / "config").unlink()
    (cold.etc / gone).rmdir()
    cold.start("vmadmd")
    assert nothing_left(cold) == [kept, kept]


def whole_or_gone(suite):
    """Every VM is wholly there, with its disks and without marks, or nothing of it is."""
    lib = suite.root / "var/lib/vmstated"
    vms = {path.name for path in suite.etc.iterdir()}
    assert {path.name for path in lib.iterdir()} - {"host-uuid", "images"} == vms
    for uuid in vms:
        names = {path.name for path in (lib / uuid).iterdir()}
        defined = re.findall(r"disk (disk[0-9]) ", (suite.etc / uuid / "config").read_text())
        kept = {re.sub(r"^(disk[0-9])\.(raw|qcow2)$", r"\1", name) for name in names}
        assert kept - {"lock"} == {"config"} | set(defined) and len(kept) == len(names)
    return vms


def watch_until(folder, count):
    """Wait for that many wake-ups by changes in folder, or until none comes any more."""
    watch = drover.Inotify(folder)
    try:
        while count > 0 and watch.wait(drover.Deadline(0.5)):
            count -= 1
    finally:
        watch.close()


@pytest.mark.parametrize("what", ["create", "update", "delete"])
def test_killed_in_the_middle(cold, what):
    """SIGKILL at ever later moments of a change leaves whole VMs or nothing."""
    lib = cold.root / "var/lib/vmstated"
    disks = [{"model": "virtio", "size": 8}, {"model": "virtio", "size": 8}]
    cold.start("vmstated", "vmadmd")
    for moment in range(8):
        body = {"brand": "kvm", **cold.payload(f"web{moment}", disks=disks)}
        uuid = create(cold, body)["uuid"] if what != "create" else None
        method, target, body = {"create": ("POST", "/vms", body),
                                "update": ("PUT", f"/vm/{uuid}", {"add_disks": disks}),
                                "delete": ("DELETE", f"/vm/{uuid}", None)}[what]
        asking = http.client.HTTPConnection("localhost")
        asking.sock = drover.unix_connect(cold.socket("vmadmd"))
        asking.request(method, target, body and json.dumps(body))
        if what == "create":
            watch_until(lib, moment // 2 + 1)
            for folder in (path for path in lib.iterdir() if (path / "provisioning").exists()):
                watch_until(folder, moment)
        else:
            watch_until(cold.data_dir(uuid), moment)
        cold.kill9("vmadmd")
        asking.close()
        cold.start("vmadmd")
        whole_or_gone(cold)


SLOW_QEMU_IMG = """#!/bin/sh
for word; do
    case "$word" in *disk2.raw) : > "$word"; : > "$GATES/begun"; read x < "$GATES/go";; esac
done
exec /usr/bin/qemu-img "$@"
"""


@pytest.mark.parametrize("what", ["create", "update"])
def test_killed_while_an_image_is_made(cold, tmp_path, what):
    """The third image is half made when vmadmd is killed: after its start nothing of it is left."""
    gates = tmp_path / "gates"
    gates.mkdir()
    os.mkfifo(gates / "go")
    (gates / "qemu-img").write_text(SLOW_QEMU_IMG)
    (gates / "qemu-img").chmod(0o755)
    cold.env["GATES"], usual = str(gates), cold.env["PATH"]
    cold.env["PATH"] = f"{gates}:{usual}"
    cold.start("vmstated", "vmadmd")
    disk = {"model": "virtio", "size": 8, "format": "raw"}
    kept = create(cold, cold.payload("web0", disks=[disk, disk]))["uuid"]
    asking = http.client.HTTPConnection("localhost")
    asking.sock = drover.unix_connect(cold.socket("vmadmd"))
    if what == "create":
        body = {"brand": "kvm", **cold.payload("web1", disks=[disk, disk, disk])}
        asking.request("POST", "/vms", json.dumps(body))
    else:
        asking.request("PUT", f"/vm/{kept}", json.dumps({"add_disks": [disk]}))
    drover.wait_file(gates / "begun", lambda _: (gates / "begun").exists(), 20)
    cold.kill9("vmadmd")
    asking.close()
    cold.env["PATH"] = usual
    daemon = cold.start("vmadmd")
    assert whole_or_gone(cold) == {kept}
    assert "cut short" in daemon.output()
    with pytest.raises(OSError, match="No such device"):  # it died with vmadmd: nobody reads
        os.open(gates / "go", os.O_WRONLY | os.O_NONBLOCK)


# --- running guests ---


def rfb_greeting(port):
    with socket.create_connection(("127.0.0.1", port), 10) as viewer:
        return viewer.recv(12)


@pytest.mark.smoke
def test_running_guest(suite):
    """Create with autoboot, look, act, lose vmadmd, stop, delete."""
    with suite.events() as events:
        made = create(suite, suite.payload("web0", autoboot=True, vnc_port=0,
                                           disks=[{"model": "virtio", "size": 8}]))
        uuid = made["uuid"]
        assert (made["state"], made["confirmed"]) == ("running", True)
        assert suite.vm(uuid)["state"] == "running"
        events.wait_state(uuid, "running")
        states = zone_states(events, uuid)
        assert states[:3] == ["configured", "incomplete", "installed"] and states[-1] == "running"
        assert ("state", "provisioning", "running") in events.changes(uuid)

    info = call(suite, "GET", f"/vm/{uuid}").json()
    assert list(info) == ["status", "version", "chardev", "block", "blockstats", "cpus", "pci",
                          "kvm", "vnc", "spice"]
    assert info["status"]["running"] is True
    assert info["block"][0]["device"] == "disk0"
    assert info["cpus"][0]["CPU"] == 0 and info["spice"] == {}
    assert list(call(suite, "GET", f"/vm/{uuid}/info?types=vnc,status").json()) == ["status", "vnc"]
    assert "unknown info type cpu" in message(call(
        suite, "GET", f"/vm/{uuid}?type=cpu", status=400).json())

    port = info["vnc"]["port"]
    with socket.create_connection(("127.0.0.1", port), 10) as viewer:
        assert viewer.recv(12).startswith(b"RFB 003.")
        suite.kill9("vmadmd")
        viewer.sendall(b"RFB 003.008\n")
        assert viewer.recv(2) == b"\1\1"  # QEMU has the viewer: no authentication here
    suite.start("vmadmd")
    vnc = call(suite, "GET", f"/vm/{uuid}?type=vnc").json()["vnc"]
    assert vnc["port"] == port
    assert rfb_greeting(port).startswith(b"RFB 003.")
    told = act(suite, uuid, "reload_vnc", 202).body.decode()
    assert told == f"Sent request to reload VNC for {uuid}"
    assert call(suite, "GET", f"/vm/{uuid}?type=vnc").json()["vnc"]["port"] == port

    act(suite, uuid, "sysrq&request=screenshot", 202)
    assert (suite.run_dir(uuid) / "vm.ppm").read_bytes()[:2] == b"P6"
    act(suite, uuid, "sysrq&request=nmi&wait=1")
    act(suite, uuid, "sysrq&request=reboot", 400)
    act(suite, uuid, "pause&wait=1")
    assert call(suite, "GET", f"/vm/{uuid}?type=status").json()["status"]["status"] == "paused"
    act(suite, uuid, "resume&wait=1")
    assert "is already 'running'" in message(act(suite, uuid, "start&wait=1", 409).json())

    assert act(suite, uuid, "stop&force=1&wait=1").json()["state"] == "stopped"
    vm = suite.vm(uuid)
    assert (vm["state"], vm["autoboot"]) == ("stopped", False)
    assert act(suite, uuid, "reset", 409)
    act(suite, uuid, "start&wait=1")
    assert suite.vm(uuid)["autoboot"] is True
    call(suite, "DELETE", f"/vm/{uuid}")
    assert suite.guests() == [] and nothing_left(suite) == []


def test_vnc_password_and_port(suite):
    uuid = create(suite, suite.payload("web0", autoboot=True, vnc_password="secret"))["uuid"]
    vnc = call(suite, "GET", f"/vm/{uuid}?type=vnc").json()["vnc"]
    assert vnc["password"] == "secret"
    with socket.create_connection(("127.0.0.1", vnc["port"]), 10) as viewer:
        assert viewer.recv(12).startswith(b"RFB 003.")
        viewer.sendall(b"RFB 003.008\n")
        kinds = viewer.recv(2)
        assert kinds == b"\1\2"  # one kind of authentication: by password
    changes = call(suite, "PUT", f"/vm/{uuid}", {"vnc_password": "other"}).json()["changes"]
    assert changes[0]["live"] is True
    call(suite, "PUT", f"/vm/{uuid}", {"vnc_port": -1})
    assert call(suite, "GET", f"/vm/{uuid}?type=vnc").json()["vnc"] == {}
    with pytest.raises(ConnectionRefusedError):
        rfb_greeting(vnc["port"])


def test_hanging_qemu(suite):
    """A QEMU that hangs gives a bounded error naming the VM, and delays nobody else."""
    uuid = create(suite, suite.payload("web0", autoboot=True))["uuid"]
    pid = suite.vm(uuid)["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        reply = call(suite, "GET", f"/vm/{uuid}?type=status", status=504).json()
        assert "web0" in message(reply) and "does not answer" in message(reply)
        assert call(suite, "GET", "/ping").status == 200
    finally:
        os.kill(pid, signal.SIGCONT)
    assert call(suite, "GET", f"/vm/{uuid}?type=status").json()["status"]["running"] is True


def test_old_style_actions(suite):
    suite.write_definition("web0", suite.guest(autoboot=False))
    uuid = suite.uuid("web0")
    assert "requires timeout" in message(act(suite, uuid, "stop", 400).json())
    assert "unknown action 'fly'" in message(act(suite, uuid, "fly", 400).json())
    call(suite, "POST", f"/vm/{uuid}", status=400)
    assert act(suite, "web0", "start", 202).body.decode() == f"Started {uuid}"
    with suite.events() as events:
        events.wait_vm(uuid, lambda vm: vm.get("ready"), 60)
    assert act(suite, uuid, "stop&timeout=60", 202).body.decode() == f"Stopped {uuid}"
    with suite.events() as events:
        events.wait_state(uuid, "stopped", 60)
    assert suite.vm(uuid)["autoboot"] is False
    assert "autoboot = false" in (suite.etc / "web0/config").read_text()


def test_autoboot_in_order(cold):
    """Once per boot, in the order of after; a later start of vmadmd starts nothing."""
    cold.write_definition("web0", cold.guest(autoboot=True, after=["db0:ready", "nobody"]))
    cold.write_definition("db0", cold.guest(autoboot=True))
    cold.write_definition("rest", cold.guest(autoboot=False))
    cold.start()
    with cold.events() as events:
        web0 = events.wait_vm("web0", lambda vm: vm["state"] == "running", 60)
        db0 = events.find("db0")
        assert db0["ready"] and db0["boot_timestamp"] < web0["boot_timestamp"]
        assert events.find("rest")["state"] == "stopped"
    act(cold, "web0", "stop&force=1&wait=1")
    cold.kill9("vmadmd")
    cold.start("vmadmd")
    act(cold, "db0", "stop&force=1&wait=1")
    assert cold.vm(web0["uuid"])["state"] == "stopped"


# --- who may ---

ASK_AS = """
import http.client, socket, sys
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(f"/proc/self/fd/{sys.argv[1]}/vmadmd.http")
connection.request(sys.argv[2], sys.argv[3])
reply = connection.getresponse()
sys.stdout.write(f"{reply.status} {reply.read().decode()}")
"""


def ask_as(suite, uid, method, target, groups=()):
    """(status, body) of a request by another user, who reaches the socket by its directory."""
    folder = os.open(suite.root / "run", os.O_PATH | os.O_DIRECTORY)
    try:
        done = subprocess.run(["/usr/bin/python3", "-c", ASK_AS, str(folder), method, target],
                              user=uid, group=uid, extra_groups=list(groups), pass_fds=[folder],
                              cwd="/", capture_output=True, text=True, timeout=20, check=True)
    finally:
        os.close(folder)
    status, body = done.stdout.split(" ", 1)
    return int(status), body


@pytest.mark.root
def test_who_may(cold):
    """Owner and group may live with their VM, only admins change it; refusals are logged."""
    daemon = cold.start("vmadmd")
    create(cold, cold.payload("web0", owner="nobody", group="daemon"))
    group = grp.getgrnam("daemon").gr_gid
    owner = pwd.getpwnam("nobody").pw_uid
    stranger = 64321
    assert ask_as(cold, stranger, "GET", "/ping")[0] == 200
    assert ask_as(cold, owner, "GET", "/vm/web0")[0] == 409  # may ask, but it does not run
    assert ask_as(cold, stranger, "GET", "/vm/web0", [group])[0] == 409
    for uid, method, target in [(stranger, "GET", "/vm/web0"),
                                (stranger, "POST", "/vm/web0?action=stop"), (owner, "POST", "/vms"),
                                (owner, "PUT", "/vm/web0"), (owner, "DELETE", "/vm/web0")]:
        status, body = ask_as(cold, uid, method, target)
        assert status == 403 and f"uid {uid} may not" in body, (method, target, body)
        assert f"refused uid={uid}" in daemon.output()
    assert call(cold, "DELETE", "/vm/web0").status == 200
