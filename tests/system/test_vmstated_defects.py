# SPDX-License-Identifier: Apache-2.0
"""Defects of the original that no other test shows to be mended; docs/vmstated-defects.md has all."""

import os
import pathlib
import signal
import socket
import subprocess
import time

import pytest

import drover
from vmstated_help import Qmp, log_of, small, vm, wait_ended


@pytest.fixture
def fake(cold):
    cold.use_fake_qemu({"timeline": [{"when": "inject-nmi", "delay_ms": 10, "exit": 3}]})
    cold.start("vmstated", "vminfod")
    return cold


def post(suite, target, status, **body):
    reply = suite.http("vmstated", "POST", f"/vms/{target}", body)
    assert reply.status == status, (target, reply)
    return reply.json()


def test_options_of_daemon_and_client(cold, tmp_path):
    """-c, -p, -s count; -h tells and ends with 0; -v says more; another option is a usage error."""
    short = pathlib.Path(os.path.realpath(tmp_path))
    etc, sock, pidfile = short / "etc", short / "ctl.sock", short / "my.pid"
    etc.mkdir()
    (etc / "one").mkdir()
    (etc / "one" / "config").write_text("elsewhere { memory = 64; }\n")
    cold.start("vmstated", arguments=("-c", str(etc), "-p", str(pidfile), "-s", str(sock), "-v"))
    assert int(pidfile.read_text()) == cold.daemons["vmstated"].pid
    shown = cold.vmstatedctl("-s", str(sock), "status").stdout
    assert "elsewhere" in shown
    assert "usage" in cold.vmstatedctl("-h").stdout.lower()
    assert cold.refused("vmstated", "-h")[0] == 0
    code, text = cold.refused("vmstated", "-Q")
    assert code == 2 and "-Q" in text


def test_defaults_and_words_of_the_manual(fake):
    fake.write_definition("web0", "web0 { memory = 96; cpus = 4; sockets = 1; cores = 2; "
                                  "wire_memory = false; hostbridge = amd; }\n")
    one = fake.vm(fake.uuid("web0"))
    assert (one["ram"], one["vcpus"]) == (96, 4)


def test_default_budget_is_three_in_thirty_seconds(cold):
    cold.use_fake_qemu({"start": {"exit": 1, "stderr": "bad luck\\n"}})
    cold.write_definition("web0", small())
    cold.start("vmstated", "vminfod")
    with cold.events() as events:
        post(cold, "web0/start", 500)
        one = events.wait_vm("web0", lambda o: o.get("state") == "failed", 30, "failed")
    assert "restarted 3 times within 30 s" in one["failed"]


def test_start_of_a_running_vm_costs_nothing(fake):
    """Refused, and nothing happens to it, however often."""
    fake.write_definition("web0", small(maxrestart=1, maxrestarttime=60))
    post(fake, "web0/start", 200)
    before = vm(fake, "web0")
    for _ in range(5):
        post(fake, "web0/start", 409)
    assert vm(fake, "web0") == before
    post(fake, "web0/stop", 200, force=True)


def test_a_persons_starts_spend_no_budget(fake):
    fake.write_definition("web0", small(maxrestart=1, maxrestarttime=60))
    for _ in range(4):
        post(fake, "web0/start", 200)
        post(fake, "web0/stop", 200, force=True)
    assert vm(fake, "web0")["state"] == "stopped"


def test_failreset_gives_the_budget_back(cold):
    """A QEMU that dies at start: the budget is spent, failreset fills it up again."""
    cold.use_fake_qemu({"start": {"exit": 1, "stderr": "bad luck\n"}})
    cold.write_definition("web0", small(maxrestart=1, maxrestarttime=4))
    cold.start("vmstated", "vminfod")
    with cold.events() as events:
        for count in (1, 2):
            post(cold, "web0/start", 500)
            one = events.wait_vm("web0", lambda o: o.get("state") == "failed", 20, "failed")
            assert "bad luck" in one["failed"] and one["init_restarts"] == count
            post(cold, "web0/failreset", 200)
            events.wait_vm("web0", lambda o: o.get("state") != "failed", 5, "reset")


