"""What became of an allowed action reaches the authority: when the view returned, or when its stream ended."""

import asyncio
import contextlib
import threading

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import AsyncRequestFactory, RequestFactory, override_settings
from django_kit import Site

from ascend_middleware.django import configuration


def told(site):
    """The outcomes with what was said of them, in order."""
    site.outcomes()
    ends = [asked for asked in site.authority.requests if asked.path.endswith(("/complete", "/fail"))]
    return [(asked.path.rpartition("/")[2], str(dict(asked.body))) for asked in ends]


@pytest.mark.parametrize(
    ("path", "status", "word", "text"),
    [
        ("/customers/7", 200, "complete", ""),
        ("/missing", 404, "fail", "the handler answered 404"),
        ("/boom", 500, "fail", "the handler raised RuntimeError"),
        ("/unavailable", 503, "fail", "the handler answered 503"),
        ("/parts", 200, "complete", ""),
        ("/file", 200, "complete", ""),
    ],
)
def test_the_outcome_is_reported(site, ran, path, status, word, text):
    assert site.ask("GET", path).status_code == status
    ((said, body),) = told(site)
    assert said == word
    assert text in body
    assert "owkai_secret" not in body


ANSWERS = [{"match": "POST /answers/{status}", "action_type": "x"}]


@pytest.mark.parametrize(
    ("status", "told_"),
    [
        (204, "complete"),
        (302, "complete"),
        (399, "complete"),
        (400, "fail"),
        (403, "fail"),
        (429, "fail"),
        (500, "fail"),
    ],
)
def test_the_status_tells_whether_it_was_done(site, ran, ascend, status, told_):
    ascend(ANSWERS)
    assert site.ask("POST", f"/answers/{status}").status_code == status
    ((said, body),) = told(site)
    assert (said, f"the handler answered {status}" in body) == (told_, told_ == "fail")


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("/answers/429?later", [429, 429, 429, 429, 409]),
        ("/answers/503?later", [503, 503, 503, 503, 409]),
        ("/answers/429", [429, 409]),
        ("/answers/302", [302, 409]),
        ("/answers/500?later", [500, 409]),
    ],
)
def test_an_approval_of_what_the_application_put_off_is_given_back(site, ran, ascend, path, statuses):
    ascend(ANSWERS)
    site.authority.hold()
    handle = site.ask("POST", path).json()["approval"]["handle"]
    site.authority.decide()
    given = {"headers": {"Ascend-Approval": handle}}
    assert [site.ask("POST", path, **given).status_code for _ in statuses] == statuses


@pytest.mark.parametrize(
    ("path", "outcome"),
    [
        ("/customers/7", "completed"),
        ("/missing", "failed"),
        ("/parts", "completed"),
        ("/async/parts", "completed"),
        ("/parts?broken", "failed"),
        ("/async/parts?broken", "failed"),
    ],
)
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_whoever_asks_again_with_a_used_approval_is_told_what_became_of_it(site, ran, path, outcome):
    site.authority.hold()
    handle = site.ask("GET", path).json()["approval"]["handle"]
    site.authority.decide()
    given = {"headers": {"Ascend-Approval": handle}}
    with pytest.raises(OSError, match="broken") if path.endswith("?broken") else contextlib.nullcontext():
        site.ask("GET", path, **given)
    again = site.ask("GET", path, **given)
    assert (again.status_code, again.json()["outcome"], len(ran)) == (409, outcome, 1)


def test_a_view_that_is_interrupted(site, ran, ascend):
    """By a server that stops, or on an event loop because the client has left."""
    path, error = {"wsgi": ("/interrupted", SystemExit), "asgi": ("/async/interrupted", asyncio.CancelledError)}[
        site.kind
    ]
    ascend([{"match": f"POST {path}", "action_type": "x"}])
    with pytest.raises(error):
        site.ask("POST", path)
    ((said, body),) = told(site)
    assert (said, "the handler was interrupted" in body, len(ran)) == ("fail", True, 1)


def test_an_asynchronous_stream(site, ran):
    if site.kind == "wsgi":
        with pytest.warns(Warning, match="asynchronous iterators"):
            answer = site.ask("GET", "/async/parts")
    else:
        answer = site.ask("GET", "/async/parts")
    assert answer.parts == [b"one", b"two"]
    assert [said for said, _ in told(site)] == ["complete"]


