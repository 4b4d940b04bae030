# SPDX-License-Identifier: Apache-2.0
"""vmadm doctor on real daemons: what is provoked is told, by its check and with a remedy.

Each check's judgement is in tests/golden/cli/doctor.cases; here it is that the facts are learned.
"""

import contextlib
import json
import mmap
import os
import resource
import shutil
import signal
import subprocess

import drover
import pytest


def doctor(suite, check=None, prefix=()):
    """{check: [(result, text)]}; every finding that is not well has a remedy."""
    if prefix:
        done = subprocess.run([*prefix, str(suite.binary("vmadm")), "--root", str(suite.root),
                               "--json", "doctor"], env=suite.env, capture_output=True, text=True,
                              timeout=drover.TOOL_S, check=False)
    else:
        done = suite.vmadm("--json", "doctor", check=check)
    assert done.stdout, done.stderr
    found = {}
    for row in json.loads(done.stdout)["findings"]:
        assert (row["result"] == "ok") == ("remedy" not in row), row
        found.setdefault(row["check"], []).append((row["result"], row["text"]))
    bad = any(result == "bad" for rows in found.values() for result, _ in rows)
    assert done.returncode == (1 if bad else 0)
    return found


def results(found, check):
    return [result for result, _ in found[check]]


def test_well(suite):
    suite.write_definition("web0", suite.guest())
    suite.write_hook(suite.etc / "web0", "running", "true")
    suite.vmadm("start", "--dry-run", "web0")  # answered when QEMU and the accelerator are known
    found = doctor(suite)
    for check in ["daemons", "sockets", "permissions", "bridges", "forwarding", "events",
                  "definitions", "monitors", "failed"]:
        assert results(found, check) == ["ok"], found[check]
    assert found["qemu"][0][1].startswith("QEMU ")
    assert results(found, "accelerator")[0] in ("ok", "warning")
    lines = suite.vmadm("doctor", check=None).stdout.splitlines()
    assert len(lines) == sum(map(len, found.values()))


def test_a_daemon_is_away(suite):
    suite.stop("vmadmd")
    found = doctor(suite)
    assert results(found, "daemons") == ["bad"]
    assert "vmadmd does not answer" in found["daemons"][0][1]


def test_limits_of_the_daemons(suite):
    pid = suite.daemons["vmstated"].pid
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (512, 512))
    resource.prlimit(pid, resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))
    assert [text for _, text in doctor(suite)["limits"]] == [
        "vmstated may open 512 files", "vmstated may lock 1 MiB of memory"]


def test_sockets_closed_to_others(suite):
    os.chmod(suite.socket("vmadmd"), 0o600)
    found = doctor(suite)
    assert results(found, "sockets") == ["warning"] and "mode 0600" in found["sockets"][0][1]


def test_writable_hooks_and_definitions(suite):
    suite.write_definition("web0", suite.guest())
    suite.write_hook(suite.etc / "web0", "running", "true", mode=0o777)
    parts = suite.etc / "web0/stopped.d"
    parts.mkdir()
    parts.chmod(0o777)
    (suite.etc / "web0/config").chmod(0o666)
    found = doctor(suite)
    assert results(found, "permissions") == ["bad"] * 3
    told = " ".join(text for _, text in found["permissions"])
    assert all(name in told for name in ("running", "stopped.d", "config"))


def test_failed_vm_and_refused_definition(suite):
    suite.write_definition("web0", suite.guest())
    suite.write_hook(suite.etc / "web0", "start_network", "exit 3")
    suite.vmadm("start", "web0", check=None)
    folder = suite.etc / "new"
    folder.mkdir()
    (folder / "config").write_text("new { memroy = 1G; }\n")
    found = doctor(suite)
    assert results(found, "failed") == ["bad"] and found["failed"][0][1].startswith("web0: ")
    assert results(found, "definitions") == ["bad"] and "memroy" in found["definitions"][0][1]


def test_no_qemu(cold):
    cold.env["DROVER_QEMU"] = str(cold.root / "none")
    cold.start()
    found = doctor(cold)
    assert results(found, "qemu") == ["bad"] and "is not installed" in found["qemu"][0][1]


