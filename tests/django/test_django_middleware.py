"""What a governed Django project does with a request, on WSGI and on ASGI."""

import asyncio
import threading
from typing import ClassVar

import django_site
import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIRequest
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.test.client import AsyncClient, AsyncRequestFactory, Client, RequestFactory
from django.urls import path, resolve
from django_kit import problem

from ascend_middleware.django import AscendMiddleware, governed
from ascend_middleware.exceptions import AscendError
from ascend_middleware.guard import Agent, NotAnAgent

JSON = {"content_type": "application/json"}


def test_an_allowed_request_runs_with_its_verdict(site, ran):
    answer = site.ask("GET", "/customers/7")
    assert answer.json() == {"ran": "get", "customer_id": "7", "outcome": "allowed"}
    (asked,) = site.authority.asked
    assert (asked.action_type, asked.resource) == ("data_access", "GET /customers/{customer_id:int}")
    assert len(ran) == 1


def test_an_async_view_runs_likewise(site, ran):
    assert site.ask("GET", "/async/customers/7").json()["ran"] == "async get"


def test_a_denied_request_does_not_run(site, ran):
    site.authority.deny("customer_delete", reason="people delete customers")
    answer = site.ask("DELETE", "/customers/7")
    assert (answer.status_code, problem(answer), answer.json()["reason"]) == (403, "denied", "people delete customers")
    assert answer["content-type"] == "application/problem+json"
    assert answer["cache-control"] == "no-store"
    assert answer["ascend-action-id"] == answer.json()["action_id"]
    assert answer["ascend-decision"] == "denied"
    assert ran == []


def test_the_body_that_was_decided_on_is_the_body_that_the_view_gets(site, ran):
    answer = site.ask("POST", "/customers/7/refunds", data=b'{"amount": 5}', **JSON)
    assert answer.json() == {"ran": "refund", "customer_id": "7", "amount": "5", "size": "13"}
    (asked,) = site.authority.asked
    assert (asked.resource, dict(asked.details)) == ("refund for customer 7", {"amount": 5})


@pytest.mark.parametrize(
    ("method", "path", "status", "type_"),
    [
        ("GET", "/unlisted", 403, "unmapped-route"),
        ("PUT", "/customers/7", 403, "unmapped-route"),
        ("FOO", "/customers/7", 403, "unmapped-route"),
        ("OPTIONS", "/customers/7", 403, "unmapped-route"),
        ("GET", "/internal/keys", 403, "blocked"),
        ("GET", "/nothing", 404, None),
        ("GET", "/customers/x", 404, None),
        ("GET", "/customers/7/", 404, None),
        ("GET", "/slashed", 301, None),
        ("GET", "/customers/7%0a", 400, "bad-request"),
        ("GET", "/nothing/%2e%2e/health", 400, "bad-request"),
        ("GET", "/customers;x=1/7", 400, "bad-request"),
    ],
)
def test_what_needs_no_authority(site, ran, method, path, status, type_):
    answer = site.ask(method, path)
    assert answer.status_code == status
    if type_:
        assert problem(answer) == type_
    assert ran == []
    assert site.authority.asked == []


@pytest.mark.parametrize(
    "line",
    [
        {"PATH_INFO": "//customers/7"},
        {"PATH_INFO": "/customers/\xff"},
        {"PATH_INFO": "/customers/\xff", "RAW_URI": "/customers/%ff"},
        {"PATH_INFO": "/customers/7", "RAW_URI": "http://site/customers/7"},
        {"PATH_INFO": "/customers/7", "RAW_URI": "/customers/7#x"},
        {"PATH_INFO": "/customers/7", "RAW_URI": "/customers%2f7"},
        {"PATH_INFO": "/customers/7", "REQUEST_URI": "/customers%2f7"},
        {"PATH_INFO": "/anywhere/%41", "RAW_URI": "/anywhere/%2541"},
    ],
)
def test_a_line_that_a_wsgi_server_shows_is_looked_at(ascend, ascend_authority, ran, line):
    ascend_authority.approve()
    answer = Client().generic("GET", "/", **line)
    assert (answer.status_code, problem(answer), ran) == (400, "bad-request", [])


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"/customers/7", 200),
        (b"//customers/7", 400),
        (b"/customers%2f7", 400),
        (b"/x/../customers/7", 400),
        (b"/customers/7#x", 400),
    ],
)
def test_a_line_that_an_asgi_server_shows_is_looked_at(ascend, ascend_authority, ran, raw, status):
    ascend_authority.approve()
    assert asyncio.run(on_asgi(raw_path=raw)) == status
    assert len(ran) == (status == 200)


