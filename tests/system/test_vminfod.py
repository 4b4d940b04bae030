# SPDX-License-Identifier: Apache-2.0
"""vminfod: its wire as the original had it, exact reads, secrets, mutations, and absent peers."""

import contextlib
import http.client
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import subprocess

import drover
import pytest

UUID = "2f5f1a7e-6a1b-4b7e-9a51-7f2a3c4d5e6f"
ISO = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
DURATION = re.compile(r"^\d+\.\d{9}s \(\d+(\.\d{1,2})?(d|h|m|s|ms|us|ns)\)$")


def body(ram=128, more=""):
    return f'uuid = "{UUID}"; ram = {ram}; autoboot = no; {more}'


def get(suite, target):
    return suite.http("vminfod", "GET", target)


def tcp(suite, method, target, headers=None):
    connection = http.client.HTTPConnection(*suite.tcp_address(), timeout=10)
    with contextlib.closing(connection):
        connection.request(method, target, headers=headers or {})
        reply = connection.getresponse()
        return drover.Reply(reply.status, reply.headers, reply.read())


class FakeFeed:
    """The serving end of a feed, as docs/feeds.md has it, for one subscriber."""

    def __init__(self, suite, name):
        path = suite.root / f"run/{name}.feed"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.name, self.seq = name, 0

    def accept(self):
        self.listener.settimeout(10)
        self.peer, _ = self.listener.accept()
        self.peer.settimeout(20)
        self.lines = self.peer.makefile("r")
        assert json.loads(self.lines.readline()) == {"hello": "vminfod", "confirms": True}
        self.put(type="hello", feed=1, daemon=self.name, version="0", seq=self.seq)
        self.put(type="ready", seq=self.seq)
        return self

    def put(self, **line):
        self.peer.sendall(json.dumps(line).encode() + b"\n")

    def say(self, kind, **members):
        """A line, and wait until it is acknowledged."""
        self.seq += 1
        self.put(type=kind, seq=self.seq, **members)
        while json.loads(self.lines.readline())["ack"] < self.seq:
            pass

    def close(self):
        self.peer.close()
        self.listener.close()


# --- the wire ---


def test_transport(cold):
    cold.write_definition("web0", body())
    cold.start("vminfod")
    for target, status, text in (
            ("/ping", 200, b'{"ping":"pong"}'), ("//ping", 200, b'{"ping":"pong"}'),
            ("/ping/x/y?a=b", 200, b'{"ping":"pong"}'), ("/x/../ping", 200, b'{"ping":"pong"}'),
            ("/", 404, b"Unsupported URL Path"), ("/pin", 404, b"Unsupported URL Path"),
            ("/vms/none", 404, b"VM Not Found: none"),
            ("/vms/web0", 404, b"VM Not Found: web0")):
        for reply in (get(cold, target), tcp(cold, "GET", target)):
            assert (reply.status, reply.body) == (status, text), target
            assert reply.headers["Content-Type"] == "application/json"
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        reply = cold.http("vminfod", method, "/vms")
        assert (reply.status, reply.body) == (400, b"")
        assert reply.headers["Content-Type"] == "application/json"
    assert get(cold, "/vms/").body == get(cold, "/vms").body
    assert not get(cold, "/vms").body.endswith(b"\n")
    assert get(cold, f"/vms/{UUID}").json() == get(cold, "/vms").json()[0]
    assert tcp(cold, "GET", "/vms", {"Host": "example.org"}).status == 403
    assert tcp(cold, "GET", "/vms", {"Host": "localhost:1"}).status == 200


def test_fields(cold):
    cold.write_definition("web0", body())
    cold.write_definition("web1", "ram = 64;")
    cold.start("vminfod")
    assert get(cold, "/vms?fields=ram,uuid,nothing").json()[0] == {"uuid": UUID, "ram": 128}
    assert get(cold, f"/vms/{UUID}?fields=alias").body == b'{"alias":"web0"}'
    assert get(cold, "/vms?fields=").json() == [{}, {}]
    assert get(cold, "/vms?fields=" + "a," * 65).status == 400


