"""Clients of four kinds wait where a person has to approve, and send the very same request again."""

import asyncio
import base64
import json

import anyio
import httpx
import httpx2
import pytest
import requests

from ascend_middleware.agent import (
    ApprovalAdapter,
    ApprovalAuth,
    ApprovalDenied,
    ApprovalError,
    ApprovalExpired,
    ApprovalPaused,
    ApprovalTimeout,
    BodyNotRepeatable,
    resume,
)


def blocking(library):
    def client(options, **more):
        auth = ApprovalAuth(auth=library.BasicAuth("alice", "secret"), **options)
        return library.Client(auth=auth, **more)

    return client


def session(options, **more):
    found = requests.Session()
    found.auth = ("alice", "secret")
    found.mount("http://", ApprovalAdapter(**options))
    return found


class OnLoop:
    """An asynchronous client behind blocking methods, so that one test is for all."""

    def __init__(self, client):
        self.client = client
        self.runner = asyncio.Runner()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.runner.run(self.client.aclose())
        self.runner.close()

    def request(self, *args, **options):
        async def send():
            return await self.client.request(*args, **options)

        return self.runner.run(send())

    def post(self, *args, **options):
        return self.request("POST", *args, **options)


def on_loop(library):
    def client(options, **more):
        sleep = options.pop("sleep", None)

        async def sleep_async(seconds):
            sleep(seconds)

        if sleep is not None:
            options["sleep_async"] = sleep_async
        auth = ApprovalAuth(auth=library.BasicAuth("alice", "secret"), **options)
        return OnLoop(library.AsyncClient(auth=auth, **more))

    return client


CLIENTS = {
    "httpx2": blocking(httpx2),
    "httpx": blocking(httpx),
    "httpx2-async": on_loop(httpx2),
    "httpx-async": on_loop(httpx),
    "requests": session,
}


@pytest.fixture(params=CLIENTS)
def make(request):
    made = []

    def make(**options):
        made.append(CLIENTS[request.param](options))
        return made[-1].__enter__()

    yield make
    for one in made:
        one.__exit__(None, None, None)


def decided(authority, *, approved=True, after=3):
    """A sleep during which a person decides, the third time it is asked for; and what it was asked for."""
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        if len(waited) == after:
            authority.decide(approved=approved)

    return sleep, waited


def test_what_is_not_on_hold_is_one_request(make, site, ascend_authority):
    ascend_authority.approve()
    assert make().post(f"{site.url}/refunds", json={"amount": 5}).json() == {"refunded": True}
    assert len(site.ran) == len(ascend_authority.asked) == 1


def test_a_refusal_that_is_final_comes_back_as_it_is(make, site, ascend_authority):
    ascend_authority.deny(reason="too much")
    answer = make().post(f"{site.url}/refunds", json={"amount": 5})
    assert answer.status_code == 403
    assert answer.json()["detail"] == "too much"


def test_the_very_same_request_is_sent_again_once_a_person_has_approved(make, site, ascend_authority):
    ascend_authority.hold()
    sleep, waited = decided(ascend_authority)
    holds = []
    client = make(sleep=sleep, on_hold=holds.append)
    assert client.post(f"{site.url}/refunds", json={"amount": 5}).json() == {"refunded": True}
    ((body, credentials),) = site.ran
    assert json.loads(body) == {"amount": 5}
    assert credentials == httpx2.BasicAuth("alice", "secret")._auth_header
    assert waited == [1.0, 1.0, 1.0]
    assert [hold.state for hold in holds] == ["pending"] * 3
    assert holds[0].action_id
    assert holds[0].handle not in repr(holds[0])
    assert len(ascend_authority.asked) == 1


def test_a_denial_raises_and_nothing_runs(make, site, ascend_authority):
    ascend_authority.hold()
    sleep, _ = decided(ascend_authority, approved=False)
    with pytest.raises(ApprovalDenied, match="did not run") as raised:
        make(sleep=sleep).post(f"{site.url}/refunds", json={"amount": 5})
    assert raised.value.action_id
    assert site.ran == []


def test_after_the_whole_time_the_token_goes_on_waiting(make, site, ascend_authority):
    ascend_authority.hold()
    clock = iter(range(0, 10_000, 2))
    client = make(timeout=5, sleep=lambda _: None, clock=lambda: next(clock))
    with pytest.raises(ApprovalTimeout, match="within 5 s") as raised:
        client.post(f"{site.url}/refunds", json={"amount": 5})
    ascend_authority.decide()
    assert resume(client, raised.value.token).json() == {"refunded": True}
    assert len(ascend_authority.asked) == 1


def with_key(client):
    getattr(client, "client", client).headers["X-Api-Key"] = "owkai_live_key"
    return client


def test_a_paused_request_is_resumed_by_another_client(make, site, ascend_authority):
    ascend_authority.hold()
    with pytest.raises(ApprovalPaused, match="another process") as raised:
        with_key(make(pause=True)).post(f"{site.url}/refunds", json={"amount": 5})
    token = raised.value.token
    told = base64.urlsafe_b64decode(token)
    assert b'{"amount":5}' in told.replace(b" ", b"")
    assert b"owkai_live_key" not in told
    assert b"Basic" not in told
    # Nobody has decided yet: it is paused again, or waited for; and another caller's it is not.
    with pytest.raises(ApprovalPaused):
        resume(with_key(make(pause=True)), token)
    assert resume(make(pause=True), token).status_code == 409
    assert site.ran == []
    sleep, waited = decided(ascend_authority)
    assert resume(with_key(make(sleep=sleep)), token).json() == {"refunded": True}
    assert len(waited) == 3
    assert len(site.ran) == len(ascend_authority.asked) == 1


