"""Random routes, random raw requests: what ran, by the handlers' own account, is what the authority was asked about.

Each framework gets sets of routes and tables that hypothesis draws, behind a real server; requests are bytes on its
socket, well-formed and bent. Nothing may run that was not allowed, under another rule, with other arguments or another
body than the authority was told. Bounded here; `--full` makes it long.
"""

import asyncio
import contextlib
import json
import socket
import sys
import threading
import types
import uuid
from pathlib import Path
from urllib.parse import quote, unquote

import frameworks
import pytest
from frameworks import RULE_FORM, Account, Route
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "conformance"))
from wire import Authority, read_answer  # noqa: E402

from ascend_middleware.asgi import AscendMiddleware  # noqa: E402
from ascend_middleware.exceptions import ConfigurationError  # noqa: E402
from ascend_middleware.flask import Ascend  # noqa: E402
from ascend_middleware.rules import RuleTable  # noqa: E402

pytestmark = [pytest.mark.socket, pytest.mark.slow]

KEY = "ask_differential_0123456789"
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")
WORDS = ("pay", "admin", "export", "users", "a", "b", "items", "int", "1", "x.y")
VALUES = ("7", "0", "-1", "٣", "a", "admin", "pay", "a b", "ä", "x.json", "1_0", "+5", "%2f", "..", "a;b", "ſ", "é")

# Routes and tables


def segments():
    parameter = st.tuples(st.sampled_from(("p", "q", "r")), st.sampled_from(("name", "name", "int", "uuid")))
    return st.lists(st.one_of(st.sampled_from(WORDS), parameter), min_size=1, max_size=4)


@st.composite
def route_sets(draw):
    routes, seen = [], set()
    for number in range(draw(st.integers(3, 9))):
        parts = draw(segments())
        if draw(st.integers(0, 5)) == 0:
            parts.append(("rest", "path"))
        names = [part[0] for part in parts if isinstance(part, tuple)]
        below = draw(st.sampled_from(("", "", "", "sub", "deep")))
        shape = (below, *(part if isinstance(part, str) else part[1] for part in parts))
        if len(set(names)) != len(names) or shape in seen:
            continue
        seen.add(shape)
        methods = draw(st.lists(st.sampled_from(METHODS), min_size=1, max_size=3, unique=True))
        routes.append(Route(f"h{number}", tuple(parts), tuple(sorted(methods)), below))
    return routes


@st.composite
def tables(draw, routes):
    """Return the rules, and for each route how it is governed."""
    rules, fates = [], {}
    for route in routes:
        fate = draw(st.sampled_from(("governed", "governed", "governed", "body", "exempt", "block", "unmapped")))
        fates[route.name] = fate
        if fate == "unmapped":
            continue
        prefix = f"/{route.below}" if route.below else ""
        rule = {"match": f"{','.join(route.methods)} {prefix}{route.template(RULE_FORM)}", "name": route.name}
        if fate == "exempt":
            rule["exempt"] = True
        elif fate == "block":
            rule["block"] = "closed"
        else:
            rule["action_type"] = route.name
            rule["details"] = {part[0]: f"path.{part[0]}" for part in route.segments if isinstance(part, tuple)}
            rule["details"]["query_k"] = "query.k?"
            if fate == "body":
                rule["details"]["amount"] = "body.amount"
        rules.append(rule)
    return rules, fates


# Requests


def value_for(draw, kind, *, plain):
    if plain:
        return {"name": "v7", "int": "42", "uuid": str(uuid.UUID(int=5)), "path": "x/y"}[kind]
    if kind == "int" and draw(st.integers(0, 3)):
        return draw(st.sampled_from(("7", "42", "007")))
    if kind == "uuid" and draw(st.integers(0, 3)):
        return draw(st.sampled_from((str(uuid.UUID(int=5)), str(uuid.UUID(int=6)).upper())))
    if kind == "path":
        return "/".join(draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=3)))
    return draw(st.sampled_from(VALUES))


BENDS = (
    lambda path: path + "/",
    lambda path: "/" + path,
    lambda path: path.replace("/", "//", 2),
    lambda path: path.upper(),
    lambda path: path + "%0A",
    lambda path: path + "%00",
    lambda path: path.replace("/", "/./", 1),
    lambda path: "/x/.." + path,
    lambda path: path.replace("a", "%61", 1),
    lambda path: path.replace("/", "%2F", 2).replace("%2F", "/", 1),
    lambda path: path + ";x=1",
    lambda path: path + "#f",
    lambda path: "http://other" + path,
    lambda path: path.rstrip("/").rsplit("/", 1)[0] or "/",
    lambda path: path + "/more",
    lambda path: "/sub" + path,
    lambda path: path.replace("/", "\\", 2).replace("\\", "/", 1),
    lambda path: path + "%20",
    lambda path: path + "?",
)
BODIES = (
    b'{"amount": 5}',
    b'{"amount": 5, "amount": 6}',
    b'{"amount": "5"}',
    b"[]",
    b'{"amount": 1e3}',
    b"",
    b"{",
    b"null",
)
# Each query with the value of `k` that every framework finds in it; None where they differ, so that nothing may run.
QUERIES = {"": "", "?k=1": "1", "?k=1&k=2": None, "?K=1": "", "?k=%ff": None, "?k=a;k=b": "a;k=b"}