async def on_asgi(*headers, **scope):
    """Return the status of what a server hands over."""
    sent, waiting = [], asyncio.Event()
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive():
        return messages.pop() if messages else await waiting.wait()

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/customers/7", "query_string": b"", "headers": headers, **scope}
    await ASGIHandler()(scope, receive, send)
    return sent[0]["status"]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        # Django puts a byte that is no UTF-8 back into percent signs; only a raw target tells that from an escaped one.
        ({"PATH_INFO": "/files/%C3%A9", "RAW_URI": "/files/%25C3%25A9"}, 200),
        ({"PATH_INFO": "/files/%FF", "REQUEST_URI": "/files/%25FF?x"}, 200),
        ({"PATH_INFO": "/files/%FF"}, 400),
        ({"PATH_INFO": "/files/%7F"}, 200),
        ({"PATH_INFO": "/files/\xff", "RAW_URI": "/files/%FF"}, 400),
    ],
)
def test_an_escaped_percent_sign_is_no_broken_text(ascend, ascend_authority, ran, line, status):
    class Urls:
        urlpatterns = (path("files/<str:customer_id>", django_site.customer),)

    ascend([{"match": "GET /files/{name}", "action_type": "file"}])
    ascend_authority.approve()
    with override_settings(ROOT_URLCONF=Urls):
        assert Client().generic("GET", "/", **line).status_code == status
    assert [given["customer_id"] for _, given in ran] == [line["PATH_INFO"].rpartition("/")[2]] * (status == 200)


def test_a_request_without_a_method_is_refused(ascend):
    request = HttpRequest()
    request.path_info = "/customers/7"
    assert AscendMiddleware(lambda request: HttpResponse())(request).status_code == 400


@pytest.mark.parametrize(("permitted", "status"), [((), 400), (("empty-segment",), 200)])
def test_what_by_method_permits_runs(site, ascend, ran, permitted, status):
    ascend([], unmapped="by-method", unmapped_permit=permitted)
    assert site.ask("GET", "/anywhere/a//b").status_code == status
    assert len(ran) == (status == 200)


def watching(get_response):
    """A middleware of the site that stands below the guard."""

    def middleware(request):
        seen.append(request.path)
        return get_response(request)

    return middleware


seen = []


def test_a_target_that_is_refused_reaches_no_middleware_below(ascend):
    seen.clear()
    middleware = ["ascend_middleware.django.AscendMiddleware", f"{__name__}.watching"]
    with override_settings(MIDDLEWARE=middleware, SILENCED_SYSTEM_CHECKS=["ascend.E006"]):
        assert Client().get("/customers;x=1/7").status_code == 400
        assert seen == []
        assert Client().get("/nothing").status_code == 404
    assert seen == ["/nothing"]


def test_an_exempt_route_runs_without_being_asked_about(site, ran):
    assert site.ask("GET", "/health").json() == {"ran": "health"}
    assert site.authority.asked == []


def test_head_goes_by_the_rule_for_get(site, ran):
    answer = site.ask("HEAD", "/customers/7")
    assert (answer.status_code, ran[0][0]) == (200, "head")
    site.authority.deny()
    answer = site.ask("HEAD", "/customers/7")
    assert (answer.status_code, answer.content, int(answer["content-length"]) > 0) == (403, b"", True)


def test_a_trailing_slash_changes_no_rule(site, ran):
    assert site.ask("GET", "/slashed/").json()["ran"] == "search"
    assert site.authority.asked[0].action_type == "slashed"


