"""No error path of a client tells its key, its proxy's password or a submitted password, however much is logged."""

import contextlib
import gc

import pytest
from kit.clients import PARTIES, run
from kit.misbehaviour import BODIES, CONTENTS, LINES, SLOW, STATUSES
from kit.scripted import APPROVED, HANG, PENDING, Scripted, http
from leak_net import KEY, PASSWORD, Net

from ascend_middleware import exceptions as errors
from ascend_middleware.api.models import AuthorizationDecision, ConnectionStatus, Record
from ascend_middleware.client import AscendClient, AsyncAscendClient
from ascend_middleware.config import Settings
from ascend_middleware.mcp import mcp_governance

ACTION = {
    "agent_id": "a",
    "action_type": "data_access",
    "resource": "r",
    "action_details": {"password": PASSWORD, "nested": [{"secret": PASSWORD}]},
}

# An authority that repeats what it was told, wherever it can.
ECHO = {"detail": f"unknown key {KEY}", "message": f"password={PASSWORD}", "password": PASSWORD}
ENVELOPE = {
    "status": "error",
    "error": {"code": "X", "message": f"no such key: {KEY}", "details": {"field": "password", "api_key": KEY}},
}
HEADERS = (f"X-Echo: {KEY}", f"X-Correlation-ID: {KEY}", f"Location: https://u:{PASSWORD}@x.example/?api_key={KEY}")
ECHOES = {
    **{f"{status} echo": http(status, ECHO, *HEADERS) for status in (301, 400, 401, 403, 404, 409, 418, 422, 500)},
    **{f"{status} envelope": http(status, ENVELOPE, *HEADERS) for status in (200, 400, 401, 403, 422, 503)},
    "422 list": http(422, {"detail": [{"loc": ["body", "password"], "msg": f"password: {PASSWORD}", "input": KEY}]}),
    "429": http(429, ECHO, "Retry-After: 0", f"X-RateLimit-Limit: {KEY}"),
    "403 killed": http(403, {"detail": {"code": "AGENT_BLOCKED", "message": f"blocked {KEY}"}}),
    "403 governance": http(403, {"detail": {"error": "governance violation", "detail": f"unregistered {KEY}"}}),
    "word": http(200, {"action_id": "7", "status": KEY}),
    "id": http(200, {"action_id": f"{KEY} {KEY}", "status": "approved"}),
    "html": http(200, f"<html>{KEY}".encode()),
    "no http": f"what is {KEY}\r\n\r\n".encode(),
    "header": f"HTTP/1.1 200 OK\r\n{KEY}\r\nX-API-Key: {KEY}\r\nConnection: close\r\n\r\n".encode(),
    "status line": f"HTTP/1.1 {KEY} OK\r\nConnection: close\r\n\r\n".encode(),
}
TABLE = {
    **ECHOES,
    **{name: answer for name, (answer, _) in {**STATUSES, **LINES}.items()},
    **{name: http(200, body) for name, (body, _) in list(BODIES.items())[:4]},
    **{name: http(200, content) for name, (content, _) in list(CONTENTS.items())[:4]},
}

CALLS = (
    lambda client: client.submit_action(ACTION),
    lambda client: client.wait_for_decision("7", 0, poll_interval=0.01),
    lambda client: client.log_action_failed("7", f"password={PASSWORD}"),
    lambda client: client.test_connection(),
)


# One party of each engine in the quick tier: about seventy answers are a lot of lines in a log.
EACH = [
    pytest.param(party, marks=[] if party in ("sync auto", "async auto") else [pytest.mark.slow]) for party in PARTIES
]


def drive(net, party, url, call, *, echoes=False, **options):
    try:
        result = run(party, url, call, api_key=KEY, debug=True, **options)
    except errors.AscendError as error:
        net.look_at_error(error, key_in_locals=None if echoes else KEY)
    else:
        if not isinstance(result, Record) or isinstance(result, AuthorizationDecision | ConnectionStatus):
            net.look("result", f"{result!r} {result}")


@pytest.mark.parametrize("party", EACH)
def test_answers(party):
    with Net() as net:
        for name, answer in TABLE.items():
            with Scripted(answer) as server:
                for call in CALLS if name in ECHOES else CALLS[:1]:
                    drive(net, party, server.url, call, echoes=name in ECHOES)
    assert net.records > 50
    assert net.found == []


