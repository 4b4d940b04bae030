# SPDX-License-Identifier: Apache-2.0
"""The guest agent: qemu-ga in a real guest, and one played by the test that lies."""

import base64
import http.client
import json
import re
import socket
import subprocess

import pytest

import drover
from conftest import lifetime
from test_vmadmd_jobs import ended


def ask(suite, verb, body=None, status=200, vm="web0"):
    reply = suite.http("vmadmd", "POST", f"/vm/{vm}/agent/{verb}", body)
    assert reply.status == status, reply
    return reply.json()


def up(vm):
    return vm.get("agent", {}).get("state") == "up"


# --- a real guest ---

@pytest.fixture(scope="module")
def real(tmp_path_factory, guest_images):
    """A guest with its agent, a NIC with an address, a file system on a disk; and its shell."""
    for suite in lifetime(tmp_path_factory.mktemp("agent") / "r"):
        suite.start()
        disk = suite.root / "data.qcow2"
        raw = suite.root / "data.raw"
        with open(raw, "wb") as file:
            file.truncate(16 << 20)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", raw], check=True)
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, disk], check=True)
        suite.write_definition("web0", suite.guest(
            "drover.ignore-button drover.net=dhcp drover.agent", agent=True, stoptimeout=60, readyline="NEVER-SAID",
            nic=['net0 { bridge = user; mac = "52:54:00:00:00:01"; }'],
            disk=[f'root {{ path = "{disk}"; }}']))
        suite.vmstatedctl("start", "web0", seconds=60)
        with suite.events() as events:
            events.wait_vm("web0", lambda vm: vm.get("ready"), 60, "ready by its agent")
            with suite.console(suite.uuid("web0")) as console:
                console.wait("guest# ", 60)
                yield suite, events, console


def run(suite, *words, check=0):
    return suite.vmadm("agent", "web0", "exec", "--", *words, check=check)


def mount(suite):
    run(suite, "/bin/busybox", "sh", "-c",
        "mount | grep -q /mnt || { busybox insmod /modules/virtio_blk.ko; "
        "busybox mount -t ext4 /dev/vda /mnt; }")


def test_addresses_and_programs(real):
    suite, events, _ = real
    vm = events.wait_vm("web0", lambda vm: vm["nics"][0].get("addresses"), 30, "addresses")
    assert up(vm) and "10.0.2.15" in vm["nics"][0]["addresses"]
    assert vm["agent"]["addresses"]["52:54:00:00:00:01"] == vm["nics"][0]["addresses"]
    assert "answers" in suite.vmadm("agent", "web0", "ping").stderr
    listed = suite.vmadm("agent", "web0", "addresses").stdout
    assert re.search(r"^eth0 52:54:00:00:00:01 10\.0\.2\.15/24$", listed, re.M), listed
    assert run(suite, "/bin/busybox", "echo", "one two").stdout == "one two\n"
    failed = run(suite, "/bin/busybox", "sh", "-c", "echo oops >&2; exit 3", check=1)
    assert "oops" in failed.stderr and "exit code 3" in failed.stderr
    missing = run(suite, "/no/such", check=1)
    assert "the guest agent says:" in missing.stderr and "/no/such" in missing.stderr
    out = ask(suite, "exec", {"command": ["/bin/busybox", "cat"], "input": "fed"})
    assert out["exitcode"] == 0 and out["out-data"] == "ZmVk"
    late = ask(suite, "exec", {"command": ["/bin/busybox", "sleep", "30"], "timeout": 1}, 504)
    assert "goes on in the guest" in late["error"]["message"]
    suite.vmadm("agent", "web0", "set-time")


@pytest.mark.parametrize("verb,body,says", [
    ("dance", None, "want ping, addresses"),
    ("freeze", {"limit": 0}, "body.limit: want 1 to 300"),
    ("exec", {"command": []}, "body.command: want 1 to 256 words"),
    ("exec", {"command": ["/bin/true", 7]}, "body.command[1]: want a string"),
    ("exec", {"command": ["/bin/true"], "timeout": 99999}, "body.timeout: want 1 to 3600"),
])
def test_refused(real, verb, body, says):
    assert says in ask(real[0], verb, body, 404 if verb == "dance" else 400)["error"]["message"]


