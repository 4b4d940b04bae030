# SPDX-License-Identifier: Apache-2.0
"""vminfo, zoneevent and their completion against a real vminfod."""

import json
import os
import signal
import subprocess

import drover

UUID = "2f5f1a7e-6a1b-4b7e-9a51-7f2a3c4d5e6f"


def body(ram=128):
    return f'uuid = "{UUID}"; ram = {ram}; autoboot = no;'


def zoneevent(suite, *arguments):
    link = suite.root / "zoneevent"
    if not link.is_symlink():
        link.symlink_to(suite.binary("vminfo"))
    return subprocess.Popen([link, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            bufsize=0, env={**suite.env, "DROVER_ROOT": "r"},
                            cwd=suite.root.parent)


def line(process):
    assert drover.wait_readable(process.stdout, drover.Deadline(10)), "no line"
    return json.loads(process.stdout.readline())


def wait_listener(suite, deadline=10):
    end = drover.Deadline(deadline)
    while True:
        found = suite.http("vminfod", "GET", "/status").json()["eventsListeners"].values()
        if found:
            return next(iter(found))
        assert not end.over()


def test_zoneevent(cold):
    cold.use_fake_qemu()
    cold.start("vmstated", "vminfod")
    process = zoneevent(cold, "-i", "tester")
    try:
        agent = wait_listener(cold)["userAgent"]
        assert agent.startswith("VM.js events - zoneevent CLI (tester) - ") and "zoneevent)" in agent
        cold.write_definition("web0", body())
        first = line(process)
        assert list(first) == ["zonename", "oldstate", "newstate", "zoneid", "when"]
        assert (first["zonename"], first["oldstate"]) == (UUID, "")
        assert first["when"].endswith("000000") and len(first["when"]) == 19
        cold.vmstatedctl("start", "web0")
        states = []
        while not states or states[-1]["newstate"] != "running":
            states.append(line(process))
        assert states[-1]["zoneid"].isdigit()
        cold.vmstatedctl("stop", "-F", "web0")
        while states[-1]["newstate"] != "uninitialized":
            states.append(line(process))
        assert "installed" not in {s["newstate"] for s in states[2:]}
        cold.restart("vminfod", signal.SIGKILL)
        wait_listener(cold)
        (cold.etc / "web0/config").unlink()
        while states[-1]["newstate"] != "":
            states.append(line(process))
        assert list(states[-1]) == ["zonename", "newstate", "zoneid", "when"]
    finally:
        process.kill()
        _, said = process.communicate()
    assert b"may have been missed" in said


def test_zoneevent_usage(cold):
    for arguments, code in ((["-h"], 0), (["-x"], 2), (["-l", "loud"], 2), (["word"], 2)):
        process = zoneevent(cold, *arguments)
        out, err = process.communicate(timeout=10)
        assert process.returncode == code and b"usage: zoneevent" in (err if code else out)


def test_vminfo(cold):
    cold.write_definition("web0", body())
    cold.start("vminfod")
    assert cold.vminfo("ping").stdout == "pong\n"
    assert json.loads(cold.vminfo("vms").stdout)[0]["uuid"] == UUID
    assert json.loads(cold.vminfo("vm", UUID).stdout)["alias"] == "web0"
    shown = cold.vminfo("status", "-f").stdout
    for part in ("state: running (working)\n", "numVms: 1\n", "queue\n  paused: false\n",
                 "  refreshLog: (1 items)\n", "fswatcher\n", "eventsListeners: (0 listeners)\n"):
        assert part in shown, shown
    assert json.loads(cold.vminfo("status", "-j").stdout)["numVms"] == 1


def test_completion(cold):
    cold.write_definition("web0", body())
    cold.start("vminfod")
    tools = cold.root / "bin"
    tools.mkdir()
    (tools / "vminfo").symlink_to(cold.binary("vminfo"))
    script = drover.TOP / "contrib/completion/vminfo"

    def complete(*words):
        text = (f'. {script}; COMP_WORDS=({" ".join(words)} ""); COMP_CWORD={len(words)}; '
                f'_{words[0]}; printf "%s\\n" "${{COMPREPLY[@]}}"')
        done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True,
                              env={**cold.env, "PATH": f"{tools}:{os.environ['PATH']}",
                                   "DROVER_ROOT": str(cold.root)})
        return done.stdout.split()

    assert {"ping", "status", "vms", "vm", "events"} <= set(complete("vminfo"))
    assert complete("vminfo", "events") == ["-j", "-f", "-r"]
    assert set(complete("vminfo", "vm")) >= {UUID, "web0"}
    assert "debug" in complete("zoneevent", "-l")
