# SPDX-License-Identifier: Apache-2.0
"""vmadmd's jobs, its autoboot where things go wrong, and its own options."""

import fcntl
import json
import os
import pwd

import drover
import pytest
from test_vmadmd import ask_as, call, create, message, nothing_left, whole_or_gone

# Makes disk0 only when the gate is open: holds a shared lock against the test's exclusive one.
GATED_QEMU_IMG = """#!/usr/bin/python3
import fcntl, os, sys
gates = os.environ["GATES"]
open(gates + "/begun", "w").close()
gate = os.open(gates + "/gate", os.O_RDWR)
fcntl.flock(gate, fcntl.LOCK_SH)
os.execv("/usr/bin/qemu-img", ["qemu-img", *sys.argv[1:]])
"""


class Feed:
    """A subscriber of a daemon's feed that confirms nothing."""

    def __init__(self, path):
        self.sock = drover.unix_connect(path)
        self.sock.sendall(b'{"hello":"tests","confirms":false}\n')
        self.data, self.seen = b"", []

    def wait(self, check, seconds=10):
        deadline = drover.Deadline(seconds)
        while not any(check(line) for line in self.seen):
            assert drover.wait_readable(self.sock, deadline), self.seen[-5:]
            self.data += self.sock.recv(1 << 16)
            *lines, self.data = self.data.split(b"\n")
            self.seen += map(json.loads, lines)
        return next(line for line in self.seen if check(line))

    def close(self):
        self.sock.close()