def found_frozen(suite):
    """This vmadmd has found the guest frozen: its thaw is the next thing the agent hears."""
    daemon = suite.daemons["vmadmd"]
    drover.wait_file(daemon.log, lambda data: b"found frozen" in data[daemon.log_start:], 30,
                     "found frozen")


def test_freeze_is_bounded(real):
    """It thaws at the limit, and at the hands of the next vmadmd when this one is killed."""
    suite, events, _ = real
    mount(suite)
    assert ask(suite, "freeze", {"limit": 4})["filesystems"] == 1
    assert "frozen already" in ask(suite, "freeze", None, 409)["error"]["message"]
    events.wait_vm("web0", lambda vm: vm["agent"].get("frozen"), 10, "frozen")
    events.wait_vm("web0", lambda vm: not vm["agent"].get("frozen"), 20, "thawed at the limit")
    assert ask(suite, "freeze", {"limit": 300})["filesystems"] == 1
    events.wait_vm("web0", lambda vm: vm["agent"].get("frozen"), 10, "frozen again")
    suite.kill9("vmadmd")
    suite.start("vmadmd")
    found_frozen(suite)
    assert run(suite, "/bin/busybox", "touch", "/mnt/thawed").stderr == ""


def test_snapshot_of_disks_is_frozen(real):
    """Without memory the file system is at rest: it needs no journal, and the guest goes on."""
    suite, events, _ = real
    mount(suite)
    run(suite, "/bin/busybox", "sh", "-c", "echo kept > /mnt/kept")
    suite.vmadm("create-snapshot", "--no-memory", "web0", "calm")
    listed = suite.http("vmadmd", "GET", "/vm/web0/snapshots").json()["snapshots"]
    assert [one["frozen"] for one in listed] == [True]
    assert not suite.vm(suite.uuid("web0"))["agent"].get("frozen")
    run(suite, "/bin/busybox", "sh", "-c", "echo more > /mnt/more; sync")
    out = suite.root / "calm.raw"
    subprocess.run(["qemu-img", "convert", "-U", "-l", "snapshot.name=vmsnap-calm", "-O", "raw",
                    suite.root / "data.qcow2", out], check=True)
    said = subprocess.run(["dumpe2fs", "-h", out], check=True, capture_output=True, text=True)
    assert "needs_recovery" not in said.stdout
    suite.vmadm("delete-snapshot", "web0", "calm")


def killed(suite, place, method, target, body):
    """vmadmd dies at that place of the request, and is started again."""
    suite.env["DROVER_TEST_KILL_AT"] = place
    suite.restart("vmadmd")
    answers(suite)
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        suite.http("vmadmd", method, target, body)
    suite.daemons["vmadmd"].expected_end = True
    suite.daemons["vmadmd"].wait_end()
    suite._retire("vmadmd")
    del suite.env["DROVER_TEST_KILL_AT"]
    suite.start("vmadmd")


def answers(suite):
    """The agent is spoken to again."""
    deadline = drover.Deadline(30)
    while suite.http("vmadmd", "POST", "/vm/web0/agent/ping").status != 200:
        assert not deadline.over()


def test_killed_in_a_frozen_snapshot(real):
    """vmadmd ends while the guest stands still for it: the next one lets it go."""
    suite, events, _ = real
    uuid = suite.uuid("web0")
    mount(suite)
    killed(suite, "taken", "POST", f"/vm/{uuid}/snapshots", {"name": "cut", "memory": False})
    found_frozen(suite)
    assert run(suite, "/bin/busybox", "touch", "/mnt/after").stderr == ""
    job = ended(suite, suite.http("vmadmd", "GET", "/jobs").json()["jobs"][0]["id"])
    assert job["state"] == "failed" and job["kind"] == "create-snapshot"
    assert suite.http("vmadmd", "GET", "/vm/web0/snapshots").json()["snapshots"] == []


