# SPDX-License-Identifier: Apache-2.0
"""Definitions with several VMs, firmware, budgets of resets, rotation of logs."""

import json
import os
import pathlib
import subprocess
import tempfile

import pytest

import drover

OVMF = pathlib.Path("/usr/share/OVMF/OVMF_CODE_4M.fd")


def status(suite):
    return {vm["name"]: vm for vm in suite.http("vmstated", "GET", "/status").json()["vms"]}


def start(suite, name):
    reply = suite.http("vmstated", "POST", f"/vms/{name}/start", "{}")
    assert reply.status == 200, reply


def test_several_vms_in_one_file(suite, guest_images):
    text = "".join(f"{name} {{\n{suite.guest()}\n}}\n" for name in ("one", "two", "three"))
    config = suite.write_definition("one", text, directory="shop")
    assert sorted(status(suite)) == ["one", "three", "two"]
    with suite.events() as events:
        start(suite, "two")
        events.wait_vm("two", lambda vm: vm.get("ready"), 60)
        # A section that goes takes only its own VM along.
        text = "".join(f"{name} {{\n{suite.guest()}\n}}\n" for name in ("one", "two"))
        new = config.with_name(".new")
        new.write_text(text)
        os.chmod(new, 0o644)
        os.rename(new, config)
        events.wait_gone("three")
        assert status(suite)["two"]["state"] == "running"
    suite.vmstatedctl("stop", "-F", "two")


@pytest.mark.skipif(not OVMF.exists(), reason="package ovmf is not installed")
def test_firmware_has_variables_of_its_own(suite, guest_images):
    suite.write_definition("web0", suite.guest(ram=256, bootrom=str(OVMF)))
    suite.write_definition("db0", suite.guest(ram=256, bootrom=str(OVMF)))
    with suite.events() as events:
        start(suite, "web0")
        uuid = events.wait_vm("web0", lambda vm: vm.get("ready"), 120, "ready")["uuid"]
        variables = suite.data_dir(uuid) / "nvram.fd"
        template = OVMF.with_name("OVMF_VARS_4M.fd")
        assert variables.stat().st_size == template.stat().st_size
        argv = json.loads((suite.run_dir(uuid) / "started.json").read_text())["argv"]
        assert any(str(variables) in arg for arg in argv)
        assert not any(str(template) in arg for arg in argv)
        suite.vmstatedctl("stop", "-F", "web0")
        changed = variables.read_bytes()
        start(suite, "web0")  # they are kept, not made anew
        suite.vmstatedctl("stop", "-F", "web0")
        assert variables.read_bytes()[:64] == changed[:64]


def test_reset_loop_spends_the_budget(suite, guest_images):
    """A guest that resets itself as soon as it is up, again and again, is failed."""
    suite.write_definition("loop", suite.guest("drover.reboot=0", maxrestart=1, maxrestarttime=120))
    with suite.events() as events:
        start(suite, "loop")
        vm = events.wait_vm("loop", lambda v: v["state"] == "failed", 120, "failed")
    assert "resets itself" in vm["failed"] and "pid" not in vm


@pytest.mark.slow
def test_late_resets_cost_nothing(suite, guest_images):
    """An installer resets some times, each more than ten seconds after the one before."""
    suite.write_definition("setup", suite.guest("drover.reboot=11", maxrestart=0))
    with suite.events() as events:
        start(suite, "setup")
        vm = events.wait_vm("setup", lambda v: v.get("resets", 0) >= 2, 90, "two resets")
        assert vm["state"] == "running"
    suite.vmstatedctl("stop", "-F", "setup")


def test_log_is_rotated_and_never_emptied(suite):
    suite.logs.mkdir(parents=True, exist_ok=True)
    log = suite.logs / "web0.log"
    log.write_bytes(b"an old line\n" * (11 << 20 >> 3))
    size = log.stat().st_size
    suite.write_definition("web0", suite.guest(), hooks={"start_network": "echo new; exit 1"})
    suite.vmstatedctl("start", "web0", check=1)
    assert (suite.logs / "web0.log.1").stat().st_size == size
    assert "start_network/out: new" in log.read_text()
    suite.restart("vmstated")
    assert "start_network/out: new" in log.read_text()


@pytest.mark.root
def test_directory_that_cannot_be_read_is_named():
    nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    program = str(drover.build_dir() / "src/vmstated/vmstated")
    try:
        subprocess.run([program, "-h"], check=True, capture_output=True, cwd="/", **nobody)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("another user cannot reach the build folder")
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name in ("web0", "good"):
            (root / "etc/vmstated" / name).mkdir(parents=True)
            (root / "etc/vmstated" / name / "config").write_text(f"{name} {{ ram = 64; }}")
        for path in [root, *root.rglob("*")]:
            os.chown(path, 65534, 65534)
        (root / "etc/vmstated/web0").chmod(0)
        done = subprocess.run([program, "--check", "--root", folder], text=True, cwd="/",
                              capture_output=True, check=False, timeout=20, **nobody)
        assert done.returncode == 1 and done.stdout.count("\n") == 1
        assert "web0/config" in done.stdout and "Permission denied" in done.stdout
        assert "1 virtual machine, 1 problem" in done.stderr


@pytest.mark.campaign
@pytest.mark.timeout(180)
def test_qemu_slow_to_tell_its_version(cold):
    """Loaded from a slow disk on a busy host: not taken for another program."""
    slow = cold.root / "qemu-system-x86_64"
    slow.write_text("#!/bin/sh\nexec tail -f /dev/null\n")
    slow.chmod(0o755)
    cold.env["DROVER_QEMU"] = str(slow)
    cold.start()
    cold.write_definition("web0", cold.guest(maxrestart=0, onfailure="fail"))
    done = cold.vmstatedctl("start", "--timeout", "70", "web0", check=1, seconds=90)
    assert "did not tell what it is within 30 s" in done.stderr


@pytest.mark.campaign
@pytest.mark.timeout(180)
def test_qemu_that_never_answers(cold):
    """A start ends with the reason, not with the signal that we sent."""
    mute = cold.root / "qemu-system-x86_64"
    mute.write_text("#!/bin/sh\ncase $1 in --version | -machine) exec qemu-system-x86_64 \"$@\" ;; esac\n"
                    "exec tail -f /dev/null\n")
    mute.chmod(0o755)
    cold.env["DROVER_QEMU"] = str(mute)
    cold.start()
    cold.write_definition("web0", cold.guest(maxrestart=0, onfailure="fail"))
    done = cold.vmstatedctl("start", "--timeout", "100", "web0", check=1, seconds=120)
    assert "QEMU did not answer within 60 s" in done.stderr
    assert "start-error: QEMU did not answer within 60 s" in cold.vmadm("why", "web0").stdout
