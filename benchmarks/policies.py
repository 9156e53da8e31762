"""What a submission costs the embedded authority with few and with many policies in CEL; prints JSON, in seconds."""

from __future__ import annotations

import json
import sys
import time

from ascend_middleware.authority import Authority, Role, Store, parse_policy

SIZES = (10, 1_000)
PER_ROUND = 20


def policy(size: int) -> str:
    """Return a policy file: half of the conditions are for an action type, half for an agent; the last one approves."""
    lines = ["[limits]\nsubmit = 0\n"]
    for number in range(size - 1):
        kinds, agent = (
            (f'action_types = ["kind_{number}"]', "") if number % 2 else ("", f"action.agent_id == 'a{number}' && ")
        )
        when = f"{agent}has(action.action_details.amount) && action.action_details.amount > {number}"
        lines.append(f'[[policy]]\nname = "p{number}"\n{kinds}\nwhen = "{when}"\ndecision = "denied"\n')
    lines.append('[[policy]]\nname = "reads"\naction_types = ["data_access"]\nwhen = "size(action.resource) < 200"\n')
    return "\n".join([*lines, 'decision = "approved"\n'])


def main() -> None:
    """Measure in turns, the quickest round of each counts."""
    desks = {}
    for size in SIZES:
        store = Store.open(":memory:", now=time.time)
        desks[size] = (
            Authority(store, parse_policy(policy(size)), now=time.time),
            store.issue_key(name="bench", role=Role.USER, tenant="default"),
        )
    body = {"agent_id": "a", "agent_name": "A", "action_type": "data_access", "resource": "customer 7"}
    content = json.dumps({**body, "action_details": {"amount": 5}}).encode()
    best: dict[str, float] = {}
    for turn in range(5 if "--quick" in sys.argv else 40):
        for size, (authority, key) in desks.items():
            began = time.process_time()
            for _ in range(PER_ROUND):
                status, _, answer = authority.handle(
                    "POST", "/api/v1/actions/submit", "", {"x-api-key": key}, content, client="127.0.0.1"
                )
                if status != 200 or b'"approved"' not in answer:
                    raise SystemExit(f"answered with {status}: {answer!r}")
            took = (time.process_time() - began) / PER_ROUND
            if turn:
                best[str(size)] = min(best.get(str(size), took), took)
    print(json.dumps(best))


if __name__ == "__main__":
    main()