def test_backup_is_frozen(real):
    """The stream's file system needs no recovery, and the guest goes on."""
    suite, events, _ = real
    mount(suite)
    run(suite, "/bin/busybox", "sh", "-c", "echo saved > /mnt/saved")
    start = len(suite.daemons["vmadmd"].output())
    suite.vmadm("backup", "web0", str(suite.root / "web0.backup"))
    said = suite.daemons["vmadmd"].output()[start:]
    assert "frozen filesystems=" in said and said.index("frozen fi") < said.index("thawed"), said
    assert not suite.vm(suite.uuid("web0"))["agent"].get("frozen")
    assert run(suite, "/bin/busybox", "touch", "/mnt/more").stderr == ""


def begun(suite, script, **more):
    """The id of the job of a shell script in the guest."""
    reply = suite.http("vmadmd", "POST", "/vm/web0/agent/exec?wait=0",
                       {"command": ["/bin/busybox", "sh", "-c", script], **more})
    assert reply.status == 202, reply
    return reply.json()["job"]


def noted(suite, job, seconds=20):
    """The agent has told the program's number."""
    folder = suite.root / "run/vmadmd.jobs"
    drover.wait_file(folder / f"{job}.json", lambda data: b"guest_pid" in data, seconds)


def test_program_as_a_job(real):
    """Its outcome is known when vmadmd was killed meanwhile; cancel and deadline say that it goes on."""
    suite, events, _ = real
    run(suite, "/bin/busybox", "mkfifo", "/fifo")
    job = ended(suite, begun(suite, "echo out; echo err >&2; exit 3"))
    assert job["state"] == "done" and job["result"]["exitcode"] == 3
    assert base64.b64decode(job["result"]["out-data"]) == b"out\n"
    job = begun(suite, "read x < /fifo; echo $x; exit 4")
    noted(suite, job)
    suite.kill9("vmadmd")
    suite.start("vmadmd")
    again = suite.http("vmadmd", "GET", f"/jobs/{job}").json()
    assert again["state"] == "running" and again["interrupted"]
    answers(suite)
    run(suite, "/bin/busybox", "sh", "-c", "echo late > /fifo")
    done = ended(suite, job)
    assert done["state"] == "done" and done["result"]["exitcode"] == 4, done
    assert base64.b64decode(done["result"]["out-data"]) == b"late\n"
    job = begun(suite, "read x < /fifo")
    noted(suite, job)
    assert suite.http("vmadmd", "DELETE", f"/jobs/{job}").status == 202
    done = ended(suite, job)
    assert done["state"] == "cancelled" and "goes on in the guest" in done["error"]["message"]
    job = ended(suite, begun(suite, "read x < /fifo", timeout=1))
    assert job["state"] == "failed" and "deadline of 1 s" in job["error"]["message"], job
    assert "goes on in the guest" in job["error"]["message"]
    job = ended(suite, begun(suite, "head -c 200000 /dev/zero"))
    assert job["result"]["out-truncated"] and len(job["result"]["out-data"]) == 65536


def test_shutdown_by_the_agent(real):
    """A guest that does not hear the button is asked by its agent."""
    suite, events, _ = real
    suite.vmadm("stop", "web0", "-t", "60")
    last = events.wait_vm("web0", lambda vm: vm["state"] == "stopped", 60)["last_exit"]
    assert last["cause"] == "admin", last
    assert "is asked to power off" in "".join(suite.outputs().values())
    assert "agent" not in suite.vm(suite.uuid("web0"))


# --- an agent that lies: the test, at its end of a fake QEMU's channel ---