@pytest.mark.parametrize(
    ("method", "status"), [("GET", 200), ("HEAD", 200), ("PUT", 405), ("OPTIONS", 200), ("FOO", 405)]
)
def test_what_a_class_based_view_lacks_django_answers_itself(site, ran, method, status):
    answer = site.ask(method, "/plain")
    assert answer.status_code == status
    assert [name for name, _ in ran] == (["plain get"] if method in ("GET", "HEAD") else [])
    assert len(site.authority.asked) == len(ran)


def test_a_method_that_a_class_has_and_no_rule_lists_is_refused(site, ran):
    assert problem(site.ask("POST", "/plain")) == "unmapped-route"


@pytest.mark.parametrize("method", ["PUT", "OPTIONS"])
def test_around_a_decorated_class_nothing_is_taken_for_djangos_own_answer(site, ran, method):
    assert problem(site.ask(method, "/wrapped")) == "unmapped-route"
    assert ran == []
    assert site.ask("GET", "/wrapped").status_code == 200


def test_the_request_that_a_middleware_made_is_the_one_decided_about(site, ran):
    from django.conf import settings

    guard = settings.MIDDLEWARE[-1]
    with override_settings(MIDDLEWARE=["django_site.Tampering", guard]):
        assert site.ask("GET", "/search?q=sent", headers={"x-reason": "sent"}).json() == {
            "ran": "search",
            "q": "changed",
        }
    assert dict(site.authority.asked[0].details) == {"q": "changed", "why": "changed"}


def test_a_header_without_content_is_none(site):
    assert site.ask("GET", "/search?q=a", headers={"x-reason": ""}).status_code == 200
    assert dict(site.authority.asked[0].details) == {"q": "a"}


class Pretending:
    """A middleware that lets a request look, after routing, as if it ran another view."""

    match: ClassVar = None

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)

    def process_view(self, request, view, args, kwargs):
        request.resolver_match = self.match


@pytest.mark.parametrize("match", [None, "/health", "/customers/8", "/shop/orders/7/refund"])
def test_the_view_that_django_calls_is_decided_about_whatever_a_middleware_left_in_the_request(site, ran, match):
    from django.conf import settings

    Pretending.match = match and resolve(match)
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE[:-1], f"{__name__}.Pretending", settings.MIDDLEWARE[-1]]):
        assert problem(site.ask("GET", "/unlisted")) == "unmapped-route"
    assert (ran, site.authority.asked) == ([], [])


def test_a_view_that_is_replaced_between_requests_is_governed_as_what_it_is(site, ran, ascend):
    class Urls:
        urlpatterns = [path("page", django_site.customer, {"customer_id": 1})]

    ascend([{"match": "GET /page", "exempt": True}])
    with override_settings(ROOT_URLCONF=Urls):
        assert site.ask("GET", "/page").status_code == 200
        Urls.urlpatterns[0].callback = governed(action_type="new")(django_site.customer)
        site.authority.deny()
        assert problem(site.ask("GET", "/page")) == "denied"
    assert (len(ran), [asked.action_type for asked in site.authority.asked]) == (1, ["new"])


def test_names_with_namespaces_and_positional_arguments(site, ran):
    with override_settings(MIDDLEWARE=["ascend_middleware.django.AscendMiddleware"]):
        assert site.ask("POST", "/shop/orders/7/refund").status_code == 200
        assert site.ask("GET", "/shop/old/12/ab").json()["args"] == "('12', 'ab')"
        assert problem(site.ask("GET", "/shop/orders/7/refund")) == "unmapped-route"
    refund, old = site.authority.asked
    assert (refund.action_type, refund.body["resource_id"], refund.resource) == (
        "refund",
        "7",
        "POST /shop/orders/{number:int}/refund",
    )
    assert dict(old.details) == {"one": "12", "two": "ab"}


def test_an_unanchored_expression_is_governed_by_its_name_wherever_it_matches(site, ran):
    for url in ("/anywhere", "/x/ANYwhere/y"):
        assert site.ask("GET", url).status_code == 200
    assert [asked.action_type for asked in site.authority.asked] == ["anywhere"] * 2