def test_status_without_any_vm(cold):
    cold.start("vmstated")
    done = cold.vmstatedctl("status")
    assert "managing 0 virtual machines" in done.stdout and done.stderr == ""


@pytest.mark.parametrize("arguments,code", [
    (("start", "nobody"), 3), (("stop", "web0"), 5), (("failreset", "web0"), 5), (("start",), 2),
    (("burn", "web0"), 2), (("start", "web0", "more"), 2)])
def test_client_exit_codes(fake, arguments, code):
    fake.write_definition("web0", small())
    done = fake.vmstatedctl(*arguments, check=code)
    assert done.stderr.strip()


def test_client_without_a_daemon(cold):
    assert "vmstated" in cold.vmstatedctl("status", check=8).stderr


@pytest.mark.parametrize("text,what", [
    ("web0 { name = [1]; }", "name"), ("web0 { configfile = { a = 1; } }", "configfile"),
    ("web0 { scriptpath = [1.5]; }", "scriptpath"), ("web0 { console c0 = 3; }", "console"),
    ("web0 { osversion = [1]; }", "osversion"), ("web0 { memory = -1; }", "memory"),
    ('web0 { name = "../../etc/passwd"; }', "name"), ('"a/b" { memory = 64; }', "a/b"),
    ("web0 { memory = 99999999999999999999; }", "out of range")])
def test_values_that_crashed_or_wrapped(fake, text, what):
    fake.write_definition("web0", text + "\n", directory="web0") if text.startswith("web0") else \
        raw_definition(fake, text + "\n")
    status = fake.http("vmstated", "GET", "/status").json()
    assert status["vms"] == []
    [problem] = status["problems"]
    assert "config:1" in problem["text"] and what.split("/")[0] in problem["text"], problem


def test_numbers_are_taken_as_the_text_they_are(fake):
    """osversion = 14.0 is not lost, and a name that looks like a number is a name."""
    fake.write_definition("web0", "web0 { name = 17; osversion = 14.0; }\n")
    [one] = fake.http("vmstated", "GET", "/status").json()["vms"]
    assert (one["name"], one["osversion"]) == ("17", "14.0")


def raw_definition(suite, text):
    folder = suite.etc / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".new").write_text(text)
    os.rename(folder / ".new", folder / "config")


def test_two_sections_of_one_name_in_a_file(fake):
    raw_definition(fake, "web0 { memory = 64; }\nweb0 { memory = 96; }\n")
    status = fake.http("vmstated", "GET", "/status").json()
    assert status["problems"] and "web0" in status["problems"][0]["text"]


def test_log_is_kept_over_a_new_daemon(fake):
    fake.write_definition("web0", small())
    post(fake, "web0/start", 200)
    post(fake, "web0/stop", 200, force=True)
    before = log_of(fake, "web0")
    fake.restart("vmstated")
    assert before and log_of(fake, "web0") == before


def test_stale_pid_file_of_a_living_stranger(cold):
    """A pid file that names another process is no reason to stay down: the lock counts."""
    (cold.root / "run").mkdir(parents=True)
    (cold.root / "run/vmstated.pid").write_text(f"{os.getpid()}\n")
    cold.start("vmstated")
    assert cold.http("vmstated", "GET", "/ping").status == 200


def test_signals_that_killed(fake):
    """SIGHUP reloads, SIGPIPE and clients that leave early do no harm."""
    fake.write_definition("web0", small())
    for _ in range(20):
        sock = drover.unix_connect(fake.socket("vmstated"))
        sock.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
    daemon = fake.daemons["vmstated"]
    daemon.send(signal.SIGPIPE)
    daemon.send(signal.SIGHUP)
    drover.wait_file(daemon.log, lambda data: b"reload asked for by signal" in data, 5)
    assert fake.http("vmstated", "GET", "/ping").status == 200


