"""The commands `routes` and `explain`: what governs an application, and what the guard would do with one request."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import logging
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

from ..compose import build_dry_guard, build_table
from ..config import Settings
from ..exceptions import ConfigurationError
from ..guard import RequestView
from ..guard.explain import Explanation, explain
from ..routing.coverage import Routes, as_json, as_text, cover
from ..routing.suggestion import suggest
from ..rules import WEBSOCKET, RuleTable
from . import EXPLAIN, FAILED, OK, ROUTES, Result, run

__all__ = ["Application", "Installed", "Sketch", "explain_request", "list_routes", "main_about", "plain_view"]

# Makes the rules and settings of an installed guard.
Installed: TypeAlias = Callable[[], tuple[RuleTable, Settings]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """A request as somebody would write it down.

    Attributes:
        method: as given; `WEBSOCKET` for a handshake.
        target: path and query as they stand on the request line.
        headers: names and values, as given.
        body: whole.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


def plain_view(sketch: Sketch) -> RequestView:
    """Return a request as the guard sees it where it can ask no router."""
    raw, _, query = sketch.target.partition("?")
    method = sketch.method.upper()
    headers = [(name.lower(), value) for name, value in sketch.headers]
    if not any(name == "host" for name, _ in headers):
        headers.insert(0, ("host", "localhost"))
    return RequestView(
        method=WEBSOCKET if method == str(WEBSOCKET) else method,
        path=unquote_to_bytes(raw).decode("utf-8", "replace"),
        raw_path=raw,
        query=query.encode("latin-1", "replace"),
        headers=headers,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """An application as command lines see it.

    Attributes:
        framework: `FastAPI`, `Starlette`, `Flask`, `Django`, or `ASGI or WSGI` for what no resolver knows.
        app: the framework's own object.
        routes: its resolver, or None where no router can be asked.
        view: makes a request as the guard sees it in the application, below no prefix.
        installed: the rules and settings of its guard, neither key nor URL checked; None where there is no guard.
        outside: whether the guard stands around an application whose router it cannot ask: paths decide there.
    """

    framework: str
    app: Any
    routes: Routes | None = None
    view: Callable[[Sketch], RequestView] = plain_view
    installed: Installed | None = None
    outside: bool = False

    def governed(self, rules: str | None) -> tuple[RuleTable, Settings]:
        """Return rules and settings: those of another table, where one is named, or of the guard."""
        if rules is None and self.installed is not None:
            return self.installed()
        return build_table([] if rules is None else rules, {})


def main_about(app: Application, argv: Sequence[str], *, name: str, prog: str) -> int:
    """Run `routes` or `explain` for an application that is at hand, and return its exit code.

    Args:
        app: the application.
        argv: the command and its arguments, without one that names the application.
        name: how the application is called in what is printed.
        prog: how the command line is called in its help.
    """
    parser = argparse.ArgumentParser(prog=prog)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (ROUTES, EXPLAIN):
        command.add_to(commands, command.path)
    return run(parser.parse_args(argv, Namespace(app=name, find=lambda _: app)))


# --- routes


def list_routes(args: Namespace) -> Result:
    """List every live route and method of an application with what governs it."""
    application: Application = args.find(args)
    if application.routes is None:
        if ":" in args.app and _may_be_a_factory(application.app):
            raise ConfigurationError(f'{args.app} is a function; if it makes the application, write "{args.app}()"')
        raise ConfigurationError(
            f"{args.app} is no application of a framework whose routes can be listed: its rules go by the path alone; "
            f'see what becomes of a path with: ascend-middleware explain {args.app} "GET /…"'
        )
    table, settings = application.governed(args.rules)
    guarded = application.installed is not None
    unmapped = settings.unmapped if guarded or args.rules is not None else "refuse"
    coverage = cover(application.routes, table, unmapped=unmapped)
    if args.suggest:
        agent_id = None if table.rules else settings.agent_id or args.app.partition(":")[0].split(".")[0]
        text = suggest(coverage.unmapped, agent_id=agent_id, standing=coverage.rows)
        return Result(lines=text.splitlines())
    wanting = coverage.forgotten or coverage.problems or not guarded
    head = {"application": args.app, "framework": application.framework, "guarded": guarded}
    width = max(80, shutil.get_terminal_size((100, 24)).columns)
    return Result(
        data={**head, "unmapped": settings.unmapped, "mode": settings.mode, **as_json(coverage)},
        lines=as_text(coverage, width=width, unmapped=unmapped).removesuffix("\n").split("\n"),
        notes=_notes(args, application),
        code=FAILED if args.fail_unmapped and wanting else OK,
    )


def _notes(args: Namespace, application: Application) -> Iterator[str]:
    if application.outside:
        yield (
            f"{args.app} has its guard around it: paths decide, and rules that name an endpoint or stand at a handler "
            "take no part"
        )
    if application.installed is None:
        also = " This is what the table would do." if args.rules is not None else ""
        yield f"{args.app} has no guard: nothing is governed until the middleware is added to it.{also}"


def _may_be_a_factory(app: object) -> bool:
    """Say whether an object makes an application rather than being one, which takes two arguments (WSGI) or three."""
    if not inspect.isfunction(app):
        return False
    parameters = inspect.signature(app).parameters.values()
    return sum(one.default is one.empty and one.kind is not one.VAR_KEYWORD for one in parameters) < 2


# --- explain


def explain_request(args: Namespace) -> Result:
    """Explain what the guard would do with the request that the arguments describe."""
    sketch = _sketch(args)
    application: Application = args.find(args)
    guard = build_dry_guard(*application.governed(args.rules))
    with _quiet():
        found = explain(guard, application.view(sketch), sketch.body)
    unguarded = f"{args.app} has no guard: this is what the table would do."
    return Result(
        data=_as_json(found),
        lines=(line.rstrip() for line in _lines(found, sketch)),
        notes=() if application.installed is not None else (unguarded,),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the guard from saying in the log what is printed anyway."""
    log = logging.getLogger("ascend_middleware")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def _sketch(args: Namespace) -> Sketch:
    method, _, target = args.request.strip().partition(" ")
    if not method or not target.strip():
        raise ConfigurationError('a request is a method and a target, "POST /customers/7/refunds"')
    headers = []
    for text in args.header:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise ConfigurationError(f'a header is "name: value", got {text!r}')
        headers.append((name.strip(), value.strip()))
    body = b""
    if args.body is not None and args.body.startswith("@"):
        try:
            body = Path(args.body[1:]).read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{args.body[1:]} cannot be read: {error.strerror}") from error
    elif args.body is not None:
        body = args.body.encode()
    if args.body is not None and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("content-type", "application/json"))
    return Sketch(method=method, target=target.strip(), headers=tuple(headers), body=body)


_OUTCOMES = {
    "ask": "the authority is asked, and its decision counts",
    "exempt": "it passes, nobody is asked",
    "framework": "the framework answers it itself (404, 405 or a redirect); no handler runs",
    "disabled": "it passes, the guard is switched off",
    "not-an-agent": "it passes, it is not an agent's",
    "health": "the guard answers how it is",
    "approval-status": "the guard answers the state of an approval",
}


def _lines(found: Explanation, sketch: Sketch) -> Iterator[str]:
    rule = found.rule
    outcome = _OUTCOMES.get(found.outcome, found.outcome)
    yield f"request   {sketch.method} {sketch.target}"
    yield f"route     {found.template}{f' ({found.endpoint})' if found.endpoint else ''}"
    if found.kind is None:
        yield "          no router can be asked: the path decides"
    if found.params:
        yield f"          {', '.join(f'{name} = {value!r}' for name, value in found.params.items())}"
    for name, meaning in found.findings.items():
        yield f"finding   {name}: {meaning}{' (the rule permits it)' if found.permitted else ''}"
    yield f"rule      {rule.label if rule is not None else 'none'}"
    if rule is not None and rule.action_type:
        words = [rule.action_type, f"on_failure {rule.on_failure}", f"pending {rule.pending}", f"mode {rule.mode}"]
        words += [name if value is True else f"{name} {value}" for name, value in rule.reuse.items()]
        yield f"          {', '.join(words)}"
    yield f"outcome   {f'refused with {found.status}: {found.outcome}' if found.status is not None else outcome}"
    if found.detail:
        yield f"          {found.detail}"
    for number, loser in enumerate(found.losers):
        yield f"{'lost' if number == 0 else '':<10}{loser.rule.label}: {loser.why}"
    if found.payload is not None:
        text = json.dumps(found.payload, indent=2, ensure_ascii=False)
        for number, line in enumerate(text.split("\n")):
            yield f"{'sends' if number == 0 else '':<10}{line}"


def _as_json(found: Explanation) -> dict[str, Any]:
    rule = found.rule
    return {
        "outcome": found.outcome,
        "status": found.status,
        "detail": found.detail or None,
        "kind": str(found.kind) if found.kind is not None else None,
        "route": found.template,
        "endpoint": found.endpoint,
        "params": {name: str(value) for name, value in found.params.items()},
        "findings": dict(found.findings),
        "permitted": found.permitted,
        "rule": rule.label if rule is not None else None,
        "action_type": (rule.action_type or None) if rule is not None else None,
        "on_failure": rule.on_failure if rule is not None else None,
        "pending": str(rule.pending) if rule is not None else None,
        "mode": rule.mode if rule is not None else None,
        "cache": rule.reuse.get("cache") if rule is not None else None,
        "coalesce": rule.coalesce if rule is not None else None,
        "lost": [{"rule": loser.rule.label, "why": loser.why} for loser in found.losers],
        "payload": found.payload,
    }
