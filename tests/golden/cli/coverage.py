#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
docs/coverage.md: every command of the tools and every property of a VM, with tests of each. This
fails when one has no row, or a row names a test that is not there; REWRITE_GOLDEN=1 writes the
page anew. Usage: coverage.py BUILD/src/cli CHECKOUT. Speaks TAP.
"""
import os
import pathlib
import re
import subprocess
import sys

TOOLS = ["vmadm", "vminfo", "vmstatedctl"]
SHOWN = 4  # tests of one row
SEP = "<br>"
HEAD = """# What is tested where

Every command of the tools and every property of a VM, with some of the tests of each: `file: case` are golden
cases in `tests/golden/cli`, `test_x.py: test` system tests, other names are of files in `tests/golden`, `tests/unit`
and `tests/system`. Made by `tests/golden/cli/coverage.py`, which also sees to it that nothing is left out.
"""


def run(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def commands(tools):
    """(tool, name, what it is for) for each command and alias."""
    for tool in TOOLS:
        lines = run(tools / tool, "help").splitlines()
        for line, doc in zip(lines, lines[1:]):
            row = re.match(r"  ([a-z][a-z-]*)( .*)?$", line)
            if row:
                also = re.search(r"\(also: (\w+)\)", line)
                for name in [row[1]] + ([also[1]] if also else []):
                    yield tool, name, doc.strip()


def properties(tools):
    """(table, name, name in files)."""
    table = ""
    for line in run(tools / "vmadm", "help", "properties").splitlines():
        head = re.match(r"Properties of (\w+)", line)
        row = re.match(r"  (\w+)  \((.*?)\)(?:  in files also: (\w+))?", line)
        if head:
            table = head[1]
        elif row:
            yield table, row[1], row[3]


def golden_cases(folder):
    """{(tool, command): [case]}."""
    found = {}
    for path in sorted(folder.glob("*.cases")):
        title = ""
        for line in path.read_text().splitlines():
            if line.startswith("== "):
                title = line[3:]
            elif line.startswith("$ "):
                words = [word for word in line[2:].split() if not word.startswith("-")]
                if len(words) > 1:
                    found.setdefault((words[0], words[1]), []).append(f"{path.stem}: {title}")
    return found


def system_tests(folder):
    found = {}
    for path in sorted(folder.glob("test_*.py")):
        name = ""
        for line in path.read_text().splitlines():
            start = re.match(r"def (test_\w+)", line)
            name = start[1] if start else name
            for tool, command in re.findall(r'suite\.(vmadm|vminfo|vmstatedctl)\("([a-z-]+)"', line):
                tests = found.setdefault((tool, command), [])
                entry = f"{path.name}: {name}"
                if name and entry not in tests:
                    tests.append(entry)
    return found


def inputs_with(texts, names):
    pattern = re.compile("|".join(rf'(?<![\w.]){name}"?\s*[:={{]|["\'.]{name}["\'.: ]' for name in names))
    return [name for name, text in texts.items() if pattern.search(text)]


def texts_of(top):
    """{file name: text} of what may test a property, golden inputs first."""
    found = {}
    for folder, kinds in (("golden/model", ("json", "conf")), ("unit", ("c",)), ("system", ("py",)),
                          ("golden/cli", ("cases", "json"))):
        for path in sorted((top / "tests" / folder).iterdir()):
            if path.suffix[1:] in kinds:
                found[path.name] = path.read_text()
    return found


def page(tools, top):
    cases, tests = golden_cases(top / "tests/golden/cli"), system_tests(top / "tests/system")
    out = [HEAD, "## Commands", "", "| command | what it is for | tests |", "| --- | --- | --- |"]
    missing = []
    for tool, name, doc in commands(tools):
        both = cases.get((tool, name), [])[:SHOWN - 1] + tests.get((tool, name), [])[:1]
        if not both:
            missing.append(f"{tool} {name}")
        out.append(f"| `{tool} {name}` | {doc} | {SEP.join(both)} |".replace("\n", " "))
    out += ["", "## Properties", "", "| property | tests |", "| --- | --- |"]
    texts = texts_of(top)
    for table, name, other in properties(tools):
        found = inputs_with(texts, [n for n in (name, other) if n])
        if not found:
            missing.append(f"{table} {name}")
        out.append(f"| {table} `{name}` | {SEP.join(found[:SHOWN])} |")
    return "\n".join(out) + "\n", missing


def stale(text, wanted, top):
    """Rows that are not on the page, and tests it names that are not there."""
    rows = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")}
    for line in wanted.splitlines():
        if line.startswith("| ") and line.split("|")[1].strip() not in rows:
            yield f"no row for {line.split('|')[1].strip()}"
    every = {f"{path.stem}: {line[3:]}" for path in (top / "tests/golden/cli").glob("*.cases")
             for line in path.read_text().splitlines() if line.startswith("== ")}
    every |= {f"{path.name}: {name}" for path in (top / "tests/system").glob("test_*.py")
              for name in re.findall(r"def (test_\w+)", path.read_text())}
    every |= set(texts_of(top))
    for line in text.splitlines():
        if line.startswith("| ") and "`" in line:
            for test in line.split("|")[-2].strip().split(SEP):
                if test not in every:
                    yield f"there is no test '{test}'"


def main():
    tools, top = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    path = top / "docs/coverage.md"
    wanted, missing = page(tools, top)
    if os.environ.get("REWRITE_GOLDEN"):
        path.write_text(wanted)
    found = [f"no test of {name}" for name in missing]
    found += stale(path.read_text() if path.exists() else "", wanted, top)
    print("1..1")
    print(f"{'not ' if found else ''}ok 1 coverage.md")
    for line in found:
        print("# " + line)
    if found:
        print("# write it anew: REWRITE_GOLDEN=1 " + " ".join(sys.argv))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
