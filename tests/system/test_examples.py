# SPDX-License-Identifier: Apache-2.0
"""
The examples of the manual pages and of docs/, run as they stand, each page in a root of its own; $OTHER is
that of another host.

An example is a ```console block of a Markdown page, or a literal display of a manual page, of lines
"$ command" (with "> " lines that belong to it), what it prints, and "exit N" when that is not 0. Only
standard output is compared where the command sends standard error elsewhere. REWRITE_GOLDEN=1 writes
anew what is printed. Literal displays that are no commands stand after the comment `example: text`;
```ucl blocks are judged by vmstated --check, ```json blocks have to be JSON.
"""

import functools
import json
import os
import re
import subprocess

import pytest

import drover

FENCE = re.compile(r"^```console\n(.*?)^```$", re.S | re.M)
DISPLAY = re.compile(r"^\.Bd -literal.*?\n(.*?)^\.Ed$", re.S | re.M)
ROFF = ((r"\e", "\\"), (r"\(dq", '"'), (r"\(aq", "'"), (r"\&", ""), (r"\-", "-"))
PLACES = (("src/cli",), ("src/vmstated",), ("src/vminfod",), ("src/vmadmd",), ("src/one",))


def from_roff(text):
    for there, here in ROFF:
        text = text.replace(there, here)
    return text


def to_roff(text):
    text = text.replace("\\", r"\e")
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.M)


def pages():
    found = [*sorted(drover.TOP.glob("docs/*.md")), *sorted(drover.TOP.glob("man/*.[1578]"))]
    return [path for path in found if blocks(path)]


def blocks(path):
    text = path.read_text()
    if path.suffix == ".md":
        return FENCE.findall(text)
    return [part for part in DISPLAY.findall(text) if part.startswith("$ ")]


def commands(block):
    """[(command, what it prints, exit code)] of one block."""
    found = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], [], 0])
        elif line == ">" or line.startswith("> "):
            found[-1][0] += "\n" + line[2:]
        elif line.startswith("exit "):
            found[-1][2] = int(line[5:])
        else:
            found[-1][1].append(line)
    return found


def plain(lines, root):
    text = "\n".join(lines).replace(str(root), "/srv/drover").replace(str(drover.GUEST), "$GUEST")
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "2026-11-22T12:00:00.000Z", text).rstrip("\n")


def environment(suite):
    path = ":".join(f"{suite.build}/{place}" for place, in PLACES)
    return {**suite.env, "DROVER_ROOT": str(suite.root), "GUEST": str(drover.GUEST), "LC_ALL": "C",
            "EXAMPLES": str(drover.TOP / "docs/examples"), "OTHER": str(suite.root / "other"),
            "PATH": f"{path}:{os.environ['PATH']}"}


def run(suite, command):
    done = subprocess.run(["sh", "-c", command], cwd=suite.root, env=environment(suite),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=120, check=False)
    return done.stdout.decode().splitlines(), done.returncode


def run_block(suite, block):
    """The block as it is now."""
    out = []
    for command, want, code in commands(block):
        lines, got = run(suite, command)
        text = plain(lines, suite.root)
        if not os.environ.get("REWRITE_GOLDEN"):
            assert (got, text) == (code, "\n".join(want)), command
        out.append("$ " + command.replace("\n", "\n> ") + "\n" + (text + "\n" if text else "")
                   + (f"exit {got}\n" if got else ""))
    return "".join(out)


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_page(suite, path):
    text = path.read_text()
    other = drover.Suite(suite.root / "other") if "$OTHER" in text else None
    if other:
        other.start()
    for block in blocks(path):
        if path.suffix == ".md":
            fresh = run_block(suite, block)
        else:
            fresh = to_roff(run_block(suite, from_roff(block)))
        if fresh != block:
            text = text.replace(block, fresh)
    if text != path.read_text() and os.environ.get("REWRITE_GOLDEN"):
        path.write_text(text)
    assert other is None or other.finish() == []