@pytest.fixture
def gate(cold, tmp_path):
    """qemu-img, which makes raw disks, waits until the returned function is called."""
    folder = tmp_path / "gates"
    folder.mkdir()
    (folder / "qemu-img").write_text(GATED_QEMU_IMG)
    (folder / "qemu-img").chmod(0o755)
    cold.env["GATES"] = str(folder)
    cold.env["PATH"] = f"{folder}:{cold.env['PATH']}"
    lock = os.open(folder / "gate", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield lambda: fcntl.flock(lock, fcntl.LOCK_UN), lambda: drover.wait_file(
        folder / "begun", lambda _: (folder / "begun").exists(), 20)
    os.close(lock)


def begin(suite, query="wait=0", **members):
    body = {"brand": "kvm", **suite.payload("web0", disks=[{"model": "virtio", "size": 8,
                                                             "format": "raw"}]), **members}
    return call(suite, "POST", f"/vms?{query}", body, 202).json()


def ended(suite, job, seconds=20):
    """The job once it has ended, awaited on the feed."""
    feed = Feed(suite.socket("run/vmadmd.feed"))
    try:
        feed.wait(lambda line: line["type"] == "ready")
        now = call(suite, "GET", f"/jobs/{job}").json()
        if now["state"] == "running":
            feed.wait(lambda line: line["type"] == "job" and line["job"]["id"] == job and
                      line["job"]["state"] != "running", seconds)
    finally:
        feed.close()
    return call(suite, "GET", f"/jobs/{job}").json()


def test_life_of_a_job(cold, gate):
    """Begun without waiting, listed, told of on the feed, done; kept over a restart."""
    release, begun = gate
    cold.start("vmstated", "vmadmd")
    feed = Feed(cold.socket("run/vmadmd.feed"))
    made = begin(cold)
    begun()
    job = call(cold, "GET", f"/jobs/{made['job']}").json()
    assert (job["kind"], job["uuid"], job["state"], job["uid"]) == (
        "create", made["uuid"], "running", os.getuid())
    assert job["percent"] == 0 and job["step"] == "disk0.raw" and job["started"].endswith("Z")
    assert call(cold, "GET", "/jobs").json() == {"jobs": [job]}
    release()
    for state, percent in [("running", 0), ("done", 100)]:
        feed.wait(lambda line: line["type"] == "job" and line["uuid"] == made["uuid"] and
                  (line["job"]["state"], line["job"]["percent"]) == (state, percent))
    feed.close()
    job = ended(cold, made["job"])
    assert job["state"] == "done" and "error" not in job
    assert whole_or_gone(cold) == {made["uuid"]}
    cold.restart("vmadmd")
    assert call(cold, "GET", f"/jobs/{made['job']}").json() == job
    assert "is done" in message(call(cold, "DELETE", f"/jobs/{made['job']}", status=409).json())
    call(cold, "GET", "/jobs/nonsense", status=404)


def test_cancel(cold, gate):
    release, begun = gate
    cold.start("vmstated", "vmadmd")
    made = begin(cold)
    begun()
    call(cold, "DELETE", f"/jobs/{made['job']}", status=202)
    job = ended(cold, made["job"])
    assert job["state"] == "cancelled" and "cancelled by uid" in job["error"]["message"]
    assert nothing_left(cold) == []
    release()
    assert create(cold, cold.payload("web0"))["name"] == "web0"


def test_deadline(cold, gate):
    cold.start("vmstated", "vmadmd")
    made = begin(cold, "wait=0&deadline=1")
    job = ended(cold, made["job"])
    assert job["state"] == "failed" and job["error"]["code"] == "ETIMEDOUT"
    assert "deadline of 1 s" in job["error"]["message"]
    assert nothing_left(cold) == []
    for bad in ["0", "-1", "soon", "", "9999999"]:
        assert "deadline" in message(call(
            cold, "POST", f"/vms?deadline={bad}", cold.payload("x"), 400).json())


def test_outcome_after_sigkill(cold, gate):
    """A job cut short is failed after the next start, one that had made its VM is done."""
    release, begun = gate
    cold.start("vmstated", "vmadmd")
    cut = begin(cold)
    begun()
    cold.kill9("vmadmd")
    cold.start("vmadmd")
    job = call(cold, "GET", f"/jobs/{cut['job']}").json()
    assert (job["state"], job["interrupted"]) == ("failed", True)
    assert "removed" in job["error"]["message"] and nothing_left(cold) == []
    release()
    whole = begin(cold)
    assert ended(cold, whole["job"])["state"] == "done"
    cold.stop("vmadmd")
    path = cold.root / f"run/vmadmd.jobs/{whole['job']}.json"
    path.write_text(path.read_text().replace('"done"', '"running"'))
    cold.start("vmadmd")
    job = call(cold, "GET", f"/jobs/{whole['job']}").json()
    assert (job["state"], job["interrupted"]) == ("done", True)


def test_failed_job(cold, tmp_path):
    """A failure has its reason in the job; what is refused at once makes no job."""
    (tmp_path / "qemu-img").write_text("#!/bin/sh\necho 'disk on fire' >&2\nexit 3\n")
    (tmp_path / "qemu-img").chmod(0o755)
    cold.env["PATH"] = f"{tmp_path}:{cold.env['PATH']}"
    cold.start("vmadmd")
    job = ended(cold, begin(cold)["job"])
    assert job["state"] == "failed" and "disk on fire" in job["error"]["message"]
    reply = cold.http("vmadmd", "POST", "/vms?wait=0", {"brand": "kvm", "ram": "much"})
    assert reply.status == 400
    assert len(call(cold, "GET", "/jobs").json()["jobs"]) == 1 and nothing_left(cold) == []


def test_a_slow_disk_holds_up_nobody(cold):
    """While a change waits for its disk, others are served; its answer comes when it is written.
    The process that writes waits for a lock of ours in place of a disk."""
    cold.start("vmadmd")
    uuid = create(cold, cold.payload("web0"))["uuid"]
    lock = os.open(cold.root / "run/vmadmd.worker", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    asking = drover.UnixHTTPConnection(cold.socket("vmadmd"), 20)
    asking.request("PUT", f"/vm/{uuid}", json.dumps({"ram": 200}))
    for _ in range(20):
        assert call(cold, "GET", "/ping").json() == {"ping": "pong"}
    assert not drover.wait_readable(asking.sock, drover.Deadline(0.3))
    assert "ram = 128" in (cold.etc / uuid / "config").read_text()
    fcntl.flock(lock, fcntl.LOCK_UN)
    assert asking.getresponse().status == 200
    assert "ram = 200" in (cold.etc / uuid / "config").read_text()
    asking.close()
    # Killed while it waits: the next start waits for the process that writes, then serves.
    fcntl.flock(lock, fcntl.LOCK_EX)
    asking = drover.UnixHTTPConnection(cold.socket("vmadmd"), 20)
    asking.request("PUT", f"/vm/{uuid}", json.dumps({"ram": 300}))
    assert not drover.wait_readable(asking.sock, drover.Deadline(0.3))
    cold.kill9("vmadmd")
    asking.close()
    os.close(lock)
    cold.start("vmadmd")
    assert "ram = 200" in (cold.etc / uuid / "config").read_text()


@pytest.mark.root
def test_who_may_see(cold):
    """Counters of what one may ask about; jobs of one's own."""
    cold.start("vmadmd", arguments=["--feed-user", "daemon"])
    made = begin(cold)
    ended(cold, made["job"])
    stranger, reader = 64321, pwd.getpwnam("daemon").pw_uid
    for uid in (stranger, reader):
        assert ask_as(cold, uid, "GET", "/stats") == (200, '{"vms":[]}')
        assert ask_as(cold, uid, "GET", "/jobs") == (200, '{"jobs":[]}')
    status, body = ask_as(cold, stranger, "DELETE", f"/jobs/{made['job']}")
    assert status == 403 and "another's" in body


# --- autoboot where things go wrong ---


FLAKY_QEMU = """#!/bin/sh
case "$*" in *guest=flaky*) test -e "$FLAKY" || { : > "$FLAKY"; echo no >&2; exit 1; };; esac
exec "$REAL" "$@"
"""


def test_autoboot_failures(cold, tmp_path):
    """One fails for good, one the first time, one is marked failed: the others run, once."""
    cold.use_fake_qemu()
    cold.use_fake_qemu({"start": {"exit": 1, "stderr": "broken\n"}}, "bad")
    wrapper = cold.root / "fake/flaky-qemu"
    wrapper.write_text(FLAKY_QEMU)
    wrapper.chmod(0o755)
    cold.env.update(FLAKY=str(tmp_path / "flaky"), REAL=cold.env["DROVER_QEMU"],
                    DROVER_QEMU=str(wrapper))
    cold.write_definition("bad", cold.guest(autoboot=True, onfailure="fail"))
    cold.write_definition("flaky", cold.guest(autoboot=True, maxrestarttime="5s"))
    for name in ("good", "later"):
        cold.write_definition(name, cold.guest(autoboot=True, after=["bad", "flaky"]))
    cold.start()
    with cold.events() as events:
        for name in ("good", "later", "flaky"):
            events.wait_vm(name, lambda vm: vm["state"] == "running", 30)
        assert events.wait_vm("bad", lambda vm: vm["state"] == "failed")
        uuid = events.find("bad")["uuid"]
    assert f"vm={uuid} autoboot failed" in cold.daemons["vmadmd"].output()
    runs = {name: cold.vm(cold.uuid(name))["zoneid"] for name in ("good", "later", "flaky")}
    cold.kill9("vmadmd")
    cold.start("vmadmd")
    call(cold, "POST", "/vm/good?action=stop&force=1&wait=1")
    assert cold.vm(cold.uuid("good"))["state"] == "stopped"
    for name in ("later", "flaky"):
        assert cold.vm(cold.uuid(name))["zoneid"] == runs[name]


def test_autoboot_is_bounded(cold, tmp_path):
    """Ten are to boot, eight are under way at once."""
    cold.use_fake_qemu()
    gate = os.open(tmp_path / "gate", os.O_RDWR | os.O_CREAT)
    fcntl.flock(gate, fcntl.LOCK_EX)
    (tmp_path / "begun").mkdir()
    hook = f': > "{tmp_path}/begun/$VM_NAME"; flock -s "{tmp_path}/gate" true'
    for number in range(10):
        cold.write_definition(f"vm{number}", cold.guest(autoboot=True),
                              hooks={"start_network": hook})
    begun = tmp_path / "begun"
    watch = drover.Inotify(begun)
    cold.start()
    deadline = drover.Deadline(20)
    while len(list(begun.iterdir())) < 8:
        assert watch.wait(deadline)
    while watch.wait(drover.Deadline(0.5)):
        pass
    assert len(list(begun.iterdir())) == 8
    os.close(gate)
    watch.close()
    with cold.events() as events:
        for number in range(10):
            events.wait_vm(f"vm{number}", lambda vm: vm["state"] == "running", 30)


def test_ready_timeout(cold):
    """NAME:ready is waited for until readytimeout, then the VM starts and says so."""
    cold.use_fake_qemu()
    cold.write_definition("db0", cold.guest(autoboot=True, readyline="never said"))
    cold.write_definition("web0", cold.guest(autoboot=True, after=["db0:ready"],
                                             readytimeout="1s"))
    cold.start()
    with cold.events() as events:
        web0 = events.wait_vm("web0", lambda vm: vm["state"] == "running", 20)
        assert events.find("db0")["state"] == "running" and not events.find("db0").get("ready")
    assert f"vm={web0['uuid']} autoboot does not wait any longer: 'db0' is not ready yet" in \
        cold.daemons["vmadmd"].output()


# --- options ---


def test_several_sockets(cold):
    """-s twice: both serve, the usual one is not made."""
    cold.start("vmadmd", arguments=["-s", str(cold.root / "run/one"), "-s",
                                    str(cold.root / "run/two")])
    for name in ("run/one", "run/two"):
        assert call_at(cold, name).json() == {"ping": "pong"}
    assert not os.path.exists(cold.socket("vmadmd"))
    code, said = cold.refused("vmadmd", "--feed-user", "no-such-user")
    assert code == 2 and "no-such-user" in said


def call_at(suite, where):
    reply = suite.http(where, "GET", "/ping")
    assert reply.status == 200
    return reply


@pytest.mark.root
def test_feed_user(cold):
    """The feed's socket is the named user's."""
    cold.start("vmadmd", arguments=["--feed-user", "nobody"])
    assert os.stat(cold.socket("run/vmadmd.feed")).st_uid == pwd.getpwnam("nobody").pw_uid
