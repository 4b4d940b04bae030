# SPDX-License-Identifier: Apache-2.0
"""vmadm and the jobs of vmadmd: not waiting, following, ending."""

import json
import os
import pty
import select
import subprocess

import drover


def plain(alias, **members):
    return {"alias": alias, "name": alias, "ram": 64, "autoboot": False, **members}


def listed(suite, **options):
    return json.loads(suite.vmadm("jobs", "--json", **options).stdout)


def test_create_and_delete_without_waiting(suite):
    """Accepted with a job's id; the job tells the outcome, also by its first characters."""
    disks = [{"size": 16, "model": "virtio"}]
    made = json.loads(suite.vmadm("create", "--no-wait", "--json",
                                  stdin=plain("web0", disks=disks)).stdout)
    assert made["accepted"] is True
    done = json.loads(suite.vmadm("jobs", "watch", "--json", made["job"][:12]).stdout)
    assert done["state"] == "done" and done["result"]["uuid"] == made["uuid"]
    assert suite.vm(made["uuid"])["state"] == "stopped"
    gone = json.loads(suite.vmadm("delete", "--no-wait", "--json", "web0").stdout)
    assert "is done" in suite.vmadm("jobs", "watch", gone["job"]).stderr
    suite.vmadm("get", "web0", check=3)
    assert [job["kind"] for job in listed(suite)] == ["delete", "create"]
    assert "is done" in suite.vmadm("jobs", "cancel", gone["job"], check=5).stderr


def test_update_without_waiting(suite):
    uuid = json.loads(suite.vmadm("create", "--json", stdin=plain("web0")).stdout)["uuid"]
    suite.vmadm("update", "--no-wait", "web0", "ram=128")
    assert suite.vm(uuid)["ram"] == 128
    said = json.loads(suite.vmadm("update", "--no-wait", "--json", "web0", stdin={
        "add_disks": [{"size": 16, "model": "virtio"}]}).stdout)
    suite.vmadm("jobs", "watch", said["job"])
    assert len(suite.vm(uuid)["disks"]) == 1


def on_terminal(suite, argv, payload):
    """Everything a tool writes to a terminal, and its exit code."""
    master, slave = pty.openpty()
    process = subprocess.Popen([str(suite.binary("vmadm")), "--root", str(suite.root), *argv], stdin=subprocess.PIPE,
                               stdout=slave, stderr=slave, env=suite.env)
    os.close(slave)
    process.stdin.write(json.dumps(payload).encode())
    process.stdin.close()
    deadline, seen = drover.Deadline(60), b""
    while select.select([master], [], [], deadline.left())[0]:
        try:
            seen += os.read(master, 65536)
        except OSError:  # the last one on the other side has left
            break
    os.close(master)
    return seen.decode(), process.wait(10)


def test_terminal_shows_a_bar(suite):
    seen, code = on_terminal(suite, ["create"], plain("web0", disks=[
        {"size": 16, "model": "virtio"}]))
    assert code == 0, seen
    assert "Successfully created VM" in seen and "\r\x1b[K" in seen
    seen, code = on_terminal(suite, ["create"], plain("web0"))
    assert code == 5 and "name of another VM" in seen, seen
