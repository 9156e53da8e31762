"""No state crosses tenants, threads, tasks or forks: keys, agents, correlation ids, connections, breakers."""

import logging
import os
import threading
from functools import partial

import anyio
import pytest
from kit.clients import Desk
from kit.clocked import World
from kit.processes import in_a_child, together
from kit.scripted import APPROVED, Scripted, http
from test_client_methods import APPROVED as APPROVAL

from ascend_middleware import exceptions as errors
from ascend_middleware.client import AscendClient, AsyncAscendClient
from ascend_middleware.client.breaker import CircuitBreaker

ENGINES = pytest.mark.parametrize("engine", ["auto", "httpx2"])
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are a matter of POSIX")


def key_of(tenant):
    return f"owkai_live_of_tenant_{tenant:08}"


def own(request, tenant):
    """Say whether a request carries one tenant's key and that tenant's agent, and nothing of another's."""
    headers, body = request.headers, request.json()
    return (
        headers["x-api-key"] == key_of(tenant)
        and headers["authorization"] == f"Bearer {key_of(tenant)}"
        and body["agent_id"] == f"agent-{tenant}"
        and body["resource"].startswith(f"of {tenant},")
    )


def tenant_of(request):
    return int(request.headers["x-api-key"][-8:])


@ENGINES
def test_threads_of_many_tenants_keep_to_themselves(engine):
    with Scripted(APPROVED) as server:
        clients = [
            AscendClient(key_of(tenant), api_url=server.url, agent_id=f"agent-{tenant}", engine=engine)
            for tenant in range(4)
        ]

        def work(tenant, number):
            for turn in range(10):
                clients[tenant].evaluate_action("t", f"of {tenant}, {number}.{turn}")

        together(*(partial(work, number % 4, number) for number in range(8)))
        for client in clients:
            client.close()
        assert len(server.requests) == 80
        assert all(own(request, tenant_of(request)) for request in server.requests)
        ids = [request.headers["x-correlation-id"] for request in server.requests]
        keys = [request.headers["idempotency-key"] for request in server.requests]
        assert len({*ids, *keys}) == 160


@ENGINES
def test_tasks_of_many_tenants_keep_to_themselves(engine):
    async def main(server):
        clients = [
            AsyncAscendClient(key_of(tenant), api_url=server.url, agent_id=f"agent-{tenant}", engine=engine)
            for tenant in range(4)
        ]

        async def work(tenant, number):
            for turn in range(10):
                await clients[tenant].evaluate_action("t", f"of {tenant}, {number}.{turn}")

        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(work, number % 4, number)
        for client in clients:
            await client.aclose()

    with Scripted(APPROVED) as server:
        anyio.run(main, server)
        assert len(server.requests) == 80
        assert all(own(request, tenant_of(request)) for request in server.requests)
        assert len({request.headers["x-correlation-id"] for request in server.requests}) == 80


def test_a_log_line_names_the_call_that_it_is_about(caplog):
    """Two calls interleaved: each line carries the correlation id of its own request (E11)."""
    gate, first = threading.Barrier(2, timeout=10), threading.Event()

    class Meeting(Desk):
        def send(self, request, timeout):
            first.set()
            gate.wait()
            return super().send(request, timeout)

    desk = Meeting(APPROVAL)

    def work(tenant):
        with AscendClient(
            key_of(tenant), api_url="http://localhost", agent_id=f"agent-{tenant}", engine=desk
        ) as client:
            client.get_action_status(7)

    with caplog.at_level(logging.DEBUG, logger="ascend_middleware.client"):
        together(*(partial(work, tenant) for tenant in range(2)))
    sent = {dict(request.headers)["X-Correlation-ID"]: dict(request.headers)["X-API-Key"] for request in desk.requests}
    lines = {record.thread: record.getMessage() for record in caplog.records if "HTTP 200" in record.getMessage()}
    assert len(sent) == len(lines) == 2
    assert all(sum(name in line for name in sent) == 1 for line in lines.values())
    assert len({name for name in sent for line in lines.values() if name in line}) == 2


def test_the_correlation_id_of_an_error_is_that_of_its_own_call():
    with Scripted(http(404, {"detail": "x"}, length=True)) as server:
        with AscendClient(key_of(1), api_url=server.url) as client:
            found = []
            for number in (1, 2):
                with pytest.raises(errors.NotFoundError) as caught:
                    client.get_action(number)
                found.append(caught.value.correlation_id)
        assert found == [request.headers["x-correlation-id"] for request in server.requests]


@FORKS
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_both_sides_of_a_fork_have_connections_and_ids_of_their_own():
    with Scripted(APPROVED) as server:
        with AscendClient(key_of(1), api_url=server.url, agent_id="agent-1") as client:
            client.evaluate_action("t", "of 1, parent before")
            assert in_a_child(lambda: client.evaluate_action("t", "of 1, child").is_approved())
            client.evaluate_action("t", "of 1, parent after")
        assert server.connections == 2  # the parent's, used again after the fork, and the child's
        assert len({request.headers["x-correlation-id"] for request in server.requests}) == 3
        assert len({request.headers["idempotency-key"] for request in server.requests}) == 3


@FORKS
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_what_another_thread_held_at_the_fork_is_not_held_in_the_child():
    now = [0.0]
    breaker = CircuitBreaker(threshold=1, timeout=10.0, clock=lambda: now[0])
    breaker.acquire().fail()
    now[0] = 11.0
    probe = breaker.acquire()  # under way in the parent when it forks
    held, done = threading.Event(), threading.Event()

    def hold():
        with breaker._lock:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    try:

        def child():
            token = breaker.acquire()
            probe.fail()  # the parent's probe says nothing here
            token.succeed()
            return breaker.state == "closed"

        assert in_a_child(child)
    finally:
        done.set()
        thread.join(10)
    probe.fail()
    assert breaker.state == "open"


def test_two_clients_share_no_breaker_and_no_kill_switch():
    one, other = World(http), World(http)
    assert one.core.breaker is not other.core.breaker
    with AscendClient(key_of(1), api_url="http://localhost", agent_id="a", engine=Desk(APPROVAL)) as first:
        with AscendClient(key_of(2), api_url="http://localhost", agent_id="a", engine=Desk(APPROVAL)) as second:
            first.kill.learn_command({"command_id": "1", "command_type": "BLOCK", "agent_id": "a"})
            with pytest.raises(errors.KillSwitchError):
                first.evaluate_action("t", "r")
            assert second.evaluate_action("t", "r").is_approved()
