# SPDX-License-Identifier: Apache-2.0
"""Two OpenNebula hosts, node1 and node2: a root, a network namespace and an sshd each.

The test itself is in a third namespace, whose bridge joins them; it is the front-end. All see the same
files, but for the datastores: a node can have its own in their place.
"""

import contextlib
import os
import pathlib
import subprocess
import tempfile

import drover
import netns
import pytest

SETUP = """ip link set lo up && ip link add br0 type bridge && ip link set br0 up
[ -z "$1" ] || mount --bind "$1" "$2" || exit
echo ready
read x"""
SSHD = """Port 22
ListenAddress {address}
HostKey {home}/host_key
AuthorizedKeysFile {home}/key.pub
StrictModes no
UsePAM no
PermitRootLogin yes
PidFile none
SetEnv DROVER_ROOT={root} MIGRATE_URI=ssh://%h{other} PATH={home}/bin:{path} SHUTDOWN_TIMEOUT=20
"""
CLIENT = """Host node1
  HostName 10.77.0.1
Host node2
  HostName 10.77.0.2
Host *
  IdentityFile {home}/key
  IdentitiesOnly yes
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
  ConnectTimeout 10
"""


class Node:
    def __init__(self, number, home):
        self.name, self.address = f"node{number}", f"10.77.0.{number}"
        self.home = home
        self.suite = drover.Suite(home / str(number))
        self.own, self.holder, self.server = None, None, None

    def open(self, datastores, seen_as, other):
        """datastores: this node's own folder, None: it sees what is there."""
        self.own = datastores
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", SETUP, "sh",
             datastores or "", seen_as], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self.holder.stdout.readline() == b"ready\n"
        pid = self.holder.pid
        self.suite.prefix = ["nsenter", f"--net=/proc/{pid}/ns/net", f"--mount=/proc/{pid}/ns/mnt", "--"]
        netns.ip("link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        netns.ip("link", "set", self.name, "master", "switch", "up")
        self.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        config = self.home / f"sshd{self.name}"
        config.write_text(SSHD.format(address=self.address, home=self.home, root=self.suite.root,
                                      other=other.root, path=os.environ["PATH"]))
        client = self.suite.root / "etc/vmadmd/ssh_config"
        client.parent.mkdir(parents=True)
        client.write_text((self.home / "config").read_text())
        self.server = subprocess.Popen([*self.suite.prefix, "/usr/sbin/sshd", "-D", "-e", "-f", config],
                                       stderr=subprocess.PIPE, bufsize=0)
        assert drover.wait_readable(self.server.stderr, drover.Deadline(10))
        first = self.server.stderr.readline()
        assert b"listening" in first, first
        self.start()

    def start(self, *names):
        """Daemons; they tell that they serve by a socket of their namespace."""
        with netns.inside(self.holder.pid):
            self.suite.start(*names)

    def run(self, *argv):
        return subprocess.run([*self.suite.prefix, *map(str, argv)], check=True, capture_output=True,
                              text=True).stdout

    def state(self):
        vms = self.suite.http("vminfod", "GET", "/vms").json()
        return vms[0]["state"] if vms else None

    def close(self):
        for process in (self.server, self.holder):
            if process:
                process.terminate()
                process.wait(10)
                for pipe in (process.stdin, process.stdout, process.stderr):
                    if pipe:
                        pipe.close()


@contextlib.contextmanager
def nodes(datastores, shared):
    """(node1, node2, folder of `ssh` for a PATH). datastores: path as the hosts see it."""
    if not os.path.exists("/usr/sbin/sshd"):
        pytest.skip("no sshd here")
    for needed in (pathlib.Path("/run/sshd"), datastores):
        needed.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, netns.namespace():
        home = pathlib.Path(folder)  # short: ssh carries sockets of at most 107 bytes
        (home / "bin").mkdir()
        for name in ("host_key", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / name], check=True)
        (home / "config").write_text(CLIENT.format(home=home))
        for name in ("ssh", "scp"):
            script = home / "bin" / name
            script.write_text(f"#!/bin/sh\nexec /usr/bin/{name} -F {home}/config \"$@\"\n")
            script.chmod(0o755)
        netns.ip("link", "add", "switch", "type", "bridge")
        netns.ip("address", "add", "10.77.0.254/24", "dev", "switch")
        netns.ip("link", "set", "switch", "up")
        pair = [Node(number, home) for number in (1, 2)]
        try:
            for node, other in zip(pair, reversed(pair)):
                own = None
                if not shared:
                    own = home / f"ds{node.name}"
                    own.mkdir()
                node.open(own, datastores, other.suite)
            yield *pair, home / "bin"
        finally:
            complaints = [text for node in pair for text in node.suite.finish()]
            for node in pair:
                node.close()
        if complaints:
            pytest.fail("\n".join(complaints), pytrace=False)