def test_a_language_prefix_is_a_segment(site, ran):
    assert site.ask("GET", "/de/about").status_code == 200
    assert site.ask("GET", "/about").status_code == 302
    assert [asked.resource for asked in site.authority.asked] == ["GET /de/about"]


def test_another_hosts_routes_are_named_with_their_module(site, ran, ascend):
    from django.conf import settings

    ascend([{"endpoint": "health", "exempt": True}, {"endpoint": "django_site_other:own", "action_type": "own"}])
    with override_settings(MIDDLEWARE=["django_site.PerHost", settings.MIDDLEWARE[-1]]):
        other = {"headers": {"x-tenant": "other"}}
        assert site.ask("GET", "/own", **other).json() == {"ran": "own"}
        # Of the same name and template, and not the route that the rule is for.
        assert problem(site.ask("GET", "/health", **other)) == "unmapped-route"
        assert site.ask("GET", "/health").json() == {"ran": "health"}


# Prefixes


def test_beneath_script_name(site, ran):
    given = {"SCRIPT_NAME": "/prefix"} if site.kind == "wsgi" else {"root_path": "/prefix"}
    path = "/customers/7" if site.kind == "wsgi" else "/prefix/customers/7"
    if site.kind == "asgi":
        scope_root = AsyncClient(root_path="/prefix")
        assert site.ask("GET", path, client=scope_root).status_code == 200
    else:
        assert site.ask("GET", path, **given).status_code == 200
    assert site.authority.asked[0].resource == "GET /customers/{customer_id:int}"


def test_beneath_force_script_name(site, ran):
    with override_settings(FORCE_SCRIPT_NAME="/prefix"):
        path = "/customers/7" if site.kind == "wsgi" else "/prefix/customers/7"
        assert site.ask("GET", path).status_code == 200
        assert site.ask("GET", "/internal/keys" if site.kind == "wsgi" else "/prefix/internal/keys").status_code == 403
    assert site.authority.asked[0].resource == "GET /customers/{customer_id:int}"


# Who asks


def test_identify_may_use_the_user(site, ran, ascend, database):
    from django.contrib.auth.models import User

    def identify(request):
        user = request.user
        if user.is_authenticated:
            return Agent("bot", principal=user.username)
        return NotAnAgent("nobody signed in")

    async def identify_async(request):
        user = await request.auser()
        return Agent("bot", principal=user.username) if user.is_authenticated else NotAnAgent("nobody signed in")

    User.objects.filter(username="ann").delete()
    ann = User.objects.create_user("ann")
    for hook in (identify, identify_async):
        ascend(identify=hook)
        client = Client()
        client.force_login(ann)
        if site.kind == "asgi":
            cookies, client = client.cookies, AsyncClient()
            client.cookies = cookies
        assert site.ask("GET", "/customers/7", client=client).json()["outcome"] == "allowed"
        assert site.ask("GET", "/customers/7").json()["outcome"] == "not-an-agent"
    assert [asked.agent_id for asked in site.authority.asked] == ["bot", "bot"]


def test_who_is_nobody_is_refused(site, ran, ascend):
    ascend(identify="test_django_middleware.nobody")
    assert site.ask("GET", "/customers/7").status_code == 403


def nobody(request):
    return None


@pytest.mark.parametrize("sent", ["a,b", ""])
def test_an_agent_header_counts_once_only(site, ran, ascend, sent):
    ascend(agent_header="X-Agent-Id")
    assert site.ask("GET", "/customers/7", headers={"x-agent-id": "a"}).status_code == 200
    assert site.ask("GET", "/customers/7", headers={"x-agent-id": sent}).status_code == 400
    assert [asked.agent_id for asked in site.authority.asked] == ["a"]


