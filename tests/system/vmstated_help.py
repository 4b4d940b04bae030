# SPDX-License-Identifier: Apache-2.0
"""What the tests of vmstated share: scripted guests, hooks that leave a trace and can be held.

A hook made by `hooks()` writes its name to VM_DIR/trace and then waits when a gate of its name is
closed. A gate is a FIFO that the test holds open itself, so nothing hangs when the test ends.
"""

import json
import os

import drover

START = ["start_network", "start_storage", "running"]
STOP = ["stopping", "stop_storage", "stop_network", "stopped"]
CHAIN = ["prestop_before_restart", "restarting", "restart_stopped", "prestart_after_restart",
         "start_after_restart", "restarted"]
ALL = START + STOP + CHAIN + ["failed"]
NOTE = 'echo "$VM_HOOK" >> "$VM_DIR/trace"'
HOLD = 'if [ -p "$VM_DIR/hold.$VM_HOOK" ]; then read -r _ < "$VM_DIR/hold.$VM_HOOK"; fi'
REST = ("INIT", "STOPPED", "FAILED")

# For a scenario of the fake QEMU: told inject-nmi on a monitor, its guest resets itself.
RESETS = [{"when": "inject-nmi", "events": [
              {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-reset"}}]},
          {"when": "inject-nmi", "delay_ms": 30, "exit": 0}]


def hooks(*names, **more):
    """{hook: text} that note themselves and can be held; more: what a hook does after that."""
    made = {name: f"{NOTE}\n{HOLD}" for name in names or ALL}
    for name, text in more.items():
        made[name] = f"{NOTE}\n{HOLD}\n{text}"
    return made


def small(**properties):
    """A definition without any hardware to boot from."""
    lines = {"ram": 64, "vcpus": 1, "accel": "tcg", **properties}
    return "\n".join(f"    {key} = {json.dumps(value)};" for key, value in lines.items())


class Gate:
    """A closed gate for one hook of one VM."""

    def __init__(self, suite, name, hook):
        path = suite.etc / name / f"hold.{hook}"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def open(self):
        """Let the hook that waits go on; it is counted on to wait."""
        os.write(self.fd, b"\n")

    def close(self):
        os.close(self.fd)


class Qmp:
    """A client of a guest's second monitor, as somebody who is not ours would be."""

    def __init__(self, suite, uuid):
        self.sock = drover.unix_connect(str(suite.run_dir(uuid) / "vm.qmp"))
        self.data = b""
        self._line()
        self.call("qmp_capabilities")

    def _line(self, seconds=10):
        deadline = drover.Deadline(seconds)
        while b"\n" not in self.data:
            if not drover.wait_readable(self.sock, deadline):
                raise drover.TimedOut(f"no answer on vm.qmp within {seconds} s")
            got = self.sock.recv(65536)
            if not got:
                return {}
            self.data += got
        line, self.data = self.data.split(b"\n", 1)
        return json.loads(line)

    def send(self, execute, **arguments):
        body = {"execute": execute}
        if arguments:
            body["arguments"] = arguments
        self.sock.sendall(json.dumps(body).encode() + b"\n")

    def call(self, execute, **arguments):
        self.send(execute, **arguments)
        while True:
            reply = self._line()
            if not reply or "return" in reply or "error" in reply:
                return reply

    def close(self):
        self.sock.close()


def told(suite, uuid, execute):
    """Send one command on the second monitor and leave."""
    client = Qmp(suite, uuid)
    client.send(execute)
    return client


def vm(suite, name):
    """One VM as vmstated itself answers now."""
    reply = suite.http("vmstated", "GET", f"/vms/{name}")
    assert reply.status == 200, reply
    return reply.json()


def all_vms(suite):
    return {one["name"]: one for one in suite.http("vmstated", "GET", "/status").json()["vms"]}


def trace(suite, name):
    path = suite.etc / name / "trace"
    return path.read_text().split() if path.exists() else []


def wait_trace(suite, name, hook, seconds=20, times=1):
    """Wait until a hook ran `times` times."""
    drover.wait_file(suite.etc / name / "trace",
                     lambda data: data.decode().split().count(hook) >= times, seconds,
                     f"{name}: hook {hook} {times} times")


def wait_rest(events, name, seconds=30, state=None):
    """Wait until vmstated has the VM at rest; the object."""
    want = (state,) if state else REST
    return events.wait_vm(name, lambda o: o.get("supervisor_state") in want, seconds,
                          f"rest in {want}")


def wait_settled(suite, name, seconds=20):
    """Wait until no hook of the VM runs any more: its state file says so."""
    def settled(data):
        return bool(data) and json.loads(data).get("settled") is True
    drover.wait_file(suite.run_dir(vm(suite, name)["uuid"]) / "vmstated.state", settled, seconds,
                     f"{name} settled")


def log_of(suite, name):
    return (suite.logs / f"{name}.log").read_text(errors="replace")


def start_time(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        return stat.read().rsplit(")", 1)[1].split()[19]


def wait_ended(suite, name, seconds=20):
    """Wait until the guest's process is gone and all hooks of its end are through."""
    def ended(data):
        state = json.loads(data) if data else {}
        return state.get("settled") is True and not state.get("pid") and state["state"] in REST
    drover.wait_file(suite.run_dir(vm(suite, name)["uuid"]) / "vmstated.state", ended, seconds,
                     f"{name} at its end")