def test_no_zombie_and_no_pid_after_the_end(fake):
    fake.write_definition("web0", small(onfailure="fail"))
    post(fake, "web0/start", 200)
    pid = vm(fake, "web0")["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_ended(fake, "web0")
    assert "pid" not in vm(fake, "web0")
    assert not os.path.exists(f"/proc/{pid}")


def test_many_clients_at_once(fake):
    """Fifty requests that wait do not keep the next one from its answer."""
    fake.write_definition("slow", small(), hooks={"start_network": "exec tail -f /dev/null"})
    waiting = []
    for _ in range(50):
        sock = drover.unix_connect(fake.socket("vmstated"))
        sock.sendall(b"POST /vms/slow/start HTTP/1.1\r\nHost: localhost\r\n"
                     b"Content-Length: 2\r\n\r\n{}")
        waiting.append(sock)
    assert fake.http("vmstated", "GET", "/vms/slow", seconds=2).json()["state"] == "ready"
    for sock in waiting:
        sock.close()


# clock_gettime and friends of a program it is loaded into: the wall clock is off by what a file says.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *ts)
{
	static int (*real)(clockid_t, struct timespec *);
	FILE *f;
	long off = 0;
	int r;

	if (!real)
		real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	r = real(id, ts);
	if (id != CLOCK_REALTIME || !(f = fopen(getenv("WALL_OFF"), "r")))
		return r;
	if (fscanf(f, "%ld", &off) == 1)
		ts->tv_sec += off;
	fclose(f);
	return r;
}
"""


@pytest.mark.parametrize("seconds", [-86400, 86400])
def test_wall_clock_that_is_set(cold, tmp_path, seconds):
    """A day back or ahead: budget, deadline of a stop and limit of a hook are as if it were not."""
    if (cold.build / "src/vmstated/vmstated").read_bytes().count(b"__asan_init"):
        pytest.skip("a sanitized program takes no other library before its own")
    (tmp_path / "shim.c").write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(tmp_path / "shim.so"),
                    str(tmp_path / "shim.c"), "-ldl"], check=True)
    off = tmp_path / "off"
    off.write_text("0")
    cold.env.update(LD_PRELOAD=str(tmp_path / "shim.so"), WALL_OFF=str(off))
    cold.use_fake_qemu({"powerdown_ms": None,
                        "timeline": [{"when": "inject-nmi", "delay_ms": 10, "exit": 3}]})
    cold.write_definition("web0", small(maxrestart=1, maxrestarttime=60))
    cold.write_definition("slow0", small(hooktimeout=2), hooks={"start_network": "exec tail -f /dev/null"})
    cold.write_definition("deaf0", small())
    cold.start("vmstated", "vminfod")
    with cold.events() as events:
        post(cold, "web0/start", 200)
        post(cold, "deaf0/start", 200)
        Qmp(cold, cold.uuid("web0")).send("inject-nmi")
        events.wait_vm("web0", lambda o: o.get("init_restarts") == 1, 20, "first restart")
        one = events.wait_state("web0", "running", 30)
        post(cold, "slow0/start", 202, wait=False)
        post(cold, "deaf0/stop", 202, wait=False, timeout_ms=2000)
        began = time.monotonic()
        off.write_text(str(seconds))
        Qmp(cold, one["uuid"]).send("inject-nmi")
        failed = events.wait_state("web0", "failed", 20)
        assert "restarted 1 times within 60 s" in failed["failed"]
        assert events.wait_state("deaf0", "stopped", 20)["last_exit"]["cause"] == "timeout-forced"
        assert "ran longer than 2000 ms" in events.wait_state("slow0", "failed", 20)["failed"]
        assert 1 < time.monotonic() - began < 10
        shown = failed["exit_timestamp"][:10]
    assert shown == time.strftime("%Y-%m-%d", time.gmtime(time.time() + seconds))
