"""Put small faults into the package, one at a time, and see which of them the tests notice.

    python tests/mutation/mutate.py guard/fingerprint.py client/breaker.py --sample 50 --seed 1

A mutant is a module with one such fault: a comparison turned round, a condition left out, a `raise` removed, a number
off by one. One that no test notices has survived; either a test is missing, or the fault changes nothing that anybody
can see, and then it belongs into `equivalent.toml` with the reason.

What there is already does not fit. mutmut puts a dispatcher in the place of every function, and much here asks
functions what they are (generators that yield steps, coroutines, handlers that routes are compared with), and it has
one command for all modules. cosmic-ray changes the tree it stands in, and knows one command for a whole session. Here
a module is tried with the tests of its own rooms, of these the ones that enter the changed function, quickest first,
in a copy of the tree that is thrown away.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parents[2]
PACKAGE = "ascend_middleware"
# Which tests concern which modules, as folders or files; the longest beginning counts.
ROOMS = {
    "guard/": ["guard"],
    "guard/decide": ["guard", "django"],
    "guard/plan": ["guard", "django"],
    "state/": ["guard"],
    "journal/": ["guard"],
    "killswitch/": ["guard"],
    "verdict": ["guard"],
    "adapters/decorator": ["asgi", "django", "flask"],
    "adapters/": ["guard", "asgi", "django", "flask", "wsgi"],
    "adapters/runner": ["guard", "asgi", "django", "flask", "wsgi", "leaks"],
    "rules/": ["rules", "guard", "routing"],
    "routing/": ["routing", "rules"],
    "routing/starlette": ["routing", "asgi", "guard"],
    "routing/django": ["django"],
    "routing/werkzeug": ["flask"],
    "client/": ["client"],
    "client/http/": ["client", "guard"],
    "client/breaker": ["client", "guard"],
    "client/calls": ["client", "guard"],
    "client/core": ["client", "guard"],
    "api/": ["api", "client", "authority"],
    "api/endpoints": ["api", "client", "authority", "docs/test_authority_api_page.py"],
    "api/commands": ["guard", "client", "mcp"],
    "api/orders": ["guard", "client", "mcp"],
    "api/batches": ["client", "authority", "guard"],
    "api/values": ["client", "rules", "guard"],
    "authority/": ["authority"],
    "authority/approvals": ["authority", "guard"],
    "mcp/": ["mcp"],
    "asgi/": ["asgi", "guard"],
    "asgi/middleware": ["asgi", "guard", "routing"],
    "fastapi": ["asgi", "guard"],
    "flask/": ["flask", "guard"],
    "django/": ["django"],
    "wsgi/": ["wsgi", "flask", "guard"],
}
# What is tried when no module is named.
MODULES = [
    "guard/", "state/", "journal/", "killswitch/", "verdict.py", "adapters/", "rules/", "routing/", "api/", "mcp/", "asgi/", "fastapi.py", "flask/", "django/", "wsgi/",
    *(f"client/{name}" for name in ("calls.py", "core.py", "breaker.py", "http/")),
    *(f"authority/{name}.py" for name in ("core", "store/audit", "tokens", "approvals", "webhooks", "keys", "delivery")),
]  # fmt: skip
NOT_COPIED = shutil.ignore_patterns(".git", ".tox", ".venv", "__pycache__", "node_modules", ".*_cache", ".hypothesis")
# Seconds: a mutant's tests may take three times as long as they did, and this much more.
PATIENCE = 20.0


@dataclass(frozen=True)
class Mutant:
    """One fault: bytes `start` to `end` of `file` become `new`; `function` is the name of the function around."""

    file: str
    line: int
    kind: str
    start: int
    end: int
    new: str
    before: str
    after: str
    function: str


# --- faults

COMPARISONS = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


def faults(node: ast.AST):
    """Yield (kind, text in its place) for every fault that one node can have."""
    match node:
        case ast.Compare():
            for place, operator in enumerate(node.ops):
                other = COMPARISONS[type(operator)]()
                ops = [*node.ops[:place], other, *node.ops[place + 1 :]]
                yield "comparison", f"({ast.unparse(ast.Compare(node.left, ops, node.comparators))})"
        case ast.BoolOp():
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield "and/or", f"({ast.unparse(ast.BoolOp(other, node.values))})"
            for place in range(len(node.values)):
                rest = [*node.values[:place], *node.values[place + 1 :]]
                yield "condition left out", f"({ast.unparse(ast.BoolOp(node.op, rest) if len(rest) > 1 else rest[0])})"
        case ast.UnaryOp(op=ast.Not()):
            yield "not removed", f"({ast.unparse(node.operand)})"
        case ast.Constant(value=bool()):
            yield "constant", str(not node.value)
        case ast.Constant(value=int()):
            yield "constant", f"({node.value + 1})"
            yield "constant", f"({node.value - 1})"
        case ast.Return(value=ast.expr()) if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield "return removed", "return None"
        case ast.Raise():
            yield "raise removed", "pass"
        case ast.Expr(value=ast.Call() | ast.YieldFrom() | ast.Await()) if not is_about_logs(node):
            yield "call removed", "pass"
        case ast.IfExp() | ast.If() if isinstance(node.test, ast.Name | ast.Attribute | ast.Call):
            yield "condition inverted", ""  # the test is replaced, see `mutants_of`


def is_about_logs(node: ast.Expr) -> bool:
    text = ast.unparse(node)
    return "logger." in text or text.startswith(("say(", "warnings."))


def is_left_alone(node: ast.AST) -> bool:
    """Say whether faults below a node would be none, or could not be placed."""
    if isinstance(node, ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id in ("__all__", "__slots__") for target in node.targets)
    if isinstance(node, ast.keyword):
        return node.arg == "slots"  # of a dataclass: saves memory, and nothing else
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip":
        node.keywords = []  # `strict` only tells a mistake of the program
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return any(isinstance(each, ast.Name) and each.id == "overload" for each in node.decorator_list)
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def mutants_of(file: str, source: bytes) -> list[Mutant]:
    """Return every mutant of a module, in the order of the text."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found = []

    def add(node: ast.AST, kind: str, new: str, function: str) -> None:
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        first, last = starts[node.lineno - 1], starts[node.end_lineno]
        before = source[first:last].decode()
        after = (source[first:start] + new.encode() + source[end:last]).decode()
        try:
            ast.parse(source[:start] + new.encode() + source[end:])
        except SyntaxError:
            return
        one_line = [" ".join(text.split()) for text in (before, after)]
        found.append(Mutant(file, node.lineno, kind, start, end, new, *one_line, function))

    def visit(node: ast.AST, function: str, around: str) -> None:
        if is_left_alone(node):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = around + node.name
            around = f"{function}.<locals>."
        elif isinstance(node, ast.ClassDef):
            around += f"{node.name}."
        for kind, new in faults(node):
            if kind == "condition inverted":
                add(node.test, kind, f"(not {ast.unparse(node.test)})", function)
            else:
                add(node, kind, new, function)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child, function, around)

    visit(ast.parse(source), "", "")
    return found


