"""The `audit` command: check that nothing of the audit log was changed afterwards, and hand it out."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from ..exceptions import AscendError
from .files import add_place, place_of
from .terminal import FAILED, OK, plain, print_json

if TYPE_CHECKING:
    from ..authority.store.audit import Head

__all__ = ["add_parser"]

_ABOUT = """\
Read the whole audit log and name every entry that was changed, removed or reordered afterwards. Exit code 1 if any was.
Whoever can write the file can also make a whole new log: keep the head that this prints somewhere else, and pass it to
the next verification with --head.
"""
_EXPORT = """\
Print the entries as JSON lines, oldest first. Exit code 1, after them, if the log does not end where its head says: the
last ones may be missing. Whether the others are as they were written only `audit verify` tells.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("audit", help="verify or export the audit log")
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", required=True)
    verify = tasks.add_parser("verify", help="find what was changed, removed or reordered", description=_ABOUT)
    verify.add_argument(
        "--head", type=_head, action="append", default=[], metavar="NUMBER:HASH", help="one noted earlier; repeatable"
    )
    verify.add_argument("--json", action="store_true", help="print one JSON object")
    verify.set_defaults(run=_verify)
    export = tasks.add_parser("export", help="print the entries as JSON lines, oldest first", description=_EXPORT)
    export.add_argument("--after", type=int, default=0, metavar="NUMBER", help="only entries after this one")
    export.add_argument("--tenant", help="only one organisation's entries (default: all)")
    export.set_defaults(run=_export)
    for task in (verify, export):
        add_place(task)


def _head(text: str) -> Head:
    from ..authority.store.audit import Head

    try:
        return Head.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _verify(args: argparse.Namespace) -> int:
    from ..authority.store.audit import verify
    from ..authority.store.database import Database

    with Database.evidence(place_of(args)) as database:
        found = verify(database, known=tuple(args.head))
    if args.json:
        findings = [{"seq": one.seq, "kind": one.kind, "message": one.message} for one in found.findings]
        print_json({"whole": found.whole, "entries": found.entries, "head": str(found.head), "findings": findings})
    else:
        for one in found.findings:
            print(f"{one.kind}: {plain(one.message)}")
        state = "the log is whole" if found.whole else "the log was tampered with"
        print(f"{state}: {found.entries} entries, head {found.head}")
    return OK if found.whole else FAILED


def _export(args: argparse.Namespace) -> int:
    from ..authority.store.audit import entries
    from ..authority.store.database import Database

    with Database.evidence(place_of(args)) as database:
        try:
            for entry in entries(database, after=args.after, tenant=args.tenant):
                sys.stdout.write(json.dumps(entry, separators=(",", ":")) + "\n")
        except ValueError as error:
            raise AscendError(f"an entry is no JSON any more ({error}); see `audit verify`") from None
        problem = database.end_problem()
    if problem:
        sys.stdout.flush()
        raise AscendError(
            f"the database is damaged ({problem}): what it holds was printed, the last entries may be missing"
        )
    return OK