def test_on_asgi_a_second_header_and_a_second_spelling_are_seen(ascend, ascend_authority, ran):
    ascend_authority.approve()
    ascend(agent_header="X-Agent-Id")

    async def all_of_them():
        return [
            await on_asgi((b"x-agent-id", b"a")),
            await on_asgi((b"x-agent-id", b"a"), (b"x-agent-id", b"a")),
            await on_asgi((b"x-agent-id", b"a"), (b"x_agent_id", b"b")),
            await on_asgi((b"x_agent_id", b"b")),
        ]

    assert asyncio.run(all_of_them()) == [200, 400, 400, 400]
    assert [asked.agent_id for asked in ascend_authority.asked] == ["a"]


def test_on_asgi_a_header_that_comes_twice_is_two_values(ascend, ascend_authority, ran):
    ascend_authority.approve()
    twice = [(b"x-reason", b"a"), (b"x-reason", b"b")]
    assert asyncio.run(on_asgi(*twice, path="/search")) == 400
    assert asyncio.run(on_asgi((b"x-reason", b"a,b"), path="/search")) == 200
    assert [asked.details for asked in ascend_authority.asked] == [{"why": "a,b"}]


@pytest.mark.parametrize("query", ["q=é", "q=€"])
def test_a_query_beyond_ascii_is_not_judged_as_another_text(site, ran, query):
    assert site.ask("GET", f"/search?{query}").status_code == 400
    assert (ran, site.authority.asked) == ([], [])


@pytest.mark.parametrize("charset", ["utf-8", "UTF8"])
def test_a_charset_that_is_the_usual_one_changes_nothing_of_a_query(site, ran, charset):
    given = {"data": b"x", "content_type": f"text/plain; charset={charset}"}
    assert site.ask("GET", "/search?q=%C3%A9", **given).json()["q"] == "é"
    assert site.ask("GET", "/search?q=%FF", **given).status_code == 400
    assert [asked.details["q"] for asked in site.authority.asked] == ["é"]


# Refusals and failures


def test_render_answers_in_the_applications_own_style(site, ran, ascend):
    ascend(
        render=lambda status, headers, content: (418, [("content-type", "text/plain"), ("x-was", str(status))], b"no")
    )
    answer = site.ask("GET", "/internal/keys")
    assert (answer.status_code, answer.content, answer["x-was"]) == (418, b"no", "403")


def test_headers_beyond_ascii_of_render_go_out(site, ran, ascend):
    ascend(render=lambda status, headers, content: (418, [("x-place", "東京")], b"no"))
    answer = site.ask("GET", "/internal/keys")
    assert (answer.status_code, answer["x-place"].encode("latin-1").decode()) == (418, "東京")


def test_a_held_action_is_refused_with_what_to_do(site, ran):
    site.authority.hold()
    answer = site.ask("GET", "/customers/7")
    assert (answer.status_code, problem(answer), ran) == (403, "approval-required", [])


def test_a_request_can_wait_for_a_person(site, ran, ascend):
    ascend([{"match": "GET /customers/{id}", "action_type": "data_access", "pending": "wait:5s"}], poll_interval=0.01)
    site.authority.hold(then="approve", polls=2)
    assert site.ask("GET", "/customers/7").status_code == 200
    site.authority.hold(then="deny")
    assert problem(site.ask("GET", "/customers/7")) == "denied"


def test_a_wait_asks_no_more_often_than_it_is_told_to(site, ran, ascend):
    ascend([{"match": "GET /customers/{id}", "action_type": "x", "pending": "wait:0.2s"}], poll_interval=0.1)
    site.authority.hold()
    assert problem(site.ask("GET", "/customers/7")) == "approval-required"
    assert 1 <= len(site.authority.requests) <= 6


def test_no_authority_no_view_unless_the_rule_is_open(site, ran, ascend):
    ascend(max_retries=0)
    site.authority.refuse_connections()
    answer = site.ask("GET", "/customers/7")
    assert (answer.status_code, "retry-after" in answer, ran) == (503, True, [])
    ascend(on_failure="open", open_per_minute=1, max_retries=0)
    assert site.ask("GET", "/customers/7").json()["outcome"] == "open"
    assert site.ask("GET", "/customers/7").status_code == 503


