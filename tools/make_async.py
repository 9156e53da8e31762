"""Write the awaitable half of the client, `client/async_methods/` and `client/async_owkai.py`, made of the blocking half.

    python tools/make_async.py           write it
    python tools/make_async.py --check   exit with 1 where it is not as written; `tox run -e lint` does

A method becomes `async def`, what drives a flow is awaited, and the docstring, which stands once, is that of the
blocking method. What differs beyond that stands in `client/blocking.py` and `client/awaiting.py` under one name.
"""

import ast
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).parents[1] / "ascend_middleware" / "client"
METHODS = [path for path in sorted((CLIENT / "methods").glob("*.py")) if path.name != "__init__.py"]
TARGETS = {CLIENT / "owkai.py": CLIENT / "async_owkai.py"}
TARGETS |= {path: CLIENT / "async_methods" / path.name for path in METHODS}
# What runs a flow: blocking in one half, a coroutine in the other.
DRIVERS = {"run", "_ask", "_side_by_side"}
HEAD = "# ruff: noqa: ASYNC109 - how long the caller waits is an argument\n"


class Awaited(ast.NodeTransformer):
    """Turn methods into coroutines."""

    def __init__(self, shown_as):
        self.shown_as = shown_as

    def visit_Lambda(self, node):
        return node  # whoever calls it awaits what it returns

    def visit_Call(self, node):
        self.generic_visit(node)
        match node.func:
            case ast.Attribute(value=ast.Name(id="self"), attr=name) if name in DRIVERS:
                return ast.Await(node)
        return node

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        node.body[0] = ast.Expr(ast.Constant(f"See `{self.shown_as}.{node.name}`."))
        return ast.AsyncFunctionDef(**{name: getattr(node, name) for name in node._fields}, lineno=node.lineno)


def imported(module, names, level):
    return ast.ImportFrom(module, [ast.alias(name) for name in names], level)


def converted(path):
    """Return the awaitable form of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    is_room = path in METHODS
    level = 2 if is_room else 1
    defined = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    classes = [
        node for node in defined if isinstance(node, ast.ClassDef) and "Blocking" in map(ast.unparse, node.bases)
    ]
    source = f"methods.{path.stem}" if is_room else path.stem
    # Docstrings come from there, and all that both halves share; what is not used is left out below.
    rest = [
        node
        for node in tree.body[1:]
        if node not in defined and (is_room or not isinstance(node, ast.Assign | ast.AnnAssign))
    ]
    body = [
        ast.Expr(ast.Constant(f"Made of `{path.relative_to(CLIENT)}` by tools/make_async.py; not to be edited.")),
        *(node for node in rest if isinstance(node, ast.ImportFrom) and node.module == "__future__"),
        imported(source, [node.name for node in defined], level),
        imported("awaiting", ["Awaiting"], level),
        imported("twins", ["twin_of"], level),
        *(
            node
            for node in rest
            if not (isinstance(node, ast.ImportFrom) and node.module in ("__future__", "blocking"))
        ),
    ]
    names = [f"Async{node.name}" for node in classes]
    exported = ast.parse(f"__all__ = {names}").body[0]
    body = [node for node in body if not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")]
    body.append(exported)
    body = [node for node in body if is_room or not isinstance(node, ast.If)]
    for node in classes:
        bases = ", ".join("Awaiting" if base == "Blocking" else base for base in map(ast.unparse, node.bases))
        head = f"@twin_of({node.name})\nclass Async{node.name}({bases}):"
        made = ast.parse(f'{head}\n    "The awaitable twin of `{node.name}`."').body[0]
        made.body += [Awaited("AscendClient" if is_room else node.name).visit(one) for one in node.body[1:]]
        body.append(made)
    text = HEAD + ast.unparse(ast.fix_missing_locations(ast.Module(body, [])))
    for command in (["check", "--fix-only", "--quiet"], ["format"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(TARGETS[path]), "-"]
        text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout
    return text


def main():
    stale = False
    for source, target in TARGETS.items():
        text = converted(source)
        if "--check" not in sys.argv[1:]:
            target.write_text(text, encoding="utf-8")
        elif not target.exists() or target.read_text(encoding="utf-8") != text:
            print(f"{target.relative_to(CLIENT.parents[1])} is not what tools/make_async.py makes of {source.name}")
            stale = True
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
