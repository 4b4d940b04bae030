# SPDX-License-Identifier: Apache-2.0
"""drover-vmm, the action programs of OpenNebula on a host, with real and fake QEMUs; transient VMs."""

import base64
import json
import os
import pwd
import re
import signal
import subprocess

import pytest
from drover import Deadline, Inotify
from one_host import HALT, Host, b64, probe


def transient(suite, alias="web0", **members):
    payload = suite.payload(alias, transient=True, **members)
    return json.loads(suite.vmadm("create", "--json", stdin=payload).stdout)["uuid"]


def leftovers(suite, uuid):
    return [path for path in (suite.run_dir(uuid), suite.data_dir(uuid), suite.etc / uuid)
            if path.exists()]


def nothing_stays(suite, uuid):
    """The run directory is vmstated's, which clears it a moment later."""
    watch, deadline = Inotify(suite.root / "run/vmstated"), Deadline(10)
    while leftovers(suite, uuid):
        assert watch.wait(deadline), leftovers(suite, uuid)
    watch.close()


@pytest.mark.parametrize("end", ["stop", "kill", "away"])
def test_transient_goes_with_its_guest(suite, end):
    """By an order, by a crash, and while vmadmd is not there to see it."""
    disk = suite.root / "disk.0"
    disk.write_bytes(b"A" * 65536)
    uuid = transient(suite, disks=[{"path": str(disk), "nocreate": True, "format": "raw",
                                    "model": "virtio"}], onfailure="fail")
    with suite.events() as events:
        assert suite.vm(uuid)["state"] == "stopped"  # never started: it stays
        suite.vmadm("start", uuid)
        assert suite.vm(uuid)["autoboot"] is False
        pid = suite.vm(uuid)["pid"]
        if end == "stop":
            suite.vmadm("stop", "-F", uuid)
        elif end == "kill":
            os.kill(pid, signal.SIGKILL)
        else:
            suite.kill9("vmadmd")
            os.kill(pid, signal.SIGKILL)
            suite.start("vmadmd")
        events.wait_gone(uuid)
    nothing_stays(suite, uuid)
    assert disk.read_bytes() == b"A" * 65536


# --- action programs ---

@pytest.fixture
def host(suite):
    return Host(suite)


def up(host):
    host.suite.console_wait(host.suite.uuid(host.id), "GUEST-UP")


def nothing_left(host, uuid):
    assert host.suite.http("vminfod", "GET", "/vms").json() == []
    nothing_stays(host.suite, uuid)


@pytest.mark.parametrize("booted", [False, pytest.param(True, marks=pytest.mark.campaign)])
def test_life(suite, host, booted):
    """Deploy, look, reset, snapshot, save, restore, shut down: each answered as the core wants."""
    guest = {} if booted else {"initrd": None}
    if not booted:  # it stands still from the boot on, and nobody is there to power off: forced
        (host.remotes / "etc/vmm/drover/droverrc").write_text("# seconds\nexport SHUTDOWN_TIMEOUT='1'\n")
    disk = host.disk(0, first=HALT)
    assert host.deploy(**guest) == "one-7"
    if booted:
        up(host)
    uuid = suite.uuid("one-7")
    vm = suite.vm(uuid)
    assert vm["alias"] == "web & shop" and vm["transient"] and not vm["autoboot"]
    assert vm["tags"] == {"one_vmid": "7", "one_user": "alice", "one_group": "users"}
    assert vm["owner"] == pwd.getpwuid(os.geteuid()).pw_name
    listed = suite.vmadm("list", "-p", "-H", "-o", "name,alias,owner,tags.one_user", check=None).stdout
    assert "one-7:web & shop" in listed
    assert host.deploy(**guest) == "one-7" and suite.vm(uuid)["pid"] == vm["pid"]  # a retry
    assert re.fullmatch(r"STATE=a CPU=[\d.]+ MEMORY=\d+ NETRX=0 NETTX=0 DISKRDBYTES=\d+ DISKWRBYTES=\d+ "
                        r"DISKRDIOPS=\d+ DISKWRIOPS=\d+ DISK_SIZE=\[ID=0,SIZE=\d+\]", host.poll())
    host.do("reset", "one-7", "node1")
    if booted:
        up(host)
    assert host.do("snapshot_create", "one-7", 0) == "snap-0"
    assert (host.dir / "drover-snapshots.json").exists()
    with suite.events() as events:
        host.do("save", "one-7", host.dir / "checkpoint", "node1")
        events.wait_gone(uuid)
    nothing_left(host, uuid)
    assert host.poll() == "STATE=d"
    host.do("restore", host.dir / "checkpoint", "node1", "one-7")
    assert sorted(os.listdir(host.dir)) == ["deployment.0", "disk.0", "drover-snapshots.json"]
    assert host.state() == "a"
    host.do("shutdown", "one-7", "node1")
    nothing_left(host, uuid)
    for action in ("shutdown", "cancel"):
        host.do(action, "one-7", "node1")  # gone already is what a retry wants
    before = disk.read_bytes()
    # KEEP_SNAPSHOTS: known again at the next deployment.
    host.deploy(**guest)
    assert [one["name"] for one in suite.vm(uuid)["snapshots"]] == ["snap-0"]
    host.do("snapshot_revert", "one-7", "snap-0")
    host.do("snapshot_delete", "one-7", "snap-0")
    assert "snap-0" in host.refused("snapshot_delete", "one-7", "snap-0")
    assert not (host.dir / "drover-snapshots.json").exists()
    host.do("cancel", "one-7")
    nothing_left(host, uuid)
    assert before[:4] == disk.read_bytes()[:4] == b"QFI\xfb"