def test_displays_are_commands_or_say_so():
    for path in sorted(drover.TOP.glob("man/*.[1578]")):
        for found in DISPLAY.finditer(path.read_text()):
            before = path.read_text()[:found.start()].splitlines()[-1:]
            assert found[1].startswith("$ ") or before == ['.\\" example: text'], \
                f"{path.name}: a display that is no command: put '.\\\" example: text' before it\n{found[1]}"


TOOL = re.compile(r"(?<![\w/-])(vmadm|vminfo|vmstatedctl) +(?:-[a-z-]+ +)*([a-z][a-z-]+)\b")
DAEMON = re.compile(r"(?:^|[\s`])(vmstated|vmadmd|vminfod|drover-convert)((?: +[^\s`|<(]+)*)")
HISTORY = {"rfd39.md", "vmstated-defects.md"}  # they speak of the originals' programs


def spoken(text):
    """What a page shows as typed: blocks that are not run, and words in backticks."""
    yield from re.findall(r"^ *```(?:text|sh)\n(.*?)^ *```$", text, re.S | re.M)
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```$", "", text, flags=re.S | re.M))


def test_what_pages_show_is_there(cold):
    """Commands and options that pages name, but do not run, are ones the programs know."""
    @functools.cache
    def knows(tool, word):
        return word == "help" or run(cold, f"{tool} help {word}")[1] == 0

    options = {name: "\n".join(run(cold, f"{name} --help")[0])
               for name in ("vmstated", "vmadmd", "vminfod", "drover-convert")}
    wrong = []
    for path in [*sorted(drover.TOP.glob("*.md")), *sorted(drover.TOP.glob("docs/**/*.md"))]:
        for part in spoken(path.read_text()) if path.name not in HISTORY else ():
            wrong += [f"{path.name}: {tool} has no command '{word}': {part[:80]}"
                      for tool, word in TOOL.findall(part) if not knows(tool, word)]
            wrong += [f"{path.name}: {name} has no option {option}: {part[:80]}"
                      for name, words in DAEMON.findall(part)
                      for option in re.findall(r"(?<!\S)--[a-z-]+", words)
                      if option not in options[name]]
            wrong += [f"{path.name}: there is no {name}" for name in
                      re.findall(r"(?:^|\s)(bench/[a-z_]+)", part) if not (drover.TOP / name).exists()]
    assert wrong == [], "\n".join(wrong)


def test_definitions_and_objects(cold):
    for path in sorted(drover.TOP.glob("docs/*.md")):
        text = path.read_text()
        for block in re.findall(r"^```json\n(.*?)^```$", text, re.S | re.M):
            json.loads(block)
        for number, block in enumerate(re.findall(r"^```ucl\n(.*?)^```$", text, re.S | re.M)):
            folder = cold.etc / f"{path.stem}-{number}"
            folder.mkdir(parents=True)
            (folder / "config").write_text(block)
    lines, code = run(cold, "vmstated --check")
    assert code == 0, "\n".join(lines)


def test_readme(suite, tmp_path):
    """The walk of README.md, in a folder that looks like the checkout after ./run."""
    place = tmp_path / "checkout"
    place.mkdir()
    for name, goal in (("build", suite.build), ("tests", drover.TOP / "tests"),
                       (".drover", suite.root)):
        os.symlink(goal, place / name)
    found = re.findall(r"^```sh\n(.*?)^```$", (drover.TOP / "README.md").read_text(), re.S | re.M)
    script = "".join(found)
    assert "vmadm create" in script and "vmstatedctl start web0" in script
    done = subprocess.run(["bash", "-e", "-c", script + "\nkill %1"], cwd=place, env=environment(suite),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=120, check=False)
    assert done.returncode == 0, done.stdout.decode()
    assert 'state changed: "ready" -> "running"' in done.stdout.decode() or \
        "running" in done.stdout.decode()
