# SPDX-License-Identifier: Apache-2.0
"""The tools with real daemons: what they foretell comes true, and what they tell is so."""

import json
import random
import subprocess
import tarfile

import pytest


SECRET = "do-not-tell"


def plain(alias, **members):
    """A VM that needs no guest: QEMU's firmware finds nothing to boot, which is enough here."""
    return {"alias": alias, "name": alias, "ram": 64, "accel": "tcg", "autoboot": False, **members}


def make(suite, payload):
    return json.loads(suite.vmadm("create", "--json", stdin=payload).stdout)["uuid"]


UPDATES = [
    {"ram": 96},
    {"ram": "128", "alias": "new", "vnc_port": -1},
    {"vcpus": 2, "max_physical_memory": 2048},
    {"ram": 256, "quota": None},
    {"set_tags": {"a": 1, "b": "x"}, "set_customer_metadata": {"k": "v"}},
    {"remove_tags": ["a"], "set_tags": {"b": "y"}, "set_internal_metadata": {"p": SECRET}},
    {"add_nics": [{"nic_tag": "user", "model": "e1000", "mac": "52:54:00:00:00:09"}]},
    {"update_nics": [{"mac": "52:54:00:00:00:09", "primary": True, "model": "virtio"}]},
    {"remove_nics": ["52:54:00:00:00:09"], "resolvers": ["1.1.1.1"]},
    {"add_disks": [{"size": 16, "model": "virtio"}]},
    {"stoptimeout": "2min", "maxrestart": 7, "boot": "order=dc"},
    {"ram": 256},
]


def test_what_is_foretold_comes_true(suite):
    """Each line of a dry run is a line of the update, in the same order."""
    make(suite, plain("web0", nics=[{"nic_tag": "user", "model": "virtio"}]))
    for update in UPDATES:
        foretold, _, argv = suite.vmadm("update", "--dry-run", "web0",
                                        stdin=update).stdout.partition("\n\n")
        diff = suite.vmadm("diff", "web0", stdin=update).stdout
        done = suite.vmadm("update", "web0", stdin=update).stderr
        assert foretold.rstrip("\n") == diff.rstrip("\n") and ("qemu-system" in argv) == bool(diff)
        assert foretold.splitlines() == done.splitlines()[:-1], update
        assert not suite.vmadm("diff", "web0", stdin=suite.vmadm("get", "web0").stdout).stdout


def test_delete_removes_what_was_foretold(suite):
    outside = suite.root / "outside.raw"
    outside.write_bytes(bytes(1 << 20))
    uuid = make(suite, plain("web0", disks=[{"size": 16, "model": "virtio"},
                                            {"path": str(outside), "nocreate": True,
                                             "model": "virtio"}]))
    foretold = suite.vmadm("delete", "--dry-run", "web0").stdout.splitlines()
    assert suite.vm(uuid)["state"] == "stopped"
    suite.vmadm("delete", "web0")
    for line in foretold:
        fate, _, path = line.partition(": ")
        if path.startswith("/"):
            assert (suite.root / path).exists() == fate.startswith("keep"), line
    assert [line.split(":")[0] for line in foretold] == [
        "remove the definition of", "remove with all in it", "remove disk", "keep disk"]


VALUES = {
    "ram": [64, "64", 0, -1, "1G", 99999999, "x", None, [], 64.5],
    "vcpus": [1, 4, 0, 1000, "two"],
    "alias": ["a", "", 7, "x" * 300, "t\tab"],
    "hostname": ["h", "h h", ""],
    "cpu_type": ["host", "qemu64", ""],
    "vga": ["std", "none", "voodoo"],
    "vnc_port": [0, -1, 5999, 70000],
    "autoboot": [False, "false", "no", 0],
    "resolvers": [[], ["1.1.1.1"], ["300.1.1.1"], "1.1.1.1", 7],
    "tags": [{}, {"a": 1}, {"a": []}, []],
    "customer_metadata": [{"a": "b"}, {"a": None}],
    "owner_uuid": ["00000000-0000-0000-0000-000000000001", "me"],
    "max_physical_memory": [2048, 1, "x"],
    "boot": ["order=cd", "order=zz", "cd"],
    "brand": ["kvm", "joyent", 7],
    "stoptimeout": [1, "1min", "soon"],
    "spice_port": [0, 5900],
    "nics": [[], [{}], [{"nic_tag": "user", "model": "virtio"}], [{"nic_tag": "user"}], {},
             [{"nic_tag": "user", "model": "virtio", "mac": "zz"}],
             [{"nic_tag": "user", "model": "virtio", "ip": "1.2.3.4"}]],
    "disks": [[], [{}], [{"size": 1, "model": "virtio"}], [{"model": "virtio"}], "none",
              [{"size": 1, "model": "tape"}]],
    "bogus": [1],
    "rma": [64],
    "state": ["running"],
}

