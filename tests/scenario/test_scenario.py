"""Allow, deny, hold and approve, authority down: the same story, told in the same words by every framework."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time

import httpx2
import pytest
from scenario_apps import ASGI, WSGI

pytestmark = [pytest.mark.socket, pytest.mark.slow]

POLICY = """
[[policy]]
name = "reads are fine"
action_types = ["data_access"]
decision = "approved"

[[policy]]
name = "small refunds are fine"
action_types = ["transaction"]
when = "action.action_details.amount <= 100"
decision = "approved"

[[policy]]
name = "refunds need a person"
action_types = ["transaction"]
when = "action.action_details.amount > 100 && action.action_details.amount <= 1000"
decision = "pending"
reason = "refund above 100"

[[policy]]
name = "huge refunds are refused"
action_types = ["transaction"]
when = "action.action_details.amount > 1000"
decision = "denied"
reason = "refund above 1000"
"""


def wait_until_up(url):
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(url)
        assert time.monotonic() < deadline, f"{url} does not answer"
        time.sleep(0.05)


class AuthorityProcess:
    """The embedded authority, on a port of its own, that can be stopped and started again."""

    def __init__(self, folder):
        self._policy = folder / "policy.toml"
        self._policy.write_text(POLICY)
        self._database = folder / "policy.db"
        self.port = 0
        self.start()
        self.key = self._keys["user"]
        self.admin = self._keys["admin"]

    def start(self):
        command = [sys.executable, "-m", "ascend_middleware.cli", "authority", "--policy", str(self._policy)]
        self._process = subprocess.Popen(
            [*command, "--port", str(self.port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._keys = {}
        for line in self._process.stdout:
            words = line.split()
            if words and words[0] in ("admin", "user"):
                self._keys[words[0]] = words[1]
            if line.startswith("authority listening on"):
                self.url = words[-1]
                self.port = int(self.url.rpartition(":")[2])
                break
        wait_until_up(f"{self.url}/health")

    def stop(self):
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)
        self._process.stdout.close()

    def approve(self, action_id):
        """Approve as a person does, with an administrator's key."""
        answer = httpx2.post(
            f"{self.url}/api/v1/actions/{action_id}/approve", json={}, headers={"X-API-Key": self.admin}
        )
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    authority = AuthorityProcess(tmp_path_factory.mktemp("authority"))
    yield authority
    authority.stop()


async def nothing(): ...


class Site:
    """A server with the application in it."""

    def __init__(self, app, *, asynchronous, closing):
        self._closing = closing
        if asynchronous:
            import uvicorn

            config = uvicorn.Config(app, port=0, log_level="critical", interface="asgi3", loop="asyncio", ws="none")
            self._listener = config.bind_socket()
            self._server = uvicorn.Server(config)
            port = self._listener.getsockname()[1]
            self._loop = asyncio.new_event_loop()

            def run():
                with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                    runner.run(self._server.serve(sockets=[self._listener]))

        else:
            import waitress

            self._server = waitress.create_server(app, host="127.0.0.1", port=0)
            port = int(self._server.effective_port)
            run = self._server.run
        self._asynchronous = asynchronous
        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=20)
        wait_until_up(f"http://127.0.0.1:{port}/health")

    def close(self):
        self.client.close()
        if self._asynchronous:
            asyncio.run_coroutine_threadsafe(self._closing(), self._loop).result(10)
            self._server.should_exit = True
        else:
            asyncio.run(self._closing())
            # In its own thread, which may be waiting for these sockets.
            self._server.trigger.pull_trigger(self._server.close)
        self._thread.join(10)


@pytest.fixture(params=[*ASGI, *WSGI])
def site(request, authority, tmp_path):
    ran = []
    options = {
        "api_url": authority.url,
        "api_key": authority.key,
        "state": "memory:",
        "journal": str(tmp_path / "journal"),
        "max_retries": 0,
    }
    built = (ASGI.get(request.param) or WSGI[request.param])(ran, options)
    app, closing = built if isinstance(built, tuple) else (built, nothing)
    site = Site(app, asynchronous=request.param in ASGI, closing=closing)
    ran.clear()
    site.ran = ran
    yield site
    site.close()


def told(answer):
    """Return what an answer says, without what differs by nature: ids, times, and how a framework spells a header."""
    kind = answer.headers["content-type"].partition(";")[0]
    if kind != "application/problem+json":
        return answer.status_code, answer.json()
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    problem = body["type"].rpartition(":")[2]
    return answer.status_code, problem, body.get("reason"), answer.headers.get("ascend-decision")


def refund(site, amount, customer=7, **headers):
    return site.client.post(f"/customers/{customer}/refunds", json={"amount": amount}, headers=headers)


def test_the_story_is_the_same_everywhere(site, authority):
    client, ran = site.client, site.ran
    # free, blocked, forgotten
    assert told(client.get("/health")) == (200, {"ran": "health"})
    assert told(client.get("/internal/keys"))[:2] == (403, "blocked")
    assert told(client.get("/forgotten"))[:2] == (403, "unmapped-route")
    assert [name for name, *_ in ran] == ["health"]
    ran.clear()
    # allow
    assert told(client.get("/customers/7")) == (200, {"ran": "read"})
    assert told(refund(site, 50)) == (200, {"ran": "refund"})
    assert ran == [("read", {"customer_id": "7"}, b""), ("refund", {"customer_id": "7"}, b'{"amount":50}')]
    ran.clear()
    # deny
    assert told(refund(site, 5000)) == (403, "denied", "refund above 1000", "denied")
    # hold and approve
    held = refund(site, 500)
    assert told(held) == (403, "approval-required", "refund above 100", "pending")
    handle = held.headers["ascend-approval"]
    assert told(refund(site, 500, **{"Ascend-Approval": handle}))[1] == "approval-required"
    assert not ran
    authority.approve(held.headers["ascend-action-id"])
    assert told(refund(site, 501, **{"Ascend-Approval": handle}))[:2] == (409, "approval-mismatch")
    assert told(refund(site, 500, **{"Ascend-Approval": handle})) == (200, {"ran": "refund"})
    assert told(refund(site, 500, **{"Ascend-Approval": handle}))[:2] == (409, "approval-used")
    assert ran == [("refund", {"customer_id": "7"}, b'{"amount":500}')]
    ran.clear()
    # a request that cannot be judged
    assert told(client.post("/customers/7/refunds", json={}))[:2] == (400, "bad-request")
    # authority down, and back
    authority.stop()
    try:
        down = refund(site, 50)
        assert told(down)[:2] == (503, "unavailable")
        assert int(down.headers["retry-after"]) >= 1
        assert told(client.get("/health")) == (200, {"ran": "health"})
        assert [name for name, *_ in ran] == ["health"]
    finally:
        authority.start()
    ran.clear()
    assert told(refund(site, 50)) == (200, {"ran": "refund"})
    assert len(ran) == 1
