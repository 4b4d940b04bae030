# SPDX-License-Identifier: Apache-2.0
"""vminfod's stream on request: numbers, replay, gaps, filters, causes, heartbeats, many listeners."""

import json
import os
import signal
import subprocess
import sys

import drover
import pytest

UUID = "2f5f1a7e-6a1b-4b7e-9a51-7f2a3c4d5e6f"
OTHER = "3f5f1a7e-6a1b-4b7e-9a51-7f2a3c4d5e6f"


def body(ram=128, more="", uuid=UUID):
    return f'uuid = "{uuid}"; ram = {ram}; autoboot = no; {more}'


def modified(ram):
    return lambda ev: ev["type"] == "modify" and ev["vm"]["ram"] == ram


class Stream(drover.Events):
    """One that need not begin with ready."""

    def __enter__(self):
        return self


def stream(suite, query):
    return Stream(suite.socket("vminfod"), query=query)


def test_numbers_and_replay(cold):
    cold.write_definition("web0", body())
    cold.start("vminfod")
    with cold.events(query="?seq=1") as events:
        ready = events.seen[0]
        assert list(ready) == ["type", "date", "uuid", "boot", "seq", "vms"]
        boot, seq = ready["boot"], ready["seq"]
        cold.write_definition("web0", body(129))
        first = events.wait(modified(129))
        assert list(first) == ["type", "date", "zonename", "uuid", "vm", "changes", "seq"]
        assert first["seq"] == seq + 1
    # Gone for a while, and nobody else listening.
    for ram in range(130, 140):
        cold.write_definition("web0", body(ram))
        assert cold.vm(UUID)["ram"] == ram
    with stream(cold, f"?since={boot}:{seq + 1}") as events:
        events.wait(modified(139))
        assert [ev["vm"]["ram"] for ev in events.seen] == list(range(130, 140))
        assert [ev["seq"] for ev in events.seen] == list(range(seq + 2, seq + 12))
        cold.write_definition("web0", body(140))
        assert events.wait(modified(140))["seq"] == seq + 12
    # Up to date: nothing is told twice.
    with stream(cold, f"?since={boot}:{seq + 12}") as events:
        deadline = drover.Deadline(10)  # it says nothing: seen by the list of listeners
        while not cold.http("vminfod", "GET", "/status").json()["eventsListeners"]:
            assert not deadline.over()
        cold.write_definition("web0", body(141))
        assert events.wait(lambda ev: True)["seq"] == seq + 13
    status = cold.http("vminfod", "GET", "/status").json()["events"]
    assert status["replayed"] == 10 and status["gaps"] == 0 and status["seq"] == seq + 13


def test_gaps(cold):
    cold.write_definition("web0", body())
    cold.start("vminfod")
    with cold.events() as events:
        cold.write_definition("web0", body(129))
        events.wait(modified(129))
    # No numbers were asked for so far: nothing was kept. Then a later one, another start.
    with cold.events(query="?seq=1") as events:
        boot, seq = events.seen[0]["boot"], events.seen[0]["seq"]
    assert seq > 0
    for since, why in ((f"{boot}:{seq - 1}", "not kept"), (f"{boot}:{seq + 5}", "no such record"),
                       (f"{UUID}:1", "started again")):
        with stream(cold, f"?since={since}") as events:
            gap = events.wait(lambda ev: True)
            assert gap["type"] == "gap" and gap["since"] == since and why in gap["reason"]
            ready = events.wait(lambda ev: True)
            assert (ready["type"], ready["boot"], ready["seq"]) == ("ready", boot, seq)
            assert json.loads(ready["vms"])[0]["ram"] == 129
    cold.restart("vminfod", signal.SIGKILL)
    with stream(cold, f"?since={boot}:{seq}") as events:
        assert "started again" in events.wait(lambda ev: True)["reason"]
        assert events.wait(lambda ev: True)["boot"] != boot
    for since in ("1", f"{boot}", f"{boot}:", f"{boot}:x", f"{boot}:-1", "x" * 36 + ":1"):
        assert cold.http("vminfod", "GET", f"/events?since={since}").status == 400, since


def test_too_much_to_replay(cold):
    """More than is kept: a gap, not a hole."""
    cold.write_definition("web0", body())
    cold.start("vminfod")
    with cold.events(query="?seq=1") as events:
        boot, seq = events.seen[0]["boot"], events.seen[0]["seq"]
    config = cold.etc / "web0/config"
    for i in range(1100):
        config.write_text(f"web0 {{ {body(64 + i)} }}\n")
        cold.http("vminfod", "GET", "/ping")
    with stream(cold, f"?since={boot}:{seq}") as events:
        assert events.wait(lambda ev: True)["type"] == "gap"
    with stream(cold, f"?since={boot}:{seq + 1000}") as events:
        events.wait(modified(64 + 1099))
        numbers = [ev["seq"] for ev in events.seen]
        assert numbers == list(range(seq + 1001, seq + 1001 + len(numbers)))


