# SPDX-License-Identifier: Apache-2.0
"""An OpenNebula host without its core: remotes with our action links, a datastore, messages."""

import base64
import os
import re
import subprocess

from drover import GUEST

ACTIONS = """attach_disk attach_nic cancel deploy detach_disk detach_nic exec exec_cancel migrate migrate_local
poll prereconfigure reboot reconfigure reset resize resize_disk restore save shutdown snapshot_create
snapshot_delete snapshot_revert""".split()


HALT = bytes.fromhex("faf4ebfc") + bytes(506) + b"\x55\xaa"  # a boot sector that does nothing, for ever


def make_disk(path, mib, kind, first=b""):
    """An image that begins with these bytes."""
    raw = path.with_name("raw")
    raw.write_bytes(first)
    os.truncate(raw, mib << 20)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", kind, raw, path], check=True)
    raw.unlink()
    return path


class Host:
    """remotes/ with links to drover-vmm, datastores/0/ID, and calls as the core's driver makes them."""

    def __init__(self, suite, version="5.10.0", number=7):
        self.suite, self.number = suite, number
        self.env = {}  # of probes and actions
        self.remotes = suite.root / "one"
        self.vmm = self.remotes / "vmm/drover"
        self.vmm.mkdir(parents=True)
        (self.remotes / "VERSION").write_text(f"{version}\n")
        (self.remotes / "etc/vmm/drover").mkdir(parents=True)
        for name in ACTIONS:
            (self.vmm / name).symlink_to(suite.build / "src/one/drover-vmm")
        self.dir = suite.root / f"ds//datastores/0/{number}"
        self.dir.mkdir(parents=True)

    @property
    def id(self):
        return f"one-{self.number}"

    def disk(self, index, mib=8, kind="qcow2", first=b""):
        return make_disk(self.dir / f"disk.{index}", mib, kind, first)

    def template(self, more="", cmdline="", memory=128, initrd="initramfs.gz", disks='<DISK><DISK_ID>0</DISK_ID>'
                 '<DRIVER>qcow2</DRIVER><TARGET>vda</TARGET></DISK>'):
        """initrd: None boots from the disk."""
        os_ = (f"<OS><KERNEL>{GUEST}/vmlinuz</KERNEL><INITRD>{GUEST}/{initrd}</INITRD>"
               f"<KERNEL_CMD>{self.suite.cmdline(cmdline)}</KERNEL_CMD></OS>") if initrd else ""
        return f"<VMID>{self.number}</VMID><MEMORY>{memory}</MEMORY><VCPU>1</VCPU><CPU>0.5</CPU>{disks}{os_}{more}"

    def vm(self, *arguments, **options):
        return (f"<VM><ID>{self.number}</ID><NAME>web &amp; shop</NAME><UNAME>alice</UNAME><GNAME>users</GNAME>"
                f"<TEMPLATE>{self.template(*arguments, **options)}</TEMPLATE></VM>")

    def message(self, vm=None, tm="ssh", **members):
        inner = "".join(f"<{key}>{value}</{key}>" for key, value in
                        {"HOST": "node1", "DEPLOY_ID": self.id, **members}.items())
        return (f"<VMM_DRIVER_ACTION_DATA>{inner}{vm or self.vm()}"
                f"<DATASTORE><TM_MAD>{tm}</TM_MAD></DATASTORE></VMM_DRIVER_ACTION_DATA>")

    def run(self, action, *arguments, stdin=None, seconds=90, program=None):
        return subprocess.run([program or self.vmm / action, *map(str, arguments), str(self.number), "node1"],
                              input=self.message() if stdin is None else stdin, text=True, timeout=seconds,
                              capture_output=True, env={**os.environ, **self.env, "DROVER_ROOT": str(self.suite.root)})

    def do(self, action, *arguments, **options):
        done = self.run(action, *arguments, **options)
        assert done.returncode == 0, done.stderr
        assert re.fullmatch("(INFO: .*\n)?", done.stderr), done.stderr
        return done.stdout.strip()

    def refused(self, action, *arguments, **options):
        """The text between the marks the core looks for; nothing else on standard error."""
        done = self.run(action, *arguments, **options)
        assert done.returncode != 0 and done.stdout == ""
        found = re.fullmatch(r"(?:INFO: .*\n)?ERROR MESSAGE --8<------\n(.*)\nERROR MESSAGE ------>8--\n", done.stderr)
        assert found, done.stderr
        return found.group(1)

    def deploy(self, *arguments, **options):
        return self.do("deploy", self.dir / "deployment.0", "node1", stdin=self.vm(*arguments, **options))

    def poll(self):
        return self.do("poll", self.id, "node1")

    def state(self):
        return re.match(r"STATE=(\S)", self.poll()).group(1)


def b64(text):
    return base64.b64encode(text.encode()).decode()


def probe(host, kind, *arguments, stdin="", check=True):
    return subprocess.run([host.suite.build / "src/one/drover-vmm", "probe", kind, *arguments], input=stdin,
                          text=True, capture_output=True, check=check, timeout=30,
                          env={**os.environ, **host.env, "DROVER_ROOT": str(host.suite.root),
                               "DROVER_ONE_REMOTES": str(host.remotes)}).stdout