@pytest.mark.parametrize("path", ["/parts?broken", "/async/parts?broken"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_a_stream_that_breaks(site, ran, path):
    with pytest.raises(OSError, match="broken"):
        site.ask("GET", path)
    ((said, body),) = told(site)
    assert (said, "the stream broke: the handler raised OSError" in body) == ("fail", True)


@pytest.mark.parametrize("path", ["/parts", "/async/parts", "/parts?broken", "/async/parts?broken"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_how_a_stream_ended_is_told_before_it_is_closed(site, ran, path):
    broken = path.endswith("?broken")

    def ask():
        return list(WSGIHandler().get_response(RequestFactory().get(path)))

    async def ask_async():
        response = await ASGIHandler().get_response_async(AsyncRequestFactory().get(path))
        return [part async for part in response]

    with pytest.raises(OSError, match="broken") if broken else contextlib.nullcontext():
        assert (asyncio.run(ask_async()) if site.kind == "asgi" else ask()) == [b"one", b"two"]
    assert [said for said, _ in told(site)] == ["fail" if broken else "complete"]


@pytest.mark.parametrize("replaced", [False, True])
def test_what_waits_is_told_before_a_guard_is_forgotten_or_replaced(site, ran, ascend, replaced):
    before = set(threading.enumerate())
    site.ask("GET", "/customers/7")
    threads = [one for one in threading.enumerate() if one not in before and one.name.startswith("ascend")]
    assert threads
    if replaced:
        ascend(strict=True)
        site.ask("GET", "/nothing")
    else:
        configuration.forget()
    assert [thread for thread in threads if thread.is_alive()] == []
    assert list(site.authority.outcomes.values()) == ["completed"]


@pytest.mark.parametrize(("path", "wrapper"), [("/parts", {}), ("/parts", {"wsgi.file_wrapper": iter}), ("/file", {})])
def test_a_stream_that_nobody_reads_to_its_end(ascend, ascend_authority, ran, path, wrapper):
    site = Site("wsgi", ascend_authority)
    ascend_authority.approve()
    for reads in (0, 1):
        request = RequestFactory().get(path)
        request.META |= wrapper
        response = WSGIHandler().get_response(request)
        parts = iter(response)
        assert len([next(parts) for _ in range(reads)]) == reads
        response.close()
    assert [(said, "the client left" in body) for said, body in told(site)] == [("fail", True)] * 2


def test_a_client_that_leaves_during_an_asynchronous_stream(ascend, ascend_authority, ran):
    site = Site("asgi", ascend_authority)
    ascend_authority.approve()

    async def ask():
        left, gone = [{"type": "http.request", "body": b"", "more_body": False}], asyncio.Event()

        async def receive():
            if left:
                return left.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if message.get("body"):
                gone.set()
                await asyncio.sleep(10)

        scope = {"type": "http", "method": "GET", "path": "/async/parts", "query_string": b"", "headers": []}
        await asyncio.wait_for(ASGIHandler()(scope, receive, send), 5)

    asyncio.run(ask())
    assert [(said, "the client left" in body) for said, body in told(site)] == [("fail", True)]


def test_a_server_that_sends_a_file_by_itself_closes_it(ascend, ascend_authority, ran):
    site = Site("wsgi", ascend_authority)
    ascend_authority.approve()
    wrapped = []

    def wrapper(file, size):
        wrapped.append(file)
        return [file.read()]

    environ = {**RequestFactory().get("/file").environ, "wsgi.file_wrapper": wrapper}
    WSGIHandler()(environ, lambda *arguments: None)
    assert ascend_authority.outcomes == {}
    wrapped[0].close()
    assert [said for said, _ in told(site)] == ["complete"]


def test_nothing_is_told_of_what_was_refused_exempt_or_observed(site, ran, ascend):
    site.ask("GET", "/health")
    site.ask("GET", "/internal/keys")
    site.authority.deny()
    site.ask("GET", "/customers/7")
    ascend(mode="observe")
    assert site.ask("GET", "/customers/7").status_code == 200
    assert told(site) == []


def test_a_response_replaced_by_an_outer_middleware_is_told_as_the_view_gave_it(site, ran):
    from django.conf import settings

    with override_settings(MIDDLEWARE=["django.middleware.gzip.GZipMiddleware", settings.MIDDLEWARE[-1]]):
        assert site.ask("GET", "/parts", headers={"accept-encoding": "gzip"}).status_code == 200
    assert [said for said, _ in told(site)] == ["complete"]
