"""An agent that calls a governed service, and waits where a person has to decide.

    python approval_loop.py http://127.0.0.1:8000/customers/7/refunds '{"amount": 5000, "currency": "EUR"}'

An approval is for one request, once: it repeats the same request with the handle as soon as that is approved.
"""

import json
import sys
import time
from collections.abc import Callable
from urllib.parse import urljoin

import httpx2


class Refused(Exception):  # noqa: N818 - says what happened
    """The action does not run; the text says why."""


def act(
    client: httpx2.Client,
    url: str,
    body: dict[str, object],
    *,
    patience: float = 300.0,
    sleep: Callable[[float], None] = time.sleep,
) -> httpx2.Response:
    """Send the request; if a person has to approve it, wait for that and send it again."""
    content = json.dumps(body).encode()  # once, so that the second request is the first one's bytes
    headers = {"content-type": "application/json"}
    answer = client.post(url, content=content, headers=headers)
    problem = problem_of(answer)
    if problem is None or not problem["type"].endswith(":approval-required") or "approval" not in problem:
        return settled(answer, problem)
    approval = problem["approval"]
    until = time.monotonic() + min(patience, approval["expires_in"])
    while time.monotonic() < until:
        told = client.get(urljoin(url, approval["status_url"]))
        state = told.json()["state"]
        if state == "approved":
            answer = client.post(url, content=content, headers={**headers, "ascend-approval": approval["handle"]})
            return settled(answer, problem_of(answer))
        if state != "pending":
            raise Refused(f"the approval is {state}")
        sleep(float(told.headers.get("retry-after", "1")))
    raise Refused("nobody decided in time; the same request with the same credentials finds the same approval later")


def problem_of(answer: httpx2.Response) -> dict[str, object] | None:
    """Return the problem body of a refusal, or None for any other answer."""
    is_problem = answer.headers.get("content-type", "").startswith("application/problem+json")
    return answer.json() if is_problem else None


def settled(answer: httpx2.Response, problem: dict[str, object] | None) -> httpx2.Response:
    """Return an answer that is not a refusal."""
    if problem is not None:
        # 409 approval-used tells what became of the run whose answer was lost: completed, failed or unknown.
        outcome = f" ({problem['outcome']})" if "outcome" in problem else ""
        raise Refused(f"{problem['title']}: {problem['detail']}{outcome}")
    return answer


if __name__ == "__main__":
    with httpx2.Client(timeout=60) as http:
        try:
            print(act(http, sys.argv[1], json.loads(sys.argv[2])).text)
        except Refused as refusal:
            sys.exit(str(refusal))
