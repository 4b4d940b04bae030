# SPDX-License-Identifier: Apache-2.0
"""The harness of the system tests: real daemons in a root of their own, driven as users would.

Everything waits on a source with a deadline (a readiness message, an event line, a console byte, a
process's end), nothing sleeps. Processes are ended by descriptor of the process, found by pid or by
their working directory below the root, never by name.

    def test_start(suite):
        suite.write_definition("web0", suite.guest())
        with suite.events() as events:
            suite.vmstatedctl("start", "web0")
            events.wait_vm("web0", lambda vm: vm.get("ready"), 60)
"""

import contextlib
import ctypes
import http.client
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
GUEST = TOP / "tests/guest/out"
DAEMONS = ["vmstated", "vminfod", "vmadmd"]
READY_S = 10
TOOL_S = 60
# Sanitized programs end with this code when they found something.
SANITIZER_EXIT = 86
SANITIZER_MARKS = (b"ERROR: AddressSanitizer", b"ERROR: LeakSanitizer", b": runtime error: ",
                   b"AddressSanitizer:DEADLYSIGNAL")


class TimedOut(AssertionError):
    """A deadline passed; the message says what was waited for and what was seen instead."""


class Deadline:
    def __init__(self, seconds):
        self.at = time.monotonic() + seconds
        self.seconds = seconds

    def left(self):
        return max(0.0, self.at - time.monotonic())

    def over(self):
        return time.monotonic() >= self.at


def build_dir():
    path = pathlib.Path(os.environ.get("DROVER_BUILD", "build"))
    return path if path.is_absolute() else TOP / path


def wait_readable(fd, deadline):
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(deadline.left() * 1000))