ELEMENTS = {
    "add_nics": [[{"nic_tag": "user", "model": "virtio", "mac": "02:00:00:00:00:01"}], [{}], {},
                 [{"nic_tag": "user", "model": "e1000", "mac": "02:00:00:00:00:02"}]],
    "update_nics": [[{"mac": "02:00:00:00:00:01", "model": "rtl8139"}], [{"model": "e1000"}],
                    [{"mac": "02:00:00:00:00:02", "vlan_id": 5000}]],
    "remove_nics": [["02:00:00:00:00:01"], ["02:00:00:00:00:02"], ["zz"], "x"],
    "set_tags": [{"a": 1}, {"b": "x", "c": True}, {"d": []}],
    "remove_tags": [["a"], ["b", "c"], "a"],
    "set_routes": [{"10.0.0.0/8": "10.1.1.1"}, {"x": "y"}],
    "remove_routes": [["10.0.0.0/8"], 7],
    "max_swap": [1, 4096, "x"],
    "quota": [0, 20, "", -1],
}


def agree(suite, count, seed):
    dice = random.Random(seed)
    for number in range(count):
        keys = dice.sample(sorted(VALUES), dice.randint(1, 4))
        payload = {"autoboot": False, **{key: dice.choice(VALUES[key]) for key in keys}}
        valid = suite.vmadm("validate", "create", stdin=payload, check=None)
        made = suite.vmadm("create", "--json", stdin=payload, check=None)
        said = f"payload {number} of seed {seed}: {payload}\n{valid.stderr}\n{made.stderr}"
        assert valid.returncode in (0, 1), said
        assert valid.returncode == made.returncode, said
        if made.returncode == 0:
            suite.vmadm("delete", json.loads(made.stdout)["uuid"])


def test_validate_and_create_agree(suite):
    agree(suite, 100, 1)


@pytest.mark.campaign
def test_validate_and_create_agree_on_many(suite):
    agree(suite, 10000, 2)


def updates_agree(suite, count, seed):
    """validate, a dry run and the update itself: one verdict, and a refusal changes nothing."""
    dice = random.Random(seed)
    make(suite, plain("web0"))
    for number in range(count):
        keys = dice.sample(sorted(VALUES), dice.randint(1, 3))
        payload = {key: dice.choice(VALUES[key]) for key in keys}
        before = suite.vmadm("get", "web0").stdout
        codes = [suite.vmadm(*words, stdin=payload, check=None).returncode for words in (
            ("validate", "update", "web0"), ("update", "--dry-run", "web0"), ("update", "web0"))]
        said = f"payload {number} of seed {seed}: {payload}: {codes}"
        assert codes[0] in (0, 1) and len(set(codes)) == 1, said
        if codes[2]:
            assert suite.vmadm("get", "web0").stdout == before, said
        elif "alias" in payload:
            suite.vmadm("update", "web0", "alias=web0")


def test_validate_and_update_agree(suite):
    updates_agree(suite, 20, 3)


@pytest.mark.campaign
def test_validate_and_update_agree_on_many(suite):
    updates_agree(suite, 1000, 4)


def updates_through_daemon(suite, count, seed):
    """Refused is unchanged, done is visible at once; validate, asked now and then, says the same."""
    dice = random.Random(seed)
    uuid = make(suite, plain("web0"))
    values, verdicts = {**VALUES, **ELEMENTS}, {True: 0, False: 0}

    def seen():
        vm = suite.http("vminfod", "GET", f"/vms/{uuid}").json()
        return {key: vm[key] for key in vm if key not in ("last_modified", "supervisor_state")}

    before = seen()
    for number in range(count):
        keys = dice.sample(sorted(values), dice.randint(1, 3))
        payload = {key: dice.choice(values[key]) for key in keys}
        valid = number % 50 or suite.vmadm("validate", "update", "web0", stdin=payload, check=None)
        done = suite.http("vmadmd", "PUT", f"/vm/{uuid}", payload)
        after = seen()
        said = f"payload {number} of seed {seed}: {payload}: {done}"
        assert done.status in (200, 400, 404, 409), said
        assert number % 50 or (valid.returncode == 0) == (done.status == 200), said
        changed = done.status == 200 and bool(done.json()["changes"])
        assert changed == (after != before), f"{said}\n{before}\n{after}"
        verdicts[done.status == 200] += 1
        before = after
        if "alias" in payload and done.status == 200:
            suite.vmadm("update", uuid, "alias=web0")
            before = seen()
    assert min(verdicts.values()) > count // 10, verdicts