# --- which tests enter which functions: this file is a plugin of the learning run, see `learn`

_entered: set[tuple[str, str]] = set()
_learnt: dict[str, dict] = {}


def _trace(frame, event, argument):
    _note(frame.f_code)


def _note(code, offset=0):
    if PACKAGE in code.co_filename:
        _entered.add((code.co_filename, code.co_qualname))
    return _monitoring and _monitoring.DISABLE  # until the next test: what was noted costs nothing more


# Python 3.12 and newer tell each entrance once; 3.11 can only tell every call, which takes twice as long.
_monitoring = getattr(sys, "monitoring", None)


def _begin_noting():
    if _monitoring is None:
        threading.settrace(_trace)
        sys.settrace(_trace)
        return
    tool = _monitoring.PROFILER_ID
    if _monitoring.get_tool(tool) is None:
        _monitoring.use_tool_id(tool, "mutation")
        _monitoring.register_callback(tool, _monitoring.events.PY_START, _note)
    _monitoring.set_events(tool, _monitoring.events.PY_START)
    _monitoring.restart_events()


def _end_noting():
    if _monitoring is None:
        sys.settrace(None)
        threading.settrace(None)
    else:
        _monitoring.set_events(_monitoring.PROFILER_ID, 0)


def pytest_configure(config):
    import ascend_middleware

    here = Path(ascend_middleware.__file__)
    assert here.is_relative_to(config.rootpath), f"{here} would be tested, not the copy in {config.rootpath}"