def unix_connect(path):
    """Connect to a unix socket of any path length."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    try:
        sock.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    except OSError:
        sock.close()
        raise
    finally:
        os.close(folder)
    return sock


class Inotify:
    """Changes below one directory, as a thing to wait on."""

    MODIFY, MOVED_TO, CREATE, DELETE, CLOSE_WRITE = 0x2, 0x80, 0x100, 0x200, 0x8

    def __init__(self, folder):
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        mask = self.MODIFY | self.MOVED_TO | self.CREATE | self.DELETE | self.CLOSE_WRITE
        if libc.inotify_add_watch(self.fd, os.fsencode(folder), mask) < 0:
            os.close(self.fd)
            raise OSError(ctypes.get_errno(), f"cannot watch {folder}")

    def wait(self, deadline):
        if not wait_readable(self.fd, deadline):
            return False
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 65536)
        return True

    def close(self):
        os.close(self.fd)


def wait_file(path, check, seconds, what="content"):
    """The bytes of path once check(bytes) is true; woken by changes in its directory."""
    path = pathlib.Path(path)
    deadline = Deadline(seconds)
    watch = Inotify(path.parent)
    try:
        while True:
            data = path.read_bytes() if path.exists() else b""
            if check(data):
                return data
            if not watch.wait(deadline):
                raise TimedOut(f"{path}: no {what} within {seconds} s; it ends with "
                               f"{data[-400:]!r}")
    finally:
        watch.close()


def sanitizer_text(data):
    """The report in data from its first line on, or None."""
    found = [at for at in (data.find(mark) for mark in SANITIZER_MARKS) if at >= 0]
    return data[max(0, min(found) - 200):][:6000].decode("utf-8", "replace") if found else None


class Daemon:
    """One process of a daemon, from its start to its end."""

    def __init__(self, suite, name, arguments):
        self.name, self.suite = name, suite
        self.log = suite.root / f"{name}.out"
        self.log_start = self.log.stat().st_size if self.log.exists() else 0
        self.expected_end = False
        self.ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ready.bind(b"")  # an abstract name: no limit from the root's path
        notify = "@" + self.ready.getsockname()[1:].decode()
        argv = [*suite.prefix, str(suite.binary(name)), "-f", "--root", str(suite.root), *arguments]
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=suite.root,
                env={**suite.env, "NOTIFY_SOCKET": notify}, start_new_session=True)
        self.pidfd = os.pidfd_open(self.process.pid)

    def wait_ready(self, seconds=READY_S):
        deadline = Deadline(seconds)
        poll = select.poll()
        poll.register(self.ready, select.POLLIN)
        poll.register(self.pidfd, select.POLLIN)
        while True:
            ready = dict(poll.poll(deadline.left() * 1000))
            if self.ready.fileno() in ready:
                if b"READY=1" in self.ready.recv(4096).split(b"\n"):
                    return self
            elif ready:
                code = self.process.wait()
                raise AssertionError(f"{self.name} ended ({code}) before it was ready:\n"
                                     f"{self.output()[-3000:]}")
            elif deadline.over():
                raise TimedOut(f"{self.name} was not ready within {seconds} s:\n"
                               f"{self.output()[-3000:]}")

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.poll() is None

    def output(self):
        """What this process wrote, as text."""
        with open(self.log, "rb") as log:
            log.seek(self.log_start)
            return log.read().decode("utf-8", "replace")

    def send(self, number):
        if self.running():
            signal.pidfd_send_signal(self.pidfd, number)

    def wait_end(self, seconds=READY_S):
        if not wait_readable(self.pidfd, Deadline(seconds)):
            raise TimedOut(f"{self.name} (pid {self.pid}) did not end within {seconds} s")
        return self.process.wait()

    def end(self, number=signal.SIGTERM, seconds=READY_S):
        """Ask it to end and return its exit status."""
        self.expected_end = True
        self.send(number)
        return self.wait_end(seconds)

    def complaint(self):
        """Why this process is a failed test all by itself, or None."""
        report = sanitizer_text(self.output().encode())
        if report:
            return f"{self.name}: sanitizer report\n{report}"
        code = self.process.poll()
        if code is None or (self.expected_end and code in (0, -signal.SIGKILL)):
            return None
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
        return f"{self.name} ended with {how}:\n{self.output()[-3000:]}"

    def close(self):
        self.ready.close()
        os.close(self.pidfd)


class UnixHTTPConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = unix_connect(self.path)
        self.sock.settimeout(self.timeout)


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


class Events:
    """A reader of vminfod's event stream that also keeps the VM objects it was told."""

    def __init__(self, path, user_agent="drover-tests", query=""):
        self.sock = unix_connect(path)
        self.sock.sendall(f"GET /events{query} HTTP/1.1\r\nHost: localhost\r\n"
                          f"User-Agent: {user_agent}\r\n\r\n".encode())
        self.raw, self.text, self.head = b"", b"", None
        self.seen = []  # every event, in order
        self.next = 0   # where wait() goes on
        self.vms = {}   # uuid -> newest object
        self.closed = False

    def __enter__(self):
        self.wait(lambda ev: ev["type"] == "ready", 10)
        return self

    def __exit__(self, *_):
        self.sock.close()

    def _unchunk(self):
        while b"\r\n" in self.raw:
            size, rest = self.raw.split(b"\r\n", 1)
            size = int(size.split(b";")[0], 16)
            if size == 0:
                self.closed = True
                return
            if len(rest) < size + 2:
                return
            self.text += rest[:size]
            self.raw = rest[size + 2:]

    def _take(self, line):
        event = json.loads(line)
        kind = event["type"]
        if kind == "ready":
            vms = event["vms"]
            for vm in json.loads(vms) if isinstance(vms, str) else vms:
                self.vms[vm["uuid"]] = vm
        elif kind in ("create", "modify"):
            self.vms[event["vm"]["uuid"]] = event["vm"]
        elif kind == "delete":
            self.vms.pop(event["zonename"], None)
        self.seen.append(event)

    def pump(self, deadline):
        """Take what comes until something came: False when the deadline passed or the end came."""
        if self.closed or not wait_readable(self.sock, deadline):
            return False
        data = self.sock.recv(1 << 20)
        if not data:
            self.closed = True
            return False
        self.raw += data
        if self.head is None and b"\r\n\r\n" in self.raw:
            self.head, self.raw = self.raw.split(b"\r\n\r\n", 1)
            if b" 200 " not in self.head.split(b"\r\n")[0]:
                raise AssertionError(f"GET /events: {self.head!r} {self.raw!r}")
        if self.head is not None:
            self._unchunk()
        while b"\n" in self.text:
            line, self.text = self.text.split(b"\n", 1)
            self._take(line)
        return True

    def _fail(self, what, seconds):
        lines = [json.dumps({k: v for k, v in event.items() if k not in ("vm", "vms")})[:400]
                 for event in self.seen[-20:]]
        why = "the stream ended" if self.closed else f"not within {seconds} s"
        raise TimedOut(f"{what}: {why}; the last events were:\n" + "\n".join(lines))

    def wait(self, check, seconds=10, what="event"):
        """The first event after the one returned before for which check(event) is true."""
        deadline = Deadline(seconds)
        while True:
            while self.next < len(self.seen):
                event = self.seen[self.next]
                self.next += 1
                if check(event):
                    return event
            if not self.pump(deadline):
                self._fail(what, seconds)

    def find(self, key):
        """The VM object by uuid, name or alias as told so far, or None."""
        for vm in self.vms.values():
            if key in (vm.get("uuid"), vm.get("name"), vm.get("alias")):
                return vm
        return None

    def wait_vm(self, key, check, seconds=30, what="wanted state"):
        """The VM object (uuid, name or alias) as soon as check(vm) is true; may be at once."""
        deadline = Deadline(seconds)
        while True:
            vm = self.find(key)
            if vm is not None and check(vm):
                return vm
            if not self.pump(deadline):
                shown = {k: vm.get(k) for k in ("state", "zone_state", "supervisor_state", "ready",
                                                "last_exit", "failed")} if vm else None
                self._fail(f"{key}: {what} (now {shown})", seconds)

    def wait_state(self, key, state, seconds=30):
        return self.wait_vm(key, lambda vm: vm.get("state") == state, seconds, f"state {state}")

    def wait_gone(self, key, seconds=30):
        deadline = Deadline(seconds)
        while self.find(key) is not None:
            if not self.pump(deadline):
                self._fail(f"{key}: to be gone", seconds)

    def changes(self, uuid):
        """[(prettyPath, oldValue, newValue)] of all modify events of a VM so far."""
        return [(change["prettyPath"], change.get("oldValue"), change.get("newValue"))
                for event in self.seen if event["type"] == "modify" and event["zonename"] == uuid
                for change in event["changes"]]


