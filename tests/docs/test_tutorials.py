"""A reader who does what a tutorial says, block by block, sees what it says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ascend_middleware.text import one_line  # noqa: F401 - the package is importable from here

ROOT = Path(__file__).parents[2]
SKIPPED = ("pip install", "cp ")
TUTORIALS = {"tutorial-fastapi.md": "shop", "tutorial-flask.md": "shop_flask", "tutorial-django.md": "shop_django"}


class Reader:
    """A shell in an empty folder, in which the commands of this environment are found."""

    def __init__(self, folder, port):
        self.folder, self.port = folder, port
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ASCEND_", "OWKAI_"))}
        environment |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "XDG_STATE_HOME": str(folder / "home"),
            "COLUMNS": "100",
        }
        self.shell = subprocess.Popen(
            ["bash"], cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, bufsize=1,
        )  # fmt: skip

    def run(self, command):
        """Run one command, and return what it printed; in the background, wait until it serves."""
        command = command.replace("8000", str(self.port))
        if command.endswith("&"):
            command = f"{command.removesuffix('&')}> server.log 2>&1 &"
            ready = f"until curl -s -o /dev/null http://127.0.0.1:{self.port}/health; do sleep 0.1; done"
            command = f"{command}\n{ready}"
        self.shell.stdin.write(f"{command}\necho; echo end-of-command\n")
        lines = []
        while (line := self.shell.stdout.readline()) != "end-of-command\n":
            assert line, "the shell has ended"
            lines.append(line)
        return "".join(lines).replace(str(self.port), "8000").strip("\n")

    def close(self):
        self.shell.stdin.write("kill %% 2>/dev/null; wait; exit\n")
        self.shell.communicate(timeout=60)


@pytest.fixture
def reader(tmp_path):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reader = Reader(tmp_path, port)
    yield reader
    reader.close()


def edit(path, block):
    """Do what the comment in a block's first line says."""
    comment, _, content = block.partition("\n")
    text = path.read_text()
    if "at the end" in comment:
        path.write_text(f"{text}\n{content}")
    elif path.suffix == ".toml":
        match = re.search(r"^match = .*$", content, re.MULTILINE)[0]
        rules = text.split("[[rule]]")
        (number,) = [number for number, rule in enumerate(rules) if match in rule.splitlines()]
        rules[number] = content.removeprefix("[[rule]]") + "\n"
        path.write_text("[[rule]]".join(rules))
    else:
        path.write_text("\n".join([*text.rstrip("\n").splitlines()[:-1], content]))


def expectation(lines):
    """Return a pattern of printed lines; `…` is for whatever stands there."""
    parts = [re.escape(squeezed(line)).replace("…", ".*") for line in lines]
    return "\n".join(part if part != ".*" else r"(?:.*\n)*?.*" for part in parts)


def squeezed(line):
    return re.sub(" +", " ", line).strip()


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize(("page", "example"), TUTORIALS.items())
def test_the_tutorial_says_what_happens(reader, page, example):
    shutil.copytree(ROOT / "examples" / example, reader.folder, dirs_exist_ok=True)
    for language, block in re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL):
        if language != "console":
            edit(reader.folder / re.match(r"# ([\w./]+)", block)[1], block)
            continue
        for command, *expected in (part.split("\n") for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]):
            if command.startswith(SKIPPED):
                continue
            printed = reader.run(command)
            while expected and not expected[-1]:
                expected.pop()
            if expected:
                found = "\n".join(map(squeezed, printed.splitlines()))
                assert re.fullmatch(expectation(expected), found), f"$ {command}\n{printed}"
