# SPDX-License-Identifier: Apache-2.0
"""Live migration between two roots: memory and disks arrive, and at no step do two copies run."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import drover
import pytest
from test_live_snapshot import boot, content, write


@pytest.fixture
def other(tmp_path, guest_images):
    """The suite of another root, up."""
    for made in two(tmp_path / "o"):
        made.start()
        yield made


def two(root):
    made = drover.Suite(root)
    yield made
    complaints = made.finish()
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


def machine(suite, alias="web0", boots=False, **members):
    members.setdefault("disks", [{"size": 16, "model": "virtio"}])
    payload = suite.payload(alias, **members)
    if not boots:
        for key in ("kernel", "initrd", "cmdline", "readyline"):
            payload.pop(key)
    return json.loads(suite.vmadm("create", "--json", stdin=payload).stdout)["uuid"]


def to(suite):
    return f"unix:{suite.root}"


def machines(suite):
    """Pids of QEMUs of this root."""
    found = []
    for pid in suite.guests():
        with contextlib.suppress(OSError):
            if b"qemu-system" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def gone(suite, uuid):
    """Nothing of the VM is left in this root."""
    assert suite.http("vminfod", "GET", f"/vms/{uuid}").status == 404
    assert not suite.data_dir(uuid).exists() and not (suite.etc / uuid).exists()
    assert not machines(suite)


def settled(suite, other, uuid):
    """No journal and no record of a grant is left."""
    for one in (suite, other):
        assert not (one.data_dir(uuid) / "operation").exists()
        assert not list((one.root / "var/lib/vmstated").glob(".granted-*"))


def runs(suite, uuid, seconds=20):
    with suite.events() as events:
        return events.wait_vm(uuid, lambda vm: vm.get("run_state") == "running", seconds, "running")


def test_there_and_back(suite, other):
    """Memory, disk and devices of a booted guest, twice; a new disk image each time."""
    uuid = machine(suite, boots=True)
    with boot(suite, uuid) as console:
        write(console, "ONE1")
        console.send("mine=before\n")
        console.wait("guest# ")
    suite.http("vmadmd", "PUT", f"/vm/{uuid}", {"set_tags": {"colour": "red"}})
    said = suite.vmadm("migrate", uuid, to(other))
    assert "Migrated VM" in said.stderr
    gone(suite, uuid)
    vm = other.vm(uuid)
    assert vm["state"] == "running" and vm["run_state"] == "running"
    assert vm["tags"] == {"colour": "red"} and vm["machine"].startswith("pc-q35-")
    assert vm["disks"][0]["path"].startswith(str(other.data_dir(uuid)))
    settled(suite, other, uuid)
    with other.console(uuid) as console:
        console.send("\necho mine-is-$mine\n")
        console.wait("mine-is-before")
        assert content(console) == "ONE1"
        write(console, "ONE2")
    result = json.loads(other.vmadm("migrate", "--json", uuid, to(suite)).stdout)
    assert result["uuid"] == uuid and result["downtime_ms"] < 30000
    gone(other, uuid)
    with suite.console(uuid) as console:
        console.send("\necho mine-is-$mine\n")
        console.wait("mine-is-before")
        assert content(console) == "ONE2"
    suite.vmadm("stop", "-F", uuid)
    suite.vmadm("start", uuid)
    assert suite.vm(uuid)["state"] == "running"


SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


@pytest.fixture
def sshd(tmp_path):
    """A server for this user alone; the port, and the lines a client needs."""
    if not os.path.exists(SSHD):
        pytest.skip("needs sshd")
    for name in ("host", "mine"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name],
                       check=True)
    (tmp_path / "mine.pub").rename(tmp_path / "keys")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pathlib.Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen(
        [SSHD, "-D", "-e", "-f", "/dev/null", "-h", tmp_path / "host", "-o", f"Port={port}", "-o",
         "ListenAddress=127.0.0.1", "-o", f"AuthorizedKeysFile={tmp_path}/keys", "-o",
         "StrictModes=no", "-o", "UsePAM=no", "-o", f"PidFile={tmp_path}/pid", "-o",
         "PermitRootLogin=yes"], stderr=subprocess.PIPE)
    try:
        assert b"listening" in server.stderr.readline()
        yield port
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def near(guest_images):
    """As other, in a short path: ssh carries no socket whose path is longer than 107 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        for made in two(pathlib.Path(folder) / "o"):
            made.start()
            yield made


def test_through_ssh(suite, near, sshd, tmp_path):
    """Control, memory and a disk through one ssh; where nobody answers, nothing happens."""
    uuid = machine(suite)
    suite.vmadm("start", uuid)
    config = suite.root / "etc/vmadmd/ssh_config"
    config.parent.mkdir(parents=True)
    config.write_text(f"Host *\n  IdentityFile {tmp_path}/mine\n  StrictHostKeyChecking no\n"
                      "  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n")
    said = suite.vmadm("migrate", uuid, "ssh://127.0.0.1:1/nowhere", check=8).stderr
    assert "cannot be reached" in said and suite.vm(uuid)["run_state"] == "running"
    suite.vmadm("migrate", uuid, f"ssh://127.0.0.1:{sshd}{near.root}")
    gone(suite, uuid)
    assert near.vm(uuid)["run_state"] == "running"
    settled(suite, near, uuid)