def test_observing_refuses_nothing_and_switched_off_asks_nothing(site, ran, ascend):
    site.authority.deny()
    ascend(mode="observe")
    assert site.ask("GET", "/customers/7").json()["outcome"] == "observed"
    assert site.ask("GET", "/customers;x=1/7").status_code == 404  # Django's word, not ours
    assert len(site.authority.asked) == 1
    ascend(enabled=False)
    assert site.ask("GET", "/customers/7").json()["outcome"] == "disabled"
    assert site.ask("GET", "/unlisted").status_code == 200
    assert len(site.authority.asked) == 1


# Successes that nobody decided about


def test_what_another_middleware_answers_trips_the_wire(site, ran, ascend, caplog):
    from django.conf import settings

    guard = settings.MIDDLEWARE[-1]
    wire = "ascend_middleware.django.TripwireMiddleware"
    for middleware in ([wire, "django_site.answering", guard],):
        with override_settings(MIDDLEWARE=middleware):
            assert site.ask("GET", "/by-middleware").content == b"mine"
            assert "'/by-middleware' succeeded without a decision" in caplog.text
            caplog.clear()
            assert site.ask("GET", "/customers/7").status_code == 200
            assert site.ask("GET", "/health").status_code == 200
            assert site.ask("GET", "/nothing").status_code == 404
            assert "without a decision" not in caplog.text
            ascend(strict=True)
            assert site.ask("GET", "/by-middleware").status_code == 500


def test_what_stands_inside_is_seen_without_a_wire(site, ran, ascend, caplog):
    from django.conf import settings

    with override_settings(
        MIDDLEWARE=[settings.MIDDLEWARE[-1], "django_site.answering"], SILENCED_SYSTEM_CHECKS=["ascend.E006"]
    ):
        assert site.ask("GET", "/by-middleware").content == b"mine"
        assert "'/by-middleware' succeeded without a decision" in caplog.text
        ascend(strict=True)
        with pytest.raises(AscendError, match="no decision was made"):
            site.ask("GET", "/by-middleware", raises=True)


def test_what_is_seen_inside_is_told_once_and_nothing_when_switched_off(site, ascend, caplog):
    wire, guard = "ascend_middleware.django.TripwireMiddleware", "ascend_middleware.django.AscendMiddleware"
    with override_settings(
        MIDDLEWARE=[wire, guard, "django_site.answering"], SILENCED_SYSTEM_CHECKS=["ascend.E006", "ascend.E007"]
    ):
        assert site.ask("GET", "/by-middleware").content == b"mine"
        assert caplog.text.count("succeeded without a decision") == 1
        caplog.clear()
        ascend(enabled=False)
        assert site.ask("GET", "/by-middleware").content == b"mine"
        assert "succeeded without a decision" not in caplog.text
    with override_settings(MIDDLEWARE=[wire, "django_site.answering", guard]):
        ascend(enabled=False)
        assert site.ask("GET", "/by-middleware").content == b"mine"
    assert "succeeded without a decision" not in caplog.text


def replacing(get_response):
    """Hand on a request of its own, with nothing in it that others left."""

    def middleware(request):
        return get_response(WSGIRequest({**request.environ}))

    return middleware


def test_a_request_that_a_middleware_inside_puts_in_the_place_of_another_is_decided_about(
    ascend, ascend_authority, ran
):
    guard = "ascend_middleware.django.AscendMiddleware"
    with override_settings(MIDDLEWARE=[guard, f"{__name__}.replacing"], SILENCED_SYSTEM_CHECKS=["ascend.E006"]):
        ascend_authority.deny()
        assert (Client().get("/customers/7").status_code, ran) == (403, [])
        ascend_authority.approve()
        assert (Client().get("/customers/7").status_code, len(ran)) == (200, 1)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    ("method", "status", "told"),
    [("GET", 200, True), ("POST", 299, True), ("GET", 300, False), ("GET", 500, False), ("OPTIONS", 200, False)],
)
def test_only_successes_trip_the_wire(site, caplog, inside, method, status, told):
    guard, answering = "ascend_middleware.django.AscendMiddleware", "django_site.answering"
    wire = "ascend_middleware.django.TripwireMiddleware"
    middleware = [guard, answering] if inside else [wire, answering, guard]
    with override_settings(MIDDLEWARE=middleware, SILENCED_SYSTEM_CHECKS=["ascend.E006"]):
        assert site.ask(method, "/by-middleware", headers={"x-status": str(status)}).status_code == status
    assert ("succeeded without a decision" in caplog.text) is told