@st.composite
def requests(draw, routes):
    route = draw(st.sampled_from(routes))
    plain = draw(st.integers(0, 2)) > 0
    path = f"/{route.below}" if route.below else ""
    for part in route.segments:
        path += "/" + (quote(value_for(draw, part[1], plain=plain), safe="/%;+.") if isinstance(part, tuple) else part)
    if not plain and draw(st.booleans()):
        path = draw(st.sampled_from(BENDS))(path)
    method = draw(st.sampled_from(route.methods))
    if not plain:
        method = draw(st.sampled_from((method, "HEAD", "OPTIONS", "FOO", method.lower(), *METHODS)))
    # A fragment or a question mark in the path leaves nothing of a query after it.
    query = "" if "#" in path or "?" in path else draw(st.sampled_from(("", *QUERIES)))
    body = draw(st.sampled_from(BODIES) if not plain else st.just(BODIES[0])) if method not in ("GET", "HEAD") else b""
    headers = [("Content-Type", "application/json")] if body else []
    if not plain and draw(st.integers(0, 4)) == 0:
        headers.append(
            draw(
                st.sampled_from(
                    (
                        ("X-HTTP-Method-Override", "DELETE"),
                        ("Script_Name", "/sub"),
                        ("X-Original-URL", "/admin"),
                        ("X-Forwarded-Prefix", "/sub"),
                    )
                )
            )
        )
    framing = draw(st.sampled_from(("length", "length", "chunked"))) if body else "length"
    return method, path, query, tuple(headers), body, framing


def on_the_wire(request):
    method, path, query, headers, body, framing = request
    lines = [f"{method} {path}{query} HTTP/1.1", "Host: site", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body and framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        half = len(body) // 2
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:])) + b"0\r\n\r\n"
    elif body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body


def exchange(port, data):
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=3) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                answer += chunk
    return answer


# Servers, each with an application that changes


class ASGIServer:
    """uvicorn in a thread."""

    def __init__(self, parser="httptools"):
        import uvicorn

        self.app = None
        config = uvicorn.Config(
            self._run, http=parser, interface="asgi3", lifespan="off", log_level="critical", loop="asyncio"
        )
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        self.port = listener.getsockname()[1]
        self._server = uvicorn.Server(config)
        self._listener = listener
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._server.serve(sockets=[self._listener]))

    async def _run(self, scope, receive, send):
        await self.app(scope, receive, send)

    def retire(self):
        """Let the application go through a lifespan, at whose end its guard closes its connections."""
        asyncio.run_coroutine_threadsafe(self._retire(), self._loop).result(10)

    async def _retire(self):
        if hasattr(self.app, "aclose") and not isinstance(self.app, AscendMiddleware):
            await self.app.aclose()  # Django has no lifespan
            return
        words = ["lifespan.startup", "lifespan.shutdown"]

        async def receive():
            return {"type": words.pop(0)}

        async def send(message): ...

        await self.app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

    def close(self):
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()


class WSGIServer:
    """Werkzeug's server in a thread: it hands on what a request says as it stands."""

    def __init__(self):
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *arguments): ...

        self.app = None
        self._server = make_server("127.0.0.1", 0, lambda e, s: self.app(e, s), threaded=True, request_handler=Quiet)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def retire(self):
        getattr(self.app, "extensions", {}).get("ascend", self.app).close()

    def close(self):
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


# Frameworks, guarded


def starlette(routes, account, options):
    app = frameworks.starlette(routes, account)
    app.add_middleware(AscendMiddleware, **options)
    return app


def fastapi(routes, account, options):
    app = frameworks.fastapi(routes, account)
    app.add_middleware(AscendMiddleware, **options)
    return app


def quart(routes, account, options):
    return AscendMiddleware(frameworks.quart(routes, account), **options)


def litestar(routes, account, options):
    return AscendMiddleware(frameworks.litestar(routes, account), **options)


def flask(routes, account, options):
    app = frameworks.flask(routes, account)
    Ascend(app, **options)
    return app


def django(routes, account, options, *, asynchronous=False):
    from django.conf import settings as django_settings
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application
    from django.test import override_settings
    from django.urls import clear_url_caches

    from ascend_middleware.django import configuration

    if not django_settings.configured:
        import django as django_module

        django_settings.configure(SECRET_KEY="differential", INSTALLED_APPS=["ascend_middleware.django"])
        django_module.setup()
    urls = types.ModuleType("differential_urls")
    urls.urlpatterns = frameworks.django_urls(routes, account)
    given = override_settings(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=urls,
        MIDDLEWARE=["ascend_middleware.django.AscendMiddleware"],
        ASCEND=options,
    )
    given.enable()
    clear_url_caches()
    app = get_asgi_application() if asynchronous else get_wsgi_application()

    async def aclose():
        if asynchronous:
            await configuration.async_runner().aclose()
        configuration.forget()
        given.disable()

    app.aclose = aclose
    app.close = lambda: asyncio.run(aclose())
    return app


