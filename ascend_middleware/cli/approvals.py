"""The `pending`, `approve` and `deny` commands: what waits for a person, and the person's word."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import AscendError, ConfigurationError, NotFoundError, ProtocolError
from .files import add_place, open_store
from .terminal import OK, plain, print_json

if TYPE_CHECKING:
    import argparse

__all__ = ["add_parser"]

_MOST_VALUES: Final = 4
_LONGEST_VALUE: Final = 40


def add_parser(commands: Any) -> None:
    """Add the commands to the command line."""
    _add_pending(commands)
    _add_decision(commands, "approve", approved=True)
    _add_decision(commands, "deny", approved=False)


def _add_pending(commands: Any) -> None:
    parser = commands.add_parser("pending", help="list the actions that wait for a person")
    add_place(parser)
    parser.add_argument("--tenant", default="default", help="the organisation (default: default)")
    parser.add_argument("--limit", type=int, choices=range(1, 1001), default=50, metavar="N", help="at most N (50)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_pending)


def _add_decision(commands: Any, name: str, *, approved: bool) -> None:
    parser = commands.add_parser(name, help=f"{name} a pending action")
    parser.add_argument("action", help="the action's id, 7 or act_7")
    parser.add_argument("--comments", default="", help="why; kept in the audit log")
    parser.add_argument("--tenant", default="default", help="the organisation (default: default)")
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_decide, approved=approved)


def _pending(args: argparse.Namespace) -> int:
    from ..authority.answers import record_fields

    with open_store(args) as store:
        rows, total = store.actions(tenant=args.tenant, equal={"status": "pending"}, descending=False, limit=args.limit)
    records = [record_fields(row) for row in rows]
    if args.json:
        print_json({"actions": records, "total": total})
        return OK
    for record in records:
        risk = f"{record['risk_score']} {record['risk_level']}"
        what = f"{plain(record['agent_id'])}: {plain(record['action_type'])} on {plain(record['resource'])}"
        # A resource may be the route's template, the same for every customer.
        values = {"id": record.get("resource_id"), **(record.get("action_details") or {})}
        shown = [f"{plain(str(name))}={plain(_short(value))}" for name, value in values.items() if value is not None]
        if shown:
            what += f" [{', '.join(shown[:_MOST_VALUES])}{', …' if len(shown) > _MOST_VALUES else ''}]"
        print(f"{record['action_id']:>4}  {record['created_at']}  {risk:<11}  {what}  ({plain(record['reason'])})")
    if total > len(records):
        print(f"{total - len(records)} more; see --limit")
    elif not records:
        print("nothing is pending")
    return OK


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _decide(args: argparse.Namespace) -> int:
    from ..api.decode import normalize_action_id
    from ..authority.answers import decision_fields
    from ..authority.approvals import decide
    from ..authority.bodies import ApiError
    from ..authority.keys import operator

    try:
        digits = normalize_action_id(args.action)
    except ProtocolError:
        digits = ""
    if not digits.isdigit():
        raise ConfigurationError(f"not an action id: {args.action!r}; expected 7 or act_7")
    with open_store(args) as store:
        try:
            row = store.action(int(digits), tenant=args.tenant)
        except NotFoundError as error:
            raise AscendError(f"{error.message}; what waits is listed by: ascend-middleware pending") from None
        try:
            row = decide(
                store,
                row,
                {"comments": args.comments},
                approved=args.approved,
                by=operator(args.tenant),
                via="command line",
            )
        except ApiError as error:
            raise AscendError(error.message) from None
    fields = decision_fields(row)
    if args.json:
        print_json(fields)
    elif row["status"] == "pending":
        missing = ", ".join(plain(name) for name in fields["pending_approvers"])
        print(f"action {row['id']} is approved by you and waits for {missing}")
    else:
        print(f"action {row['id']} is {row['status']}")
    return OK
