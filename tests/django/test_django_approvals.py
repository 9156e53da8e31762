"""A held action in Django: refused with a handle, resumed once, its state told."""

import json

from django_kit import problem

REFUND = "/customers/7/refunds"
BODY = json.dumps({"amount": 5})


def refund(site, handle=None, body=BODY):
    headers = {} if handle is None else {"Ascend-Approval": handle}
    return site.ask("POST", REFUND, data=body, content_type="application/json", headers=headers)


def test_held_resumed_once_and_told(site, ran):
    site.authority.hold()
    answer = refund(site)
    assert (answer.status_code, problem(answer)) == (403, "approval-required")
    approval = answer.json()["approval"]
    assert answer.headers["Location"] == approval["status_url"]
    told = site.ask("GET", approval["status_url"])
    assert (told.status_code, told.json()) == (200, {"state": "pending"})
    site.authority.decide()
    assert problem(refund(site, approval["handle"], json.dumps({"amount": 6}))) == "approval-mismatch"
    resumed = refund(site, approval["handle"])
    assert resumed.status_code == 200, resumed.content
    assert problem(refund(site, approval["handle"])) == "approval-used"
    assert site.ask("GET", approval["status_url"]).json() == {"state": "used"}
    assert site.outcomes() == {"1": "completed"}
