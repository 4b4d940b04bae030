# SPDX-License-Identifier: Apache-2.0
"""The lints find what they are for, and name file and line."""

import subprocess

import drover

HEAD = "/* SPDX-License-Identifier: Apache-2.0 */\n"


def lint(name, folder):
    done = subprocess.run([str(drover.TOP / "tests/lint" / name), str(folder)], text=True,
                          capture_output=True, check=False)
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_rooms(tmp_path):
    write(tmp_path, "src/base/err.h", HEAD)
    write(tmp_path, "src/net/http.h", HEAD)
    write(tmp_path, "src/cli/a.c", HEAD + '#include "base/err.h"\n#include "net/http.h"\n'
          "#include <systemd/sd-event.h>\n")
    write(tmp_path, "src/base/b.c", HEAD + '#include "err.h"\n#include "base/none.h"\n')
    write(tmp_path, "src/cli/meson.build", "x = [libsystemd]\n")
    code, lines = lint("rooms", tmp_path)
    assert code == 1
    assert [line.split(": ")[0] for line in lines] == [
        "src/base/b.c:2", "src/base/b.c:3", "src/cli/a.c:3", "src/cli/a.c:4",
        "src/cli/meson.build:1"]


def test_sources(tmp_path):
    nap = "sle" + "ep"
    write(tmp_path, "src/base/a.c", HEAD + f'/* {nap}(1) */\nconst char *s = "{nap}(1)";\n'
          f"void f(void)\n{{\n\t{nap}(1);\n\tstrcpy(a, b);\n}}\n")
    write(tmp_path, "src/base/b.c", "int x;\n")
    write(tmp_path, "src/base/c.c", HEAD + "/* TO" + "DO: later */\n" + "int x;\n" * 700)
    write(tmp_path, "tests/t.py", f"# SPDX-License-Identifier: Apache-2.0\ntime.{nap}(1)\n")
    write(tmp_path, "src/base/ok.c", HEAD + f"\t{nap}(1); /* lint: sleep: because */\n")
    code, lines = lint("sources", tmp_path)
    assert code == 1
    assert [line.split(": ")[0] for line in lines] == [
        "src/base/a.c:6", "src/base/a.c:7", "src/base/b.c:1", "src/base/c.c:601",
        "src/base/c.c:2", "tests/t.py:2"]


def test_docs(tmp_path):
    write(tmp_path, "docs/real.md", "# A heading\n")
    write(tmp_path, "README.md", "see `docs/real.md`, `docs/none.md`, [x](docs/real.md#a-heading),\n"
          "[y](docs/real.md#no), [z](none.md), `src/*.c`\n```\n`docs/fenced.md`\n```\n")
    code, lines = lint("docs", tmp_path)
    assert code == 1
    assert [line.split(": ")[0] for line in lines] == ["README.md:1", "README.md:2", "README.md:2"]