def django_asgi(routes, account, options):
    return django(routes, account, options, asynchronous=True)


SUBJECTS = {
    "django": (WSGIServer, django),
    "django-asgi": (ASGIServer, django_asgi),
    "flask": (WSGIServer, flask),
    "starlette": (ASGIServer, starlette),
    "fastapi": (lambda: ASGIServer("h11"), fastapi),
    "quart": (ASGIServer, quart),
    "litestar": (ASGIServer, litestar),
}
FOREIGN = {"quart", "litestar"}


@pytest.fixture(scope="module")
def authority():
    authority = Authority()
    yield authority
    authority.close()


class Counts:
    requests = 0
    runs = 0
    asked = 0


@pytest.mark.parametrize("subject", SUBJECTS)
def test_what_ran_is_what_the_authority_was_asked_about(subject, authority, full, record_property):
    open_server, guarded = SUBJECTS[subject]
    server = open_server()
    counts = Counts()

    @settings(
        max_examples=1000 if full else 30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=not full,
        phases=[Phase.generate],
    )
    @given(data=st.data())
    def examine(data):
        routes = data.draw(route_sets().filter(bool))
        rules, fates = data.draw(tables(routes))
        account = Account()
        options = {
            "rules": {"rule": rules},
            "api_url": authority.url,
            "api_key": KEY,
            "agent_id": "differ",
            "report_outcomes": False,
        }
        try:
            RuleTable.from_mapping(options["rules"])
        except ConfigurationError:
            return  # two rules of one rank, or one behind a block: told at start-up
        server.app = guarded(routes, account, options)
        try:
            send_all(data, routes, rules, fates, account)
        finally:
            server.retire()

    def send_all(data, routes, rules, fates, account):
        for _ in range(12):
            request = data.draw(requests(routes))
            authority.mode = data.draw(st.sampled_from(("approved", "approved", "denied")))
            asked = len(authority.actions)
            account.runs.clear()
            answer = exchange(server.port, on_the_wire(request))
            actions = [action for action, _ in authority.actions[asked:]]
            counts.requests += 1
            counts.runs += len(account.runs)
            counts.asked += len(actions)
            compare(request, answer, account.runs, actions, fates, authority.mode, rules, foreign=subject in FOREIGN)

    try:
        examine()
    finally:
        server.close()
    record_property("requests", counts.requests)
    print(f"{subject}: {counts.requests} requests, {counts.runs} handlers ran, {counts.asked} decisions, no difference")
    # A guard that refuses all of them would differ nowhere.
    assert counts.runs > counts.requests / 10


def by_the_path(rules, method, target):
    # Some servers take off a fragment, and the front of an absolute target, before anybody sees them.
    path = target.removeprefix("http://other").partition("#")[0].partition("?")[0]
    return RuleTable.from_mapping({"rule": rules}).lookup(method, unquote(path))


def compare(request, answer, runs, actions, fates, mode, rules, *, foreign):
    status, _, body = read_answer(answer)
    shown = (request, status, body[:200], runs, actions, fates)
    assert len(runs) <= 1, shown
    if not runs:
        return
    name, method, arguments, content = runs[0]
    fate = fates[name]
    if fate == "exempt" and not foreign:
        assert not actions, shown
        return
    by_path = by_the_path(rules, method, request[1])
    # The path decides in a framework without a router to ask, where two routes may share it, and in one with a router
    # where rules cover parts of a route for a whole tree only.
    by_path_only = foreign or fate == "unmapped"
    if by_path_only and not actions:
        assert by_path is not None, shown
        assert by_path.exempt, shown
        return
    assert mode == "approved", shown
    assert len(actions) == 1, shown
    action = actions[0]
    if action["action_type"] != name:
        assert by_path_only, shown
        assert by_path is not None, shown
        assert by_path.action_type == action["action_type"], shown
        return
    assert fate in ("governed", "body"), shown
    assert action["resource"].split(" ")[0] == method, shown
    details = dict(action.get("action_details") or {})
    assert details.pop("query_k", "") == QUERIES[request[2]], shown
    if fate == "body":
        assert details.pop("amount") == json.loads(content)["amount"], shown
    told = {key: str(value) for key, value in details.items()}
    if foreign:  # the path's own text, where the framework converts it: 007 and 7, an UUID in capitals
        told, arguments = plain(told), plain(arguments)
    assert told == arguments, shown


def plain(arguments):
    return {key: str(int(value)) if value.isdigit() else value.lower().strip("/") for key, value in arguments.items()}