def test_filters(cold):
    cold.write_definition("web0", body(more='nic net0 { bridge = user; mac = "02:00:00:00:00:0a"; } '
                                            'vnc_password = "hush";'))
    cold.write_definition("web1", "ram = 64; disk root { path = \"/nowhere/a.qcow2\"; size = 1G; }")
    cold.start("vminfod")

    def names(query, ask=get):
        reply = ask(cold, f"/vms?fields=alias&{query}")
        assert reply.status == 200, reply
        return [vm["alias"] for vm in reply.json()]

    for query, found in (
            ("ram=64", ["web1"]), ("ram=128&alias=web0", ["web0"]), ("ram=64&alias=web0", []),
            ("alias=~^WEB", ["web0", "web1"]), ("alias=~web%5b01%5d$", ["web0", "web1"]),
            ("nics.*.mac=2:0:0:0:0:A", ["web0"]), ("nics.0.mac=02:00:00:00:00:0a", ["web0"]),
            ("nics.1.mac=02:00:00:00:00:0a", []), ("disks.*.size=1024", ["web1"]),
            ("state=unknown", ["web0", "web1"]), ("ram=1&ram=64", ["web1"]), ("tags.k=v", []),
            ("_=1234&anything=x", ["web0", "web1"]), ("vnc_password=hush", ["web0"])):
        assert names(query) == found, query
    # Nobody learns by asking what he may not see.
    assert names("vnc_password=hush", lambda suite, at: tcp(suite, "GET", at)) == []
    for query, why in (("alais=x", "did you mean alias"), ("stat=x", "did you mean state"),
                       ("nics.x.mac=1", "nics.x.mac"), ("alias=~(", "alias"),
                       ("alias=~(a{1,9}){1,9}", "intervals"), ("alias=~(a)%5c1", "back-references"),
                       ("alias=~" + "a" * 257, "256")):
        reply = get(cold, f"/vms?{query}")
        assert reply.status == 400 and why in reply.body.decode(), reply


def test_head(cold):
    cold.write_definition("web0", body())
    cold.start("vminfod")
    for target in ("/ping", "/status", "/vms", f"/vms/{UUID}", "/events", "/vms?fields=ram"):
        reply = cold.http("vminfod", "HEAD", target)
        assert (reply.status, reply.body) == (200, b""), target
        assert reply.headers["Content-Type"] == "application/json"
    assert cold.http("vminfod", "HEAD", "/vms/none").status == 404
    assert tcp(cold, "HEAD", "/vms").status == 200

def test_status(cold):
    cold.write_definition("web0", body())
    cold.write_definition("bad", "ramm = 1;")
    cold.start("vminfod")
    with cold.events(user_agent="somebody"):
        status = get(cold, "/status?full=1").json()
    assert list(status)[:14] == ["pid", "uptime", "memory", "state", "status", "numVms", "curDate",
                                 "curTime", "queue", "lastRefresh", "refreshErrors",
                                 "eventsListeners", "refreshLog", "fswatcher"]
    assert status["numVms"] == 1 and status["state"] == "running"
    assert DURATION.match(status["uptime"]) and ISO.match(status["curDate"])
    (listener,) = status["eventsListeners"].values()
    assert listener["userAgent"] == "somebody" and DURATION.match(listener["createdAgo"])
    (problem,) = status["problems"]
    assert problem["name"] == "bad" and "/bad/config:" in problem["text"]
    assert "refreshLog" not in get(cold, "/status").json()


def test_records(cold):
    cold.write_definition("web0", body())
    cold.start("vminfod")
    with cold.events() as events:
        ready = events.seen[0]
        assert list(ready) == ["type", "date", "uuid", "vms"] and isinstance(ready["vms"], str)
        assert ready["vms"].encode() == get(cold, "/vms").body
        cold.write_definition("web0", body(256))
        cold.write_definition("web1", "ram = 64;")
        os.unlink(cold.etc / "web0/config")
        shutil.rmtree(cold.etc / "web1")
        events.wait(lambda ev: ev["type"] == "delete")
        deletes = [ev for ev in events.seen if ev["type"] == "delete"]
        assert list(deletes[0]) == ["type", "date", "zonename", "uuid"]
    cold.write_definition("web0", body())
    with cold.events() as events:
        cold.write_definition("web0", body(256))
        modify = events.wait(lambda ev: ev["type"] == "modify")
        assert list(modify) == ["type", "date", "zonename", "uuid", "vm", "changes"]
        assert ISO.match(modify["date"]) and modify["zonename"] == UUID
        assert modify["vm"] == cold.vm(UUID)
        ram = next(c for c in modify["changes"] if c["path"] == ["ram"])
        assert ram == {"prettyPath": "ram", "path": ["ram"], "action": "changed",
                       "oldValue": 128, "newValue": 256}


