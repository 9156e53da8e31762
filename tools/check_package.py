"""Build the package, check what was built, and run the README's first command from it in a clean environment.

python tools/check_package.py          # needs build, twine and check-wheel-contents
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What people who build from source need beside the package.
IN_SDIST = ("README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "tests/README.md", "docs/rules.md", "tox.ini")


def run(*command: object, cwd: Path = ROOT) -> str:
    """Run a command, and end with what it printed if it fails."""
    # What a developer has set for an application of hers is nothing to the demonstration.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ASCEND_", "OWKAI_"))}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, **pipes)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run(sys.executable, "-m", "build", "--outdir", place, ROOT)
        (wheel,), (sdist,) = place.glob("*.whl"), place.glob("*.tar.gz")
        run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
        run("check-wheel-contents", "--toplevel", "ascend_middleware", wheel)
        in_wheel = set(zipfile.ZipFile(wheel).namelist())
        # The package's data too: the page's templates and scripts, samples, and the marker of its types.
        ours = (path for path in (ROOT / "ascend_middleware").rglob("*") if path.is_file() and path.suffix != ".pyc")
        missing = [name for path in ours if (name := path.relative_to(ROOT).as_posix()) not in in_wheel]
        with tarfile.open(sdist) as archive:
            packed = {name.partition("/")[2] for name in archive.getnames()}
        missing += [name for name in IN_SDIST if name not in packed]
        if missing:
            sys.exit(f"not packed: {', '.join(missing)}")
        clean, elsewhere = place / "clean", place / "elsewhere"
        venv.create(clean, with_pip=True)
        elsewhere.mkdir()
        run(clean / "bin" / "python", "-m", "pip", "install", "--quiet", f"{wheel}[demo]")
        print(run(clean / "bin" / "ascend-middleware", "demo", cwd=elsewhere))
        print(run(clean / "bin" / "ascend-middleware", "version", cwd=elsewhere))


if __name__ == "__main__":
    main()
