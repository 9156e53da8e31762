"""The `explain` command: what the guard would do with one request, and what it would send."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compose import build_dry_guard
from ..exceptions import ConfigurationError
from ..guard.explain import Explanation, explain
from .applications import load_application
from .example_requests import Sketch, view_for
from .terminal import Result

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

__all__ = ["explain_request"]


def explain_request(args: argparse.Namespace) -> Result:
    """Explain what the guard would do with the request that the arguments describe."""
    sketch = _sketch(args)
    application = load_application(args)
    guard = build_dry_guard(application.table, application.settings)
    with _quiet():
        found = explain(guard, view_for(application, sketch), sketch.body)
    return Result(
        data=_as_json(found),
        lines=(line.rstrip() for line in _lines(found, sketch)),
        notes=() if application.guarded else (f"{args.app} has no guard: this is what the table would do.",),
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


def _sketch(args: argparse.Namespace) -> Sketch:
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
        yield f"          {rule.action_type}, on_failure {rule.on_failure}, pending {rule.pending}, mode {rule.mode}"
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
        "lost": [{"rule": loser.rule.label, "why": loser.why} for loser in found.losers],
        "payload": found.payload,
    }
