# SPDX-License-Identifier: Apache-2.0
"""After any end nothing of a guest is left: an audit before and after many mixed cycles."""

import os
import signal
import stat
import subprocess
import time
from collections import Counter

import pytest

import drover
from vmstated_help import NOTE, Qmp, small, vm, wait_ended

TAP = "drvleak0"
TAP_HOOKS = {"start_network": f"ip tuntap add dev {TAP} mode tap",
             "stop_network": f"ip link del {TAP}"}


def descriptors(pid):
    """What a process has open, inode numbers left out."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}").split(":[")[0])
        except FileNotFoundError:
            continue
    return sorted(found)


def run_files(suite):
    """Files below run/ with their kind; sockets and pipes of a guest are gone with it."""
    kinds = {stat.S_IFSOCK: "socket", stat.S_IFIFO: "pipe", stat.S_IFREG: "file"}
    return sorted((str(path.relative_to(suite.root)), kinds.get(stat.S_IFMT(path.stat().st_mode)))
                  for path in (suite.root / "run").rglob("*") if not path.is_dir())


def taps():
    done = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True)
    return sorted(line.split(":")[1].strip() for line in done.stdout.splitlines())


def audit(suite):
    return {"descriptors": descriptors(suite.daemons["vmstated"].pid), "files": run_files(suite),
            "processes": suite.guests(), "interfaces": taps()}


def post(suite, target, status=200, **body):
    reply = suite.http("vmstated", "POST", f"/vms/{target}", body)
    assert reply.status == status, (target, reply)


def ends(suite, name, number):
    """The guest's process dies of a signal; back at rest within a second after it."""
    os.kill(vm(suite, name)["pid"], number)
    wait_ended(suite, name, 1)


def forced(suite, name):
    post(suite, f"{name}/start")
    post(suite, f"{name}/stop", force=True)


def asked(suite, name):
    post(suite, f"{name}/start")
    post(suite, f"{name}/stop", timeout_ms=300)


def killed(suite, name):
    post(suite, f"{name}/start")
    ends(suite, name, signal.SIGKILL)


def restarted(suite, name):
    post(suite, f"{name}/start")
    post(suite, f"{name}/restart", force=True)
    post(suite, f"{name}/stop", force=True)


def crashed(suite, name):
    post(suite, f"{name}/start")
    ends(suite, name, signal.SIGSEGV)
    post(suite, f"{name}/failreset")


def watched(suite, name):
    """A console reader and a monitor client that stay longer than the guest."""
    post(suite, f"{name}/start")
    uuid = vm(suite, name)["uuid"]
    console, monitor = suite.console(uuid), Qmp(suite, uuid)
    post(suite, f"{name}/stop", force=True)
    console.sock.close()
    monitor.close()


def refused(suite, name):
    """A start hook fails; what was set up is taken down."""
    suite.write_hook(suite.etc / name, "start_storage", "exit 1")
    post(suite, f"{name}/start", 500)
    wait_ended(suite, name)
    post(suite, f"{name}/failreset")
    (suite.etc / name / "start_storage").unlink()


def stopped_early(suite, name):
    post(suite, f"{name}/start", 202, wait=False)
    post(suite, f"{name}/stop", force=True)


CYCLES = [forced, killed, asked, restarted, crashed, watched, refused, stopped_early]


def walk(suite, count):
    """count cycles of all kinds; the audit before (after one round of each) and after."""
    root = os.geteuid() == 0
    suite.write_definition("web0", small(onfailure="fail"), hooks=TAP_HOOKS if root else {})
    suite.write_definition("db0", small(onfailure="fail"), hooks={"running": NOTE})
    for cycle in CYCLES:
        for name in ("web0", "db0"):
            cycle(suite, name)
    before = settle(suite, None)
    for i in range(count):
        CYCLES[i % len(CYCLES)](suite, ("web0", "db0")[i // len(CYCLES) % 2])
    after = settle(suite, before)
    for what in before:
        new = Counter(map(str, after[what])) - Counter(map(str, before[what]))
        assert not new, f"{what} that were not there before"
    assert not [file for file in after["files"] if "/vmstated/" in file[0] and file[1] == "socket"]
    assert after["processes"] == [] and TAP not in after["interfaces"]


def settle(suite, want):
    """The audit, given a second in which it may still come to what is wanted."""
    deadline = drover.Deadline(1)
    watch = drover.Inotify(suite.root / "run/vmstated")
    seen = audit(suite)
    while want is not None and seen != want and not deadline.over():
        watch.wait(drover.Deadline(min(0.1, deadline.left())))
        seen = audit(suite)
    watch.close()
    return seen


def test_nothing_is_left_after_ten_cycles(cold):
    cold.use_fake_qemu()
    cold.start("vmstated", "vminfod")
    walk(cold, 10)


@pytest.mark.campaign
def test_nothing_is_left_after_200_cycles(cold):
    """With the real QEMU: 200 mixed cycles."""
    cold.start("vmstated", "vminfod")
    walk(cold, 200)


def test_nothing_is_inherited_that_is_not_meant(cold):
    """A guest and a hook have only what they are given: no socket of ours, no log of others."""
    cold.use_fake_qemu()
    cold.write_definition("web0", small(), hooks={"running": 'ls -l /proc/self/fd > "$VM_DIR/fds"'})
    cold.start("vmstated", "vminfod")
    post(cold, "web0/start")
    listed = (cold.etc / "web0/fds").read_text()
    assert "vmstated.sock" not in listed and "socket:" not in listed and "pidfd" not in listed
    pid = vm(cold, "web0")["pid"]
    ours = set(descriptors(cold.daemons["vmstated"].pid))
    assert not [fd for fd in descriptors(pid) if fd in ours and "vmstated.sock" in fd]
    began = time.monotonic()
    post(cold, "web0/stop", force=True)
    assert time.monotonic() - began < 2
