"""Bodies: what is decided on is what the view gets, or the request is refused."""

import asyncio
import io
import json
from typing import ClassVar

import pytest
from asgiref.sync import markcoroutinefunction
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client, override_settings
from django.test.client import MULTIPART_CONTENT, encode_multipart

JSON = {"content_type": "application/json"}
URLENCODED = {"content_type": "application/x-www-form-urlencoded"}
REFUNDS = "/customers/7/refunds"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"amount": 5, "amount": 9000}', "application/json"),
        (b'{"amount": NaN}', "application/json"),
        (b'\xef\xbb\xbf{"amount": 5}', "application/json"),
        (b'{"amount": 5}', "text/plain"),
        (b'{"amount": 5}', "application/json; charset=utf-16"),
        (b'{"amount": 5}', "application/json; charset*=utf-7"),
        (b'{"amount": 5}', "application/json; charset*=utf-8''utf-7"),
        (b'{"other": 5}', "application/json"),
        (b"", "application/json"),
    ],
)
def test_a_body_that_could_be_read_two_ways_is_refused(site, ran, content, kind):
    assert site.ask("POST", REFUNDS, data=content, content_type=kind).status_code == 400
    assert (ran, site.authority.asked) == ([], [])


def test_a_large_body_is_refused(site, ran, ascend):
    content = json.dumps({"amount": 5, "pad": "x" * 70_000})
    assert site.ask("POST", REFUNDS, data=content, **JSON).status_code == 413
    # Where the rule allows more than Django does, Django's own limit holds.
    ascend(body_limit=100_000)
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1000):
        assert site.ask("POST", REFUNDS, data=content, **JSON).status_code == 413
    assert ran == []
    assert site.ask("POST", REFUNDS, data=content, **JSON).status_code == 200


@pytest.mark.parametrize("read_before", [False, True])
def test_a_body_of_exactly_the_limit_is_read_and_a_longer_one_is_not(site, ran, ascend, read_before):
    content = b'{"amount": 5}'
    given = {"data": content, **JSON}
    middleware = [f"{__name__}.reading"] * read_before + ["ascend_middleware.django.AscendMiddleware"]
    with override_settings(MIDDLEWARE=middleware):
        ascend(body_limit=len(content))
        assert site.ask("POST", REFUNDS, **given).status_code == 200
        ascend(body_limit=len(content) - 1)
        assert site.ask("POST", REFUNDS, **given).status_code == 413
    assert len(ran) == 1


def reading(get_response):
    def middleware(request):
        assert request.body
        return get_response(request)

    return middleware


def test_a_form_is_what_the_view_reads(site, ran):
    assert site.ask("POST", "/form", data="amount=5&x=%C3%A9", **URLENCODED).json()["amount"] == "5"
    assert dict(site.authority.asked[0].details) == {"amount": "5"}
    assert site.ask("POST", "/form", data="amount=5&amount=9000", **URLENCODED).status_code == 400
    assert site.ask("POST", "/form", data="amount=%FF", **URLENCODED).status_code == 400
    assert site.ask("POST", "/form", data="amount=é".encode(), **URLENCODED).status_code == 400
    assert len(ran) == 1


@pytest.mark.parametrize("charset", ["charset=utf-7", "charset*=utf-7", 'charset="UTF-7"'])
def test_a_query_is_judged_as_the_charset_of_the_content_type_makes_the_view_read_it(site, ran, charset):
    answer = site.ask("GET", "/search?q=1+ACY-q+AD0-9999", data=b"x", content_type=f"text/plain; {charset}")
    # One parameter to everybody else; two to Django under WSGI, and a repeated one is refused.
    assert answer.status_code == (400 if site.kind == "wsgi" else 200)
    answer = site.ask("GET", "/search?q=+ADk-", data=b"x", content_type=f"text/plain; {charset}")
    assert answer.status_code == 200
    assert [dict(one.details)["q"] for one in site.authority.asked] == [seen["q"] for _, seen in ran]


def test_a_body_in_another_charset_is_not_read_behind_the_guards_back(site, ran):
    # Read as UTF-7, this says amount 9999; Django REST framework decodes by the request's charset.
    smuggled = b'{"amount": 1, "n": "+ACIALAAiAGEAbQBvAHUAbgB0ACIAOg-9999,+ACI-z+ACI-:+ACI-"}'
    answer = site.ask("POST", "/api/things/", data=smuggled, content_type="application/json; charset*=utf-7")
    assert (answer.status_code, ran, site.authority.asked) == (400, [], [])