def test_variables_of_the_firmware_stay_beside_the_disks(suite, host):
    """Made at the first deployment, taken up at the next, at home where a saved VM has been moved to."""
    host.disk(0)
    variables = host.dir / "web & shop_VARS.fd"
    firmware = "<OS><FIRMWARE>UEFI</FIRMWARE></OS>"
    host.deploy(firmware)
    uuid = suite.uuid("one-7")
    assert suite.vm(uuid)["nvram"] == str(variables).replace("//", "/")
    assert variables.stat().st_size == os.stat("/usr/share/OVMF/OVMF_VARS.fd").st_size
    assert variables.stat().st_uid == host.dir.stat().st_uid
    host.do("cancel", "one-7")
    nothing_left(host, uuid)
    with open(variables, "r+b") as file:  # what a guest has set
        file.seek(-8, os.SEEK_END)
        file.write(b"settings")
    host.deploy(firmware)
    host.do("save", "one-7", host.dir / "checkpoint", "node1")
    moved = host.dir.parent / "moved"
    host.dir.rename(moved)
    host.do("restore", moved / "checkpoint", "node1", "one-7")
    assert suite.vm(uuid)["nvram"] == str(moved / variables.name).replace("//", "/")
    host.do("cancel", "one-7")
    nothing_left(host, uuid)
    assert (moved / variables.name).read_bytes()[-8:] == b"settings"
    assert sorted(os.listdir(moved)) == ["deployment.0", "disk.0", variables.name]


def test_deploy_on_the_front_end(suite, host):
    """With -l the file lies in vms/, the disks in the datastores its configuration names."""
    host.dir = suite.root / "elsewhere/104/7"
    host.dir.mkdir(parents=True)
    disk = host.disk(0)
    (suite.root / "config").write_text(f"DATASTORE_LOCATION={suite.root}/elsewhere\n")
    file = suite.root / "vms/7/deployment.0"
    text = host.vm().replace("</VM>", "<HISTORY_RECORDS><HISTORY><DS_ID>104</DS_ID></HISTORY></HISTORY_RECORDS></VM>")
    assert host.do("deploy", file, "node1", stdin=b64(text)) == "one-7"
    assert file.read_text() == text
    assert suite.vm(suite.uuid("one-7"))["disks"][0]["path"] == str(disk)
    host.do("cancel", "one-7")


