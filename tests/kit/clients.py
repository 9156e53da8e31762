"""Both clients, and the embedded authority behind them without a socket."""

import contextlib
import inspect
import json

import anyio
import httpx2
import pytest
from anyio.from_thread import start_blocking_portal

from ascend_middleware.authority import Authority, Role, Store, parse_policy
from ascend_middleware.client import AscendClient, AsyncAscendClient, Response

from .engine import Awaited, Engine

KEY = "owkai_live_0123456789abcdef"
ACTION = {"agent_id": "a", "action_type": "data_access", "resource": "r"}

POLICY = """
[[policy]]
name = "a person decides"
action_types = ["transaction"]
decision = "pending"

[[policy]]
name = "never"
action_types = ["database_schema"]
decision = "denied"
reason = "by migration only"

[[policy]]
name = "fine"
action_types = ["data_access"]
decision = "approved"

[[mcp_server]]
name = "files"

[[model]]
id = 7
"""


class House:
    """The embedded authority as an engine, sync or async, with a key for the client and one for a person."""

    def __init__(self):
        self.time = 1_700_000_000.0
        self.store = Store.open(":memory:", now=lambda: self.time)
        self.authority = Authority(self.store, parse_policy(POLICY), now=lambda: self.time)
        self.user = self.store.issue_key(name="u", role=Role.USER, tenant="default")
        self.admin = self.store.issue_key(name="boss", role=Role.ADMIN, tenant="default")
        self.asked = []

    def send(self, request, timeout):
        self.asked.append(request)
        path, _, query = request.url.removeprefix("http://localhost").partition("?")
        headers = {name.lower(): value for name, value in request.headers}
        return Response(*self.authority.handle(request.method, path, query, headers, request.content))

    def close(self):
        pass

    def call(self, method, path, body=None, **headers):
        """Ask without a client; the headers are given with underscores."""
        given = {name.replace("_", "-"): value for name, value in ({"x_api_key": self.user} | headers).items() if value}
        content = b"" if body is None else json.dumps(body).encode()
        status, _, answer = self.authority.handle(method, path, "", given, content)
        return status, json.loads(answer)


class Desk(Engine):
    """An engine whose answers may be what JSON can say, or bytes; without an answer it takes what it is told."""

    def __init__(self, *answers):
        super().__init__(*(answers or [{"success": True}]))

    def send(self, request, timeout):
        found = super().send(request, timeout)
        if isinstance(found, Response):
            return found
        return Response(200, {}, found if isinstance(found, bytes) else json.dumps(found).encode())

    @property
    def lines(self):
        return [f"{request.method} {request.url.removeprefix('http://localhost')}" for request in self.requests]

    def body(self, number=-1):
        content = self.requests[number].content
        return json.loads(content) if content else None


KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
CLASSES = pytest.mark.parametrize("cls", [AscendClient, AsyncAscendClient])
ENGINES = ["auto", "httpx2", "own"]
PARTIES = [f"{kind} {engine}" for engine in ENGINES for kind in ("sync", "async")]


def options_of(kind, where, options):
    """Return the class of a client, and how it is made; see `run`."""
    kind, _, engine = kind.partition(" ")
    if engine == "own":
        own = (httpx2.Client if kind == "sync" else httpx2.AsyncClient)(verify=False, trust_env=False)
        options = {"http_client": own, **options}
    elif engine:
        options = {"engine": engine, **options}
    options = {"agent_id": "a", "timeout": 5, "max_retries": 0, "api_key": getattr(where, "user", KEY), **options}
    if isinstance(where, str):
        options = {"api_url": where, **options}
    else:
        engine = where if kind == "sync" else Awaited(where)
        options = {"api_url": "http://localhost", "engine": engine, **options}
    return AscendClient if kind == "sync" else AsyncAscendClient, options


def run(kind, where, work, *, backend="asyncio", **options):
    """Call `work(client)` with the client of this kind, at a URL or at an engine; an awaitable is awaited.

    Args:
        kind: `sync` or `async`, alone or with one of `ENGINES`; `own` is a client of httpx2 that the user brings.
    """
    cls, options = options_of(kind, where, options)
    own = options.get("http_client") if kind.endswith(" own") else None
    if cls is AscendClient:
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(cls(**options))
            if own is not None:
                stack.enter_context(own)
            return work(client)

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(cls(**options))
            if own is not None:
                await stack.enter_async_context(own)
            result = work(client)
            return await result if inspect.isawaitable(result) else result

    return anyio.run(main, backend=backend)


class Alike:
    """A client or an agent, called alike whichever kind it is: what is awaitable is awaited on one loop."""

    def __init__(self, work, portal=None):
        self.work, self._portal = work, portal

    def __getattr__(self, name):
        found = getattr(self.work, name)
        if self._portal is None or not inspect.iscoroutinefunction(found):
            return found
        return lambda *args, **named: self._portal.call(lambda: found(*args, **named))


@contextlib.contextmanager
def opened(kind, where, **options):
    """Open a client of this kind, see `run`, for a test that calls both kinds alike."""
    cls, options = options_of(kind, where, options)
    own = options["http_client"] if kind.endswith(" own") else None
    if cls is AscendClient:
        with cls(**options) as client, own or contextlib.nullcontext():
            yield Alike(client)
        return
    with start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(cls(**options)) as client:
            yield Alike(client, portal)
        if own is not None:
            portal.call(own.aclose)