def pytest_runtest_logstart(nodeid, location):
    if "MUTATION_LEARN" in os.environ:
        _entered.clear()
        _learnt[nodeid] = {"seconds": 0.0, "passed": True}
        _begin_noting()


def pytest_runtest_logreport(report):
    if report.nodeid in _learnt:
        _learnt[report.nodeid]["seconds"] += report.duration
        _learnt[report.nodeid]["passed"] &= report.outcome == "passed"


def pytest_runtest_logfinish(nodeid, location):
    if nodeid in _learnt:
        _end_noting()
        _learnt[nodeid]["entered"] = sorted(_entered)


def pytest_sessionfinish(session):
    if "MUTATION_LEARN" in os.environ:
        Path(os.environ["MUTATION_LEARN"]).write_text(json.dumps(_learnt))


def run_tests(tree: Path, tests: list[str], timeout: float, **environment: str) -> tuple[int | None, str]:
    """Run tests in a copy of the tree; return the exit status, None after the timeout, and what was printed."""
    listed = tree / "mutation-tests.txt"
    listed.write_text("\n".join(tests))
    # Without the plugins that nothing here needs, a run begins in half the time.
    plugins = ["-p", "anyio", "-p", f"{PACKAGE}.pytest_plugin", "-p", "mutate"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, "--tb=line", f"@{listed}"]
    if "MUTATION_LEARN" not in environment:
        command.append("-x")
    paths = os.pathsep.join([str(tree), str(tree / "tests" / "mutation")])
    environment |= {"PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    # Two mutants of one length in one second would be one compiled file.
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    process = subprocess.Popen(
        command, cwd=tree, env={**os.environ, **environment}, text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # servers that it started, too
        except ProcessLookupError:
            pass
        process.wait()


def learn(tree: Path, room: str) -> dict[str, dict]:
    """Run a room's tests as they are; return for each that passed its seconds and the functions that it entered."""
    kept = tree / f"mutation-{room.replace('/', '-')}.json"
    status, output = run_tests(tree, [f"tests/{room}"], 1800.0, MUTATION_LEARN=str(kept))
    if not kept.exists():
        raise SystemExit(f"tests/{room} did not run ({status}):\n{output[-2000:]}")
    learnt = {test: one for test, one in json.loads(kept.read_text()).items() if one["passed"] and "entered" in one}
    for one in learnt.values():
        inside = [(Path(file), name) for file, name in one["entered"] if Path(file).is_relative_to(tree / PACKAGE)]
        one["entered"] = [[str(file.relative_to(tree / PACKAGE)), name] for file, name in inside]
    return learnt


def rooms_of(file: str) -> list[str]:
    return ROOMS[max((start for start in ROOMS if file.startswith(start)), key=len)]


def tests_of(mutant: Mutant, learnt: dict[str, dict[str, dict]], most: float) -> tuple[list[str], float]:
    """Return the tests that may notice a mutant, quickest first, as many as take `most` seconds; and their seconds."""
    known = {test: one for room in rooms_of(mutant.file) for test, one in learnt[room].items()}
    place = [mutant.file, mutant.function]
    concerned = {test: one["seconds"] for test, one in known.items() if not mutant.function or place in one["entered"]}
    # What runs before the first test is entered by none, and concerns all.
    concerned = concerned or {test: one["seconds"] for test, one in known.items()}
    chosen, total = [], 0.0
    for test, seconds in sorted(concerned.items(), key=lambda item: item[1]):
        if total + seconds > most and chosen:
            break
        chosen.append(test)
        total += seconds
    return chosen, total


def write(path: Path, source: bytes) -> None:
    """Replace a module and forget its compiled form, which is kept by size and second."""
    path.write_bytes(source)
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        compiled.unlink()


def attempt(mutant: Mutant, tree: Path, tests: list[str], seconds: float) -> tuple[str, str]:
    """Return `killed`, `timeout` or `survived`, and by which test."""
    if not tests:
        return "survived", "no test enters the function"
    path = tree / PACKAGE / mutant.file
    source = path.read_bytes()
    write(path, source[: mutant.start] + mutant.new.encode() + source[mutant.end :])
    try:
        status, output = run_tests(tree, tests, 3 * seconds + PATIENCE)
    finally:
        write(path, source)
    if status is None:
        return "timeout", ""
    by = next((line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))), "")
    return ("survived" if status == 0 else "killed"), by[:200]


