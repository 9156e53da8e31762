"""What the package offers under its own name, and what each public name's docstring tells."""

import ast
import enum
import importlib
import inspect
import re
from pathlib import Path

import pytest

import ascend_middleware

# What a framework calls its middlewares with is the framework's to tell.
FRAMEWORKS = [".asgi", ".django", ".fastapi", ".flask", ".wsgi"]
# How long something takes is told with its unit.
TIMES = re.compile(r"(?<!on_)timeout|interval|deadline|seconds|retry_after|(^|_)ms$")
UNITS = re.compile(r"second|\bs\b|\bms\b|millisecond")
CLIENTS = ("AscendClient.", "OWKAIClient.", "AuthorizedAgent.")


@pytest.fixture(scope="module")
def public():
    """Every public name with its object, and every public method and property of a public class."""
    found = {}
    for door in ("", ".agent", ".testing", *FRAMEWORKS):
        module = importlib.import_module(f"ascend_middleware{door}")
        for name in module.__all__:
            thing = getattr(module, name)
            if callable(thing):
                found[f"{door}.{name}".lstrip(".")] = thing
            for part in dir(thing) if inspect.isclass(thing) and not door else ():
                member = inspect.getattr_static(thing, part)
                ours = str(getattr(getattr(member, "fget", member), "__module__", "")).startswith("ascend_middleware")
                if not part.startswith("_") and not isinstance(member, enum.Enum) and ours:
                    found[f"{name}.{part}"] = getattr(thing, part)
    return {name: (thing, inspect.getdoc(thing)) for name, thing in found.items()}


def arguments_of(thing):
    if isinstance(thing, property) or inspect.isclass(thing) and issubclass(thing, dict | enum.Enum | Exception):
        return set()
    return set(inspect.signature(thing).parameters) - {"self", "fields", "options"}


def test_every_docstring_opens_with_one_sentence(public):
    openings = {name: docstring.partition("\n\n")[0].replace("\n", " ") for name, (_, docstring) in public.items()}
    whole = re.compile(r"""[A-Z`0-9"](?!.*\.\)? [A-Z`]).*[.?]""")
    assert not {name: opening for name, opening in openings.items() if not whole.fullmatch(opening)}


def test_every_docstring_tells_of_the_arguments_and_of_times_their_unit(public):
    missing, unitless = {}, {}
    for name, (thing, docstring) in public.items():
        if re.search(r"(?:those|same as|[Ss]ee|twin) (?:of )?`\w+", docstring):
            continue  # told there
        told = dict(re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", docstring, re.MULTILINE))
        missing[name] = arguments_of(thing) - told.keys()
        unitless[name] = [
            argument for argument, text in told.items() if TIMES.search(argument) and not UNITS.search(text)
        ]
    assert not {name: arguments for name, arguments in missing.items() if arguments}
    assert not {name: arguments for name, arguments in unitless.items() if arguments}


def test_every_method_of_a_client_names_its_errors_and_the_source_of_its_meaning(public):
    methods = {
        name: docstring
        for name, (thing, docstring) in public.items()
        if name.startswith(CLIENTS) and arguments_of(thing) - {"flow"}
    }
    assert len(methods) > 40
    assert not [
        name for name, docstring in methods.items() if "Raises:" not in docstring or "contract" not in docstring
    ]


def test_type_checkers_see_the_names_that_are_there():
    tree = ast.parse(Path(ascend_middleware.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    names = {"__version__"}
    for node in block.body:
        room = importlib.import_module(f"ascend_middleware.{node.module}")
        names |= {name for alias in node.names for name in (room.__all__ if alias.name == "*" else [alias.asname])}
    assert names == set(ascend_middleware.__all__)


PAGE_FILE = Path(__file__).parents[2] / "docs" / "public-api.md"
PAGE = PAGE_FILE.read_text()
LISTED = dict(re.findall(r"^\| `ascend_middleware([.\w]*)`:[^|]*\| (.*) \|$", PAGE, re.MULTILINE))


@pytest.mark.parametrize("door", ["", ".agent", ".testing", *FRAMEWORKS])
def test_the_page_lists_what_is_public(door):
    module = importlib.import_module(f"ascend_middleware{door}")
    assert re.findall(r"`(\w+)`", LISTED[door]) == sorted(module.__all__)


def test_every_listed_name_is_there():
    for door, names in LISTED.items():
        module = importlib.import_module(f"ascend_middleware{door}")
        assert [name for name in re.findall(r"`(\w+)`", names) if not hasattr(module, name)] == []


SIGNATURES = Path(__file__).with_name("signatures.txt")


def signatures_of(public):
    """Return a line for each public callable: its arguments with their defaults, in their order."""
    lines = []
    for name, (thing, _) in sorted(public.items()):
        if arguments_of(thing):
            shown = [str(one.replace(annotation=one.empty)) for one in inspect.signature(thing).parameters.values()]
            lines.append(f"{name}({', '.join(shown)})")
    return re.sub(r"<(?:object|function) ?[^>]*>", "...", "\n".join(lines)) + "\n"


def test_no_argument_or_default_changes_unseen(public):
    """A change is one of the public API: say it in CHANGELOG.md, delete the file, and run this test twice."""
    now = signatures_of(public)
    if not SIGNATURES.exists():
        SIGNATURES.write_text(now)
        pytest.fail(f"{SIGNATURES.name} was written anew: commit it")
    assert now.splitlines() == SIGNATURES.read_text().splitlines()


def test_the_reference_has_every_public_name_once():
    pages = PAGE_FILE.parent.glob("reference-*.md")
    told = [name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)]
    public = {
        f"ascend_middleware{door}.{name}" for door, names in LISTED.items() for name in re.findall(r"`(\w+)`", names)
    }
    assert sorted(told) == sorted(public - {"ascend_middleware.__version__"})
