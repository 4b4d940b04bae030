# SPDX-License-Identifier: Apache-2.0
"""An OpenNebula front-end without its core: directories, scripts that record, and the driver.

Everything lies below one folder, found by ONE_LOCATION and SCRIPTS_REMOTE_DIR. Every script is the same
recorder; what it was given is read back with front.calls(). Hosts are this machine, reached by a
recording `ssh` on PATH (or by a real sshd, see test_one_driver.py).
"""

import base64
import os
import pathlib
import re
import shutil
import subprocess
import xml.etree.ElementTree

import drover

GOLDEN = drover.TOP / "tests/golden/one"
VAR, REMOTE = "/var/lib/one", "/var/tmp/one"

VMM = """deploy shutdown cancel save restore migrate migrate_local poll reboot reset attach_disk detach_disk
attach_nic detach_nic snapshot_create snapshot_delete snapshot_revert resize resize_disk prereconfigure
reconfigure exec exec_cancel""".split()
VNM = "pre post clean update_sg update_nic".split()
TM = """context premigrate postmigrate failmigrate ln clone mkimage mkswap mvds delete snap_create_live resize
prebackup postbackup prebackup_live postbackup_live""".split()

# Records its arguments and its input, prints what the recorded scripts printed.
RECORDER = """#!/bin/sh
name=${{0##*/}}
{{
    printf 'CALL %s\\n' "$0"
    i=1
    for a; do printf '  arg%d=[%s]\\n' $i "$a"; i=$((i + 1)); done
    printf '@@STDIN\\n'
    cat
    printf '\\n@@END\\n'
}} >> {root}/calls
for bad in $(cat {root}/failing); do
    [ "$bad" = "$name" ] || continue
    echo "INFO: $name: some info line" >&2
    echo "ERROR MESSAGE --8<------" >&2
    echo "boom from $name" >&2
    echo "ERROR MESSAGE ------>8--" >&2
    exit 1
done
echo "DEBUG: $name: hello" >&2
case $name in
deploy) echo one-0 ;;
snapshot_create) echo snap-0 ;;
poll) echo "STATE=a CPU=1.0 MEMORY=1000" ;;
esac
exit 0
"""
SSH = """#!/bin/sh
echo "SSH argv: ssh $*" >> {root}/calls
while [ "$1" = -o ]; do shift 2; done
shift
exec sh -c "$*"
"""


def kind_of(text, message):
    """What the recordings call a standard input; message: the XML of the line."""
    if not text:
        return "empty"
    if text == message:
        return "plain XML, root <VMM_DRIVER_ACTION_DATA>"
    if text.startswith("<domain"):
        return "deployment file text, plain"
    if text.startswith("<"):
        return f"plain XML, root <{xml.etree.ElementTree.fromstring(text).tag}>"
    plain = base64.b64decode(text, validate=True).decode()
    if plain == message:
        return "base64 of XML, root <VMM_DRIVER_ACTION_DATA>"
    if plain.startswith("<domain"):
        return "base64 of deployment file text"
    return f"base64 of XML, root <{xml.etree.ElementTree.fromstring(plain).tag}>"