def is_known(mutant: Mutant, equivalent: list[dict]) -> bool:
    """Say whether a fault is written down; one without `after` stands for all of its statement."""
    return any(
        (one["file"], one["before"], one.get("after", mutant.after)) == (mutant.file, mutant.before, mutant.after)
        for one in equivalent
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Put faults into the package and see which of them the tests notice.")
    parser.add_argument("modules", nargs="*", help="files or folders below the package; those of security by default")
    parser.add_argument("--sample", type=int, help="try so many, drawn at random (all by default)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--seconds", type=float, help="begin no further mutant after so many")
    parser.add_argument("--per-mutant", type=float, default=30.0, help="seconds of tests, as they take without a fault")
    parser.add_argument("--jobs", type=int, default=1, help="how many mutants at a time, each in a copy of its own")
    parser.add_argument("--threshold", type=float, default=0.9, help="fail below this share of killed ones")
    parser.add_argument("--map", type=Path, help="keep here, or take from here, which tests enter which functions")
    parser.add_argument("--json", type=Path, help="write all results here")
    options = parser.parse_args()
    equivalent = tomllib.loads((Path(__file__).parent / "equivalent.toml").read_text()).get("equivalent", [])
    files = []
    for name in options.modules or MODULES:
        path = ROOT / PACKAGE / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    names = [str(path.relative_to(ROOT / PACKAGE)) for path in files]
    everything = [one for file, name in zip(files, names, strict=True) for one in mutants_of(name, file.read_bytes())]
    tried = [one for one in everything if not is_known(one, equivalent)]
    if options.sample is not None and options.sample < len(tried):
        tried = random.Random(options.seed).sample(tried, options.sample)
    print(f"{len(everything)} mutants in {len(files)} modules; {len(tried)} are tried", flush=True)
    results: list[dict] = []
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(options.jobs):
            tree = Path(shutil.copytree(ROOT, Path(folder) / f"tree{number}", ignore=NOT_COPIED))
            trees.put(tree)
        learnt = json.loads(options.map.read_text()) if options.map and options.map.exists() else {}
        for room in sorted({room for one in tried for room in rooms_of(one.file)} - learnt.keys()):
            learnt[room] = learn(tree, room)
            print(f"tests/{room}: {len(learnt[room])} tests are of use", flush=True)
            if options.map:
                options.map.write_text(json.dumps(learnt))
        began = time.monotonic()

        def one(mutant: Mutant) -> None:
            if options.seconds is not None and time.monotonic() - began > options.seconds:
                return
            tree = trees.get()
            try:
                result, by = attempt(mutant, tree, *tests_of(mutant, learnt, options.per_mutant))
            finally:
                trees.put(tree)
            results.append({**asdict(mutant), "result": result, "by": by})
            if result == "survived":
                print(f"survived {mutant.file}:{mutant.line} {mutant.kind} ({by or 'all passed'})", flush=True)
                print(f"  - {mutant.before}\n  + {mutant.after}", flush=True)

        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(one, tried))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    each = Counter((one["file"], one["result"]) for one in results)
    for file in sorted({one["file"] for one in results}):
        noticed = each[file, "killed"] + each[file, "timeout"]
        print(f"{noticed:4} of {noticed + each[file, 'survived']:4} noticed  {file}")
    noticed = sum(one["result"] != "survived" for one in results)
    share = noticed / len(results) if results else 0.0
    print(f"{noticed} of {len(results)} noticed ({share:.1%}), {len(everything)} mutants in all, "
          f"{len([one for one in everything if is_known(one, equivalent)])} of them known to change nothing")  # fmt: skip
    return 0 if share >= options.threshold else 1


if __name__ == "__main__":
    sys.exit(main())
