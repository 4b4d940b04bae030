# SPDX-License-Identifier: Apache-2.0
"""drover-vmm, the action programs of OpenNebula on a host, with real and fake QEMUs; transient VMs."""

import json
import os
import signal

import pytest


def transient(suite, alias="web0", **members):
    payload = suite.payload(alias, transient=True, **members)
    return json.loads(suite.vmadm("create", "--json", stdin=payload).stdout)["uuid"]


def leftovers(suite, uuid):
    return [path for path in (suite.run_dir(uuid), suite.data_dir(uuid), suite.etc / uuid)
            if path.exists()]


@pytest.mark.parametrize("end", ["stop", "kill", "away"])
def test_transient_goes_with_its_guest(suite, end):
    """By an order, by a crash, and while vmadmd is not there to see it."""
    disk = suite.root / "disk.0"
    disk.write_bytes(b"A" * 65536)
    uuid = transient(suite, disks=[{"path": str(disk), "nocreate": True, "format": "raw",
                                    "model": "virtio"}], onfailure="fail")
    with suite.events() as events:
        assert suite.vm(uuid)["state"] == "stopped"  # never started: it stays
        suite.vmadm("start", uuid)
        assert suite.vm(uuid)["autoboot"] is False
        pid = suite.vm(uuid)["pid"]
        if end == "stop":
            suite.vmadm("stop", "-F", uuid)
        elif end == "kill":
            os.kill(pid, signal.SIGKILL)
        else:
            suite.kill9("vmadmd")
            os.kill(pid, signal.SIGKILL)
            suite.start("vmadmd")
        events.wait_gone(uuid)
    assert not leftovers(suite, uuid)
    assert disk.read_bytes() == b"A" * 65536
