#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
The manuals of the tools name every command and alias that the tools' own help names, their
synopsis and properties are those of the tables (REWRITE_GOLDEN=1 writes them anew), and mandoc has
nothing to say about them. Usage: man.py BUILD/src/cli MAN. Speaks TAP.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys


PARTS = {"vmadm": ["synopsis", "properties-mdoc"], "vminfo": ["synopsis"],
         "vmstatedctl": ["synopsis"]}


def commands(tool):
    text = subprocess.run([tool, "help"], capture_output=True, text=True, check=True).stdout
    for line in text.splitlines():
        row = re.match(r"  ([a-z][a-z-]*)( .*)?$", line)
        if row:
            yield row[1]
            also = re.search(r"\(also: (\w+)\)", line)
            if also:
                yield also[1]


def generated(tool, page, part):
    """The part between the marks is what the tool says now."""
    said = subprocess.run([tool, "help", part], capture_output=True, text=True, check=True).stdout
    head, begin, rest = page.read_text().partition(f'.\\" generated: {part}\n')
    old, end, tail = rest.partition('.\\" generated: end\n')
    if not begin or not end:
        yield f"{page.name} has no generated {part}"
    elif old != said and os.environ.get("REWRITE_GOLDEN"):
        page.write_text(head + begin + said + end + tail)
    elif old != said:
        yield f"{part} of {page.name} is not what the tool says; rewrite it: REWRITE_GOLDEN=1"


def problems(tool, page):
    for part in PARTS[tool.name]:
        yield from generated(tool, page, part)
    text = page.read_text()
    for word in commands(tool):
        if not re.search(rf"^\.(It|Cm|Ic).* ?(Cm|Ic)? ?\b{word}\b", text, re.M):
            yield f"{page.name} does not name {word}"
    if shutil.which("mandoc"):
        lint = subprocess.run(["mandoc", "-Tlint", "-Wwarning", page], capture_output=True,
                              text=True, check=False)
        yield from lint.stdout.splitlines()


def main():
    tools, man = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    names = ["vmadm", "vminfo", "vmstatedctl"]
    bad = 0
    print(f"1..{len(names)}")
    for number, name in enumerate(names, 1):
        found = list(problems(tools / name, man / f"{name}.8"))
        bad += bool(found)
        print(f"{'not ' if found else ''}ok {number} {name}.8")
        for line in found:
            print("# " + line)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