# --- exact reads ---


def test_every_write_is_seen(cold):
    """A read that begins after close(2) or rename(2) returned sees that write."""
    cold.write_definition("web0", body())
    cold.start("vminfod")
    config = cold.etc / "web0/config"
    tags = cold.data_dir(UUID) / "config/tags.json"
    tags.parent.mkdir(parents=True)
    with contextlib.closing(drover.UnixHTTPConnection(cold.socket("vminfod"), 10)) as connection:
        for i in range(300):
            ram = 64 + i
            if i % 3 == 0:
                cold.write_definition("web0", body(ram))
            elif i % 3 == 1:
                config.write_text(f"web0 {{ {body(ram)} }}\n")
            else:
                config.unlink()
                config.write_text(f"web0 {{ {body(ram)} }}\n")
            tags.write_text(json.dumps({"n": i}))
            connection.request("GET", f"/vms/{UUID}?fields=ram,tags")
            assert json.loads(connection.getresponse().read()) == {"ram": ram, "tags": {"n": i}}
        for name in ("web0", "moved"):
            connection.request("GET", "/vms?fields=uuid")
            assert json.loads(connection.getresponse().read()) == [{"uuid": UUID}]
            if name == "web0":
                os.rename(cold.etc / "web0", cold.etc / "moved")
        shutil.rmtree(cold.etc / "moved")
        connection.request("GET", "/vms")
        assert connection.getresponse().read() == b"[]"
    assert get(cold, "/status").json()["files"]["lost"] == 0


def test_half_a_file(cold):
    cold.write_definition("web0", body())
    cold.start("vminfod")
    config = cold.etc / "web0/config"
    before = get(cold, "/vms").body
    with open(config, "w", encoding="ascii") as out:
        out.flush()
        assert get(cold, "/vms").body == before
        out.write("web0 { ram = ")
        out.flush()
        assert get(cold, "/vms").body == before
    broken = cold.vm(UUID)
    assert broken["definition"] == "broken" and "/web0/config:1:" in broken["definition_error"]
    assert broken["ram"] == 128
    cold.write_definition("web0", body(129))
    assert cold.vm(UUID)["ram"] == 129 and "definition" not in cold.vm(UUID)


def test_killed_and_started_again(cold):
    cold.write_definition("web0", body())
    cold.start("vminfod")
    before = get(cold, "/vms").json()
    cold.kill9("vminfod")
    cold.start("vminfod")
    after = get(cold, "/vms").json()
    before[0].pop("unknown")
    after[0].pop("unknown")
    assert before == after
    code, text = cold.refused("vminfod")
    pid = cold.daemons["vminfod"].pid
    assert code == 1 and "already running" in text and str(pid) in text


# --- who sees what ---


def as_nobody(suite, target):
    done = subprocess.run(["curl", "-s", "--unix-socket", suite.socket("vminfod"),
                           f"http://localhost{target}"], capture_output=True, check=True,
                          user=pwd.getpwnam("nobody").pw_uid, group=65534, extra_groups=[])
    return done.stdout.decode()


def test_secrets(cold):
    secret = 'vnc_password = "hush-hus";'
    cold.write_definition("web0", body(more=secret))
    metadata = cold.data_dir(UUID) / "config/metadata.json"
    metadata.parent.mkdir(parents=True)
    metadata.write_text('{"customer_metadata":{"root_pw":"hush-hus","k":"v"},'
                        '"internal_metadata":{"i":"hush-hus"}}')
    cold.start("vminfod")
    assert get(cold, "/vms").body.count(b"hush-hus") == 3
    for target in ("/vms", f"/vms/{UUID}", "/vms?fields=vnc_password,customer_metadata"):
        text = tcp(cold, "GET", target).body
        assert b"hush-hus" not in text and b'"k":"v"' in text, target
    host, port = cold.tcp_address()
    with socket.create_connection((host, port), 10) as sock, cold.events() as events:
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        data = b""
        while b'"type":"ready"' not in data:
            data += sock.recv(65536)
        cold.write_definition("web0", body(more='vnc_password = "hush-two";'))
        cold.write_definition("web0", body(200, 'vnc_password = "hush-two";'))
        shown = events.wait(lambda ev: any(c["path"] == ["vnc_password"]
                                           for c in ev.get("changes", [])))
        assert shown["vm"]["vnc_password"] == "hush-two"
        while b'"newValue":200' not in data:
            data += sock.recv(65536)
        assert b"hush" not in data


