"""An agent that calls a governed service, and waits where a person has to decide.

python approval_loop.py http://127.0.0.1:8000/customers/7/refunds '{"amount": 5000, "currency": "EUR"}'
"""

import json
import sys

import httpx2

from ascend_middleware.agent import ApprovalAuth, ApprovalError, Hold

told = set()


def tell(hold: Hold) -> None:
    """Say once what is waited for; this is called before each wait."""
    if hold.handle not in told:
        told.add(hold.handle)
        print(f"{hold.detail} (action {hold.action_id})", file=sys.stderr)


def main(url: str, body: str, auth: ApprovalAuth) -> int:
    """Send the request, and print what became of it."""
    with httpx2.Client(timeout=60, auth=auth) as client:
        try:
            answer = client.post(url, json=json.loads(body))
        except ApprovalError as error:
            print(error, file=sys.stderr)
            return 1
    print(answer.text)
    return 0 if answer.is_success else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3], ApprovalAuth(timeout=300, on_hold=tell)))