def test_lost_events(suite):
    """A store through a mapping raises no event; a scan finds it."""
    path = suite.write_definition("web0", suite.guest(ram=128))
    assert suite.vm(suite.uuid("web0"))["ram"] == 128
    # Its end would raise one, so it stays.
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as data, suite.events() as events:
        at = data.find(b"128")
        data[at:at + 3] = b"256"
        data.flush()
        suite.daemons["vminfod"].send(signal.SIGHUP)
        events.wait_vm("web0", lambda vm: vm["ram"] == 256)
        found = doctor(suite)
    assert "warning" in results(found, "events")
    assert any("vminfod: 1 changes of files were found by a scan alone" in text
               for _, text in found["events"])


def test_a_qemu_that_does_not_answer(cold):
    cold.use_fake_qemu()
    cold.start()
    cold.write_definition("web0", cold.guest())
    cold.vmstatedctl("start", "web0")
    pid = cold.vm(cold.uuid("web0"))["pid"]
    with cold.events() as events:
        os.kill(pid, signal.SIGSTOP)
        events.wait_vm("web0", lambda vm: vm.get("qmp") == "unresponsive", 10)
        found = doctor(cold)
        os.kill(pid, signal.SIGCONT)
    assert results(found, "monitors") == ["bad"] and found["monitors"][0][1].startswith("web0: ")
    cold.vmstatedctl("stop", "-F", "web0")


@pytest.mark.root
def test_little_space(suite):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(suite.logs)], check=True)
    try:
        found = doctor(suite)
    finally:
        subprocess.run(["umount", "-l", str(suite.logs)], check=True)
    assert any(result == "bad" and str(suite.logs) in text for result, text in found["space"])


@pytest.mark.root
@pytest.mark.skipif(not shutil.which("nft"), reason="needs nft")
def test_network(suite):
    """Bridges missing, leading nowhere, and behind a chain that drops: in a namespace of its own."""
    name = f"dr{os.getpid() % 100000}"
    inside = ("ip", "netns", "exec", name)
    suite.write_definition("web0", suite.guest(nic=["net0 { bridge = br9; }"]))
    with contextlib.ExitStack() as stack:
        subprocess.run(["ip", "netns", "add", name], check=True)
        stack.callback(subprocess.run, ["ip", "netns", "del", name], check=True)
        found = doctor(suite, prefix=inside)
        assert results(found, "bridges") == ["bad"]
        assert found["bridges"][0][1] == "br9 of web0 does not exist"
        for command in ["ip link add br9 type bridge", "sysctl -q net.ipv4.ip_forward=0"]:
            subprocess.run([*inside, *command.split()], check=True)
        found = doctor(suite, prefix=inside)
        assert found["bridges"] == [("bad", "br9 of web0 is down")]
        subprocess.run([*inside, "ip", "link", "set", "br9", "up"], check=True)
        found = doctor(suite, prefix=inside)
        assert "leads nowhere" in found["bridges"][0][1]
        for command in ["ip link add up0 type veth peer name up1", "ip link set up0 master br9",
                        "nft add table bridge filter",
                        "nft add chain bridge filter FORWARD {type filter hook forward priority 0; "
                        "policy drop;}"]:
            subprocess.run([*inside, "sh", "-c", command.replace("{", "'{").replace("}", "}'")],
                           check=True)
        found = doctor(suite, prefix=inside)
        assert results(found, "bridges") == ["ok"]
        assert results(found, "forwarding") == ["warning"]
        assert "FORWARD of table filter (bridge)" in found["forwarding"][0][1]
        # As firewalld does it: nothing is dropped by default, all that is left is refused at the end.
        rules = ["flush ruleset", "add table inet fw",
                 "add chain inet fw passing { type filter hook forward priority 10; policy accept; }",
                 "add rule inet fw passing meta l4proto tcp accept"]
        nft = [*inside, "nft"]
        subprocess.run([*nft, "; ".join(rules)], check=True)
        subprocess.run([*inside, "ip", "link", "del", "up0"], check=True)
        subprocess.run([*inside, "sysctl", "-q", "net.ipv4.ip_forward=1"], check=True)
        found = doctor(suite, prefix=inside)
        assert results(found, "bridges") == results(found, "forwarding") == ["ok"]
        subprocess.run([*nft, "add rule inet fw passing counter reject with icmpx admin-prohibited"],
                       check=True)
        found = doctor(suite, prefix=inside)
        assert results(found, "forwarding") == ["warning"]
        assert "passing of table fw (inet)" in found["forwarding"][0][1]
