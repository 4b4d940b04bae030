# SPDX-License-Identifier: Apache-2.0
"""The scripted QEMU keeps to its scenario, over inherited sockets and the recorder's pipe."""

import json
import os
import socket
import subprocess

import pytest

import drover


class Monitor:
    def __init__(self, path):
        self.sock = drover.unix_connect(str(path))
        self.data = b""

    def line(self, seconds=5):
        """The next whole line, or what there is when the peer closed, or None at the deadline."""
        deadline = drover.Deadline(seconds)
        while b"\n" not in self.data:
            if not drover.wait_readable(self.sock, deadline):
                return None
            got = self.sock.recv(65536)
            if not got:
                rest, self.data = self.data, b""
                return rest
            self.data += got
        line, self.data = self.data.split(b"\n", 1)
        return line

    def json(self, seconds=5):
        return json.loads(self.line(seconds))

    def ask(self, execute, **more):
        self.sock.sendall(json.dumps({"execute": execute, **more}).encode() + b"\n")

    def call(self, execute, **more):
        self.ask(execute, **more)
        return self.json()

    def up(self):
        assert "QMP" in self.json()
        assert self.call("qmp_capabilities", id=0) == {"return": {}, "id": 0}
        return self


@pytest.fixture
def fake(tmp_path):
    """start(script) returns (process, connect); two monitors and a recorder."""
    started = []

    def start(script):
        (tmp_path / "script.json").write_text(json.dumps(script))
        os.mkfifo(tmp_path / "events.in")
        (tmp_path / "events.out").touch()
        feed = os.open(tmp_path / "events.in", os.O_RDWR)
        os.write(feed, b'{"execute":"qmp_capabilities"}\n')
        argv = [str(drover.TOP / "tests/fake_qemu"), "-S", "-name", "guest=web0,debug-threads=on"]
        fds = []
        for name in ("mon", "qmp"):
            folder = os.open(tmp_path, os.O_PATH)
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(f"/proc/self/fd/{folder}/{name}")
            os.close(folder)
            sock.listen(4)
            fds.append(sock)
            argv += ["-chardev", f"socket,id={name},fd={sock.fileno()},server=on,wait=off",
                     "-mon", f"chardev={name},mode=control"]
        argv += ["-chardev", "pipe,id=rec,path=events", "-mon", "chardev=rec,mode=control",
                 "-chardev", "null,id=tty,logfile=console.log", "-serial", "chardev:tty"]
        process = subprocess.Popen(argv, cwd=tmp_path, pass_fds=[s.fileno() for s in fds],
                                   stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                   env={**os.environ, "FAKE_QEMU_SCRIPT": f"{tmp_path}/script.json"})
        for sock in fds:
            sock.close()
        started.append((process, feed))
        return process, lambda name="mon": Monitor(tmp_path / name)

    yield start
    for process, feed in started:
        process.kill()
        process.wait()
        process.stderr.close()
        os.close(feed)


def recorded(folder):
    return [json.loads(line).get("event") for line in
            (folder / "events.out").read_text().splitlines() if "event" in line]


def test_behaves_without_a_scenario(fake, tmp_path):
    process, connect = fake({"console": "GUEST-UP\n", "trace": "trace"})
    mon, qmp = connect().up(), connect("qmp").up()
    assert mon.call("query-status", id=1)["return"]["status"] == "prelaunch"
    assert mon.call("cont") == {"return": {}}
    assert mon.json()["event"] == qmp.json()["event"] == "RESUME"
    assert "error" in mon.call("no-such-thing")
    qmp.sock.sendall(b"garbage\n")
    assert "error" in qmp.json()
    assert mon.call("system_powerdown") == {"return": {}}
    assert [mon.json()["event"] for _ in range(2)] == ["POWERDOWN", "SHUTDOWN"]
    assert process.wait(5) == 0
    assert recorded(tmp_path) == ["RESUME", "POWERDOWN", "SHUTDOWN"]
    assert (tmp_path / "console.log").read_text() == "GUEST-UP\n"
    trace = [json.loads(line) for line in (tmp_path / "trace").read_text().splitlines()]
    assert {"monitor": "mon", "execute": "cont", "arguments": {}} in trace


def test_second_client_waits_for_a_greeting(fake):
    _, connect = fake({})
    first = connect().up()
    second = connect()
    assert second.line(0.2) is None
    first.sock.close()
    second.up()


def test_hang_wrong_id_late_split_garbage(fake):
    _, connect = fake({"commands": {
        "query-status": [{"hang": True}, {"wrong_id": True}, {"delay_ms": 60}, {"split": 7},
                         {"raw": "not json\r\n"}, {"error": {"class": "GenericError", "desc": "x"}}],
        "qmp:query-version": {"hang": True}}})
    mon, qmp = connect().up(), connect("qmp").up()
    mon.ask("query-status", id=1)
    assert mon.line(0.1) is None
    assert mon.call("query-status", id=2)["id"] == "no-such-id"
    assert mon.call("query-status", id=3)["id"] == 3
    assert mon.call("query-status", id=4)["id"] == 4
    mon.ask("query-status", id=5)
    assert mon.line() == b"not json\r"
    assert mon.call("query-status", id=6)["error"]["desc"] == "x"
    assert "return" in mon.call("query-version")
    qmp.ask("query-version")
    assert qmp.line(0.1) is None


def test_dies_in_the_middle_of_a_line(fake):
    process, connect = fake({"commands": {"cont": {"half": True, "signal": 9}}})
    mon = connect().up()
    mon.ask("cont")
    rest = mon.line()
    assert rest and b"\n" not in rest
    assert process.wait(5) == -9


def test_never_greets_ignores_powerdown_storms(fake, tmp_path):
    process, connect = fake({
        "greeting": {"mon": "none"}, "powerdown_ms": None,
        "timeline": [{"when": "cont", "events": [{"event": "RESET", "data": {"guest": True},
                                                  "count": 20, "every_ms": 1}]},
                     {"when": "cont", "delay_ms": 100, "exit": 3}]})
    assert connect().line(0.1) is None
    qmp = connect("qmp").up()
    qmp.call("cont")
    qmp.ask("system_powerdown")
    assert process.wait(5) == 3
    assert recorded(tmp_path).count("RESET") == 20
    assert "SHUTDOWN" not in recorded(tmp_path)


def test_refuses_to_start(fake):
    process, _ = fake({"start": {"exit": 1, "stderr": "qemu-system-x86_64: bad device\n"}})
    assert process.wait(5) == 1
    assert process.stderr.read() == b"qemu-system-x86_64: bad device\n"


def test_terminated(fake, tmp_path):
    process, connect = fake({})
    connect().up()
    process.terminate()
    assert process.wait(5) == 0
    assert recorded(tmp_path) == ["SHUTDOWN"]


def test_frozen(fake):
    process, connect = fake({"commands": {"stop": {"freeze": True}}})
    mon, qmp = connect().up(), connect("qmp").up()
    mon.ask("stop")
    assert mon.line(0.1) is None
    qmp.ask("query-status")
    assert qmp.line(0.1) is None
    assert process.poll() is None
