# SPDX-License-Identifier: Apache-2.0
"""A libvirtd of our own beside the suite, for figures in the same run.

It runs as root in a mount namespace, so that its configuration, state and sockets are a folder's and the
host's libvirt, if any, is left alone. Guests are transient, made and asked through one virsh that
stays connected, as a monitoring program would.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess

import drover

READY_S = 60
QEMU_CONF = """user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
"""
LIBVIRTD_CONF = """unix_sock_dir = "{here}/sock"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "3:stderr"
"""
# The daemon wants its user to exist even when it is not used.
ENTER = """set -e
for where in /etc/libvirt:etc /var/lib/libvirt:lib /var/cache/libvirt:cache /var/log/libvirt:log; do
    mkdir -p "${where%:*}"
    mount --bind "$1/${where#*:}" "${where%:*}"
done
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/group" /etc/group
mkdir -p /run/libvirt
mount -t tmpfs tmpfs /run/libvirt
exec libvirtd -f "$1/libvirtd.conf" -p "$1/pid"
"""
DOMAIN = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{disk}'/>
<target dev='vda' bus='virtio'/></disk></devices></domain>
"""
# What an ordinary account named libvirt-qemu looks like, should the package not have made it.
ACCOUNTS = {"passwd": "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin\n",
            "group": "libvirt-qemu:x:64055:\nkvm:x:64056:\n"}


def missing():
    """Why there is no comparison, or None."""
    if os.geteuid() != 0:
        return "libvirt: needs root"
    for program in ("libvirtd", "virsh", "unshare"):
        if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
            return f"libvirt: {program} is not installed"
    return None


class Virsh:
    """A virsh on a pipe: commands in; what it prints out, up to a mark (which its own echo of the
    commands shows in quotes)."""

    def __init__(self, uri):
        self.process = subprocess.Popen(["virsh", "-q", "-c", uri], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def send(self, command):
        self.process.stdin.write(f'{command}\necho "drover"-end\n'.encode())
        self.process.stdin.flush()

    def read(self, seconds):
        """The output, or None when it did not come in time."""
        data, deadline = b"", drover.Deadline(seconds)
        while b"drover-end" not in data:
            if not drover.wait_readable(self.process.stdout, deadline):
                return None
            got = os.read(self.process.stdout.fileno(), 1 << 20)
            if not got:
                raise RuntimeError(f"virsh ended: {data[-500:]!r}")
            data += got
        return data

    def run(self, command, seconds=120):
        self.send(command)
        return self.read(seconds)

    def close(self):
        self.process.kill()
        self.process.wait()


def write_tree(here):
    for name in ("etc", "lib", "cache", "log", "sock", "guests"):
        (here / name).mkdir(parents=True)
    (here / "etc/qemu.conf").write_text(QEMU_CONF)
    (here / "libvirtd.conf").write_text(LIBVIRTD_CONF.format(here=here))
    for name, more in ACCOUNTS.items():
        (here / name).write_text(pathlib.Path("/etc", name).read_text() + more)


@contextlib.contextmanager
def running(folder, count):
    """(uri, pids of the guests) of count transient guests like those of the suite."""
    here = pathlib.Path(folder) / "libvirt"
    write_tree(here)
    with open(here / "out", "wb") as out:
        daemon = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", ENTER,
                                   "sh", str(here)], stdout=out, stderr=out)
    pids = []
    try:
        sock = here / "sock/libvirt-sock"
        watch = drover.Inotify(sock.parent)
        deadline = drover.Deadline(READY_S)
        while not sock.exists():
            if not watch.wait(deadline):
                raise drover.TimedOut(f"libvirtd: {(here / 'out').read_text()[-800:]}")
        watch.close()
        uri = f"qemu+unix:///system?socket={sock}"
        virsh = Virsh(uri)
        for i in range(count):
            disk, xml = here / f"guests/{i}.raw", here / f"guests/{i}.xml"
            with open(disk, "wb") as file:
                file.truncate(1 << 20)
            xml.write_text(DOMAIN.format(name=f"g{i}", disk=disk))
            done = virsh.run(f"create {xml}")
            if b"error" in done:
                raise RuntimeError(f"virsh create: {done!r}")
        virsh.close()
        pids = [int(path.read_text()) for path in sorted((here / "lib/qemu").glob("**/*.pid"))]
        pids = pids or qemus(here)
        yield uri, pids
    finally:
        for pid in pids or qemus(here):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        daemon.terminate()
        daemon.wait()


def qemus(here):
    """Processes whose arguments name a disk of ours."""
    mark, found = os.fsencode(here / "guests"), []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            if b"qemu-system" in data.split(b"\0")[0] and mark in data:
                found.append(int(path.parts[2]))
    return found
