"""What became of an allowed action reaches the authority."""

import asyncio

import httpx2
import pytest
from fastapi import FastAPI

from ascend_middleware import AscendClient
from ascend_middleware.asgi import AscendMiddleware

POLICY = '[[policy]]\nname = "all"\naction_types = ["*"]\ndecision = "approved"\n'
DENYING = '[[policy]]\nname = "none"\naction_types = ["*"]\ndecision = "denied"\n'


async def outcomes(tmp_path, paths, *, policy=POLICY, **settings):
    file = tmp_path / "policy.toml"
    file.write_text(policy)
    url = f"local:{file}"
    app = FastAPI()

    @app.get("/good")
    async def good():
        return {}

    @app.get("/bad")
    async def bad():
        raise RuntimeError("owkai_secret_0123456789 went wrong")

    guarded = AscendMiddleware(app, api_url=url, agent_id="a", **settings)
    transport = httpx2.ASGITransport(app=guarded, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://site") as client:
        statuses = [(await client.get(path)).status_code for path in paths]
    await guarded.aclose()
    with AscendClient(api_url=url, agent_id="a") as asking:
        records = [asking.get_action(row.action_id) for row in asking.list_actions(limit=50).actions]
    return statuses, sorted(records, key=lambda record: int(record.action_id))


def trail(record):
    return [entry["event"] for entry in record["audit_trail"]]


@pytest.mark.anyio
async def test_completion_and_failure_are_reported_in_order(tmp_path):
    statuses, (first, second) = await outcomes(tmp_path, ["/good", "/bad"])
    assert statuses == [200, 500]
    assert any("COMPLETED" in event.upper() for event in trail(first)), trail(first)
    assert any("FAILED" in event.upper() for event in trail(second)), trail(second)
    assert "RuntimeError" in str(second.to_dict())
    assert "owkai_secret" not in str(second.to_dict())


class TestWhatBecameOfIt:
    """Message by message: what the authority is told of one run."""

    START = "http.response.start"
    SHAKE = "websocket.http.response"

    @pytest.mark.anyio
    @pytest.mark.parametrize(
        ("messages", "error"),
        [
            ([{"type": START, "status": 200}, {"type": "http.response.body"}], None),
            ([{"type": START, "status": 302}, {"type": "http.response.body"}], None),
            ([{"type": START, "status": 200}, {"type": "http.response.pathsend", "path": "/etc/hostname"}], None),
            ([{"type": START, "status": 200}, {"type": "http.response.zerocopysend", "file": 1}], None),
            (
                [{"type": START, "status": 200}, {"type": "http.response.zerocopysend", "file": 1, "more_body": True}],
                "the stream broke",
            ),
            ([{"type": START, "status": 200}, {"type": "http.response.body", "more_body": True}], "the stream broke"),
            ([{"type": START, "status": 400}, {"type": "http.response.body"}], "the application answered 400"),
            ([{"type": START, "status": 500}, {"type": "http.response.body"}], "the application answered 500"),
            ([], "the handler gave no answer"),
            ([{"type": "websocket.accept"}, {"type": "websocket.close"}], None),
            ([{"type": "websocket.close"}], "the application answered 403"),
            (
                [{"type": f"{SHAKE}.start", "status": 401}, {"type": f"{SHAKE}.body", "body": b""}],
                "the application answered 401",
            ),
        ],
    )
    async def test_a_run(self, ascend_authority, messages, error):
        async def app(scope, receive, send):
            for message in messages:
                await send(message)

        assert await self.told(ascend_authority, app, websocket="websocket" in str(messages)) == error

    @pytest.mark.anyio
    @pytest.mark.parametrize(
        ("before", "failure", "error"),
        [
            ([], OSError("disk"), "the handler raised OSError"),
            ([{"type": START, "status": 200}], OSError("disk"), "the stream broke: the handler raised OSError"),
            ([], asyncio.CancelledError(), "the handler was interrupted"),
        ],
    )
    async def test_a_run_that_raises(self, ascend_authority, before, failure, error):
        async def app(scope, receive, send):
            for message in before:
                await send(message)
            raise failure

        with pytest.raises(type(failure)):
            await self.told(ascend_authority, app)
        assert self.error(ascend_authority) == error

    @pytest.mark.anyio
    async def test_a_client_to_whom_nothing_can_be_sent_has_left(self, ascend_authority):
        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200})

        async def send(message):
            raise OSError("gone")

        with pytest.raises(OSError, match="gone"):
            await self.told(ascend_authority, app, send=send)
        assert self.error(ascend_authority) == "the client left (OSError)"

    async def told(self, authority, app, *, websocket=False, send=None):
        async def nowhere(message): ...

        async def receive():
            return {"type": "http.request", "body": b""}

        authority.approve()
        guarded = AscendMiddleware(app)
        scope = {"type": "websocket" if websocket else "http", "path": "/", "raw_path": b"/", "headers": []}
        try:
            await guarded({**scope, "method": "GET", "query_string": b""}, receive, send or nowhere)
        finally:
            await guarded.aclose()
        return self.error(authority)

    def error(self, authority):
        (end,) = (asked for asked in authority.requests if asked.path.endswith(("/complete", "/fail")))
        return end.body.get("error")


@pytest.mark.anyio
async def test_nothing_is_reported_of_what_was_only_observed(tmp_path, caplog):
    statuses, (record,) = await outcomes(tmp_path, ["/good"], policy=DENYING, mode="observe")
    assert statuses == [200]
    assert not any("COMPLETED" in event.upper() for event in trail(record))
    assert "not delivered" not in caplog.text


@pytest.mark.anyio
async def test_reports_can_be_switched_off(tmp_path):
    _, (record,) = await outcomes(tmp_path, ["/good"], report_outcomes=False)
    assert not any("COMPLETED" in event.upper() for event in trail(record))