def test_updates_through_the_daemon(suite):
    updates_through_daemon(suite, 100, 5)


@pytest.mark.campaign
def test_10000_updates_through_the_daemon(suite):
    updates_through_daemon(suite, 10000, 6)


def test_edit(suite):
    make(suite, plain("web0", tags={"role": "test"}))
    suite.vmadm("edit", "web0", env={"EDITOR": 'sed -i s/"role":.*/"other":1/;s/"ram":.64/"ram":80/',
                                     "TMPDIR": str(suite.root)})
    vm = suite.vm(suite.uuid("web0"))
    assert vm["tags"] == {"other": 1} and vm["ram"] == 80
    assert not list(suite.root.glob("vmadm-edit-*"))


def test_why_and_bundle(suite):
    """Who stopped it is told; no secret is in the bundle, whatever the file."""
    uuid = make(suite, plain("web0", vnc_password=SECRET[:8], internal_metadata={"x": SECRET}))
    suite.vmstatedctl("start", "web0")
    assert "state: running" in suite.vmadm("why", "web0").stdout
    assert suite.vm(uuid)["accel_in_use"] == "tcg"
    suite.vmadm("bundle", "web0")
    suite.vmadm("bundle", "web0", check=5)  # it is there
    suite.vmadm("stop", "-F", "web0")
    why = suite.vmadm("why", "web0").stdout
    assert "state: stopped (STOPPED)" in why and "last end: " in why
    assert "last request: vmadm stop, uid " in why and "(vmadm stop, uid " in why
    with tarfile.open(suite.root / "web0.bundle.tar") as archive:
        texts = {m.name: archive.extractfile(m).read().decode() for m in archive}
    assert {"bundle/vm.json", "bundle/vmstated.json", "bundle/info.json", "bundle/log",
            "bundle/started.json", "bundle/events.out", "bundle/about.json"} <= set(texts)
    assert uuid in texts["bundle/started.json"] and "(redacted)" in texts["bundle/started.json"]
    for name, text in texts.items():
        assert SECRET[:8] not in text, name


def test_log_by_start_and_following(suite):
    make(suite, plain("web0"))
    for _ in range(2):
        suite.vmstatedctl("start", "web0")
        suite.vmstatedctl("stop", "-F", "web0")
    whole = suite.vmstatedctl("log", "web0").stdout
    last = suite.vmstatedctl("log", "-b", "0", "web0").stdout
    before = suite.vmstatedctl("log", "-b", "-1", "web0").stdout
    assert last and before and whole.endswith(last) and before + last in whole and before != last
    assert suite.vmstatedctl("log", "-n", "1", "web0").stdout == whole.splitlines(True)[-1]
    argv = [str(suite.binary("vmstatedctl")), "--root", str(suite.root), "log", "-f", "web0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=suite.env) as follower:
        first = follower.stdout.readline().decode()
        assert first in whole
        suite.vmstatedctl("start", "web0")
        while b": start " not in follower.stdout.readline():
            assert follower.poll() is None
        follower.terminate()


def test_shutdown_all(suite):
    suite.write_definition("db0", "    ram = 64; accel = tcg;")
    suite.write_definition("web0", '    ram = 64; accel = tcg; after = [ "db0" ];')
    for name in ("db0", "web0"):
        suite.vmstatedctl("start", name)
    done = suite.vmstatedctl("shutdown-all", "-t", "0", seconds=60)
    assert sorted(done.stdout.splitlines()) == ["db0: stopped", "web0: stopped"]
    assert suite.guests() == []


def test_upgrade(suite):
    """The guest has not noticed."""
    uuid = make(suite, plain("web0"))
    suite.vmstatedctl("start", "web0")
    pid = suite.vm(uuid)["pid"]
    daemon = suite.daemons["vmstated"].pid
    done = suite.vmstatedctl("upgrade", seconds=60)
    assert done.stdout == f"vmstated upgraded (pid {daemon})\n"
    assert suite.http("vmstated", "GET", "/vms/web0").json()["pid"] == pid
    # vminfod may still be on its way back: then it is done, but not confirmed
    assert suite.vmstatedctl("stop", "-F", "web0", check=None).returncode in (0, 7)


def test_names_to_complete(suite):
    uuid = make(suite, plain("web0"))
    for tool in (suite.vmadm, suite.vmstatedctl):
        assert set(tool("completion", "names").stdout.split()) == {"web0", uuid}
