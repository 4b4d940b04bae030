# SPDX-License-Identifier: Apache-2.0
"""Limits of guests: what is written to a cgroup hierarchy (a plain folder here, as the hosts of the
tests have no controllers), CPUs, huge pages, and what is refused for want of them."""

import os
import pathlib
import resource
import subprocess

import pytest

from drover import wait_file
from vmstated_help import log_of, vm

HUGE = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
UNIFIED = pathlib.Path("/sys/fs/cgroup/unified")
DEFAULTS = {  # of a guest with 128 MiB
    "cpu.max": "max 100000", "cpu.weight": "100", "io.weight": "100",
    "memory.max": str(1152 << 20), "memory.swap.max": "max", "memory.oom.group": "1",
    "pids.max": "2000", "cgroup.procs": "0",
}


def hierarchy(suite, controllers="cpuset cpu io memory hugetlb pids"):
    """A folder that looks like one delegated to us."""
    base = suite.root / "cgroup"
    base.mkdir()
    (base / "cgroup.controllers").write_text(controllers + "\n")
    suite.use_fake_qemu()
    suite.start("vmstated", arguments=["--cgroup", str(base)])
    suite.start("vminfod", "vmadmd")
    return base


def group(base, uuid):
    return {file.name: file.read_text() for file in (base / uuid).iterdir()}


def test_defaults_are_limits(cold):
    base = hierarchy(cold)
    cold.write_definition("web", cold.guest())
    cold.vmstatedctl("start", "web")
    uuid = cold.uuid("web")
    assert group(base, uuid) == DEFAULTS
    assert (base / "cgroup.subtree_control").read_text() == "+pids"  # the last that was written
    cold.vmstatedctl("stop", "-F", "web")
    assert not (base / uuid).exists()


def test_limits_change_while_it_runs(cold):
    base = hierarchy(cold)
    limits = {"cpu_cap": 150, "cpu_shares": 20000, "zfs_io_priority": 7, "max_lwps": 300,
              "max_physical_memory": 2048, "max_swap": 3072}
    cold.write_definition("web", cold.guest(**limits))
    cold.vmstatedctl("start", "web")
    uuid = cold.uuid("web")
    want = {**DEFAULTS, "cpu.max": "150000 100000", "cpu.weight": "10000", "io.weight": "7",
            "pids.max": "300", "memory.max": str(2 << 30), "memory.swap.max": str(1 << 30)}
    assert group(base, uuid) == want
    cold.vmadm("update", "web", "cpu_cap=0", "max_lwps=400")
    wait_file(base / uuid / "pids.max", lambda data: data == b"400", 10)
    assert group(base, uuid) == {**want, "cpu.max": "max 100000", "pids.max": "400"}
    assert "pending" not in cold.vm(uuid)
    # A guest taken up by a later vmstated has its group still.
    cold.kill9("vmstated")
    cold.start("vmstated", arguments=["--cgroup", str(base)])
    cold.vmadm("update", "web", "cpu_cap=50")
    wait_file(base / uuid / "cpu.max", lambda data: data == b"50000 100000", 10)
    os.kill(vm(cold, "web")["pid"], 9)
    with cold.events() as events:
        events.wait_vm("web", lambda o: o.get("state") == "stopped", 10, "stopped")
    assert not (base / uuid).exists()


def test_missing_controller(cold):
    """What is asked for and cannot be had refuses the start; nothing asked for is no obstacle."""
    hierarchy(cold, "cpuset memory")
    for member, value, controller in [("cpu_cap", 50, "cpu"), ("zfs_io_priority", 200, "io"),
                                      ("max_lwps", 100, "pids")]:
        name = f"bad-{controller}"
        cold.write_definition(name, cold.guest(maxrestart=0, onfailure="fail", **{member: value}))
        why = (f"limits: {member}: the host's cgroup v2 hierarchy has no controller "
               f"'{controller}' for guests")
        assert why in cold.vmstatedctl("start", name, check=1).stderr
        assert why in log_of(cold, name)
    cold.write_definition("good", cold.guest())
    cold.vmstatedctl("start", "good")


def test_cpus(cold):
    cold.use_fake_qemu()
    cold.start()
    cold.write_definition("one", cold.guest(cpu_affinity="0", max_locked_memory=640))
    cold.write_definition("bad", cold.guest(cpu_affinity="0,1000", maxrestart=0, onfailure="fail"))
    cold.vmstatedctl("start", "one")
    pid = vm(cold, "one")["pid"]
    assert os.sched_getaffinity(pid) == {0}
    may = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    raised = subprocess.run(["prlimit", f"--memlock={640 << 20}", "true"], capture_output=True,
                            check=False)
    assert resource.prlimit(pid, resource.RLIMIT_MEMLOCK)[0] == (may if raised.returncode
                                                                 else 640 << 20)
    done = cold.vmstatedctl("start", "bad", check=1)
    assert "cpu_affinity: the host has no CPU 1000 (it has 0" in done.stderr


def test_hugepages_missing(cold):
    cold.use_fake_qemu()
    cold.start()
    cold.write_definition("big", cold.guest(ram=1 << 22, hugepages="2M", maxrestart=0,
                                            onfailure="fail"))
    done = cold.vmstatedctl("start", "big", check=1)
    assert "hugepages: " in done.stderr
    if HUGE.exists():
        assert f"{1 << 21} of 2 MiB are needed" in done.stderr


@pytest.mark.root
@pytest.mark.campaign
def test_hugepages(cold):
    """A real guest in huge pages of the host."""
    if not HUGE.exists():
        pytest.skip("the kernel has no huge pages")
    count = HUGE / "nr_hugepages"
    before = count.read_text()
    try:
        count.write_text(str(int(before) + 64))
        if int(count.read_text()) < int(before) + 64:
            pytest.skip("no memory for 64 huge pages")
        cold.start()
        cold.write_definition("web", cold.guest(hugepages="2M"))
        free = int((HUGE / "free_hugepages").read_text())
        cold.vmstatedctl("start", "web")
        cold.log_wait("web", "GUEST-UP", 60)
        assert int((HUGE / "free_hugepages").read_text()) < free
        cold.vmstatedctl("stop", "-F", "web")
        assert int((HUGE / "free_hugepages").read_text()) == free
    finally:
        count.write_text(before)


@pytest.mark.root
@pytest.mark.campaign
def test_real_hierarchy(cold):
    """The kernel takes the guest into its group, and lets the group go with it."""
    mount = next((path for path in (UNIFIED, UNIFIED.parent)
                  if (path / "cgroup.controllers").exists()), None)
    if mount is None or "hugetlb" not in (mount / "cgroup.controllers").read_text():
        pytest.skip("no cgroup v2 controller")
    (mount / "cgroup.subtree_control").write_text("+hugetlb")
    base = mount / f"drover-test-{os.getpid()}"
    try:
        base.mkdir()
        cold.use_fake_qemu()
        cold.start("vmstated", arguments=["--cgroup", str(base)])
        cold.start("vminfod")
        cold.write_definition("web", cold.guest())
        cold.vmstatedctl("start", "web")
        uuid, pid = cold.uuid("web"), vm(cold, "web")["pid"]
        assert str(pid) in (base / uuid / "cgroup.procs").read_text().split()
        cold.vmstatedctl("stop", "-F", "web")
        assert not (base / uuid).exists()
    finally:
        base.rmdir()
