"""Approvals by hand: what Alice asks for, what is held of it, and what becomes of it."""

from . import asgi
from .asgi import JSON

REFUND = {
    "name": "refund",
    "match": "POST /refunds/{id}",
    "action_type": "transaction",
    "details": {"amount": "body.amount", "channel": "header.x-channel?"},
}
UPLOAD = {"name": "upload", "match": "PUT /files/{name:path}", "action_type": "data_modification"}
BODY = b'{"amount": 5, "note": "a"}'


def guarded(app, rules=(REFUND, UPLOAD), **settings):
    return asgi.guard(app, rules, **settings)


async def ask(
    app, handle=None, *, path="/refunds/7", method="POST", body=BODY, headers=JSON, host="site", who="alice", **more
):
    """Make one request; `who` is the caller by the credentials that are sent along, None for an unknown one."""
    given = [("host", host), *headers, *([("authorization", f"Bearer {who}")] if who else [])]
    if handle is not None:
        given.append(("ascend-approval", handle))
    return await asgi.ask(app, path, method, body=body, headers=given, **more)


async def held(app, **more):
    wire = await ask(app, **more)
    assert (wire.status, wire.problem) == (403, "approval-required"), wire.body
    return wire.json["approval"]["handle"]


async def approved(app, authority, **more):
    """Let a request be held and then approved; return its handle."""
    handle = await held(app, **more)
    authority.decide("approved")
    return handle


async def status(app, handle):
    wire = await asgi.get(app, f"/.ascend/approvals/{handle}")
    return wire.status, wire.json["state"]