@pytest.mark.parametrize("party", EACH[:1] + [pytest.param(party, marks=pytest.mark.slow) for party in PARTIES[1:]])
def test_lines_that_are_down_slow_or_not_to_be_trusted(party, tmp_path):
    with Scripted() as server:
        down = server.url
    junk = tmp_path / "ca.pem"
    junk.write_text(f"-----BEGIN CERTIFICATE-----\n{KEY}\n-----END CERTIFICATE-----\n")
    with Net() as net, Scripted(APPROVED) as plain:
        drive(net, party, down, CALLS[0], max_retries=1)
        drive(net, party, down, CALLS[0], fail_mode="open")
        drive(net, party, plain.url.replace("http:", "https:"), CALLS[0], timeout=2)
        drive(net, party, "https://no-such-host.invalid", CALLS[0], timeout=1)
        for step in [SLOW["trickles the head"], HANG]:
            with Scripted(step) as slow:
                drive(net, party, slow.url, CALLS[0], timeout=0.1)
        with Scripted(PENDING) as held:
            drive(
                net,
                party,
                held.url,
                lambda client: client.evaluate_action("t", "r", {"password": PASSWORD}, timeout=0.05),
            )
        if not party.endswith("own"):
            proxy = f"http://user:{PASSWORD}@127.0.0.1:{down.rpartition(':')[2]}"
            drive(net, party, plain.url, CALLS[0], proxy=proxy)
            drive(net, party, "https://no-such-host.invalid", CALLS[0], proxy=proxy, timeout=1)
            with Scripted(http(407, ECHO, *HEADERS)) as refusing:
                through = f"http://user:{PASSWORD}@{refusing.url.removeprefix('http://')}"
                drive(net, party, "https://no-such-host.invalid", CALLS[0], proxy=through, timeout=1)
                drive(net, party, plain.url, CALLS[0], proxy=through, timeout=1)
            with contextlib.suppress(errors.ConfigurationError):
                drive(net, party, "https://no-such-host.invalid", CALLS[0], ca_file=str(junk), timeout=1, echoes=True)
    assert net.found == []


@pytest.mark.parametrize("cls", [AscendClient, AsyncAscendClient])
def test_construction_and_arguments(cls):
    bad = [
        {"api_key": f"{KEY}\nX: y"},
        {"api_key": f"{KEY} "},
        {"api_key": f"é{KEY}"},
        {"api_key": KEY.removeprefix("owkai_")},
        {"api_key": ["LEAKKEY"]},
        {"api_url": f"https://user:{PASSWORD}@a.example"},
        {"api_url": f"http://a.example/?api_key={KEY}"},
        {"api_url": f"https://a.example/?password={PASSWORD}"},
        {"proxy": f"user:{PASSWORD}@proxy"},
        {"proxy": f"ftp://user:{PASSWORD}@proxy"},
        {"proxy": f"http://user:{PASSWORD}@"},
        {"engine": "none"},
        {"timeout": -1},
        {"trust_env": "maybe"},
    ]
    with Net() as net:
        for options in bad:
            try:
                cls(**{"api_key": KEY, "api_url": "http://localhost:1", **options})
            except (errors.AscendError, TypeError) as error:
                net.look_at_error(error, str(list(options)))
        client = cls(KEY, api_url="http://localhost:1", agent_id="a", proxy=f"http://user:{PASSWORD}@localhost:1")
        net.look("repr", f"{client!r} {client.settings!r} {client.core!r} {client.kill!r} {client._engine!r}")
        core = client.core
        flow = core.submit(client._action(ACTION, {}))
        step = next(flow)
        net.look("step", f"{step!r} {step.request!r} {flow!r}")
        flow.close()
        del client, core, flow, step
        gc.collect()
    assert net.found == []


def test_settings_show_no_secret():
    settings = Settings(api_key=KEY, proxy=f"http://user:{PASSWORD}@proxy:3128")
    with Net() as net:
        net.look("repr", repr(settings))
    assert net.found == []


def test_tools():
    class Engine:
        def send(self, request, timeout):
            from ascend_middleware.client import Response

            return Response(403, {}, b'{"detail": "no ' + KEY.encode() + b'"}')

        def close(self):
            pass

    with Net() as net, AscendClient(KEY, api_url="http://localhost:1", agent_id="a", engine=Engine()) as client:

        @mcp_governance(client, "t", "r", metadata={"token": KEY})
        def tool(password, options):
            pytest.fail("it ran")

        for arguments in ((PASSWORD, {"secret": PASSWORD}), (PASSWORD, object()), (PASSWORD, {"password": object()})):
            with pytest.raises(errors.AscendError) as caught:
                tool(*arguments)
            net.look("text", f"{caught.value!r} {caught.value} {vars(caught.value)}")
    assert net.found == []
