# SPDX-License-Identifier: Apache-2.0
"""
The examples of docs/first-vm.md, run as they stand. A block is lines of "$ command" (with "> " lines
that belong to it), what it prints, and "exit N" when that is not 0. REWRITE_GOLDEN=1 writes anew
what is printed.
"""

import os
import re
import subprocess

import drover

PAGE = drover.TOP / "docs/first-vm.md"


def commands(block):
    """[(command, what it prints, exit code)] of one block."""
    found = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], [], 0])
        elif line.startswith("> "):
            found[-1][0] += "\n" + line[2:]
        elif line.startswith("exit "):
            found[-1][2] = int(line[5:])
        else:
            found[-1][1].append(line)
    return found


def plain(lines, root):
    text = "\n".join(lines).replace(str(root), "/srv/drover").replace(str(drover.GUEST), "$GUEST")
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "2026-11-22T12:00:00.000Z", text).rstrip("\n")


def run(suite, command):
    env = {**suite.env, "DROVER_ROOT": str(suite.root), "GUEST": str(drover.GUEST), "LC_ALL": "C",
           "PATH": f"{suite.build}/src/cli:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", command], cwd=suite.root, env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
                          check=False)
    return done.stdout.decode().splitlines(), done.returncode


def test_first_vm(suite):
    parts = re.split(r"^```\n(.*?)^```$", PAGE.read_text(), flags=re.S | re.M)
    for at in range(1, len(parts), 2):
        out = []
        for command, want, code in commands(parts[at]):
            lines, got = run(suite, command)
            assert got == code, f"{command}: exit {got}\n" + "\n".join(lines)
            text = plain(lines, suite.root)
            out.append("$ " + command.replace("\n", "\n> ") + "\n" + (text + "\n" if text else "")
                       + (f"exit {code}\n" if code else ""))
            if not os.environ.get("REWRITE_GOLDEN"):
                assert text == "\n".join(want), command
        parts[at] = "```\n" + "".join(out) + "```"
    if os.environ.get("REWRITE_GOLDEN"):
        PAGE.write_text("".join(parts))
