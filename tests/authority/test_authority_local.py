import os
import threading
from functools import partial
from urllib.parse import quote

import anyio
import anyio.to_thread
import pytest
from kit.processes import together

from ascend_middleware.api.decode import decode_decision
from ascend_middleware.authority import sample_policy
from ascend_middleware.client import AscendClient
from ascend_middleware.client.http import DeadlinePassed, Request
from ascend_middleware.config import Settings
from ascend_middleware.exceptions import ConfigurationError, NotFoundError
from ascend_middleware.local import open_engine

SUBMIT = b'{"agent_id":"a","action_type":"refund","parameters":{"amount":5000}}'


file = pytest.mark.sqlite_file


@pytest.fixture
def url(tmp_path, engine_kind, new_place):
    """A URL with the database beside its policy file, or one that names a server's."""
    (tmp_path / "policy.toml").write_text(sample_policy())
    database = f"?db={quote(new_place(), safe='')}" if engine_kind == "postgres" else ""
    return f"local:{tmp_path / 'policy.toml'}{database}"


def engine(url, asynchronous=False):
    return open_engine(Settings(api_url=url), asynchronous=asynchronous)


def request(url, path="/api/v1/actions/submit", content=SUBMIT, method="POST"):
    return Request(method, url + path, (("Idempotency-Key", "k"),), content)


@file
def test_it_decides_without_a_key_beside_the_policy(url, tmp_path):
    local = engine(url)
    answer = local.send(request(url), 5.0)
    assert decode_decision(answer.content).is_pending()
    assert local.send(request(url), 5.0).headers["idempotency-replayed"] == "true"
    assert local.send(request(url, "/api/v1/actions?status=pending", b"", "GET"), 5.0).status == 200
    local.close()
    assert (tmp_path / "policy.db").exists()
    assert (tmp_path / "policy.db").stat().st_mode & 0o077 == 0 or os.name != "posix"


def test_it_cannot_approve(url):
    local = engine(url)
    local.send(request(url), 5.0)
    assert local.send(request(url, "/api/v1/actions/1/approve", b"{}"), 5.0).status == 403
    local.close()


@file
def test_another_database_by_query(url, tmp_path):
    elsewhere = f"{url}?db={tmp_path / 'other.db'}"
    local = engine(elsewhere)
    assert local.send(request(elsewhere), 5.0).status == 200
    local.close()
    assert (tmp_path / "other.db").exists() and not (tmp_path / "policy.db").exists()


@pytest.mark.anyio
async def test_the_same_on_an_event_loop(url):
    local = engine(url, asynchronous=True)
    assert decode_decision((await local.send(request(url), 5.0)).content).is_pending()
    with pytest.raises(DeadlinePassed):
        await local.send(request(url), 0.0)
    await local.aclose()


def test_what_is_wrong_is_told_at_once(tmp_path):
    for bad in ("local:", f"local:{tmp_path / 'none.toml'}", "local:x?y=1"):
        with pytest.raises(ConfigurationError):
            engine(bad)


def test_threads_share_one_engine(url):
    local = engine(url)
    seen = []

    def submit(number):
        body = b'{"agent_id":"a","action_type":"refund","context":{"n":%d}}' % number
        seen.append(local.send(Request("POST", url + "/api/v1/actions/submit", (), body), 5.0).status)

    together(*(partial(submit, n) for n in range(10)))
    assert seen == [200] * 10
    local.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_opens_its_own_connection(url):
    local = engine(url)
    local.send(request(url), 5.0)
    child = os.fork()
    if child == 0:
        status = local.send(request(url, "/api/v1/actions/1/status", b"", "GET"), 5.0).status
        os._exit(0 if status == 200 and len(local._inherited) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert local.send(request(url, "/api/v1/actions/1/status", b"", "GET"), 5.0).status == 200
    local.close()


def test_the_client_speaks_to_it(url):
    with AscendClient(api_url=url, agent_id="a", agent_name="A") as client:
        connection = client.test_connection()
        assert connection["status"] == "connected", connection
        pending = client.submit_action(agent_id="a", action_type="refund", parameters={"amount": 5000})
        assert pending.is_pending() and pending.reason == "refund above 1000"
        allowed = client.evaluate_action("data_access", "customers", wait_for_decision=False)
        assert allowed.is_approved()
        assert client.log_action_completed(allowed.action_id, {"rows": 1})["success"] is True
        page = client.list_actions(status="pending")
        assert [row.action_id for row in page.actions] == [pending.action_id]
        assert client.get_action(pending.action_id).metadata["action_details"] == {"amount": 5000}
        refused = client.evaluate_action("x", "y", mcp_server_name="unknown", wait_for_decision=False)
        assert refused.is_denied()
        with pytest.raises(NotFoundError):
            client.get_action_status(99)


@pytest.mark.anyio
async def test_it_answers_while_the_application_has_all_threads_at_work(url):
    """A decision that waited for a thread would run into its deadline, which passes an open rule."""
    local, done = engine(url, asynchronous=True), threading.Event()
    shared = anyio.to_thread.current_default_thread_limiter()
    async with anyio.create_task_group() as handlers:
        for _ in range(int(shared.total_tokens)):
            handlers.start_soon(anyio.to_thread.run_sync, done.wait)
        while shared.available_tokens:
            await anyio.sleep(0.01)
        try:
            assert (await local.send(request(url), 5.0)).status == 200
        finally:
            done.set()
    await local.aclose()