def test_the_first_request_says_once_which_routes_nothing_covers(site, ascend, caplog):
    def said():
        return sum("no rule covers these routes" in line.getMessage() for line in caplog.records)

    for times, label in enumerate(("first", "second"), 1):
        ascend([{"match": "GET /health", "exempt": True, "name": f"{site.kind}-{label}"}])
        for _ in range(2):
            site.ask("GET", "/health")
        assert said() == times


class Looking:
    """A middleware that reads the query before the guard does."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        assert request.GET is not None
        return self.get_response(request)


def test_a_query_that_somebody_has_decoded_is_judged_as_it_was(site, ran):
    with override_settings(MIDDLEWARE=[f"{__name__}.Looking", "ascend_middleware.django.AscendMiddleware"]):
        assert site.ask("GET", "/plain?q=%FF").status_code == 200
        assert site.ask("GET", "/search?q=%FF").json()["q"] == "\ufffd"
        assert site.authority.asked[-1].details["q"] == "\ufffd"
        assert site.ask("GET", "/search?q=a%26b&q=c").status_code == 400
    assert [name for name, _ in ran] == ["plain get", "search"]


# How Django calls it


def test_the_mode_is_that_of_what_stands_inside(ascend):
    async def inner(request):
        return HttpResponse()

    assert asyncio.iscoroutinefunction(AscendMiddleware(inner).process_view)
    assert not asyncio.iscoroutinefunction(AscendMiddleware(lambda request: HttpResponse()).process_view)


def test_on_asgi_no_thread_is_used(ascend, ascend_authority, ran):
    ascend_authority.approve()
    guard = "ascend_middleware.django.AscendMiddleware"
    started = []
    start = threading.Thread.start

    async def ask():
        threading.Thread.start = lambda thread: (started.append(thread.name), start(thread))[1]
        try:
            request = AsyncRequestFactory().get("/async/customers/7")
            return await ASGIHandler().get_response_async(request)
        finally:
            threading.Thread.start = start

    with override_settings(MIDDLEWARE=[guard], ASCEND={**_configured(), "report_outcomes": False}):
        assert asyncio.run(ask()).status_code == 200
    assert started == []


def _configured():
    from django.conf import settings

    return settings.ASCEND


def test_a_view_that_somebody_calls_twice_is_decided_about_twice(ascend, ascend_authority, ran):
    from django.core.handlers.wsgi import WSGIHandler

    ascend_authority.approve("data_access", times=1)
    with override_settings(MIDDLEWARE=["ascend_middleware.django.AscendMiddleware"]):
        handler = WSGIHandler()
        request = RequestFactory().get("/customers/7")
        assert [handler.get_response(request).status_code for _ in range(2)] == [200, 403]
    assert len(ran) == 1


def test_a_held_request_is_resumed_once_by_its_handle(site, ran):
    site.authority.hold()
    given = {"data": b'{"amount": 5}', "content_type": "application/json"}
    held = site.ask("POST", "/customers/7/refunds", **given).json()
    assert site.ask("GET", held["approval"]["status_url"]).json() == {"state": "pending"}
    site.authority.decide(held["action_id"])
    handle = {"headers": {"ascend-approval": held["approval"]["handle"]}}
    assert site.ask("POST", "/customers/7/refunds", **given, **handle).json()["ran"] == "refund"
    assert problem(site.ask("POST", "/customers/7/refunds", **given, **handle)) == "approval-used"
    other = {**given, "data": b'{"amount": 6}'}
    assert problem(site.ask("POST", "/customers/7/refunds", **other, **handle)) == "approval-mismatch"
    assert len(ran) == 1
    assert site.ask("GET", held["approval"]["status_url"]).json() == {"state": "used"}
    with override_settings(FORCE_SCRIPT_NAME="/prefix"):
        path = "/customers/8/refunds" if site.kind == "wsgi" else "/prefix/customers/8/refunds"
        held = site.ask("POST", path, **given).json()
    assert held["approval"]["status_url"].startswith("/prefix/.ascend/approvals/")


def test_a_killed_agent_is_refused(site, ran):
    site.authority.kill()
    assert problem(site.ask("GET", "/customers/7")) == "kill-switch"
    assert site.ask("GET", "/health").status_code == 200


def test_a_method_called_websocket_is_no_handshake(site, ran, ascend, ascend_authority):
    ascend([{"match": "WEBSOCKET /**", "exempt": True}])
    refused = site.ask("WEBSOCKET", "/search")
    assert (refused.status_code, problem(refused), ran) == (403, "unmapped-route", [])
    # Under a rule for every method its body is read and bound.
    ascend([{"match": "* /customers/{id}/refunds", "action_type": "pay", "details": {"amount": "body.amount"}}])
    given = {"content_type": "application/json", "data": b'{"amount": 9999}'}
    assert site.ask("WEBSOCKET", "/customers/7/refunds", **given).status_code == 200
    assert ascend_authority.asked[-1].details == {"amount": 9999}


class WithRoot:
    """A project whose root is a view."""

    urlpatterns = (path("", lambda request: django_site.said("root"), name="root"),)


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("verdict", ["approve", "deny"])
@pytest.mark.parametrize("rooted", [True, False])
def test_the_root_of_a_prefix_is_answered_as_django_does_and_decided(
    kind, ascend, ascend_authority, ran, rooted, verdict, common
):
    """`/api` below `/api`: on WSGI that is the root; on ASGI no path, which some middleware may redirect to the root."""
    middleware = ["django.middleware.common.CommonMiddleware"] * common
    urls = {"ROOT_URLCONF": WithRoot} if rooted else {}
    with override_settings(MIDDLEWARE=middleware, **urls):
        status, location = at_the_prefix(kind)
    ran_unguarded = [*ran]
    ran.clear()
    ascend([{"match": "GET /", "action_type": "root"}])
    getattr(ascend_authority, verdict)()
    with override_settings(MIDDLEWARE=[*middleware, "ascend_middleware.django.AscendMiddleware"], **urls):
        denied = bool(ran_unguarded) and verdict == "deny"
        assert at_the_prefix(kind) == ((403, None) if denied else (status, location))
    assert ran == ([] if denied else ran_unguarded)
    assert [asked.action_type for asked in ascend_authority.asked] == ["root"] * len(ran_unguarded)
    runs = kind == "wsgi" and rooted
    assert (status, location) == ((200, None) if runs else (301, "/api/") if rooted and common else (404, None))


def at_the_prefix(kind):
    """Status and location of what a server that serves the project at /api answers to `GET /api`."""
    if kind == "wsgi":
        environ = {**RequestFactory()._base_environ(), "SCRIPT_NAME": "/api", "PATH_INFO": ""}
        started = []
        get_wsgi_application()(environ, lambda status, headers: started.append((status, headers))).close()
        ((status, headers),) = started
        return int(status[:3]), dict(headers).get("Location")

    async def ask():
        scope = {"type": "http", "method": "GET", "path": "/api", "raw_path": b"/api", "root_path": "/api"}
        scope |= {"query_string": b"", "headers": [(b"host", b"testserver")], "http_version": "1.1"}
        communicator = ApplicationCommunicator(get_asgi_application(), scope)
        await communicator.send_input({"type": "http.request", "body": b""})
        start = await communicator.receive_output(5)
        await communicator.receive_output(5)
        await communicator.wait(5)
        return start

    start = asyncio.run(ask())
    location = dict(start["headers"]).get(b"Location")
    return start["status"], location and location.decode()