def test_shutdown_by_the_settings(cold):
    """FORCE_DESTROY says what becomes of a guest that does not obey; without ACPI none can."""
    cold.use_fake_qemu({"powerdown_ms": None})
    cold.start()
    host = Host(cold)
    settings = host.remotes / "etc/vmm/drover/droverrc"
    settings.write_text("SHUTDOWN_TIMEOUT=1\nFORCE_DESTROY=no\n")
    host.disk(0)
    host.deploy()
    uuid = cold.uuid("one-7")
    assert "Timed out shutting down one-7" in host.refused("shutdown", "one-7", "node1")
    assert cold.vm(uuid)["state"] == "running"  # and nobody has begun to stop it
    settings.write_text("SHUTDOWN_TIMEOUT=1\nFORCE_DESTROY=yes\n")
    host.do("shutdown", "one-7", "node1")
    settings.write_text("SHUTDOWN_TIMEOUT=soon\nFORCE_DESTROY=no\n")
    host.deploy()
    assert "'soon' is not a number of seconds" in host.refused("shutdown", "one-7", "node1")
    host.do("cancel", "one-7")
    settings.write_text("SHUTDOWN_TIMEOUT=3600\n")
    host.deploy("<FEATURES><ACPI>no</ACPI></FEATURES>")
    host.do("shutdown", "one-7", "node1")  # long before the hour is over
    cold.use_fake_qemu({"powerdown_ms": 50})
    settings.write_text("SHUTDOWN_TIMEOUT=60\nFORCE_DESTROY=no\n")
    host.deploy()
    host.do("shutdown", "one-7", "node1")
    nothing_left(host, uuid)


@pytest.mark.campaign
def test_reboot(suite, host):
    host.disk(0)
    host.deploy()
    up(host)
    uuid = suite.uuid("one-7")
    pid = suite.vm(uuid)["pid"]
    with suite.events() as events:
        host.do("reboot", "one-7", "node1")
        events.wait_vm(uuid, lambda vm: vm.get("pid") not in (None, pid) and vm["state"] == "running")
    host.do("cancel", uuid)


HOT = ('<DISK><ATTACH>YES</ATTACH><DISK_ID>3</DISK_ID><DRIVER>raw</DRIVER><CACHE>{cache}</CACHE><TYPE>{type}</TYPE>'
       '<READONLY>{ro}</READONLY><TARGET>vdd</TARGET></DISK>')


@pytest.mark.campaign  # a guest must let go of devices; attaching is in test_one_life.py as well
def test_devices(suite, host):
    host.disk(0)
    host.disk(2, 1, "raw")
    extra, cd = host.disk(3, 4, "raw"), host.disk(4, 1, "raw")
    host.deploy("<CONTEXT><TARGET>hda</TARGET><DISK_ID>2</DISK_ID></CONTEXT>"
                "<GRAPHICS><TYPE>vnc</TYPE><PORT>-1</PORT></GRAPHICS>", "drover.modules")
    up(host)
    uuid = suite.uuid("one-7")

    def names():
        return [disk["name"] for disk in suite.vm(uuid)["disks"]]

    text = host.message(host.vm(HOT.format(cache="writeback", type="fs", ro="NO")))
    arguments = ("one-7", extra, "vdd", 3)
    host.do("attach_disk", *arguments, b64(text), stdin=text)
    host.do("attach_disk", *arguments, b64(text), stdin=text)
    assert names() == ["vda", "hda", "vdd"]
    grown = host.message(host.vm(HOT.format(cache="none", type="fs", ro="NO")))
    host.do("resize_disk", "one-7", 3, 6, b64(grown), "node1", stdin=grown)
    assert extra.stat().st_size == 6 << 20
    host.do("detach_disk", *arguments)
    host.do("detach_disk", *arguments)
    assert names() == ["vda", "hda"]
    nic = "<NIC><ATTACH>YES</ATTACH><MAC>02:00:00:00:00:07</MAC><BRIDGE>user</BRIDGE></NIC>"
    for _ in range(2):
        host.do("attach_nic", "one-7", "02:00:00:00:00:07", "user", "-", "dummy", "one-7-0",
                stdin=host.message(host.vm(nic)))
    assert [one["mac"] for one in suite.vm(uuid)["nics"]] == ["02:00:00:00:00:07"]
    for _ in range(2):
        host.do("detach_nic", "one-7", "02:00:00:00:00:07")
    assert suite.vm(uuid)["nics"] == []
    for _ in range(2):
        host.do("prereconfigure", "one-7", "hda")
    assert "path" not in suite.vm(uuid)["disks"][1]
    host.do("reconfigure", "one-7", "hda", cd)
    assert suite.vm(uuid)["disks"][1]["path"] == str(cd).replace("//", "/")
    less = host.message(host.vm(memory=100))
    host.do("resize", "one-7", stdin=less)
    assert suite.vm(uuid)["balloon"] == 100
    assert "more than the 128 MB" in host.refused("resize", "one-7", stdin=host.message(host.vm(memory=512)))
    assert "not supported" in host.refused("attach_disk", *arguments, stdin=host.message(
        host.vm(HOT.format(cache="none", type="gluster", ro="NO"))))
    host.do("cancel", "one-7")


