"""Imports point one way, and what is optional is imported where it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ascend_middleware

ROOT = Path(ascend_middleware.__file__).parent
# Ground: values and words that every room may use.
GROUND = {
    "_version",
    "exceptions",
    "flow",
    "fork",
    "json_logs",
    "json_schema",
    "masking",
    "problems",
    "secret_names",
    "sqlite",
    "strict_json",
    "substitute",
    "text",
}
SETTINGS = {"config", "setting_values"}
# Each room with what it may import besides the ground; further down may not name what stands above.
ALLOWED = {
    **dict.fromkeys(GROUND, set()),
    "exceptions": {"problems"},
    "problems": {"json_schema"},
    "sqlite": {"exceptions"},
    "json_logs": {"masking"},
    "masking": {"exceptions", "secret_names"},
    "setting_values": GROUND,
    "config": GROUND | {"setting_values"},
    "api": GROUND,
    "rules": GROUND | SETTINGS | {"api"},
    "verdict": GROUND | {"api", "rules"},
    "routing": GROUND | {"rules"},
    "openapi": GROUND | SETTINGS | {"routing", "rules", "verdict"},
    "client": GROUND | SETTINGS | {"api"},
    "state": GROUND | SETTINGS | {"api"},
    "journal": GROUND | SETTINGS | {"api", "client", "state"},
    "killswitch": GROUND | SETTINGS | {"api", "client", "state", "verdict"},
    "guard": GROUND | SETTINGS | {"api", "client", "journal", "killswitch", "routing", "rules", "state", "verdict"},
    "compose": GROUND | SETTINGS | {"client", "guard", "journal", "killswitch", "rules", "state"},
    "adapters": GROUND | {"client", "compose", "guard", "journal", "rules", "verdict"},
    "asgi": GROUND | SETTINGS | {"adapters", "guard", "openapi", "routing", "rules"},
    "fastapi": GROUND | {"adapters", "asgi", "compose", "guard", "routing", "rules"},
    "wsgi": GROUND | {"adapters", "guard", "routing"},
    "inspection": GROUND | SETTINGS | {"compose", "guard", "routing", "rules"},
    "flask": GROUND | {"adapters", "compose", "guard", "inspection", "routing", "rules", "wsgi"},
    "django": GROUND | SETTINGS | {"adapters", "compose", "guard", "inspection", "openapi", "routing", "rules"},
    "mcp": GROUND | {"api", "client", "rules"},
    "agent": GROUND,
    "authority": GROUND | {"api"},
    "local": GROUND | SETTINGS | {"authority", "client"},
    "testing": GROUND | SETTINGS | {"adapters", "cli", "client", "inspection", "routing", "rules"},
    "pytest_plugin": GROUND | {"client", "testing"},
    "demo": GROUND | {"asgi", "authority", "inspection"},
    "cli": GROUND
    | SETTINGS
    | {"api", "asgi", "authority", "client", "compose", "django", "flask", "guard", "inspection", "journal"}
    | {"routing", "rules", "state"},
    "__init__": GROUND | {"api", "client", "guard", "mcp", "rules"},
}
HTTP_LIBRARIES = {"h11", "httptools", "httpx", "httpx2", "httpcore2", "requests", "aiohttp"}
# The only files that import one: engines, and what plugs into the clients of an agent.
HTTP_ENGINES = {f"client/http/{name}.py" for name in ("http1", "httpx2_engine")} | {"agent/adapter.py", "agent/auth.py"}
FRAMEWORKS = {"starlette", "fastapi", "flask", "django", "werkzeug"}


def room_of(path):
    parts = path.relative_to(ROOT).parts
    return parts[0].removesuffix(".py")


def imported(path):
    """Yield (room or None, outside package or None) for every import in a file."""
    package = ["ascend_middleware", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            names = (
                [".".join([*module, alias.name]) for alias in node.names] if module[1:] == [] else [".".join(module)]
            )
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first != "ascend_middleware":
                yield None, first
            else:
                room = rest.partition(".")[0]
                yield (room if room in ALLOWED else "__init__"), None


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    room = room_of(path)
    for target, outside in imported(path):
        if target is not None:
            assert target == room or target in ALLOWED[room]
        elif outside in HTTP_LIBRARIES:
            assert path.relative_to(ROOT).as_posix() in HTTP_ENGINES
        elif outside in FRAMEWORKS:
            rooms = ("routing", "asgi", "django", "fastapi", "flask", "demo")
            page = "authority/page" in path.as_posix()
            assert room in rooms or page or path.name in ("applications.py", "example_requests.py")


def modules_imported(path):
    """Yield the file behind every import of ours in a file, also of those for types only."""
    package = path.relative_to(ROOT.parent).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            parts = [*base, *(node.module.split(".") if node.module else [])]
            for name in node.names:
                for module in ([*parts, name.name], parts):
                    file = ROOT.parent.joinpath(*module)
                    found = [one for one in (file.with_suffix(".py"), file / "__init__.py") if one in FILES]
                    if found:
                        yield found[0]
                        break


def test_no_files_import_each_other_in_a_circle():
    waits = {path: {other for other in modules_imported(path) if other != path} for path in FILES}
    while free := [path for path, others in waits.items() if not others & waits.keys()]:
        for path in free:
            del waits[path]
    assert [str(path.relative_to(ROOT)) for path in waits] == []


def test_importing_the_package_imports_no_framework_and_no_http_library():
    code = "import sys, ascend_middleware; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not (HTTP_LIBRARIES | FRAMEWORKS) & set(done.stdout.split())


def test_importing_the_client_imports_no_engine_and_nothing_that_only_engines_need():
    code = "import sys, ascend_middleware.client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {*HTTP_LIBRARIES, "asyncio", "h11", "ssl"} & set(done.stdout.split())


def test_every_public_name_exists():
    for name in ascend_middleware.__all__:
        assert getattr(ascend_middleware, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = ascend_middleware.nothing


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_opens_with_its_purpose(path):
    assert ast.get_docstring(ast.parse(path.read_text()))