def test_server_side_filter(cold):
    cold.write_definition("web0", body())
    cold.write_definition("web1", body(uuid=OTHER))
    cold.start("vminfod")
    with cold.events(query=f"?uuid={UUID.upper()}") as one, \
            cold.events(query="?path=ram,nics.*.ip") as ram, cold.events() as all_of_it:
        assert [vm["uuid"] for vm in json.loads(one.seen[0]["vms"])] == [UUID]
        assert len(json.loads(ram.seen[0]["vms"])) == 2
        cold.write_definition("web1", body(uuid=OTHER, more='hostname = "a";'))
        cold.write_definition("web0", body(more='hostname = "b";'))
        cold.write_definition("web1", body(uuid=OTHER, more='nic net0 { bridge = user; }'))
        assert len(cold.vm(OTHER)["nics"]) == 1  # two writes may else become one record
        cold.write_definition("web1", body(200, uuid=OTHER))
        cold.write_definition("web0", body(201))
        for events in (one, ram, all_of_it):
            events.wait(modified(201))
    assert {ev["zonename"] for ev in one.seen[1:]} == {UUID}
    assert [ev["zonename"] for ev in ram.seen[1:]] == [OTHER, OTHER, UUID]
    assert len(all_of_it.seen) > len(ram.seen)
    for query in ("uuid=x", f"uuid={UUID},", "path=", "path=" + "a," * 20):
        assert cold.http("vminfod", "GET", f"/events?{query}").status == 400, query


def test_heartbeat(cold):
    cold.start("vminfod")
    with cold.events(query="?heartbeat=1") as events:
        deadline = drover.Deadline(10)
        while not events.raw.endswith(b"1\r\n\n\r\n") and events.sock.recv(1, 0x2):
            assert drover.wait_readable(events.sock, deadline)
            events.raw += events.sock.recv(65536)


def test_causes(cold):
    cold.use_fake_qemu()
    cold.write_definition("web0", body())
    cold.start("vmstated", "vminfod")
    with cold.events(query="?cause=1&seq=1") as events:
        cold.write_definition("web0", body(129))
        record = events.wait(modified(129))
        assert record["cause"] == {"by": "editor"}
        assert list(record)[-2:] == ["cause", "seq"]
        cold.vmstatedctl("start", "web0")
        running = events.wait(lambda ev: ev["type"] == "modify" and ev["vm"]["state"] == "running")
        assert running["cause"] == {"by": "supervisor"}
        cold.vmstatedctl("stop", "-F", "web0")
        events.wait(lambda ev: ev["type"] == "modify" and ev["vm"]["state"] == "stopped")


# So many listeners in one process; it tells each STEP records that all of them have.
LISTEN = """
import selectors, socket, sys
path, count, step = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
poll, got, ready, told = selectors.DefaultSelector(), {}, 0, step
for i in range(count):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sock.sendall(b"GET /events HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    poll.register(sock, selectors.EVENT_READ)
    got[sock] = [b"", -1]
lowest = -1
while True:
    for key, _ in poll.select():
        mine = got[key.fileobj]
        data = key.fileobj.recv(1 << 18)
        if not data:
            print("cut", flush=True)
            sys.exit(1)
        data = mine[0] + data
        # A mark that lies across two pieces is counted once.
        mine[1] += data.count(b'{"type":"')
        mine[0] = data[-8:]
    lowest = min(records for _, records in got.values())
    if lowest >= 0 and not ready:
        ready = 1
        print("ready", flush=True)
    while lowest >= told:
        print(told, flush=True)
        told += step
"""
STEP = 100


def listeners(suite, count):
    """A process with that many listeners, all of which have their snapshot."""
    process = subprocess.Popen(
        [sys.executable, "-c", LISTEN, "r/run/vminfod.http", str(count), str(STEP)],
        cwd=suite.root.parent, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def stopped_among(suite, well, stuck, changes):
    """Change a VM that often with that many listeners, some of them stopped: /status, and rss
    before. Each STEP changes all that run must have every record."""
    suite.write_definition("web0", body())
    suite.start("vminfod")
    good, bad = listeners(suite, well), listeners(suite, stuck)
    os.kill(bad.pid, signal.SIGSTOP)
    config = suite.etc / "web0/config"
    try:
        before = suite.http("vminfod", "GET", "/status").json()["memory"]["rss"]
        for i in range(1, changes + 1):
            config.write_text(f"web0 {{ {body(200 + i)} }}\n")
            suite.http("vminfod", "GET", "/ping")
            if i % STEP == 0:
                assert good.stdout.readline() == f"{i}\n"
        status = suite.http("vminfod", "GET", "/status").json()
    finally:
        for process in (good, bad):
            process.kill()
            process.wait()
            process.stdout.close()
    return status, before


def test_stopped_listeners(cold):
    """Those that stopped are cut off at their bound; the others miss nothing."""
    status, before = stopped_among(cold, 40, 10, 1200)
    assert status["events"]["listenersFull"] == 10
    assert status["events"]["listeners"] == 40
    assert cold.daemons["vminfod"].output().count('reason="queue full"') == 10
    assert before > 0


@pytest.mark.campaign
def test_a_thousand_listeners(cold):
    status, before = stopped_among(cold, 900, 100, 1300)
    assert status["events"]["listenersFull"] == 100 and status["events"]["listeners"] == 900
    print(f"\nrss {before} -> {status['memory']['rss']}")


def test_pending_is_part_of_its_change(cold):
    """vmstated sees the files before vmadmd is done; a listener gets one record all the same."""
    cold.use_fake_qemu()
    cold.start()
    cold.vmadm("create", stdin={"uuid": UUID, "alias": "web0", "ram": 128, "autoboot": True})
    with cold.events() as events:
        for ram, old in ((130, None), (128, True), (131, None)):
            cold.vmadm("update", UUID, f"ram={ram}")
            record = events.wait(lambda ev: any(c["path"] in (["ram"], ["pending"])
                                                for c in ev.get("changes", [])))
            changed = {c["prettyPath"]: c.get("oldValue") for c in record["changes"]}
            assert "ram" in changed, changed
            # vmstated may be the later one, then its word is a record of its own.
            if "pending" not in changed:
                events.wait(lambda ev: any(c["path"] == ["pending"]
                                           for c in ev.get("changes", [])))
            else:
                assert changed["pending"] is old