def executions(host):
    """What the probe tells next of programs in guests."""
    deadline = Deadline(30)
    while not (text := probe(host, "vm_execution")):
        assert not deadline.over(), "no program has ended"
    assert probe(host, "vm_execution") == ""
    found = dict(re.findall(r'(\w+)="(.*?)"', text))
    return {key: base64.b64decode(value).decode() if key.startswith("STD") else value
            for key, value in found.items() if key != "PID"}


def test_exec(suite, host):
    """A command in the guest, how it ended by the probe; cancelled, refused a second time, gone with the VM."""

    def command(text, stdin=""):
        return host.message(host.vm(f"<QEMU_GA_EXEC><COMMAND><![CDATA[{text}]]></COMMAND><STDIN>{b64(stdin)}</STDIN>"
                                    "</QEMU_GA_EXEC>"))

    host.disk(0)
    text = command("true")
    assert "Could not run a command in one-7: " in host.refused("exec", 7, "node1", "true", "", stdin=text)
    host.deploy(initrd="initramfs-agent.gz", cmdline="drover.agent")
    with suite.events() as events:
        events.wait_vm("one-7", lambda vm: vm.get("agent", {}).get("state") == "up", 60, "an agent")
    host.do("exec", 7, "node1", "x", "", stdin=command("cat; echo sad >&2; exit 3", "fed"))
    assert executions(host) == {"ID": "7", "STATUS": "DONE", "RETURN_CODE": "3", "STDOUT": "fed", "STDERR": "sad\n"}
    host.do("exec", 7, "node1", "sleep 1000", b64(""), stdin="")  # by the arguments alone
    assert "runs in the guest already" in host.refused("exec", 7, "node1", "true", "", stdin=text)
    for _ in range(2):
        host.do("exec_cancel", 7, "node1", stdin=text)
    assert executions(host)["STATUS"] == "CANCELLED"
    host.do("exec_cancel", 7, "node1", stdin=text)
    host.do("exec", 7, "node1", "sleep 1000", "", stdin="")
    host.do("cancel", "one-7")
    told = executions(host)
    assert told["STATUS"] == "ERROR" and "does not run here" in told["STDERR"]
    assert "no number of a VM" in host.refused("exec", "one-7", "node1", "x", "")


def test_hooks_of_a_system_datastore(suite, host):
    """save.TM last, restore.TM first, with arguments and message; a failure of one is the action's."""
    host.disk(0)
    host.deploy()
    for name in ("save", "restore"):
        script = host.vmm / f"{name}.ceph"
        script.write_text(f'#!/bin/sh\necho "$@" >{host.dir}/{name}.arguments\ncat >{host.dir}/{name}.stdin\n'
                          f'ls {host.dir} >{host.dir}/{name}.ls\n')
        script.chmod(0o755)
    text = host.message(tm="ceph")
    host.do("save", "one-7", host.dir / "checkpoint", "node1", stdin=text)
    assert (host.dir / "save.arguments").read_text() == f"one-7 {host.dir}/checkpoint node1 7 node1\n"
    assert (host.dir / "save.stdin").read_text() == text
    assert "checkpoint" in (host.dir / "save.ls").read_text().split()
    (host.vmm / "restore.ceph").write_text("#!/bin/sh\nexit 3\n")
    assert "restore.ceph failed with exit code 3" in host.refused(
        "restore", host.dir / "checkpoint", "node1", "one-7", stdin=text)
    (host.dir / "checkpoint.vm").unlink()  # as where a hook keeps just the checkpoint
    host.do("restore", host.dir / "checkpoint", "node1", "one-7")
    assert host.state() == "a"
    host.do("cancel", "one-7")


