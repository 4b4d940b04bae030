# SPDX-License-Identifier: Apache-2.0
"""vminfod against who means no good, and what is left of its own powers."""

import os
import pathlib
import pwd
import select
import socket
import subprocess

import drover
import pytest

UUID = "2f5f1a7e-6a1b-4b7e-9a51-7f2a3c4d5e6f"


def get(suite, target):
    return suite.http("vminfod", "GET", target)


def proc_status(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def send(suite, data, seconds=5):
    """All that comes back until the end or a pause."""
    with drover.unix_connect(suite.socket("vminfod")) as sock:
        deadline, got, sent = drover.Deadline(seconds), b"", memoryview(data)
        sock.setblocking(False)
        while not deadline.over():
            readable, writable, _ = select.select([sock], [sock] if sent else [], [], 0.3)
            if writable:
                try:
                    sent = sent[sock.send(sent[:65536]):]
                except (BrokenPipeError, ConnectionResetError):
                    sent = sent[:0]
            if readable:
                try:
                    more = sock.recv(1 << 20)
                except ConnectionResetError:
                    return got
                if not more:
                    return got
                got += more
            elif not sent and not writable:
                return got
        return got


def test_confined(cold):
    cold.write_definition("web0", f'uuid = "{UUID}"; ram = 64;')
    cold.start("vminfod")
    shown = proc_status(cold.daemons["vminfod"].pid)
    assert int(shown["CapEff"], 16) & ~0x4 == 0
    assert os.geteuid() != 0 or int(shown["CapBnd"], 16) & ~0x4 == 0
    assert shown["NoNewPrivs"].strip() == "1" and shown["Seccomp"].strip() == "2"


@pytest.mark.root
def test_own_user(cold):
    """As another user it reads what only root may read, and its sockets serve everybody."""
    cold.write_definition("web0", f'uuid = "{UUID}"; ram = 64;')
    os.chmod(cold.etc / "web0", 0o700)
    os.chmod(cold.etc / "web0/config", 0o600)
    cold.start("vminfod", arguments=("--user", "nobody"))
    shown = proc_status(cold.daemons["vminfod"].pid)
    assert shown["Uid"].split() == ["65534"] * 4 and shown["CapEff"].strip().endswith("4")
    assert cold.vm(UUID)["ram"] == 64
    (cold.etc / "web0/config").write_text(f'web0 {{ uuid = "{UUID}"; ram = 65; }}\n')
    assert cold.vm(UUID)["ram"] == 65
    cold.stop("vminfod")
    code, text = cold.refused("vminfod", "--user", "no-such-user")
    assert code == 2 and "no-such-user" in text


@pytest.mark.root
def test_other_users(cold):
    """A stranger reads without secrets; he cannot stop others from reading."""
    for folder in (cold.root, *cold.root.parents):
        if folder != pathlib.Path("/") and folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    cold.write_definition("web0", f'uuid = "{UUID}"; ram = 64; vnc_password = "hush-hus";')
    cold.start("vminfod")
    curl = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "curl", "-s",
            "--max-time", "5", "--unix-socket", cold.socket("vminfod")]
    for target in ("/vms", f"/vms/{UUID}", "/vms?vnc_password=hush-hus", "/status?full=1",
                   "/metrics"):
        done = subprocess.run([*curl, f"http://localhost{target}"], capture_output=True, check=True)
        assert b"hush" not in done.stdout, target
    done = subprocess.run([*curl, "-X", "POST", "-d", "x=y", "http://localhost/vms"],
                          capture_output=True, check=True)
    assert done.stdout == b""


