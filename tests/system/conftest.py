# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the system tests; the harness itself is drover.py."""

import fcntl
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
import drover  # noqa: E402

ZFS_SOCKET = pathlib.Path("/var/run/zfs/zfs_socket")
MARKERS = {
    "root": "needs root (taps, other users, namespaces)",
    "user": "must not run as root",
    "slow": "takes more than ten seconds",
    "smoke": "the short walk that also runs against the release build",
    "campaign": "long; only in ./test --all",
}


def pytest_configure(config):
    for name, text in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {text}")


def pytest_collection_modifyitems(config, items):
    """What cannot run here is skipped with the reason; campaigns only run when asked for."""
    asked = "campaign" in (config.option.markexpr or "")
    root = os.geteuid() == 0
    for item in items:
        if item.get_closest_marker("root") and not root:
            item.add_marker(pytest.mark.skip(reason="needs root"))
        if item.get_closest_marker("user") and root:
            item.add_marker(pytest.mark.skip(reason="must not run as root"))
        if item.get_closest_marker("campaign") and not asked:
            item.add_marker(pytest.mark.skip(reason="campaign: ./test --all runs it"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the ends of its daemons' and guests' logs."""
    report = (yield).get_result()
    running = next((value for value in getattr(item, "funcargs", {}).values()
                    if isinstance(value, drover.Suite)), None)
    if report.when == "call" and report.failed and running is not None:
        for title, text in running.outputs().items():
            report.sections.append((title, text))


@pytest.fixture(scope="session")
def guest_images():
    """Folder of vmlinuz, initramfs.gz, initramfs-agent.gz."""
    done = subprocess.run([str(drover.TOP / "tests/guest/build"), str(drover.GUEST)],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"tests/guest/build: {done.stderr.strip()}")
    return drover.GUEST


def lifetime(root):
    """A suite on root for one test; whatever a daemon did wrong fails the test at its end."""
    made = drover.Suite(root)
    if not made.binary("vmstated").exists():
        pytest.skip(f"{made.binary('vmstated')} is not built")
    yield made
    complaints = made.finish()
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


@pytest.fixture
def cold(tmp_path, guest_images):
    """A root without daemons: the test writes what it wants first, then calls cold.start()."""
    yield from lifetime(tmp_path / "r")


@pytest.fixture
def suite(cold):
    """A root with its three daemons up."""
    cold.start()
    return cold


@pytest.fixture
def long_root(tmp_path, guest_images):
    """As cold, with socket paths far longer than the kernel's limit of 107 bytes."""
    yield from lifetime(tmp_path / ("long-" * 20) / ("path-" * 20))


@pytest.fixture
def zfs_alone():
    """There is one zfs-fuse per host, so one test at a time."""
    with open("/run/lock/drover-test-zfs", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def zfs_pool(tmp_path, zfs_alone):
    """The name of a pool of zfs-fuse, which is started for it where it does not run."""
    if not shutil.which("zfs-fuse") or not os.path.exists("/dev/fuse"):
        pytest.skip("needs zfs-fuse and /dev/fuse")
    daemon = None
    if subprocess.run(["zpool", "list"], capture_output=True, check=False).returncode:
        ZFS_SOCKET.parent.mkdir(mode=0o700, exist_ok=True)
        ZFS_SOCKET.unlink(missing_ok=True)
        watch = drover.Inotify(ZFS_SOCKET.parent)
        daemon = subprocess.Popen(
            ["zfs-fuse", "--no-daemon", "--no-kstat-mount", "-p", str(tmp_path / "zfs.pid")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = drover.Deadline(10)
        while subprocess.run(["zpool", "list"], capture_output=True, check=False).returncode:
            if daemon.poll() is not None or deadline.over():
                daemon.kill()
                pytest.skip("zfs-fuse does not run here")
            drover.wait_readable(watch.fd, drover.Deadline(0.1))
        watch.close()
    name = f"drover{os.getpid()}"
    vdev = tmp_path / "vdev"
    vdev.touch()
    os.truncate(vdev, 128 << 20)
    made = subprocess.run(["zpool", "create", "-o", "cachefile=none", "-m", str(tmp_path / "zfs"), name, str(vdev)],
                          capture_output=True, text=True, timeout=30, check=False)
    if made.returncode == 0:
        yield name
        subprocess.run(["zpool", "destroy", "-f", name], check=False, capture_output=True)
    if daemon:
        daemon.terminate()
        daemon.wait(20)
    if made.returncode:
        pytest.skip(f"zpool create: {made.stderr.strip()}")
