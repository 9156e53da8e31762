"""A client core on a scripted clock: no socket, no sleeping."""

import json

from ascend_middleware.client import ClientCore, Response, Send
from ascend_middleware.config import Settings
from ascend_middleware.flow import Sleep, drive


def answer(status, body=None, **headers):
    content = b"" if body is None else json.dumps(body).encode()
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


APPROVED = answer(200, {"action_id": "7", "status": "approved"})
PENDING = answer(200, {"action_id": "7", "status": "pending"})


class World:
    """A clock, and a perform that answers by a script and lets only the clock sleep."""

    def __init__(self, *script, cost=0.0, **settings):
        self.time = 1000.0
        self.script = list(script)
        self.cost = cost
        self.sent = []
        self.sleeps = []
        settings = {"api_key": "owkai_live_0123456789abcdef", "api_url": "http://localhost", **settings}
        self.core = ClientCore(
            Settings(**settings), clock=lambda: self.time, random=lambda: 0.999, now=lambda: 1_700_000_000.0
        )

    def perform(self, step):
        if isinstance(step, Sleep):
            assert step.seconds >= 0
            self.sleeps.append(step.seconds)
            self.time += step.seconds
            return None
        assert isinstance(step, Send)
        self.sent.append(step)
        self.time += self.cost
        item = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(item, Exception):
            raise item
        return item

    def run(self, flow):
        return drive(flow, self.perform)

    def headers(self, name):
        return [dict(step.request.headers).get(name) for step in self.sent]
