"""Authorities as engines, by a script: they answer guards and clients without a socket."""

import asyncio
import inspect
import json

import anyio

import ascend_middleware.adapters.runner
from ascend_middleware.client.http import Response

KEY = "owkai_test_0123456789abcdef"
API = "https://authority.example"
GIVEN = {"agent_id": "bot", "api_url": API, "api_key": KEY, "max_retries": 0}


def options(rules, **settings):
    """Return what every guard is told: its rules, and settings."""
    return {"rules": {"rule": list(rules)}, **GIVEN, "report_outcomes": False, **settings}


def answer(status="approved", code=200, **more):
    body = {"action_id": "7", "status": status, "decision": status, **more}
    return Response(code, {"content-type": "application/json"}, json.dumps(body).encode())


def failed(code, content=b'{"detail": "no"}', **headers):
    return Response(code, {name.replace("_", "-"): value for name, value in headers.items()}, content)


class Engine:
    """Records what is asked; `answers` are used up one by one, the last one stays. Callables are asked, errors raised.

    On an event loop others run while it is asked, unless it is set not to wait.
    """

    waits = True

    def __init__(self, *answers):
        self.answers = list(answers) or [answer()]
        self.requests = []
        self.opened = 0
        self.closed = 0

    def send(self, request, timeout):
        self.requests.append(request)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        found = found(request) if callable(found) else found
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self):
        self.closed += 1

    @property
    def submitted(self):
        return [json.loads(request.content) for request in self.requests if request.url.endswith("/submit")]

    @property
    def kinds(self):
        return [action["action_type"] for action in self.submitted]


class Awaited:
    """The same engine for event loops."""

    def __init__(self, engine):
        self.engine = engine

    def begin(self, request, timeout):
        """Leave it to `send`."""

    async def send(self, request, timeout):
        if getattr(self.engine, "waits", True):
            await anyio.sleep(0)
        found = self.engine.send(request, timeout)
        return await found if inspect.isawaitable(found) else found

    async def aclose(self):
        self.engine.close()


def plug(monkeypatch, engine):
    """Let every adapter made in this test ask this engine."""

    def opened(made):
        engine.opened += 1
        return made

    runner = ascend_middleware.adapters.runner
    monkeypatch.setattr(runner, "open_engine", lambda settings, **given: opened(engine))
    monkeypatch.setattr(runner, "open_async_engine", lambda settings, **given: opened(Awaited(engine)))
    return engine


class Holding(Engine):
    """Holds every submitted action until the test decides; `meanwhile` is called before each answer."""

    def __init__(self):
        super().__init__()
        self.words = {}
        self.word = "pending"
        self.meanwhile = lambda: None
        self.reason = "because"
        self.down = None
        self.more = {}

    async def send(self, request, timeout):
        self.requests.append(request)
        await asyncio.sleep(0)
        self.meanwhile()
        if self.down is not None:
            raise self.down
        if request.url.endswith("/submit"):
            number = str(len(self.words) + 1)
            self.words[number] = self.word
        else:
            number = request.url.rsplit("/", 2)[1]
        if number not in self.words:
            return failed(404)
        return answer(self.words[number], action_id=number, reason=self.reason, **self.more)

    def decide(self, word, number="1"):
        self.words[number] = word
