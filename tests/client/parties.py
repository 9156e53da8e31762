"""Both clients, and the embedded authority behind them without a socket."""

import contextlib
import inspect
import json

import anyio
import httpx2

from ascend_middleware.authority import Authority, Role, Store, parse_policy
from ascend_middleware.client import AscendClient, AsyncAscendClient, Response

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


class Awaited:
    """The same house for event loops."""

    def __init__(self, house):
        self.house = house

    async def send(self, request, timeout):
        return self.house.send(request, timeout)

    async def aclose(self):
        pass


ENGINES = ["auto", "httpx2", "own"]
PARTIES = [f"{kind} {engine}" for engine in ENGINES for kind in ("sync", "async")]


def run(kind, where, work, **options):
    """Call `work(client)` with the client of this kind, at a URL or in a `House`; an awaitable is awaited.

    Args:
        kind: `sync` or `async`, alone or with one of `ENGINES`; `own` is a client of httpx2 that the user brings.
    """
    kind, _, engine = kind.partition(" ")
    if engine == "own":
        own = (httpx2.Client if kind == "sync" else httpx2.AsyncClient)(verify=False, trust_env=False)
        options = {"http_client": own, **options}
    elif engine:
        options = {"engine": engine, **options}
    options = {"agent_id": "a", "timeout": 5, "max_retries": 0, **options}
    if isinstance(where, House):
        engine = where if kind == "sync" else Awaited(where)
        options = {"api_key": where.user, "api_url": "http://localhost", "engine": engine, **options}
    else:
        options = {"api_key": KEY, "api_url": where, **options}
    if kind == "sync":
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(AscendClient(**options))
            if engine == "own":
                stack.enter_context(own)
            return work(client)

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(AsyncAscendClient(**options))
            if engine == "own":
                await stack.enter_async_context(own)
            result = work(client)
            return await result if inspect.isawaitable(result) else result

    return anyio.run(main)