class Front:
    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.var, self.remote = self.root / "var", self.root / "rdir"
        self.env = {**os.environ, "ONE_LOCATION": str(self.root),
                    "PATH": f"{self.root}/bin:{os.environ['PATH']}"}
        for folder in ("bin", "etc/vmm_exec", "var/vms/0", "var/remotes", "rdir"):
            (self.root / folder).mkdir(parents=True)
        self.write("failing", "")
        self.write("calls", "")
        self.write("var/config", f"DB=BACKEND=sqlite\nSCRIPTS_REMOTE_DIR={self.remote}\n")
        self.write("etc/vmm_exec/vmm_execrc", 'export LIVE_DISK_SNAPSHOTS="kvm-ssh kvm-local"\n')
        self.write("var/vms/0/deployment.0", "<domain type='kvm'>\n\t<name>one-0</name>\n</domain>\n")
        self.script("bin/ssh", SSH)
        recorder = self.script("recorder", RECORDER)
        for folder, names in (("vmm/kvm", VMM), ("vnm/bridge", VNM)):
            for place in (self.var / "remotes", self.remote):
                self.link(place / folder, names, recorder)
        for tm in ("ssh", "local"):
            self.link(self.var / "remotes/tm" / tm, TM, recorder)
        self.link(self.var / "remotes/datastore/rsync", ["backup", "backup_cancel"], recorder)

    def write(self, name, text):
        (self.root / name).write_text(text)

    def script(self, name, text):
        path = self.root / name
        path.write_text(text.format(root=self.root))
        path.chmod(0o755)
        return path

    @staticmethod
    def link(folder, names, target):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).symlink_to(target)

    def here(self, text):
        """Recorded paths to this front-end's."""
        return text.replace(VAR, str(self.var)).replace(REMOTE, str(self.remote))

    def there(self, text):
        return text.replace(str(self.var), VAR).replace(str(self.remote), REMOTE)

    def line(self, version, name, vm=None, **values):
        """A recorded line for this front-end, and the XML in it; vm: another id; values: elements."""
        text = (GOLDEN / version / f"{name}.line").read_text()
        word, gap, number, payload = re.fullmatch(r"(\w+)( +)(\d+) (\S+)\n", text).groups()
        message = self.here(base64.b64decode(payload).decode())
        for key, value in values.items():
            message, found = re.subn(f"<{key}/>|<{key}>.*?</{key}>", lambda _: f"<{key}>{value}</{key}>",
                                     message, count=1, flags=re.S)
            assert found, key
        head = f"{word}{gap}{number if vm is None else vm} "
        return head + base64.b64encode(message.encode()).decode() + "\n", message

    def take_calls(self, message):
        """The recorded calls since the last time, as the recordings write them."""
        text = (self.root / "calls").read_text()
        self.write("calls", "")
        payload = base64.b64encode(message.encode()).decode()
        text = text.replace(f"=[{payload}]", "=[<b64>]")

        def kind(found):
            return f"  stdin: {kind_of(found.group(1).rstrip(), message)}\n"

        return self.there(re.sub(r"@@STDIN\n(.*?)\n@@END\n", kind, text, flags=re.S))

    def replace(self, name, text, host=True, local=True):
        """Another script in the place of the recorder, under both places of "vmm/kvm/NAME"."""
        for place in [self.remote] * host + [self.var / "remotes"] * local:
            (place / name).unlink(missing_ok=True)
            path = place / name
            path.write_text("#!/bin/sh\n" + text)
            path.chmod(0o755)

    def called(self):
        """Names of the scripts called so far."""
        return re.findall(r"^CALL .*/([^/\n]+)$", (self.root / "calls").read_text(), re.M)

    def driver(self, arguments, program="one_vmm_exec", **options):
        return Driver(self, arguments, program, **options)

    def remove_host_scripts(self):
        shutil.rmtree(self.remote)


class Driver:
    """The driver as the core starts it: all arguments in one word, three pipes, none for errors."""

    def __init__(self, front, arguments, program="one_vmm_exec", **env):
        self.process = subprocess.Popen(
            self.command(arguments, program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
            env={**front.env, **env}, cwd=front.var, preexec_fn=lambda: os.close(2))
        self.rest = b""
        self.send("INIT\n")
        assert self.read_line() == "INIT SUCCESS"

    def command(self, arguments, program):
        return [drover.build_dir() / "src/one" / program, arguments]

    def send(self, text):
        self.process.stdin.write(text if isinstance(text, bytes) else text.encode())

    def read_line(self, seconds=20):
        deadline = drover.Deadline(seconds)
        while b"\n" not in self.rest:
            if not drover.wait_readable(self.process.stdout, deadline):
                raise drover.TimedOut(f"no line within {seconds} s, only {self.rest!r}")
            more = self.process.stdout.read(65536)
            assert more, f"the driver ended with {self.process.wait(5)}"
            self.rest += more
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode()

    def answer(self, word, seconds=20):
        """The lines up to the result of that action, itself included."""
        lines = []
        while not lines or not re.match(rf"{word} (SUCCESS|FAILURE) ", lines[-1]):
            lines.append(self.read_line(seconds))
        return lines

    def do(self, line, seconds=20):
        self.send(line)
        return self.answer(line.split()[0], seconds)

    def finalize(self, seconds=10):
        """Its exit code."""
        self.send("FINALIZE\n")
        self.process.stdin.close()
        code = self.process.wait(seconds)
        self.process.stdout.close()
        return code

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        if self.process.poll() is None:
            if kind is None:
                assert self.finalize() == 0
            else:
                self.process.kill()
                self.process.wait()
