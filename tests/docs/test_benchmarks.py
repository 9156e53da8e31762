"""The benchmarks run from end to end, and what their pages show is what was measured."""

import json
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import goals, load  # noqa: E402
from benchmarks.__main__ import CHART, FIGURES, README  # noqa: E402
from benchmarks.chart import draw  # noqa: E402
from benchmarks.report import NAMES, render  # noqa: E402
from benchmarks.sections import BESIDE, SECTIONS  # noqa: E402


def row(rate, cpu=1.0):
    return {
        "rate": rate,
        "cpu": cpu,
        "low": rate,
        "high": rate,
        "per second": 1000 * rate,
        "cpu seconds": 1e-4 * cpu,
        "asked": 1.0,
        "delivered": 0.9,
        "worker": 1e-5,
    }


def figures(**given):
    levels = {"bare": row(1), "sdk": row(0.1, 10), "auto": row(0.7, 1.6), "auto+reports": row(0.5, 1.9)}
    table = {
        "levels": dict.fromkeys(("1", "16", "64"), levels),
        "open loop": {"auto": {"p50": 1, "p99": 2, "failed": 0}},
    }
    about = {"when": "2026-11-30", "python": "3.11.7", "rounds": 5, "seconds": 1, "busy": 0.1, "failed": {}}
    return {**about, "governed": table, **given}


def test_a_goal_is_met_or_not_by_each_of_its_values():
    lines = goals.table(figures())
    assert "| throughput, c=16 and 64, × the SDK | ≥ 6.5 | 7.00, 7.00 | yes |" in lines
    assert "| outcomes reported against not, asyncio, c=16 and 64 | ≥ 0.85 | 0.71, 0.71 | **no** |" in lines
    assert "| processor time added to one request, c=64, × bare | ≤ 0.7 | 0.60 | yes |" in lines
    # What was not measured is left out, also where but a part of it is missing.
    assert not [line for line in lines if "Flask" in line or "embedded" in line]


def test_what_was_not_measured_is_said():
    text = render(figures(failed={"flask": "BenchmarkError: errors under load\nand more"}))
    assert "Not measured: flask (BenchmarkError: errors under load)." in text


def test_the_chart_is_a_picture_of_the_main_table():
    found = xml.etree.ElementTree.fromstring(draw(figures()))
    texts = [one.text for one in found.iter("{http://www.w3.org/2000/svg}text")]
    assert NAMES["bare"] in texts and texts.count("0.70") == 2
    assert draw({"when": "2026-11-30"}) is None


def test_the_pages_show_the_figures_that_are_kept():
    for page, mark in ((README, "figures"), (ROOT / "README.md", "chart")):
        text = page.read_text()
        assert text.count(f"<!-- {mark} -->\n") == text.count(f"<!-- end of {mark} -->") == 1
    if FIGURES.exists():  # as soon as there was a whole run
        kept = json.loads(FIGURES.read_text())
        assert f"<!-- figures -->\n{render(kept)}<!-- end of figures -->" in README.read_text()
        assert CHART.read_text() == draw(kept)
        assert f"(benchmarks/{CHART.name})" in (ROOT / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.socket
def test_a_quick_run_measures_every_table(tmp_path):
    if missing := [one for one in load.missing() if "core" in one or "apt-get" in one]:
        pytest.skip("; ".join(missing))
    before = {page: page.read_text() for page in (README, ROOT / "README.md")}
    kept = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(kept)]
    # On an idle machine it takes less than a minute.
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(kept.read_text())
    assert found.keys() >= SECTIONS.keys() >= set(BESIDE) and not found["failed"]
    assert "| goal | wanted | reached | |" in done.stdout and done.stdout == render(found) + "\n"
    assert {page: page.read_text() for page in before} == before
