# SPDX-License-Identifier: Apache-2.0
"""What a start takes along for one boot only, what is pending, and QEMU's arguments foretold."""

import json
import shlex

import pytest

from vmstated_help import RESETS, Qmp, small


def plain(alias, **members):
    """A VM that needs no guest: QEMU's firmware finds nothing to boot, which is enough here."""
    return {"alias": alias, "name": alias, "ram": 64, "accel": "tcg", "autoboot": False, **members}


def make(suite, payload):
    return json.loads(suite.vmadm("create", "--json", stdin=payload).stdout)["uuid"]


def started(suite, uuid):
    return json.loads((suite.run_dir(uuid) / "started.json").read_text())


def pending(suite):
    said = json.loads(suite.vmadm("get", "--pending", "--json", "web0").stdout)
    return {one["path"]: (one["old"], one["new"]) for one in said["pending"]}


def words(text):
    return shlex.split(text.replace("\\\n", " "))


def by_number(argv):
    """Arguments without the numbers of descriptors, which differ from process to process."""
    return [" ".join("N" if part.isdigit() else part for part in
                     word.replace("=", " = ").replace('"', ' " ').replace(",", " , ").split())
            for word in argv]


def test_pending(suite):
    """Only what waits for the next start; gone when the start has come; the same after SIGKILL."""
    uuid = make(suite, plain("web0", nics=[{"nic_tag": "user", "model": "virtio",
                                            "mac": "52:54:00:00:00:01"}]))
    suite.vmadm("update", "web0", "ram=96")
    assert "not running" in suite.vmadm("get", "--pending", "web0").stderr
    suite.vmadm("start", "web0")
    assert "Nothing is pending" in suite.vmadm("get", "--pending", "web0").stderr
    suite.vmadm("update", "web0", "alias=new", "stoptimeout=5")
    assert pending(suite) == {} and "pending" not in suite.vm(uuid)
    suite.vmadm("update", "web0", stdin={"ram": 128, "update_nics": [
        {"mac": "52:54:00:00:00:01", "model": "e1000"}]})
    want = {"ram": (96, 128), "nics[52:54:00:00:00:01].model": ("virtio", "e1000")}
    assert pending(suite) == want and suite.vm(uuid)["pending"] is True
    suite.kill9("vmstated")
    suite.start("vmstated")
    assert pending(suite) == want
    text = suite.vmadm("get", "--pending", "web0").stdout
    assert "ram: 96 -> 128 (next start)" in text
    suite.vmadm("stop", "-F", "web0")
    suite.vmadm("start", "web0")
    assert pending(suite) == {} and "128M" in " ".join(started(suite, uuid)["argv"])


def install(suite, version):
    """Replace the QEMU that is installed, as a package does: by a rename."""
    program, new = suite.root / "qemu", suite.root / "qemu.new"
    new.write_text(f"""#!/bin/sh
[ "$1" = --version ] && exec echo 'QEMU emulator version {version}'
exec qemu-system-x86_64 "$@"
""")
    new.chmod(0o755)
    new.rename(program)
    suite.env["DROVER_QEMU"] = str(program)


def test_qemu_that_is_installed(suite):
    """The QEMU it runs in, the one its next start gets, also after another vmstated's start."""
    install(suite, "7.2.17 (old)")
    suite.restart("vmstated")
    make(suite, plain("web0"))
    suite.vmadm("start", "web0")
    assert "for VM web0 (QEMU 7.2.17 (old))" in suite.vmadm("get", "--pending", "web0").stderr
    install(suite, "7.2.22 (new)")
    for _ in range(2):
        text = suite.vmadm("get", "--pending", "web0").stdout
        assert text == "qemu: 7.2.17 (old) -> 7.2.22 (new) (next start)\n"
        suite.restart("vmstated")
    said = json.loads(suite.vmadm("get", "--pending", "--json", "web0").stdout)
    assert said["qemu"] == {"running": "7.2.17 (old)", "installed": "7.2.22 (new)",
                            "changes": True}
    suite.vmadm("reboot", "-t", "0", "web0")
    assert "(QEMU 7.2.22 (new))" in suite.vmadm("get", "--pending", "web0").stderr


def test_live_members_of_supervision(suite):
    """An update says (live) of stoptimeout: a stop of the guest that runs goes by it."""
    make(suite, plain("web0"))
    suite.vmadm("start", "web0")
    assert "stoptimeout: 180 -> 1 (live)" in suite.vmadm("update", "web0", "stoptimeout=1").stderr
    suite.vmadm("stop", "web0")  # firmware hears no power button: forced after its second
    assert suite.vm(suite.uuid("web0"))["last_exit"]["cause"] == "timeout-forced"