def test_an_upload_is_refused_where_a_field_of_it_is_to_be_judged(site, ran):
    data = encode_multipart("BoUnDaRyStRiNg", {"amount": "5", "file": SimpleUploadedFile("a.txt", b"x")})
    assert site.ask("POST", "/form", data=data, content_type=MULTIPART_CONTENT).status_code == 400
    # Here Django's own middleware has parsed and used it up before.
    assert site.ask("POST", "/checked-form", data=data, content_type=MULTIPART_CONTENT).status_code == 400
    assert ran == []


def test_a_body_used_up_by_a_middleware_is_refused(ascend, ascend_authority, ran):
    ascend_authority.approve()
    csrf = "django.middleware.csrf.CsrfViewMiddleware"
    with override_settings(MIDDLEWARE=[csrf, "ascend_middleware.django.AscendMiddleware"]):
        client = Client(enforce_csrf_checks=True)
        client.cookies["csrftoken"] = "a" * 32
        data = encode_multipart("BoUnDaRyStRiNg", {"csrfmiddlewaretoken": "a" * 32, "amount": "5"})
        answer = client.generic("POST", "/checked-form", data=data, content_type=MULTIPART_CONTENT)
        assert (answer.status_code, answer.json()["detail"]) == (
            400,
            "The body was used up before it could be judged.",
        )
        form = f"csrfmiddlewaretoken={'a' * 32}&amount=5"
        assert client.generic("POST", "/checked-form", data=form, **URLENCODED).json()["amount"] == "5"
    assert dict(ascend_authority.asked[-1].details) == {"amount": "5"}


def test_an_upload_used_up_before_is_held_without_a_handle(ascend, ascend_authority, ran):
    ascend([{"match": "POST /checked-form", "action_type": "upload"}])
    ascend_authority.hold()
    csrf = "django.middleware.csrf.CsrfViewMiddleware"
    with override_settings(MIDDLEWARE=[csrf, "ascend_middleware.django.AscendMiddleware"]):
        client = Client(enforce_csrf_checks=True)
        client.cookies["csrftoken"] = "a" * 32
        data = encode_multipart("BoUnDaRyStRiNg", {"csrfmiddlewaretoken": "a" * 32, "amount": "5"})
        for _ in range(2):
            answer = client.generic("POST", "/checked-form", data=data, content_type=MULTIPART_CONTENT)
            assert (answer.status_code, "approval" in answer.json()) == (403, False)
            assert answer.json()["type"].endswith(":approval-required")
        ascend_authority.approve()
        answer = client.generic("POST", "/checked-form", data=data, content_type=MULTIPART_CONTENT)
        assert answer.json() == {"ran": "checked form", "amount": "5"}


def test_an_upload_is_untouched_where_nothing_of_it_is_judged(site, ran, ascend):
    ascend([{"match": "POST /form", "action_type": "upload"}], body_limit=10)
    data = encode_multipart("BoUnDaRyStRiNg", {"amount": "5", "file": SimpleUploadedFile("a.txt", b"x" * 100_000)})
    answer = site.ask("POST", "/form", data=data, content_type=MULTIPART_CONTENT)
    assert answer.json() == {"ran": "form", "amount": "5", "files": "['file']"}


def test_a_view_that_reads_the_stream_itself_gets_all_of_it(site, ran):
    assert site.ask("POST", "/streamed-body", data=b'{"amount": 5}', **JSON).json()["size"] == "13"


class Stream(io.RawIOBase):
    """A body of which a WSGI server gives what has come, and then fails or ends."""

    def __init__(self, *parts):
        self.parts = list(parts)

    def read(self, size=-1):
        part = self.parts.pop(0) if self.parts else b""
        if isinstance(part, Exception):
            raise part
        return part


def wsgi(path, stream, length, kind="application/json"):
    answered = []
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "site",
        "SERVER_PORT": "80",
        "wsgi.input": stream,
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
        "CONTENT_TYPE": kind,
        **({} if length is None else {"CONTENT_LENGTH": length}),
    }
    response = WSGIHandler()(environ, lambda status, headers, exc_info=None: answered.append(int(status[:3])))
    content = b"".join(response)
    response.close()
    return answered[0], content


