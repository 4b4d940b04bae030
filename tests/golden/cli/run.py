#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Golden tests of the tools against scripted daemons.

A *.cases file holds cases. Input lines, kept as they are:
    == title
    $ vmadm list -p            the command, split as a shell would
    env NAME=VALUE             environment
    in TEXT                    a line of standard input (default: empty)
    file NAME TEXT             a file in the current directory
    down DAEMON                this daemon does not listen
    agent                      show the User-Agent of requests
    tar FILE                   show what is in this archive, made by the command
    run FILE TEXT              a file below run/ of the root
    > vminfod GET /vms [BODY]  a request that must come, in this order; BODY * is any
    < 200 BODY | @FILE         its answer; `< close` hangs up instead, `< 200/close BODY` after it,
                               `< 200/chunks BODY` sends it in chunks
Output lines, written by `run.py --update`: "1|" stdout, "2|" stderr, "a|" agents, "t|" archive, "exit N".
Usage: run.py [--update] BUILD/src/cli [FILE.cases ...]. Speaks TAP.
"""
import concurrent.futures
import difflib
import os
import pathlib
import re
import shlex
import socketserver
import subprocess
import sys
import tarfile
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
SOCKETS = {"vmstated": "vmstated.sock", "vmadmd": "vmadmd.http", "vminfod": "vminfod.http"}
REASONS = {200: "OK", 202: "Accepted", 404: "Not Found"}


class Case:
    def __init__(self, title):
        self.title, self.inputs, self.outputs = title, [], []
        self.command, self.env, self.stdin, self.files = None, {}, [], {}
        self.down, self.agent, self.script = set(), False, []
        self.tar, self.run_files = None, {}

    def take(self, line):
        if re.match(r"(1|2|a|t)\||exit ", line):
            self.outputs.append(line)
            return
        self.inputs.append(line)
        word, _, rest = line.partition(" ")
        if word == "$":
            self.command = shlex.split(rest)
        elif word == "env":
            name, _, value = rest.partition("=")
            self.env[name] = value
        elif word == "in":
            self.stdin.append(rest)
        elif word == "file":
            name, _, text = rest.partition(" ")
            self.files[name] = text
        elif word == "run":
            name, _, text = rest.partition(" ")
            self.run_files[name] = text
        elif word == "tar":
            self.tar = rest
        elif word == "down":
            self.down.add(rest)
        elif word == "agent":
            self.agent = True
        elif word == ">":
            self.script.append([rest, None])
        elif word == "<":
            self.script[-1][1] = rest
        elif line and not line.startswith("#"):
            raise SystemExit(f"{self.title}: cannot read line: {line}")


def read_cases(path):
    head, cases = [], []
    for line in path.read_text().splitlines():
        if line.startswith("== "):
            cases.append(Case(line[3:]))
        elif cases:
            cases[-1].take(line)
        else:
            head.append(line)
    return head, cases


def chunks(data):
    """Pieces of seven bytes, to have lines end anywhere."""
    parts = [data[i:i + 7] for i in range(0, len(data), 7)] + [b""]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


class Daemons:
    """The three sockets, answering from one script in order."""

    def __init__(self, root, case):
        self.script, self.seen, self.agents = list(case.script), [], []
        self.lock, self.servers = threading.Lock(), []
        run = pathlib.Path(root) / "run"
        run.mkdir()
        for name, sock in SOCKETS.items():
            if name in case.down:
                continue
            handler = self.handler(name)
            server = socketserver.ThreadingUnixStreamServer(str(run / sock), handler)
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            self.servers.append(server)

    def close(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def answer(self, name, request, body, agent):
        with self.lock:
            body = body.replace("\n", "<NL>")
            said = f"{name} {request}" + (f" {body}" if body else "")
            self.agents.append(agent)
            want = self.script[0][0] if self.script else "nothing"
            if said != want and not (want.endswith(" *") and said.startswith(want[:-1])):
                self.seen.append(f"unexpected request: {said} (want {want})")
                return "500 unexpected"
            return self.script.pop(0)[1] or "200 {}"

    def handler(self, name):
        daemons = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                while True:
                    head = self.rfile.readline().decode()
                    if not head:
                        return
                    fields = {}
                    while (line := self.rfile.readline().decode().strip()):
                        key, _, value = line.partition(":")
                        fields[key.lower()] = value.strip()
                    body = self.rfile.read(int(fields.get("content-length", 0))).decode()
                    request = " ".join(head.split()[:2])
                    reply = daemons.answer(name, request, body, fields.get("user-agent", ""))
                    if reply == "close":
                        return
                    status, _, text = reply.partition(" ")
                    status, _, how = status.partition("/")
                    data = (HERE / text[1:]).read_bytes() if text.startswith("@") else text.encode()
                    reason = REASONS.get(int(status), "Other")
                    length = f"Content-Length: {len(data)}"
                    if how == "chunks":
                        length, data = "Transfer-Encoding: chunked", chunks(data)
                    self.wfile.write(f"HTTP/1.1 {status} {reason}\r\n{length}\r\n\r\n".encode()
                                     + data)
                    if how == "close":
                        return

        return Handler


def show_tar(path):
    """Names and contents; what differs from run to run as it is called."""
    out = [f"t|mode {path.stat().st_mode & 0o777:o}"]
    root = str(path.parent.parent)
    with tarfile.open(path) as archive:
        for member in archive:
            out.append(f"t|== {member.name}")
            text = archive.extractfile(member).read().decode().replace(root, "ROOT")
            text = re.sub(r'("(made|boot_id)": )"[^"]*"', r'\1"\2"', text)
            out += ["t|" + line for line in text.splitlines()]
    return out


def run_case(case, tools):
    with tempfile.TemporaryDirectory() as root:
        cwd = pathlib.Path(root) / "cwd"
        cwd.mkdir()
        for name, text in case.files.items():
            (cwd / name).write_text(text)
        daemons = Daemons(root, case)
        for name, text in case.run_files.items():
            path = pathlib.Path(root) / "run" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        env = {k: v for k, v in os.environ.items() if k not in ("VMADM_IDENT", "REQ_ID")}
        env.update({"DROVER_ROOT": root, "LC_ALL": "C.UTF-8", "TMPDIR": str(cwd)}, **case.env)
        command = [str(tools / case.command[0])] + case.command[1:]
        done = subprocess.run(command, input="".join(x + "\n" for x in case.stdin).encode(),
                              capture_output=True, env=env, cwd=cwd, timeout=30, check=False)
        daemons.close()
        archive = show_tar(cwd / case.tar) if case.tar else []
    out = []
    for mark, data in (("1|", done.stdout), ("2|", done.stderr)):
        text = data.decode("utf-8", "backslashreplace").replace(root, "ROOT")
        text = re.sub(r"vmadm-edit-\w+", "vmadm-edit-RANDOM", text)
        out += [mark + line for line in text.split("\n")[:-1]]
        if text and not text.endswith("\n"):
            out.append(mark + text.split("\n")[-1] + "<no newline>")
    if case.agent:
        for agent in daemons.agents:
            out.append("a|" + re.sub(r"[^ ]+/\d+ \(.*/", "HOST/PID (", agent))
    for text in daemons.seen:
        out.append("2|!" + text)
    for request, _ in daemons.script:
        out.append("2|!request that never came: " + request)
    out += archive
    return out + [f"exit {done.returncode}"]


def main():
    words = sys.argv[1:]
    update = "--update" in words
    words = [w for w in words if w != "--update"]
    tools = pathlib.Path(words[0]).resolve()
    files = [pathlib.Path(w) for w in words[1:]] or sorted(HERE.glob("*.cases"))
    number, bad = 0, 0
    parsed = [(path, *read_cases(path)) for path in files]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:  # most of the time is waiting
        every = [case for _, _, cases in parsed for case in cases]
        results = iter(list(pool.map(lambda case: run_case(case, tools), every)))
    for path, head, cases in parsed:
        text = head
        for case, got in zip(cases, results):
            number += 1
            same = got == case.outputs
            bad += not same
            print(f"{'' if same or update else 'not '}ok {number} {path.stem}: {case.title}")
            if not same:
                for line in difflib.unified_diff(case.outputs, got, "want", "got", "", "", 2, ""):
                    print("# " + line)
            inputs = case.inputs
            while inputs and not inputs[-1]:
                inputs.pop()
            text += ["== " + case.title] + inputs + got + [""]
        if update:
            path.write_text("\n".join(text).rstrip("\n") + "\n")
    print(f"1..{number}")
    return 1 if bad and not update else 0


if __name__ == "__main__":
    sys.exit(main())