def test_media_for_one_boot(suite):
    """Order and media are in this start's arguments and record, nothing of them in the next."""
    uuid = make(suite, plain("web0", disks=[{"size": 16, "model": "virtio"}]))
    disk = suite.vm(uuid)["disks"][0]["path"]
    cd, image = suite.root / "install.iso", suite.root / "other.raw"
    cd.write_bytes(bytes(1 << 20))
    image.write_bytes(bytes(1 << 20))
    before = suite.vmadm("get", "web0").stdout
    suite.vmadm("start", "web0", "order=dc", f"cdrom={cd},ide", f"disk={image},virtio",
                f"disk={disk},scsi")
    now = started(suite, uuid)
    line = " ".join(now["argv"])
    assert str(cd) in line and str(image) in line and "scsi-hd" in line
    assert now["once"]["boot"] == "order=dc" and len(now["once"]["media"]) == 3
    assert pending(suite) == {}
    suite.kill9("vmstated")
    suite.start("vmstated")
    assert pending(suite) == {} and "pending" not in suite.vm(uuid)
    assert suite.vmadm("get", "web0").stdout.count(str(cd)) == before.count(str(cd)) == 0
    suite.vmadm("reboot", "-t", "1", "web0")
    now = started(suite, uuid)
    assert "once" not in now and str(cd) not in " ".join(now["argv"])


@pytest.mark.parametrize("words,code,text", [
    (["disk=/nowhere,virtio"], 1, "Cannot find disk: /nowhere"),
    (["cdrom=/dev,ide"], 1, "Cannot find disk: /dev"),
    (["cdrom=/etc/hostname,floppy"], 1, '"floppy" is not a valid disk model'),
    (["order=z"], 1, "order=z"),
])
def test_media_refused(suite, words, code, text):
    uuid = make(suite, plain("web0"))
    assert text in suite.vmadm("start", "web0", *words, check=code).stderr
    assert suite.vm(uuid)["state"] == "stopped"


def test_arguments_foretold_are_those_of_the_start(suite):
    """create --dry-run, update --dry-run and start --dry-run name what the start then uses."""
    payload = plain("web0", uuid="11111111-2222-4333-8444-555555555555",
                    disks=[{"size": 16, "model": "virtio"}],
                    nics=[{"nic_tag": "user", "model": "virtio", "mac": "52:54:00:00:00:01"}])
    created = json.loads(suite.vmadm("create", "--dry-run", "--json", stdin=payload).stdout)
    uuid = make(suite, payload)
    start = words(suite.vmadm("start", "--dry-run", "web0").stdout)
    change = {"ram": 96, "vcpus": 2}
    updated = json.loads(suite.vmadm("update", "--dry-run", "--json", "web0",
                                     stdin=change).stdout)
    said = suite.vmadm("update", "--dry-run", "web0", stdin=change).stdout
    assert suite.vm(uuid)["ram"] == 64 and suite.vm(uuid)["state"] == "stopped"
    suite.vmadm("start", "web0")
    real = started(suite, uuid)["argv"]
    assert by_number(created["argv"]) == by_number(start) == by_number(real)
    suite.vmadm("update", "web0", stdin=change)
    suite.vmadm("stop", "-F", "web0")
    suite.vmadm("start", "web0")
    real = started(suite, uuid)["argv"]
    assert by_number(updated["argv"]) == by_number(real)
    lines, _, text = said.partition("\n\n")
    assert "ram: 64 -> 96 (next start)" in lines and words(text) == updated["argv"]


def test_arguments_without_vmstated(cold):
    cold.start("vminfod", "vmadmd")
    done = cold.vmadm("create", "--dry-run", stdin=plain("web0"))
    assert json.loads(done.stdout)["alias"] == "web0"
    assert "arguments are not known" in done.stderr


def test_reboot_of_the_guest_applies_what_is_pending(cold):
    """Its own reboot is a new process then, with the definition as it is now."""
    cold.use_fake_qemu({"timeline": RESETS})
    cold.start("vmstated", "vminfod")
    cold.write_definition("web0", small())
    uuid = cold.uuid("web0")
    cold.vmstatedctl("start", "web0")
    cold.write_definition("web0", small(vga="none"))
    assert "vga: std -> none" in cold.vmadm("get", "--pending", "web0").stdout
    with cold.events() as events:
        first = events.find("web0")
        Qmp(cold, uuid).send("inject-nmi")
        events.wait_vm("web0", lambda vm: vm["state"] == "running" and vm.get("pid") not in (
            None, first["pid"]), 30)
    assert "vga = none" in started(cold, uuid)["definition"].replace(chr(34), "")
    assert "Nothing is pending" in cold.vmadm("get", "--pending", "web0").stderr