def test_bad_input(suite, host):
    """One clear failure on standard error; the deployment file stays for who looks into it."""
    file = host.dir / "deployment.0"
    huge = "<VM>" + "x" * (17 << 20) + "</VM>"
    for text, want in (("", "no deployment file on standard input"),
                       ("<VM>", "bad XML in line 1"),
                       ("!!!", "neither XML nor base64"),
                       ("<!DOCTYPE x [<!ENTITY a 'b'>]><VM>&a;</VM>", "document types, entities"),
                       ("<html/>", "root is <html>"),
                       ("<VM><TEMPLATE/></VM>", "there is no MEMORY"),
                       (huge, "larger than 16 MiB"),
                       (host.vm(), "disk.0")):
        assert want in host.refused("deploy", file, "node1", stdin=text)
    assert file.read_text() == host.vm()
    assert suite.http("vminfod", "GET", "/vms").json() == []
    assert "VM one-7 not found" in host.refused("reset", "one-7", "node1")
    assert "no VM 'one-7'" in host.refused("save", "one-7", host.dir / "c", "node1")
    assert "bad base64" in host.refused("attach_disk", "one-7", "/x", "vda", stdin="Zm9vCg")
    assert "larger than 64 MiB" in host.refused("reset", "one-7", stdin="<" * (65 << 20))
    for odd in ("one-7/../one-8", "%00", "a" * 5000, "", "*", "\n"):
        assert re.search("not found|no VM|too long|want the arguments", host.refused("reset", odd, "node1")), odd
    assert "want the arguments" in subprocess.run([host.vmm / "save"], input="", text=True,
                                                  capture_output=True).stderr
    done = subprocess.run([suite.build / "src/one/drover-vmm", "frobnicate"], capture_output=True, text=True)
    assert done.returncode == 2 and "usage: drover-vmm" in done.stderr
    full = subprocess.run([host.vmm / "deploy", "/dev/full/deployment.0"], input=host.vm(), text=True,
                          capture_output=True)
    assert "cannot store the deployment file" in full.stderr
    suite.kill9("vminfod")
    assert "cannot reach vminfod" in host.refused("poll", "one-7", "node1")
    suite.start("vminfod")
    suite.kill9("vmstated")
    suite.restart("vminfod")
    assert host.poll() == "STATE=-"  # nobody can tell


def test_more_cpus(suite, host):
    """Up to VCPU_MAX while the VM runs, in one step with the memory; as many after a save and restore."""
    host.disk(0, first=HALT)
    host.deploy("<VCPU_MAX>4</VCPU_MAX>", initrd=None)
    uuid = suite.uuid("one-7")

    def resize(cpus, memory=128):
        return host.message(host.vm(memory=memory).replace("<VCPU>1<", f"<VCPU>{cpus}<"))

    for _ in range(2):
        host.do("resize", "one-7", stdin=resize(3, 100))
        vm = suite.vm(uuid)
        assert (vm["vcpus"], vm["vcpus_max"], vm["balloon"]) == (3, 4, 100) and not vm.get("pending")
        seen = suite.http("vmadmd", "GET", f"/vm/{uuid}/info?types=all")
        assert len(suite.http("vmadmd", "GET", "/stats").json()["vms"][0]["cpu"]["vcpus"]) == 3, seen
    assert "at most 4" in host.refused("resize", "one-7", stdin=resize(5))
    assert "cannot be taken away" in host.refused("resize", "one-7", stdin=resize(2))
    host.do("save", "one-7", host.dir / "checkpoint", "node1")
    host.do("restore", host.dir / "checkpoint", "node1", "one-7")
    assert suite.vm(uuid)["vcpus"] == 3 and host.state() == "a"
    host.do("cancel", "one-7")