def test_a_truncated_or_broken_body_never_reaches_the_view(ascend, ascend_authority, ran):
    ascend_authority.approve()
    assert wsgi(REFUNDS, Stream(b'{"amount": 5}'), "13")[0] == 200
    ran.clear()
    assert wsgi(REFUNDS, Stream(b'{"amount": 5}'), "40")[0] == 400
    assert wsgi(REFUNDS, Stream(OSError("gone")), "40")[0] == 400
    # Without a length there is no body that Django would read.
    assert wsgi(REFUNDS, Stream(b'{"amount": 5}'), None)[0] == 400
    assert (ran, len(ascend_authority.asked)) == ([], 1)


def asgi(*messages, path=REFUNDS, headers=((b"content-type", b"application/json"),)):
    sent = []

    async def ask():
        waiting, left = asyncio.Event(), list(messages)

        async def receive():
            return left.pop(0) if left else await waiting.wait()

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": list(headers)}
        await ASGIHandler()(scope, receive, send)

    asyncio.run(ask())
    return sent[0]["status"] if sent else None


def part(body, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


def peeking(get_response):
    async def middleware(request):
        request.read(3)
        return await get_response(request)

    return middleware


peeking.async_capable, peeking.sync_capable = True, False


def test_what_a_middleware_has_begun_to_read_is_used_up_and_not_wound_back(ascend, ascend_authority, ran):
    ascend_authority.hold()
    chunks = [part(b"0123456", True), part(b"789abc")]
    with override_settings(MIDDLEWARE=[f"{__name__}.peeking", "ascend_middleware.django.AscendMiddleware"]):
        rules = [{"match": "POST /streamed-body", "action_type": "x"}]
        ascend(rules, body_limit=10, mode="observe")
        assert asgi(*chunks, path="/streamed-body") == 200
        assert ran == [("streamed body", {"size": 10})]
        ascend(rules, body_limit=10)
        assert asgi(*chunks, path="/streamed-body") == 403  # held, and not said to be too large


class Noting:
    """A middleware around the guard that notes which requests have their body in memory afterwards."""

    seen: ClassVar = []
    async_capable, sync_capable = True, False

    def __init__(self, get_response):
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request):
        response = await self.get_response(request)
        self.seen.append(hasattr(request, "_body"))
        return response


def test_what_is_too_large_is_not_taken_into_memory(ascend, ascend_authority, ran):
    ascend_authority.approve()
    Noting.seen.clear()
    with override_settings(MIDDLEWARE=[f"{__name__}.Noting", "ascend_middleware.django.AscendMiddleware"]):
        for limit, status in ((13, 200), (12, 413)):
            ascend(body_limit=limit)
            assert asgi(part(b'{"amount"', True), part(b": 5}")) == status
    assert Noting.seen == [True, False]


def test_chunks_without_a_length(ascend, ascend_authority, ran):
    ascend_authority.approve()
    assert asgi(part(b'{"amount"', True), part(b": 5}")) == 200
    assert asgi(part(b'{"amount": 5, "pad": "' + b"x" * 40_000, True), part(b"x" * 40_000 + b'"}')) == 413
    assert asgi(part(b'{"amount"', True), {"type": "http.disconnect"}) is None
    assert len(ran) == len(ascend_authority.asked) == 1


@pytest.mark.parametrize(("limit", "status"), [(13, 200), (12, 413)])
def test_chunks_of_exactly_the_limit_are_read_and_one_byte_more_is_not(ascend, ascend_authority, ran, limit, status):
    ascend_authority.approve()
    ascend(body_limit=limit)
    assert asgi(part(b'{"amount"', True), part(b": 5}")) == status
    assert [action.details for action in ascend_authority.asked] == [{"amount": 5}] * (status == 200)


def test_a_length_that_is_not_true(ascend, ascend_authority, ran):
    ascend_authority.approve()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"40")]
    assert asgi(part(b'{"amount": 5}'), headers=headers) == 400
    assert (ran, ascend_authority.asked) == ([], [])


def test_a_client_that_leaves_while_its_request_waits_frees_it(ascend, ascend_authority, ran):
    ascend([{"match": "POST /customers/{id}/refunds", "action_type": "x", "pending": "wait:30s"}], poll_interval=0.05)
    ascend_authority.hold()

    async def ask():
        left, gone = [part(b"{}")], asyncio.Event()

        async def receive():
            if left:
                return left.pop(0)
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            raise AssertionError("nobody is there")

        scope = {"type": "http", "method": "POST", "path": REFUNDS, "query_string": b"", "headers": []}
        task = asyncio.ensure_future(ASGIHandler()(scope, receive, send))
        while not ascend_authority.asked:
            await asyncio.sleep(0.01)
        gone.set()
        await asyncio.wait_for(task, 5)

    asyncio.run(ask())
    assert ran == []
