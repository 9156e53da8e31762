"""What became of an allowed action reaches the authority."""

import asyncio

import httpx2
import pytest
from fastapi import FastAPI
from kit.desk import local_authority
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from ascend_middleware import AscendClient
from ascend_middleware.asgi import AscendMiddleware


async def outcomes(tmp_path, paths, *, decision="approved", **settings):
    url = local_authority(tmp_path, decision)
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


class Limiter:
    """A middleware of a route, or of a mounted application, that answers by itself when it is told to."""

    answers = None

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or Limiter.answers is None:
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse("by itself", Limiter.answers)(scope, receive, send)


class Passing(Limiter):
    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/behind", "/below/behind", "/deep/below/behind", "/plain"])
async def test_what_a_routes_own_middleware_answers_is_no_run(ran, ascend_authority, monkeypatch, path):
    """Where a middleware stands behind the decision, it is seen whether the request came to the endpoint."""

    async def endpoint(request):
        ran.append(True)
        return PlainTextResponse("done")

    route = Route("/behind", endpoint, middleware=[Middleware(Limiter)])
    below = Starlette(routes=[Route("/behind", endpoint)], middleware=[Middleware(Limiter)])
    mount = Mount("/below", below)
    deep = Starlette(routes=[mount], middleware=[Middleware(Passing)])
    app = Starlette(routes=[route, mount, Mount("/deep", deep), Route("/plain", endpoint)])
    guarded = AscendMiddleware(app)
    ascend_authority.hold()
    transport = httpx2.ASGITransport(app=guarded)
    async with httpx2.AsyncClient(transport=transport, base_url="http://site") as client:
        given = {"ascend-approval": (await client.get(path)).json()["approval"]["handle"]}
        ascend_authority.decide()
        statuses = []
        for answers in (401, 302, None, None):
            monkeypatch.setattr(Limiter, "answers", answers if path != "/plain" else None)
            statuses.append((await client.get(path, headers=given)).status_code)
    assert statuses == ([401, 302, 200, 409] if path != "/plain" else [200, 409, 409, 409])
    assert ran == [True]
    await guarded.aclose()
    ends = [asked for asked in ascend_authority.requests if asked.path.endswith(("/complete", "/fail"))]
    told = [end.body.get("error") for end in ends]
    lost = [f"the handler did not run: the application answered {status}" for status in (401, 302)]
    returned = [f"{text}; the approval was given back ({count} of 3)" for count, text in enumerate(lost, 1)]
    assert told == ([*returned, None] if path != "/plain" else [None])


class Early(Limiter):
    """Answers at once, and runs what it stands around afterwards."""

    async def __call__(self, scope, receive, send):
        async def nowhere(message): ...

        if scope["type"] == "http":
            await PlainTextResponse("queued", 202)(scope, receive, send)
        await self.app(scope, receive, nowhere)


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/behind", "/below/behind"])
async def test_what_was_reported_not_to_have_run_does_not_run_behind_its_answer(ran, ascend_authority, path):
    async def endpoint(request):
        ran.append(True)
        return PlainTextResponse("done")

    below = Starlette(routes=[Route("/behind", endpoint)], middleware=[Middleware(Early)])
    guarded = AscendMiddleware(
        Starlette(routes=[Route("/behind", endpoint, middleware=[Middleware(Early)]), Mount("/below", below)])
    )
    ascend_authority.hold()
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=guarded), base_url="http://site") as client:
        given = {"ascend-approval": (await client.get(path)).json()["approval"]["handle"]}
        ascend_authority.decide()
        # Answered with a success, so the approval is used: whoever answers so may have done what the handler does.
        assert [(await client.get(path, headers=given)).status_code for _ in range(2)] == [202, 409]
    assert ran == []
    await guarded.aclose()


@pytest.mark.anyio
async def test_nothing_is_reported_of_what_was_only_observed(tmp_path, caplog):
    statuses, (record,) = await outcomes(tmp_path, ["/good"], decision="denied", mode="observe")
    assert statuses == [200]
    assert not any("COMPLETED" in event.upper() for event in trail(record))
    assert "not delivered" not in caplog.text


@pytest.mark.anyio
async def test_reports_can_be_switched_off(tmp_path):
    _, (record,) = await outcomes(tmp_path, ["/good"], report_outcomes=False)
    assert not any("COMPLETED" in event.upper() for event in trail(record))
