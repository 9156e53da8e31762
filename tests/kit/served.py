"""A desk whose authority is served as an ASGI application, with its writer and what runs beside it."""

import asyncio
import contextlib
import json

from ascend_middleware.authority.server import create_app
from ascend_middleware.authority.service import Service

from .desk import Desk

POLICY = """
[[policy]]
name = "refunds need a person"
action_types = ["refund"]
decision = "pending"
"""


class Place(Desk):
    """A served authority on a file, one key of each kind, and the means to ask it."""

    def __init__(self, path, policy=POLICY):
        super().__init__(policy, path)
        self.path = path
        self.service = Service(self.authority)
        self.app = create_app(self.authority, service=self.service)

    @contextlib.asynccontextmanager
    async def serving(self):
        inbox, outbox = asyncio.Queue(), asyncio.Queue()
        task = asyncio.create_task(self.app({"type": "lifespan"}, inbox.get, outbox.put))
        await inbox.put({"type": "lifespan.startup"})
        assert (await outbox.get())["type"] == "lifespan.startup.complete"
        try:
            yield self
        finally:
            await inbox.put({"type": "lifespan.shutdown"})
            assert (await outbox.get())["type"] == "lifespan.shutdown.complete"
            await task

    async def ask(self, method, path, body=None, *, key=None, query="", headers=(), gone=None):
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"x-api-key", (key or self.user).encode()), *headers],
        }
        content = b"" if body is None else json.dumps(body).encode()
        messages = [{"type": "http.request", "body": content, "more_body": False}]
        sent = []

        async def receive():
            if messages:
                return messages.pop()
            await (gone or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        await self.app(scope, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])

    def submit(self, number=0, kind="refund", *, key=None, context=None):
        body = {"agent_id": "a", "action_type": kind, "context": {"n": number, **(context or {})}}
        return self.ask("POST", "/api/v1/actions/submit", body, key=key)