@pytest.mark.parametrize(
    ("state", "status", "error"),
    [("expired", 200, "expired"), ("used", 200, "used already"), ("unknown", 404, "does not know")],
)
def test_what_can_no_longer_be_approved_raises(state, status, error, forged):
    hold = {"handle": "h", "state": "pending", "status_url": "/forged-state", "expires_in": 5}
    forged["body"] = {"type": "urn:ascend:problem:approval-required", "approval": hold}
    with pytest.raises(ApprovalExpired, match=error):
        with httpx2.Client(transport=states(forged, state, status), auth=ApprovalAuth(sleep=lambda _: None)) as client:
            client.post("http://site/forged")


def states(forged, state, status):
    """A service that holds everything, and answers with one state."""

    def answer(request):
        if request.url.path == "/forged":
            return httpx2.Response(forged["status"], headers={"content-type": forged["type"]}, json=forged["body"])
        return httpx2.Response(status, json={"state": state})

    return httpx2.MockTransport(answer)


HOLD = {"handle": "h", "state": "pending", "status_url": "/s", "expires_in": 5}
REQUIRED = "urn:ascend:problem:approval-required"


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (200, "application/problem+json", {"type": REQUIRED, "approval": HOLD}),
        (403, "application/json", {"type": REQUIRED, "approval": HOLD}),
        (403, "application/problem+json", {"type": "urn:ascend:problem:denied", "approval": HOLD}),
        (403, "application/problem+json", {"type": REQUIRED}),
        (403, "application/problem+json", {"type": REQUIRED, "approval": {**HOLD, "handle": 1}}),
        (403, "application/problem+json", {"type": REQUIRED, "approval": {**HOLD, "handle": "a\r\nb"}}),
        (403, "application/problem+json", {"type": REQUIRED, "approval": {**HOLD, "status_url": None}}),
        (403, "application/problem+json", [REQUIRED]),
    ],
)
def test_other_answers_come_back_as_they_are(make, site, forged, status, kind, body):
    forged.update(status=status, type=kind, body=body)
    answer = make(sleep=None).post(f"{site.url}/forged")
    assert (answer.status_code, answer.json()) == (status, body)


@pytest.mark.parametrize("url", ["http://elsewhere.example/s", "https://127.0.0.1/s", "//elsewhere.example/s"])
def test_no_other_origin_is_asked(make, site, forged, url):
    forged["body"] = {"type": REQUIRED, "approval": {**HOLD, "status_url": url}}
    with pytest.raises(ApprovalError, match="another origin"):
        make(sleep=None).post(f"{site.url}/forged")


def test_a_service_that_contradicts_itself_is_not_asked_for_ever(make, site, forged):
    forged["body"] = {"type": REQUIRED, "approval": {**HOLD, "state": "approved"}}
    assert make(sleep=None).post(f"{site.url}/forged").status_code == 403


def test_a_body_that_can_be_sent_once_only_is_refused_before_it_is_sent(make, site):
    is_async = isinstance(client := make(), OnLoop)

    def parts():
        yield b"{}"

    async def parts_async():
        yield b"{}"

    body = "data" if isinstance(client, requests.Session) else "content"
    with pytest.raises(BodyNotRepeatable, match="POST /refunds"):
        client.post(f"{site.url}/refunds", **{body: parts_async() if is_async else parts()})
    assert site.ran == []


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_an_answer_that_streams_is_left_to_stream(site, library):
    with library.Client(auth=ApprovalAuth()) as client, client.stream("GET", f"{site.url}/stream") as answer:
        assert next(answer.iter_bytes()) == b"first"


def test_a_callback_may_be_asynchronous(site, ascend_authority):
    ascend_authority.hold()
    told = []

    async def on_hold(hold):
        await anyio.sleep(0)
        told.append(hold.detail)
        ascend_authority.decide()

    async def main():
        auth = ApprovalAuth(on_hold=on_hold, sleep_async=nothing)
        async with httpx2.AsyncClient(auth=auth) as client:
            return await client.post(f"{site.url}/refunds", json={"amount": 5})

    async def nothing(_): ...

    assert asyncio.run(main()).json() == {"refunded": True}
    assert len(told) == 1
    assert "A person has to approve" in told[0]


@pytest.mark.parametrize("token", ["", "x", "AAAA", "kgE", "lgGjR0VUo2EvYZDEAKFo0000"])
def test_what_is_no_token_is_said(token):
    with pytest.raises(ValueError, match="no token"):
        resume(None, token)


@pytest.mark.parametrize("timeout", [-1, float("inf"), float("nan")])
def test_the_whole_time_is_a_number_of_seconds(timeout):
    with pytest.raises(ValueError, match="seconds"):
        ApprovalAuth(timeout=timeout)
