"""The table of snippets says what is there: every program and command once, and only tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SEEDS = ROOT / "tests" / "seeds"
TABLE = (ROOT / "docs" / "snippets.md").read_text()


def rows():
    for line in TABLE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.match(r"\d-\d+b? ", cells[0]):
            yield cells[0].split()[0], cells[1], cells[2]


def test_every_program_and_command_has_its_row():
    named = {runs for _, runs, _ in rows() if runs not in ("", "—")}
    there = {path.name for folder in ("programs", "commands") for path in (SEEDS / folder).iterdir() if path.is_file()}
    assert named == there
    assert all(runs in ("", "—") or runs.startswith(f"{number}_") for number, runs, _ in rows())


def test_every_named_test_exists():
    source = "".join(path.read_text() for path in SEEDS.glob("test_*.py"))
    for number, _, test in rows():
        assert not test or re.search(rf"def {test}_", source), f"{number}: {test}"


def test_what_runs_is_tested():
    assert all(test for _, runs, test in rows() if runs not in ("", "—"))
