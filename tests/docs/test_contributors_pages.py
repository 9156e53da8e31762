"""The pages for contributors name what there is."""

import re
import tomllib
from pathlib import Path

import pytest
from test_architecture import FILES, ROOT, room_of

REPOSITORY = Path(__file__).parents[2]
ARCHITECTURE = REPOSITORY / "docs" / "architecture.md"
PAGES = [ARCHITECTURE, REPOSITORY / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_folder_that_a_page_names_is_there(page):
    named = re.findall(r"`((?:[\w.]+/)+(?:[\w.]+)?)`", page.read_text())
    assert named
    assert not [name for name in named if not (REPOSITORY / name).exists() and not (ROOT / name).exists()]


def test_every_folder_of_the_package_has_its_line():
    table = ARCHITECTURE.read_text().partition("## Rooms")[2].partition("###")[0]
    named = set(re.findall(r"`(\w+)/?`", "".join(line.split("|")[1] for line in table.splitlines() if "|" in line)))
    rooms = {room_of(path) for path in FILES}
    assert {room for room in rooms if (ROOT / room).is_dir()} <= named <= rooms


def test_every_page_is_in_the_sites_navigation():
    site = tomllib.loads((REPOSITORY / "zensical.toml").read_text())["project"]
    named = re.findall(r"'([\w-]+\.md)'", str(site["nav"]))
    assert sorted(named) == sorted(path.name for path in (REPOSITORY / site["docs_dir"]).glob("*.md"))