def test_malformed(cold):
    cold.start("vminfod")
    for data in (b"\r\n\r\n", b"GET\r\n\r\n", b"\x00" * 100 + b"\r\n\r\n", b"\xff\xfe GET /\r\n\r\n",
                 b"GET /vms HTTP/9.9\r\n\r\n", b"GET " + b"/" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
                 b"GET /vms HTTP/1.1\r\n" + b"A: b\r\n" * 20000 + b"\r\n",
                 b"GET /vms HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
                 b"GET /vms HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n" +
                 b"x" * 100000,
                 b"GET /vms HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                 b"GET /events?" + b"a=b&" * 900 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
                 b"GET /vms?alias=~" + b"(" * 200 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        send(cold, data, 2)
        assert get(cold, "/ping").body == b'{"ping":"pong"}', data[:40]


def test_pipelined(cold):
    cold.start("vminfod")
    count = 2000
    got = send(cold, b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n" * count, 10)
    assert got.count(b'{"ping":"pong"}') == count


def test_slow(cold):
    """Those who send a byte at a time, or take nothing, hold up nobody."""
    for i in range(50):
        cold.write_definition(f"web{i}", "ram = 64;")
    cold.start("vminfod")
    slow = []
    for _ in range(100):
        sock = drover.unix_connect(cold.socket("vminfod"))
        sock.sendall(b"GET /vms HTTP/1.1\r\nHost: lo")
        slow.append(sock)
    for _ in range(50):
        sock = drover.unix_connect(cold.socket("vminfod"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        sock.sendall(b"GET /vms HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
        slow.append(sock)
    deadline = drover.Deadline(5)
    for _ in range(200):
        assert len(get(cold, "/vms").json()) == 50
    assert not deadline.over()
    for sock in slow:
        sock.close()


def test_idle(cold):
    """Alone, without its peers, it sleeps."""
    for i in range(20):
        cold.write_definition(f"web{i}", "ram = 64;")
    cold.start("vminfod")
    pid = cold.daemons["vminfod"].pid
    get(cold, "/ping")

    def switches():
        return int(proc_status(pid)["voluntary_ctxt_switches"])

    quiet = select.poll()  # nothing is registered: it only waits
    quiet.poll(3500)       # attempts to reach the peers have become rare by now
    before = switches()
    quiet.poll(3000)
    assert switches() - before <= 5


@pytest.mark.root
def test_feeds_as_another_user(cold):
    """vminfod as a user that both daemons were told of: also after they, and it, came back."""
    for folder in (cold.root, *cold.root.parents):
        if folder != pathlib.Path("/") and folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    feed, own = ["--feed-user", "nobody"], ["--user", "nobody"]
    cold.start("vmstated", arguments=feed)
    cold.start("vmadmd", arguments=feed)
    cold.start("vminfod", arguments=own)
    shown = proc_status(cold.daemons["vminfod"].pid)["Uid"]
    assert shown.split("\t") == [str(pwd.getpwnam("nobody").pw_uid)] * 4

    def feeds_ready():
        feeds = cold.http("vminfod", "GET", "/status").json()["feeds"]
        return all(feed["ready"] for feed in feeds.values())

    assert feeds_ready()
    made = cold.vmadm("create", stdin={"alias": "web0", "ram": 64, "autoboot": False})
    assert made.returncode == 0  # 7 would be: not confirmed
    with cold.events() as events:
        for name in ("vmstated", "vmadmd"):
            cold.restart(name, arguments=feed)
            deadline = drover.Deadline(10)
            while not feeds_ready():
                assert not deadline.over(), name
            cold.vmadm("update", "web0", f"hostname={name}")
            events.wait_vm("web0", lambda vm: vm.get("hostname") == name)
    for path in ("run/vmstated.feed", "run/vmadmd.feed"):
        assert os.stat(cold.socket(path)).st_mode & 0o777 == 0o600
        done = subprocess.run(
            ["/usr/bin/python3", "-c", "import socket,sys; socket.socket(1).connect(sys.argv[1])",
             cold.socket(path)], capture_output=True, check=False,
            user=pwd.getpwnam("daemon").pw_uid, group=1, extra_groups=[])
        assert b"PermissionError" in done.stderr, path
    # Not told of, it serves what files say and does not pretend.
    cold.restart("vmstated", arguments=["--feed-user", "daemon"])
    assert not cold.http("vminfod", "GET", "/status").json()["feeds"]["vmstated"]["ready"]