# --- never two, the disk intact, and one wherever a QEMU that could go on is left ---

FROM = ["marked", "offered", "copying", "copied", "moving", "still", "switched", "moved", "handing",
        "granted", "leaving", "gone"]
THERE = ["made", "stored", "held", "listening", "coming", "closed", "whole", "recorded", "running"]
WHAT = ["vmadmd", "vmstated-from", "vmstated-there", "qemu-from", "qemu-there", "link"]


class Link:
    """The other root as seen through relays that can be cut: only the sockets a migration uses."""

    def __init__(self, root, real, uuid):
        self.root, self.real = root, real
        self.up = True
        self.pairs, self.listeners = {}, []
        self.lock = threading.Lock()
        for name in ("run/vmadmd.http", f"run/vmstated/{uuid}/vm.incoming",
                     f"run/vmstated/{uuid}/vm.nbd"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            folder = os.open(os.path.dirname(root / name), os.O_PATH | os.O_DIRECTORY)
            listener.bind(f"/proc/self/fd/{folder}/{os.path.basename(name)}")
            os.close(folder)
            listener.listen()
            self.listeners.append(listener)
            threading.Thread(target=self._accept, args=(listener, real / name),
                             daemon=True).start()

    def _accept(self, listener, target):
        while True:
            try:
                near = listener.accept()[0]
            except OSError:
                return
            try:
                far = drover.unix_connect(str(target)) if self.up else None
            except OSError:
                far = None
            if far is None:
                near.close()
                continue
            with self.lock:
                self.pairs[near, far] = 2
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(*ends, (near, far)), daemon=True).start()

    def _pump(self, source, sink, pair):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                sink.sendall(data)
        for one in pair:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        # Closed too, as a process that ends closes it: QEMU 7.2 waits for ever to write to an end
        # that is full and only shut down.
        with self.lock:
            self.pairs[pair] -= 1
            if self.pairs[pair] == 0:
                del self.pairs[pair]
                for one in pair:
                    one.close()

    def cut(self):
        self.up = False
        with self.lock:
            for pair in self.pairs:
                for one in pair:
                    with contextlib.suppress(OSError):
                        one.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.cut()
        for listener in self.listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


class Witness:
    """Keeps what every QEMU of both roots records of itself, and tells when each ran."""

    def __init__(self, folder, *suites):
        self.folder = folder
        folder.mkdir()
        wrapper = folder / "qemu-system-x86_64"
        wrapper.write_text("#!/bin/sh\nln events.out " + f"'{folder}'" +
                           "/events.$$ 2>/dev/null\nexec qemu-system-x86_64 \"$@\"\n")
        wrapper.chmod(0o755)
        for suite in suites:
            suite.env["DROVER_QEMU"] = str(wrapper)
        self.killed = {}

    def kill(self, pid):
        os.kill(pid, signal.SIGKILL)
        self.killed[pid] = time.time()

    def spans(self):
        """[(from, to, pid)] of guests that ran, in order."""
        found = []
        for file in self.folder.glob("events.*"):
            pid, since = int(file.suffix[1:]), None
            for line in file.read_text().splitlines():
                event = json.loads(line) if line.strip("\0") else {}
                if "event" not in event:
                    continue
                at = event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6
                if event["event"] == "RESUME" and since is None:
                    since = at
                elif event["event"] in ("STOP", "SHUTDOWN") and since is not None:
                    found.append((since, at, pid))
                    since = None
            if since is not None:
                found.append((since, self.killed.get(pid, time.time()), pid))
        return sorted(found)

    def await_last(self, pid):
        """Until the guest that ran last is that of this QEMU: it may be about to be let go."""
        deadline = drover.Deadline(20)
        while not (self.spans() and self.spans()[-1][2] == pid):
            assert not deadline.over(), f"{pid} did not run last: {self.spans()}"
            signal.sigtimedwait([signal.SIGUSR2], 0.05)

    def never_two(self):
        spans = self.spans()
        assert spans, "nothing ever ran"
        for one, two_ in zip(spans, spans[1:]):
            assert one[1] <= two_[0], f"two ran at once: {spans}"


def await_place(daemon):
    """Until it stopped itself where the test told it to."""
    deadline = drover.Deadline(40)
    while True:
        with open(f"/proc/{daemon.pid}/stat", encoding="ascii") as stat:
            if stat.read().rsplit(")", 1)[1].split()[0] == "T":
                return
        assert not deadline.over(), f"{daemon.name} did not come to its place\n{daemon.output()[-2000:]}"
        signal.sigtimedwait([signal.SIGCHLD], 0.05)