@pytest.mark.root
def test_owner_sees_his_own(cold):
    for folder in (cold.root, *cold.root.parents):
        if folder != pathlib.Path("/") and folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    cold.write_definition("mine", body(more='owner = nobody; vnc_password = "hush-hus";'))
    cold.write_definition("other", 'ram = 64; vnc_password = "hush-two";')
    cold.start("vminfod")
    text = as_nobody(cold, "/vms")
    assert "hush-hus" in text and "hush-two" not in text
    assert "hush-hus" in as_nobody(cold, f"/vms/{UUID}")


# --- the other daemons ---


def test_alone(cold):
    """Without its peers it serves at once and never says stopped."""
    cold.write_definition("web0", body())
    cold.start("vminfod")
    vm = cold.vm(UUID)
    assert (vm["state"], vm["zone_state"]) == ("unknown", "unknown")
    assert ISO.match(vm["unknown"]["vmstated"])
    with cold.events() as events:
        cold.start("vmstated")
        events.wait_vm("web0", lambda vm: "unknown" not in vm and vm["state"] == "stopped")
        cold.kill9("vmstated")
        away = events.wait_vm("web0", lambda vm: "unknown" in vm)
        assert away["state"] == "stopped" and ISO.match(away["unknown"]["vmstated"])
        cold.start("vmstated")
        events.wait_vm("web0", lambda vm: "unknown" not in vm)


def test_mutation_is_one_record(cold):
    cold.write_definition("web0", body())
    feed = FakeFeed(cold, "vmadmd")
    with contextlib.closing(feed):
        daemon = drover.Daemon(cold, "vminfod", ())
        cold.daemons["vminfod"] = daemon
        feed.accept()
        daemon.wait_ready()
        with cold.events(query="?cause=1") as events, cold.events() as plain:
            feed.say("begin", uuid=UUID, cause={"uid": 0, "command": "vmadm update"})
            cold.write_definition("web0", body(256))
            tags = cold.data_dir(UUID) / "config/tags.json"
            tags.parent.mkdir(parents=True)
            tags.write_text('{"k":1}')
            feed.say("vm", uuid=UUID, facts={"provisioning": True})
            assert cold.vm(UUID)["ram"] == 128 and cold.vm(UUID)["tags"] == {}
            feed.say("commit", uuid=UUID)
            assert cold.vm(UUID)["ram"] == 256
            record = events.wait(lambda ev: ev["type"] == "modify")
            assert {"ram", "tags.k", "provisioning"} <= {c["prettyPath"] for c in record["changes"]}
            assert record["cause"] == {"by": "command", "uid": 0, "command": "vmadm update"}
            assert "cause" not in plain.wait(lambda ev: ev["type"] == "modify")
            assert len(events.seen) == 2
            # One that never ends is released by time.
            feed.say("begin", uuid=UUID, cause={"uid": 0, "command": "vmadm update"})
            cold.write_definition("web0", body(300))
            assert cold.vm(UUID)["ram"] == 256
            events.wait_vm("web0", lambda vm: vm["ram"] == 300, 15)
    assert "did not end within 10 s" in daemon.log.read_text()


def test_slow_listener_is_cut_off(cold):
    for i in range(20):
        cold.write_definition(f"web{i}", "ram = 64;")
    cold.start("vminfod")
    with drover.unix_connect(cold.socket("vminfod")) as sock, cold.events() as events:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert sock.recv(1, socket.MSG_PEEK) == b"H"
        for n in range(70, 160):
            for i in range(20):
                cold.write_definition(f"web{i}", f"ram = {n};")
            # The other one is not held up.
            events.wait_vm("web19", lambda vm, n=n: vm["ram"] == n)
            status = get(cold, "/status").json()
            if len(status["eventsListeners"]) == 1:
                break
        assert len(status["eventsListeners"]) == 1
        assert status["events"]["listenersFull"] == 1


def test_ends_in_order(suite):
    with suite.events() as events:
        suite.stop("vminfod", signal.SIGTERM)
        deadline = drover.Deadline(10)
        while not events.closed and events.pump(deadline):
            pass
        assert events.closed
    assert not os.path.exists(suite.socket("vminfod"))
    assert not (suite.root / "run/vminfod.addr").exists()