class Liar:
    """What the guest's end of the agent's channel hears, and what it says."""

    def __init__(self, cold):
        self.path = str(cold.root / "agent")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(1)
        self.port = self.sock = None
        self.data = b""
        cold.use_fake_qemu({"hand_over": {"agent": self.path}, "commands": {"query-chardev": {
            "reply": [{"label": "agent", "filename": "unix", "frontend-open": True}]}}})

    def boot(self):
        assert drover.wait_readable(self.listener, drover.Deadline(20))
        peer = self.listener.accept()[0]
        _, fds, _, _ = socket.recv_fds(peer, 16, 1)
        peer.close()
        self.port = socket.socket(fileno=fds[0])
        return self.meet()

    def meet(self):
        assert drover.wait_readable(self.port, drover.Deadline(20)), "vmadmd did not connect"
        self.sock, self.data = self.port.accept()[0], b""
        return self

    def hear(self, want=None, seconds=20):
        """The next command, or the next of that name: others are left without an answer."""
        deadline = drover.Deadline(seconds)
        while True:
            while b"\n" not in self.data:
                assert drover.wait_readable(self.sock, deadline), f"no {want}; {self.data[-200:]!r}"
                got = self.sock.recv(65536)
                assert got, "vmadmd left"
                self.data += got
            line, self.data = self.data.split(b"\n", 1)
            command = json.loads(line.rpartition(b"\xff")[2])
            if want in (None, command["execute"]):
                return command

    def say(self, value, raw=b""):
        self.sock.sendall(raw + json.dumps(value).encode() + b"\n")

    def sync(self, raw=b""):
        number = self.hear("guest-sync-delimited")["arguments"]["id"]
        self.say({"return": number}, raw + b"\xff")
        return number

    def serve(self, answers):
        """Answer by name until all of answers were asked for."""
        left = dict(answers)
        while left:
            command = self.hear()
            name = command["execute"]
            self.say({"return": left.pop(name)} if name in left else
                     {"error": {"class": "CommandNotFound", "desc": f"no {name} here"}})


@pytest.fixture
def liar(cold):
    played = Liar(cold)
    cold.start()
    cold.write_definition("web0", cold.guest(agent=True, nic=[
        'net0 { bridge = user; mac = "52:54:00:00:00:01"; }']))
    cold.vmstatedctl("start", "web0", seconds=60)
    yield cold, played.boot()
    cold.vmstatedctl("stop", "-F", "web0")


def later(suite, verb, body=None):
    """A request sent now: a function that gives (status, answer)."""
    sock = drover.unix_connect(suite.socket("vmadmd"))
    text = json.dumps(body or {})
    sock.sendall(f"POST /vm/web0/agent/{verb} HTTP/1.0\r\nContent-Length: {len(text)}\r\n\r\n"
                 f"{text}".encode())

    def answer():
        data = b""
        sock.settimeout(30)
        while part := sock.recv(65536):
            data += part
        head, _, rest = data.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(rest)
    return answer


def test_old_bytes_and_garbage(liar):
    """What was in the channel before the number is of earlier times; noise after it is no answer."""
    suite, guest = liar
    guest.sync(b'{"return": 7}\n{"return": {"half')
    with suite.events() as events:
        guest.serve({"guest-fsfreeze-status": "thawed", "guest-network-get-interfaces": [
            {"name": "eth0", "hardware-address": "52:54:00:00:00:01", "ip-addresses": [
                {"ip-address": "10.9.8.7"}, {"ip-address": "nonsense"}, {}]},
            {"name": "x", "hardware-address": "52:54:00:00:00:99", "ip-addresses": [
                {"ip-address": "10.9.8.8"}]}, 17]})
        vm = events.wait_vm("web0", lambda vm: vm["nics"][0].get("addresses") and vm["ready"], 10,
                            "addresses, and ready")
        assert vm["agent"]["addresses"] == {"52:54:00:00:00:01": ["10.9.8.7"]}
    answer = later(suite, "ping")
    guest.hear("guest-ping")
    guest.sock.sendall(b'no json\n[1]\n{"event": "x"}\n\n{"return": {}}\n')
    assert answer()[0] == 200
    answer = later(suite, "exec", {"command": ["/bin/x"]})
    guest.hear("guest-exec")
    guest.say({"return": {"pid": "none"}})
    status, body = answer()
    assert status == 500 and "named no process" in body["error"]["message"]


