"""Build the documentation site in build/site; a warning is an error, and so is a public name without its docstring.

python tools/build_site.py          # needs zensical and mkdocstrings-python
"""

import re
import subprocess
import sys
import zlib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def public_names() -> set[str]:
    """Return what docs/public-api.md lists."""
    text = (ROOT / "docs" / "public-api.md").read_text()
    doors = re.findall(r"^\| `(ascend_middleware[.\w]*)`:[^|]*\| (.*) \|$", text, re.MULTILINE)
    return {f"{door}.{name}" for door, names in doors for name in re.findall(r"`(\w+)`", names)} - {
        "ascend_middleware.__version__"
    }


def described() -> set[str]:
    """Return the names that have a place on the built site."""
    inventory = (ROOT / "build" / "site" / "objects.inv").read_bytes()
    entries = zlib.decompress(inventory.split(b"\n", 4)[4]).decode()
    return {line.split(" ")[0] for line in entries.splitlines()}


def main() -> None:
    done = subprocess.run(
        ["zensical", "build", "--strict", "--clean"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(done.stdout)
    if done.returncode or re.search(r"^(griffe|mkdocstrings|WARNING|ERROR)\b", done.stdout, re.MULTILINE):
        sys.exit("the site has faults, see above")
    if missing := public_names() - described():
        sys.exit(f"no docstring on the site: {', '.join(sorted(missing))}")


if __name__ == "__main__":
    main()
