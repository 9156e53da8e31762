"""The middleware on trio: the same steps, other sleeps, threads and time limits."""

import json

import anyio
import pytest

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.testing import ScriptedAuthority

RULES = {"rule": [{"match": "POST /pay", "action_type": "pay", "details": {"amount": "body.amount"}}]}


class Wire:
    """One request of a server on trio: messages that come when they are sent, and what was answered."""

    def __init__(self):
        self._send, self._receive = anyio.create_memory_object_stream(10)
        self.answer = []

    def comes(self, body=b"", *, more=False, gone=False):
        kind = {"type": "http.disconnect"} if gone else {"type": "http.request", "body": body, "more_body": more}
        self._send.send_nowait(kind)

    async def ask(self, app):
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/pay", "raw_path": b"/pay", "query_string": b""}
        scope |= {"headers": headers, "root_path": "", "extensions": {}}

        async def send(message):
            self.answer.append(message)

        with self._send, self._receive:
            await app(scope, self._receive.receive, send)

    @property
    def status(self):
        return self.answer[0]["status"]


@pytest.fixture
def world(tmp_path):
    ran = []

    async def handler(scope, receive, send):
        body, message = b"", {"more_body": True}
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        ran.append(json.loads(body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with ScriptedAuthority() as authority:

        def guarded(**settings):
            given = {"state": str(tmp_path / "state.db"), "journal": str(tmp_path / "journal"), "kill_switch": "off"}
            given |= {"api_url": authority.api_url, "agent_id": "a", "poll_interval": 0.01, **settings}
            return AscendMiddleware(handler, rules=RULES, **given)

        yield authority, guarded, ran


def on_trio(main):
    return anyio.run(main, backend="trio")


def test_allowed_runs_with_its_body_and_denied_does_not(world):
    authority, guarded, ran = world
    authority.approve(times=1)

    async def main():
        app, allowed, denied = guarded(), Wire(), Wire()
        allowed.comes(b'{"amo', more=True)
        allowed.comes(b'unt":1}')
        await allowed.ask(app)
        denied.comes(b'{"amount":2}')
        await denied.ask(app)
        await app.aclose()
        return allowed.status, denied.status

    assert on_trio(main) == (200, 403)
    assert ran == [{"amount": 1}]
    assert list(authority.outcomes.values()) == ["completed"]


@pytest.mark.parametrize(
    ("answer", "settings", "parts", "leaves", "told"),
    [
        ("approve", {"pending": "wait:5s"}, [(b'{"amount":1}', False)], False, (200, [{"amount": 1}])),
        ("hold", {"pending": "wait:30s"}, [(b'{"amount":1}', False)], True, (None, [])),
        ("hold", {"body_timeout": 0.05}, [(b'{"amo', True)], False, (408, [])),
    ],
    ids=["held until it is approved", "the client leaves", "the body does not end"],
)
def test_a_request_that_waits_ends(world, answer, settings, parts, leaves, told):
    authority, guarded, ran = world
    authority.hold(then="approve", polls=3) if answer == "approve" else authority.hold()

    async def main():
        app, wire = guarded(**settings), Wire()
        for body, more in parts:
            wire.comes(body, more=more)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(wire.ask, app)
                if leaves:
                    await anyio.sleep(0.05)
                    wire.comes(gone=True)
        await app.aclose()
        return wire.status if wire.answer else None

    assert (on_trio(main), ran) == told


def test_a_cancelled_request_leaves_no_open_entry(world):
    authority, guarded, ran = world
    authority.hold()

    async def main():
        app, wire = guarded(pending="wait:30s"), Wire()
        wire.comes(b'{"amount":1}')
        with anyio.move_on_after(0.1) as scope:
            await wire.ask(app)
        await app.aclose()
        return scope.cancelled_caught

    assert on_trio(main)
    assert ran == []