def fake_ssh(host, text):
    folder = host.suite.root / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "ssh").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "ssh").chmod(0o755)
    host.env["PATH"] = f"{folder}:{os.environ['PATH']}"


def test_migration_to_a_host_that_lies(suite, host):
    """What another host says, or how its ssh ends, costs no VM and leaves nothing in its directory."""
    host.disk(0, first=HALT)
    host.deploy(initrd=None)
    before = sorted(os.listdir(host.dir))
    for text, want in (
            ("echo 'ssh: no route to host' >&2; exit 255", "node2: ssh: no route to host"),
            ("kill -9 $$", "it failed and did not say why"),
            ("head -c 100000 /dev/urandom; head -c 3000 /dev/urandom >&2; exit 1", "Could not migrate one-7 to node2"),
            ("head -c 100000 /dev/urandom", "cannot tell whether it has the VM"),
            ("echo STATE=-", "cannot tell whether it has the VM"),
            ("echo STATE=a", "has a VM of that name already"),
            ("case $4 in *mkdir*) head -c 512 >/dev/null; kill -9 $$;; *) echo STATE=d;; esac", "cannot copy"),
            ("case $4 in *mkdir*) echo 'No space left on device' >&2; exit 2;; *) echo STATE=d;; esac",
             "No space left on device"),
            ("cat >/dev/null; echo STATE=d", "cannot be reached")):
        fake_ssh(host, text)
        assert want in host.refused("migrate", "one-7", "node2", "node1"), text
        assert host.state() == "a" and sorted(os.listdir(host.dir)) == before
    for name in ("-oProxyCommand=touch$IFS/tmp/x", "a b", "\t"):
        assert "is no name of a host" in host.refused("migrate", "one-7", name, "node1")
    message = host.message(DISK_TARGET_PATH="/elsewhere/9/7")
    assert "Operation not supported while the VM runs" in host.refused(
        "migrate", "one-7", "node2", "node1", stdin=message)
    assert "datastore of the same host" in host.refused("migrate", "one-7", "node1", "node1")
    host.do("cancel", "one-7")


@pytest.mark.root
def test_full_disk(suite, host):
    """A checkpoint that finds no room: refused, nothing of it stays, and the guest goes on."""
    host.disk(0, first=HALT)
    host.deploy(initrd=None)
    small = suite.root / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", small], check=True)
    try:
        assert "Could not save one-7 to " in host.refused("save", "one-7", small / "checkpoint", "node1")
        watch, deadline = Inotify(small), Deadline(10)
        while os.listdir(small):  # what there is of it goes a moment later
            assert watch.wait(deadline), os.listdir(small)
        watch.close()
        with suite.events() as events:
            events.wait_vm("one-7", lambda vm: vm.get("run_state") == "running", 10, "the guest to go on")
        assert host.state() == "a"
    finally:
        subprocess.run(["umount", small], check=True)
    host.do("cancel", "one-7")


@pytest.mark.campaign
def test_input_without_an_end(suite, host):
    """Of a caller that forgets to close it: a failure after a minute."""
    with subprocess.Popen([host.vmm / "reset", "one-7"], stdin=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:
        process.stdin.write("<VMM")
        process.stdin.flush()
        assert "standard input did not end within 60 s" in process.stderr.read()
        assert process.wait(5) == 1


def test_newer_cores_get_the_text_alone(suite):
    host = Host(suite, "7.0.1")
    done = host.run("reset", "one-7", "node1")
    assert done.returncode == 1 and done.stderr == "VM one-7 not found\n"


def test_xpath(suite):
    text = ("<A><D><N>1</N></D><D><ATTACH>YES</ATTACH><N><![CDATA[x & y]]></N></D></A>")
    for arguments, stdin in ((["-b", b64(text)], ""), ([], text)):
        done = subprocess.run([suite.build / "src/one/drover-vmm", "xpath", *arguments, "/A/D[ATTACH='YES']/N", "/A/X",
                               "%m%/A/D/N"], input=stdin, capture_output=True, text=True, check=True)
        assert done.stdout == "x & y\0\0001\0"