class Console:
    """A reader and writer of a VM's console."""

    def __init__(self, path):
        self.sock = unix_connect(path)
        self.data = b""
        self.at = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, text):
        self.sock.sendall(text.encode() if isinstance(text, str) else text)

    def wait(self, text, seconds=30):
        """Read until text comes after what was waited for before."""
        text = text.encode() if isinstance(text, str) else text
        deadline = Deadline(seconds)
        while True:
            found = self.data.find(text, self.at)
            if found >= 0:
                self.at = found + len(text)
                return self.data
            got = self.sock.recv(65536) if wait_readable(self.sock, deadline) else None
            if not got:
                why = "the console closed" if got == b"" else f"not within {seconds} s"
                raise TimedOut(f"console: {text!r}: {why}; it ends with {self.data[-800:]!r}")
            self.data += got


class Suite:
    """A root and the daemons on it."""

    def __init__(self, root, build=None):
        self.root = pathlib.Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        self.build = build or build_dir()
        self.prefix = []  # of daemons: ["nsenter", ...] puts them into a namespace
        self.daemons = {}
        self.ended = []
        self.env = {key: value for key, value in os.environ.items()
                    if key not in ("NOTIFY_SOCKET", "DROVER_ROOT", "LISTEN_FDS", "LISTEN_PID")}
        self.env["ASAN_OPTIONS"] = f"exitcode={SANITIZER_EXIT}:detect_leaks=1:handle_segv=1"
        self.env["UBSAN_OPTIONS"] = f"halt_on_error=1:exitcode={SANITIZER_EXIT}:print_stacktrace=1"

    # --- paths ---

    def binary(self, name):
        folder = "cli" if name in ("vmadm", "vminfo", "vmstatedctl") else name
        return self.build / "src" / folder / name

    @property
    def etc(self):
        return self.root / "etc/vmstated"

    @property
    def logs(self):
        return self.root / "var/log/vmstated"

    def run_dir(self, uuid):
        return self.root / "run/vmstated" / uuid

    def data_dir(self, uuid):
        return self.root / "var/lib/vmstated" / uuid

    def socket(self, name):
        """The control socket of a daemon, or any path below the root."""
        files = {"vmstated": "run/vmstated.sock", "vmadmd": "run/vmadmd.http",
                 "vminfod": "run/vminfod.http"}
        return str(self.root / files.get(name, name))

    # --- daemons ---

    def start(self, *names, arguments=()):
        """Start the daemons named (all three when none is) and wait until they serve."""
        started = []
        for name in names or DAEMONS:
            assert name not in self.daemons, f"{name} runs already"
            daemon = Daemon(self, name, arguments)
            self.daemons[name] = daemon
            started.append(daemon)
            daemon.wait_ready()
        return started[0] if len(started) == 1 else started

    def _retire(self, name):
        daemon = self.daemons.pop(name)
        self.ended.append(daemon)
        return daemon

    def stop(self, name, number=signal.SIGTERM):
        """End a daemon in order; its exit status must be 0."""
        return self._retire(name).end(number)

    def kill9(self, name):
        self._retire(name).end(signal.SIGKILL)

    def restart(self, name, number=signal.SIGTERM, arguments=()):
        """End the daemon, if it runs, and start it again."""
        if name in self.daemons:
            self._retire(name).end(number)
        return self.start(name, arguments=arguments)

    def refused(self, name, *arguments, seconds=READY_S):
        """Run a daemon that is to end by itself: (exit status, stderr and stdout)."""
        done = subprocess.run([str(self.binary(name)), "-f", "--root", str(self.root), *arguments],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, env=self.env, timeout=seconds, check=False)
        self._judge(name, done.returncode, done.stdout)
        return done.returncode, done.stdout.decode("utf-8", "replace")

    # --- tools ---

    def _judge(self, name, code, output):
        report = sanitizer_text(output)
        assert not report, f"{name}: sanitizer report\n{report}"
        assert code >= 0, f"{name} died of {signal.Signals(-code).name}: {output[-2000:]!r}"

    def tool(self, name, *arguments, check=0, stdin=None, seconds=TOOL_S, env=None):
        """
        Run a tool on this root. check: the exit code it must have, None for any. stdin: text, or
        an object sent as JSON. Returns the CompletedProcess with text output.
        """
        if stdin is not None and not isinstance(stdin, (str, bytes)):
            stdin = json.dumps(stdin)
        data = stdin.encode() if isinstance(stdin, str) else stdin or b""
        argv = [str(self.binary(name)), "--root", str(self.root), *map(str, arguments)]
        done = subprocess.run(argv, input=data, capture_output=True, cwd=self.root, timeout=seconds,
                              env={**self.env, **(env or {})}, check=False)
        self._judge(name, done.returncode, done.stderr)
        done.stdout = done.stdout.decode("utf-8", "replace")
        done.stderr = done.stderr.decode("utf-8", "replace")
        if check is not None:
            assert done.returncode == check, (
                f"{name} {' '.join(map(str, arguments))}: exit {done.returncode}, want {check}\n"
                f"stdout: {done.stdout[-2000:]}\nstderr: {done.stderr[-2000:]}")
        return done

    def vmadm(self, *arguments, **options):
        return self.tool("vmadm", *arguments, **options)

    def vminfo(self, *arguments, **options):
        return self.tool("vminfo", *arguments, **options)

    def vmstatedctl(self, *arguments, **options):
        return self.tool("vmstatedctl", *arguments, **options)

    def vm(self, uuid):
        """The VM object as vminfod has it now."""
        reply = self.http("vminfod", "GET", f"/vms/{uuid}")
        assert reply.status == 200, reply
        return reply.json()

    def uuid(self, name):
        """The uuid of the VM of this name."""
        for vm in self.http("vminfod", "GET", "/vms").json():
            if name in (vm.get("name"), vm.get("alias")):
                return vm["uuid"]
        raise AssertionError(f"no VM '{name}'")

    # --- HTTP ---

    def http(self, where, method, target, body=None, headers=None, seconds=TOOL_S):
        """One request to a daemon (by name, or by socket path below the root)."""
        connection = UnixHTTPConnection(self.socket(where), seconds)
        try:
            data = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
            connection.request(method, target, data, headers or (
                {"Content-Type": "application/json"} if data is not None else {}))
            reply = connection.getresponse()
            return Reply(reply.status, reply.headers, reply.read())
        finally:
            connection.close()

    def tcp_address(self):
        """(host, port) of vminfod's TCP listener."""
        host, port = (self.root / "run/vminfod.addr").read_text().strip().rsplit(":", 1)
        return host, int(port)

    def events(self, **options):
        return Events(self.socket("vminfod"), **options)

    # --- definitions ---

    @staticmethod
    def cmdline(more=""):
        return f"console=ttyS0 quiet {more}".strip()

    def guest(self, cmdline="", ram=128, agent=False, **properties):
        """
        The body of a definition that boots the test guest under TCG. cmdline: more kernel
        arguments. A property is a value, or UCL text in a list for sections: nic=["net0 { ... }"].
        """
        sections = []
        lines = [f"ram = {ram}", "vcpus = 1", "accel = tcg", f'kernel = "{GUEST}/vmlinuz"',
                 f'initrd = "{GUEST}/initramfs{"-agent" if agent else ""}.gz"',
                 f'cmdline = "{self.cmdline(cmdline)}"']
        if not agent:
            properties.setdefault("readyline", "GUEST-UP")
        for key, value in properties.items():
            if isinstance(value, list):
                sections += [f"    {key} {section}" for section in value]
            else:
                lines.append(f"{key} = {json.dumps(value)}")
        return "\n".join(["    " + line + ";" for line in lines] + sections)

    def payload(self, alias, cmdline="", ram=128, **members):
        """A payload for vmadm create, as an object."""
        return {"alias": alias, "ram": ram, "vcpus": 1, "accel": "tcg", "autoboot": False,
                "kernel": f"{GUEST}/vmlinuz", "initrd": f"{GUEST}/initramfs.gz",
                "cmdline": self.cmdline(cmdline), "readyline": "GUEST-UP",
                **members}

    def write_definition(self, name, ucl, hooks=None, directory=None):
        """
        Write <root>/etc/vmstated/<directory or name>/config, as an editor does: a new file, renamed.
        ucl: a whole file, or the body of one section (then `name { }` is put around it). hooks:
        {state: shell text}, written first. Returns the config's path.
        """
        folder = self.etc / (directory or name)
        folder.mkdir(parents=True, exist_ok=True)
        for hook, text in (hooks or {}).items():
            self.write_hook(folder, hook, text)
        if not ucl.lstrip().startswith((name, f'"{name}"')):
            ucl = f"{name} {{\n{ucl}\n}}\n"
        config = folder / "config"
        temporary = folder / ".config.new"
        temporary.write_text(ucl)
        os.chmod(temporary, 0o644)
        os.rename(temporary, config)
        return config

    def write_hook(self, folder, hook, text, mode=0o755):
        path = pathlib.Path(folder) / hook
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        os.chmod(temporary, mode)
        os.rename(temporary, path)
        return path

    def use_fake_qemu(self, script=None, name=None):
        """
        Daemons started from now on run tests/fake_qemu as QEMU. script: its scenario (an object)
        for the VM `name`, or for all VMs; may be called again to change it.
        """
        folder = self.root / "fake"
        folder.mkdir(exist_ok=True)
        link = folder / "qemu-system-x86_64"
        if not link.is_symlink():
            link.symlink_to(TOP / "tests/fake_qemu")
        file = folder / (f"fake_qemu.{name}.json" if name else "fake_qemu.json")
        temporary = folder / ".new"
        temporary.write_text(json.dumps(script or {}))
        os.rename(temporary, file)
        self.env["DROVER_QEMU"] = str(link)

    # --- guests ---

    def console(self, uuid):
        return Console(str(self.run_dir(uuid) / "vm.console"))

    def console_wait(self, uuid, text, seconds=30):
        with self.console(uuid) as console:
            return console.wait(text, seconds)

    def log_wait(self, name, text, seconds=30):
        """Wait until the VM's log below var/log holds text."""
        self.logs.mkdir(parents=True, exist_ok=True)
        return wait_file(self.logs / f"{name}.log", lambda data: text.encode() in data, seconds,
                         repr(text))

    def guests(self):
        """Pids of processes that belong to this root and are none of its daemons: by working
        directory below the root, or by a lock file below it that they hold open."""
        ours = {daemon.pid for daemon in self.daemons.values()} | {os.getpid()}
        inside = str(self.root.resolve()) + "/"
        locks = inside + "var/lib/vmstated/"
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) in ours:
                continue
            try:
                if f"{os.readlink(f'/proc/{entry}/cwd')}/".startswith(inside):
                    found.append(int(entry))
                    continue
                names = [os.readlink(f"/proc/{entry}/fd/{fd}")
                         for fd in os.listdir(f"/proc/{entry}/fd")]
            except OSError:
                continue
            if any(name.startswith(locks) and name.endswith("/lock") for name in names):
                found.append(int(entry))
        return found

    def _end_guests(self):
        for pid in self.guests():
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                if pid in self.guests():  # still the one that was found
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    wait_readable(pidfd, Deadline(5))
            except ProcessLookupError:
                pass
            finally:
                os.close(pidfd)

    # --- the end ---

    def finish(self):
        """End everything; a list of what was wrong with the daemons."""
        complaints = []
        for name in reversed(DAEMONS):
            if name not in self.daemons:
                continue
            daemon = self._retire(name)
            if not daemon.running():
                continue
            try:
                daemon.end()
            except TimedOut as error:
                complaints.append(f"{error}\n{daemon.output()[-3000:]}")
                daemon.end(signal.SIGKILL)
        self._end_guests()
        for daemon in self.ended:
            complaints += filter(None, [daemon.complaint()])
            daemon.close()
        self.ended = []
        return complaints

    def outputs(self):
        """{title: end of text} of all logs, for a failed test's report."""
        files = [self.root / f"{name}.out" for name in DAEMONS]
        files += sorted(self.logs.glob("*.log")) if self.logs.is_dir() else []
        return {file.name: file.read_bytes()[-4000:].decode("utf-8", "replace")
                for file in files if file.exists()}