def hurt(case, suite, other, uuid, witness, link):
    side = suite if case["place"] in FROM else other
    what = case["what"]
    if what == "vmadmd":
        side.kill9("vmadmd")
    elif what.startswith("vmstated"):
        one = suite if what.endswith("from") else other
        one.kill9("vmstated")
        one.start("vmstated")
    elif what.startswith("qemu"):
        one = suite if what.endswith("from") else other
        for pid in machines(one):
            witness.kill(pid)
    else:
        link.cut()


def one_has_it(suite, other, uuid, state):
    """Both sides are through; the suite that has it, in this state."""
    deadline = drover.Deadline(60)
    while True:
        seen = []
        for one in (suite, other):
            if (one.data_dir(uuid) / "operation").exists():
                break
            vm = one.http("vminfod", "GET", f"/vms/{uuid}")
            seen.append(vm.json()["state"] if vm.status == 200 else None)
        if seen in ([state, None], [None, state]):
            return suite if seen[0] else other
        assert not deadline.over(), f"not settled: {seen}"
        signal.sigtimedwait([signal.SIGUSR2], 0.1)


def stopped_at(suite, place):
    suite.env["DROVER_TEST_STOP_AT"] = place
    suite.restart("vmadmd")
    del suite.env["DROVER_TEST_STOP_AT"]
    return suite.daemons["vmadmd"]


def qemu_was_last(case):
    """No other QEMU had the memory, and nobody else had it in hand to start it anew."""
    return ((case["what"] == "qemu-from" and case["place"] in
             ("marked", "offered", "copying", "copied", "moving", "still", "switched",
              "made", "stored", "held", "listening", "coming", "closed")) or
            (case["what"] == "qemu-there" and case["place"] in
             ("granted", "leaving", "gone", "running")))


def injure(suite, other, tmp_path, case):
    witness = Witness(tmp_path / "w", suite, other)
    for one in (suite, other):
        one.start()
    uuid = machine(suite)
    disk = next(suite.data_dir(uuid).glob("*.qcow2"))
    subprocess.run(["qemu-io", "-c", "write -P 0xab 0 2M", disk], check=True, capture_output=True)
    suite.vmadm("start", uuid)
    link = Link(tmp_path / "l", other.root, uuid)
    side = suite if case["place"] in FROM else other
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    try:
        daemon = stopped_at(side, case["place"])
        suite.http("vmadmd", "POST", f"/vm/{uuid}/migrate?wait=0", {"to": f"unix:{link.root}"})
        await_place(daemon)
        hurt(case, suite, other, uuid, witness, link)
        if case["what"] == "vmadmd":
            side.start("vmadmd")
        else:
            daemon.send(signal.SIGCONT)
        if case["what"] == "link":
            # It goes on as far as it can without the other side, then the wire is mended.
            signal.sigtimedwait([signal.SIGUSR2], 1.5)
            witness.never_two()
            link.up = True
        if qemu_was_last(case):
            # Who kills a QEMU by hand has stopped its VM; it is whole on one side.
            where = one_has_it(suite, other, uuid, "stopped")
            where.vmadm("start", uuid)
        else:
            where = one_has_it(suite, other, uuid, "running")
        runs(where, uuid)
        witness.await_last(where.vm(uuid)["pid"])
        witness.never_two()
        gone(other if where is suite else suite, uuid)
        disk = next(where.data_dir(uuid).glob("*.qcow2"))
        where.vmadm("stop", "-F", uuid)
        subprocess.run(["qemu-img", "check", "-q", disk], check=True)
        out = subprocess.run(["qemu-io", "-r", "-c", "read -P 0xab 0 2M", disk], check=True,
                             capture_output=True, text=True).stdout
        assert "verification failed" not in out
        side = "from" if where is suite else "there"
        return f"{side}, stopped" if qemu_was_last(case) else side
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        link.close()


def matrix(places):
    return [{"place": place, "what": what} for place in places for what in WHAT]


@pytest.fixture
def pair(tmp_path, guest_images):
    """Two roots without daemons."""
    first, second = two(tmp_path / "r"), two(tmp_path / "o")
    yield next(first), next(second)
    for one in (first, second):
        next(one, None)


def named(case):
    return f"{case['place']}-{case['what']}"


SAMPLE = ("moving-qemu-there", "handing-vmadmd", "granted-link", "recorded-vmadmd")


@pytest.mark.parametrize("case", [case for case in matrix(FROM + THERE) if named(case) in SAMPLE],
                         ids=named)
def test_some_steps(pair, tmp_path, case):
    injure(*pair, tmp_path, case)


@pytest.mark.campaign
@pytest.mark.parametrize("case", matrix(FROM + THERE), ids=named)
def test_every_step(pair, tmp_path, case):
    where = injure(*pair, tmp_path, case)
    results = os.environ.get("DROVER_MIGRATE_TABLE")
    if results:
        with open(results, "a", encoding="ascii") as out:
            out.write(f"{named(case)} {where}\n")
