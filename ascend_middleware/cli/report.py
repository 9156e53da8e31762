"""The command `report`: what observe mode would have refused, for whom, and what to do about it."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, Final

from ..guard.observations import Observation, read_observations
from ..inspection.terminal import Result
from ..journal.journal import place_of
from ..text import printable
from .journal import settings_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

__all__ = ["report"]

_MOST_AGENTS: Final = 3
_WAYS: Final = {
    "unmapped-route": "no rule covers it: add one of those below, or exempt it",
    "approval-required": 'a person would have to approve it: see who may, and whether pending = "wait:30s" helps',
    "denied": "the authority denies it: change its policy, or leave it",
    "bad-request": "the request cannot be judged: see the log for what the rule reads and the request lacks",
    "misconfigured": "this service cannot ask: see the log",
    "unavailable": "the authority was away: see docs/outages.md for what a rule can do then",
    "unknown-agent": "identify found no agent",
}
_READS: Final = ("GET", "HEAD", "OPTIONS")


def report(args: argparse.Namespace) -> Result:
    """Tell what was observed."""
    place = place_of(settings_of(args))
    found = [] if place is None else list(read_observations(place))
    rows = _rows(found)
    missing = sorted({(row["method"], row["route"]) for row in rows if row["would"] == "unmapped-route"})
    data = {
        "requests": sum(one.count for one in found),
        "first": min((one.first for one in found), default=None),
        "last": max((one.last for one in found), default=None),
        "refused": rows,
        "rules": [_rule(method, route) for method, route in missing],
    }
    if args.forget and place is not None:
        for path in place.glob("**/observed-*.json"):
            path.unlink(missing_ok=True)
    return Result(data=data, lines=_lines(data))


def _rows(found: Iterable[Observation]) -> list[dict[str, Any]]:
    """Return what would have been refused, the most frequent first; of each route, out of how many requests."""
    totals: dict[tuple[str, str], int] = {}
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in found:
        totals[one.method, one.route] = totals.get((one.method, one.route), 0) + one.count
        if not one.would:
            continue
        row = rows.setdefault(
            (one.method, one.route, one.rule, one.would),
            {"method": one.method, "route": one.route, "rule": one.rule, "would": one.would, "reason": "", "count": 0,
             "of": 0, "agents": {}},
        )  # fmt: skip
        row["count"] += one.count
        row["reason"] = one.reason or row["reason"]
        row["agents"][one.agent] = row["agents"].get(one.agent, 0) + one.count
    for row in rows.values():
        row["of"] = totals[row["method"], row["route"]]
        row["agents"] = dict(sorted(row["agents"].items(), key=lambda item: -item[1]))
    return sorted(rows.values(), key=lambda row: -row["count"])


def _lines(data: dict[str, Any]) -> Iterator[str]:
    if not data["requests"]:
        yield (
            'nothing was observed: run the application with mode = "observe", and with a journal on this machine '
            "(--rules and --journal say where it is)"
        )
        return
    yield f"{data['requests']} requests from {_moment(data['first'])} to {_moment(data['last'])}"
    if not data["refused"]:
        yield "None would have been refused."
        return
    yield "Would have been refused:"
    for row in data["refused"]:
        yield ""
        rule = row["rule"] or "no rule"
        yield f"  {row['count']} of {row['of']}  {printable(row['method'])} {printable(row['route'])}  ({rule})"
        reason = f": {printable(row['reason'])}" if row["reason"] else ""
        yield f"    {row['would']}{reason}"
        agents = [f"{printable(name) or 'not asked'} {count}" for name, count in row["agents"].items()]
        more = f" and {len(agents) - _MOST_AGENTS} more" if len(agents) > _MOST_AGENTS else ""
        yield f"    for {', '.join(agents[:_MOST_AGENTS])}{more}"
        if row["would"] in _WAYS:
            yield f"    {_WAYS[row['would']]}"
    if data["rules"]:
        yield ""
        yield "Rules to start from:"
        for text in data["rules"]:
            yield ""
            yield from text.splitlines()


def _rule(method: str, route: str) -> str:
    kind = "data_access" if method in _READS else "data_modification"
    return f'[[rule]]\nmatch = "{printable(method)} {printable(route)}"\naction_type = "{kind}"'


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
