"""A job for cron that asks before it acts, on the embedded authority in the same process.

    pip install -e ".[authority]" && python examples/scheduled_job.py

archives what lies in the folder `inbox` (filled with three files when there is none). Up to two files are approved by
policy; for more a person has to approve:

    ascend-middleware approve 1 --policy examples/tools_policy.toml

Until then each run ends with status 75, "try again later". The run that finds the approval does what was approved:
the plan that was shown, and not what has come in since, and that once.
"""

import json
import sys
from pathlib import Path

from ascend_middleware import AscendClient, AscendError

HERE = Path(__file__).parent
INBOX, ARCHIVE, PLAN = HERE / "inbox", HERE / "archive", HERE / "inbox" / ".plan.json"
DONE, REFUSED, UNDECIDED, FAILED = 0, 77, 75, 69


def archive(files):
    ARCHIVE.mkdir(exist_ok=True)
    for name in files:
        (INBOX / name).rename(ARCHIVE / name)


def ask(client):
    """Return a decision and the files it is about: of the plan that is held, else of a new one."""
    if PLAN.exists():
        plan = json.loads(PLAN.read_text())
        return client.get_action_status(plan["action_id"]), plan["files"]
    files = sorted(path.name for path in INBOX.iterdir() if not path.name.startswith("."))
    decision = client.submit_action(
        action_type="file.archive",
        resource="the inbox",
        tool_name="scheduled_job",
        description=f"archive {len(files)} files",
        action_details={"files": files},
    )
    return decision, files


def main():
    if not INBOX.exists():
        INBOX.mkdir()
        for name in ("a.txt", "b.txt", "c.txt"):
            (INBOX / name).write_text(name)
    with AscendClient(api_url=f"local:{HERE / 'tools_policy.toml'}", agent_id="nightly-archive") as client:
        try:
            decision, files = ask(client)
        except AscendError as error:
            print(f"no decision, nothing done: {error}", file=sys.stderr)
            return FAILED
        if decision.is_pending():
            PLAN.write_text(json.dumps({"action_id": decision.action_id, "files": files}))
            print(f"a person has to approve action {decision.action_id} first: {decision.reason}")
            return UNDECIDED
        # Before anything is done: an approval is for one run.
        PLAN.unlink(missing_ok=True)
        if not decision.is_approved():
            print(f"refused: {decision.reason}")
            return REFUSED
        try:
            archive(files)
        except OSError as error:
            client.log_action_failed(decision.action_id, error)
            raise
        client.log_action_completed(decision.action_id, result={"archived": len(files)})
        print(f"archived {', '.join(files) or 'nothing'}")
        return DONE


if __name__ == "__main__":
    sys.exit(main())