@pytest.mark.campaign
@pytest.mark.timeout(180)
def test_addresses_of_long_ago(liar):
    """Addresses an agent told are its word until it tells others, or nothing for a minute."""
    suite, guest = liar
    guest.sync()
    told = {"name": "eth0", "hardware-address": "52:54:00:00:00:01"}

    def addresses(*several):
        return [{**told, "ip-addresses": [{"ip-address": one} for one in several]}]

    def names(vm):
        return vm["nics"][0].get("addresses", [])

    with suite.events() as events:
        guest.serve({"guest-fsfreeze-status": "thawed",
                     "guest-network-get-interfaces": addresses("10.9.8.7", "fe80::1")})
        vm = events.wait_vm("web0", lambda vm: names(vm) == ["10.9.8.7", "fe80::1"], 10)
        first = vm["nics"][0]["address_sources"]
        guest.hear("guest-network-get-interfaces", 40)
        guest.say({"return": addresses("fe80::1", "10.9.8.9")})
        vm = events.wait_vm("web0", lambda vm: names(vm) == ["fe80::1", "10.9.8.9"], 10)
        second = vm["nics"][0]["address_sources"]
        assert second["fe80::1"] == first["fe80::1"]
        assert second["10.9.8.9"]["source"] == "agent"
        assert second["10.9.8.9"]["since"] > first["10.9.8.7"]["since"]
        events.wait_vm("web0", lambda vm: names(vm) == [], 120, "addresses that are old")


@pytest.mark.campaign
def test_silence_and_late_answers(liar):
    """A missed deadline: the number comes first again, and the late answer is nobody's."""
    suite, guest = liar
    guest.sync()
    guest.serve({"guest-fsfreeze-status": "thawed", "guest-network-get-interfaces": []})
    answer = later(suite, "ping")
    guest.hear("guest-ping")
    status, body = answer()
    assert status == 504 and "did not answer within 5 s" in body["error"]["message"]
    guest.say({"return": {}})
    guest.sync()
    answer = later(suite, "thaw")
    guest.serve({"guest-fsfreeze-status": "thawed", "guest-fsfreeze-thaw": 4})
    assert answer() == (200, {"filesystems": 4, "uuid": suite.uuid("web0")})
    assert suite.vm(suite.uuid("web0"))["agent"]["state"] == "up"


def test_freeze_without_an_answer_is_thawed(liar):
    """Whether it froze is not known: it is thawed, again and again until that is answered."""
    suite, guest = liar
    guest.sync()
    guest.serve({"guest-fsfreeze-status": "thawed", "guest-network-get-interfaces": []})
    answer = later(suite, "freeze", {"limit": 1})
    guest.hear("guest-fsfreeze-freeze")
    assert answer()[0] == 504
    guest.sync()
    guest.hear("guest-fsfreeze-thaw")
    guest.say({"error": {"class": "GenericError", "desc": "not now"}})
    guest.hear("guest-fsfreeze-thaw")
    guest.say({"return": 1})
    with suite.events() as events:
        events.wait_vm("web0", lambda vm: up(vm) and "frozen" not in vm["agent"], 10, "thawed")


def test_endless_line(liar):
    """A guest that floods costs a bounded buffer, and nobody else anything."""
    suite, guest = liar
    guest.sync()
    guest.serve({"guest-fsfreeze-status": "thawed", "guest-network-get-interfaces": []})
    answer = later(suite, "ping")
    guest.hear("guest-ping")
    guest.sock.settimeout(20)
    for _ in range(26):
        guest.sock.sendall(b"x" * (1 << 20))
    assert suite.http("vmadmd", "GET", "/ping").status == 200
    guest.sock.sendall(b'\n{"return": {}}\n')
    assert answer()[0] == 200
