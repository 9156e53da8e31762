"""The serving authority: shared commits, requests that are held until a decision, and what a broken database answers."""

import asyncio
import sqlite3
import threading
import time
from functools import partial

import pytest
from kit.served import Place

from ascend_middleware.authority import Role, Store
from ascend_middleware.authority.approvals import decide
from ascend_middleware.authority.bodies import MAX_WAIT, ApiError, read_wait
from ascend_middleware.authority.keys import operator
from ascend_middleware.authority.service import Waiters
from ascend_middleware.authority.store.patience import in_pieces
from ascend_middleware.authority.store.verification import verify
from ascend_middleware.authority.writer import Writer

pytestmark = pytest.mark.anyio


file = pytest.mark.sqlite_file


@pytest.fixture
def place(new_place):
    place = Place(new_place())
    yield place
    place.authority.close()


@file
async def test_sixty_four_at_once_lose_nothing_and_share_commits(place):
    commits = []
    place.store.engine.connection.set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)
    async with place.serving():
        answers = await asyncio.gather(*(place.submit(n) for n in range(256)))
        assert {status for status, _ in answers} == {200}
        assert len({answer["id"] for _, answer in answers}) == 256
        assert place.store.actions(tenant="default", limit=1)[1] == 256
        assert verify(place.store).whole and verify(place.store).entries == 256 + len(place.KEYS)
        assert len(commits) < 128


@file
async def test_what_came_before_is_found_out_at_once_for_all_who_share_a_commit(place):
    path, body = "/api/v1/actions/submit", {"agent_id": "a", "action_type": "read"}

    def ask(name, said=None, **more):
        named = [(b"idempotency-key", name.encode("latin-1"))]
        return place.ask("POST", path, {**body, "resource": said or name}, headers=named, **more)

    async with place.serving():
        first = await ask("0")
        asked = []
        place.store.engine.connection.set_trace_callback(
            lambda text: asked.append(text) if text.startswith("SELECT") and "FROM answers" in text else None
        )
        names = ["1", "0", "1", "2", "2"]
        one, before, again, two, other = await asyncio.gather(
            *(ask(name, "else" if number == 4 else None) for number, name in enumerate(names)),
        )
        assert before == first and one == again and one[1]["id"] != two[1]["id"]
        assert other[0] == 409 and len(asked) == 1, asked
        # A key of somebody else's, one that is none, and one that no key may be, are looked at by themselves.
        answers = await asyncio.gather(ask("0", key=place.admin), ask("0", key="owkai_no"), ask("0"), ask("n\u00f6"))
        assert [status for status, _ in answers] == [200, 401, 200, 422]
        assert answers[0][1]["id"] != first[1]["id"] and answers[2] == first
        assert verify(place.store).whole


async def test_one_that_is_refused_takes_nobody_along(place):
    async with place.serving():
        bad = place.ask("POST", "/api/v1/actions/submit", {"agent_id": "a"})
        answers = await asyncio.gather(place.submit(1), bad, place.submit(2))
        assert [status for status, _ in answers] == [200, 400, 200]


@file
async def test_what_could_not_be_committed_is_no_decision(place):
    async with place.serving():
        await place.submit(kind="read")
        pages = place.store.engine.connection.execute("PRAGMA page_count").fetchone()[0]
        place.store.engine.connection.execute(f"PRAGMA max_page_count={pages}")
        big = {"agent_id": "a", "action_type": "read", "context": {"x": "y" * 100_000}}
        answers = await asyncio.gather(*(place.ask("POST", "/api/v1/actions/submit", big) for _ in range(8)))
        assert {(status, answer["error"]["code"]) for status, answer in answers} == {(503, "STORAGE_UNAVAILABLE")}
        place.store.engine.connection.execute("PRAGMA max_page_count=1000000")
        assert (await place.submit(kind="read"))[0] == 200
        assert place.store.actions(tenant="default")[1] == 2 and verify(place.store).whole


@file
async def test_a_commit_that_fails_refuses_the_whole_group(place):
    def refuse(action, table, *_):
        ends = action == sqlite3.SQLITE_TRANSACTION and table == "COMMIT"
        return sqlite3.SQLITE_DENY if ends else sqlite3.SQLITE_OK

    async with place.serving():
        place.store.engine.connection.set_authorizer(refuse)
        answers = await asyncio.gather(*(place.submit(n) for n in range(5)))
        assert {(status, answer["error"]["code"]) for status, answer in answers} == {(503, "STORAGE_UNAVAILABLE")}
        place.store.engine.connection.set_authorizer(None)
        assert place.store.actions(tenant="default")[1] == 0
        assert (await place.submit())[0] == 200


@file
async def test_a_busy_database_is_told(place):
    async with place.serving():
        place.store.engine.connection.execute("PRAGMA busy_timeout=1")
        other = sqlite3.connect(place.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert (await place.submit())[0] == 503
        other.close()
        assert (await place.submit())[0] == 200


async def test_jobs_run_in_order_and_are_finished_at_the_end(place):
    writer = Writer(place.store)
    writer.start()
    seen = []
    tasks = [asyncio.create_task(writer.run(lambda n=n: seen.append(n))) for n in range(10)]
    await asyncio.sleep(0)
    await writer.stop()
    await asyncio.gather(*tasks)
    assert seen == list(range(10)) and not writer.running


async def test_a_few_jobs_wait_for_those_that_many_are_about_to_give(place):
    """They share one commit; how long they would wait for nobody is far longer than the test takes."""
    writer = Writer(place.store, moment=60)
    writer.start()
    done = []

    def together(count):
        return [asyncio.ensure_future(writer.run(lambda: done.append(1))) for _ in range(count)]

    await asyncio.gather(*together(16))
    few = together(2)
    await asyncio.sleep(0.05)
    assert len(done) == 16
    await asyncio.gather(*few, *together(12))
    assert len(done) == 30
    await asyncio.gather(*together(1), writer.stop())
    assert len(done) == 31


async def test_a_panic_ends_one_request_and_not_the_writer(place):
    class Panic(BaseException):
        """As compiled libraries raise it."""

    def panic():
        raise Panic("at the disco")

    writer = Writer(place.store)
    writer.start()
    results = await asyncio.gather(writer.run(panic), writer.run(lambda: 7), return_exceptions=True)
    assert isinstance(results[0], RuntimeError) and "Panic" in str(results[0]) and results[1] == 7
    assert await writer.run(lambda: 8) == 8
    await writer.stop()


async def test_a_cancelled_caller_harms_nobody(place):
    async with place.serving():
        task = asyncio.create_task(place.submit(1))
        await asyncio.sleep(0)
        task.cancel()
        assert (await place.submit(2))[0] == 200


# --- held until the decision


async def held(place, number, seconds=50, **more):
    started = time.monotonic()
    status, answer = await place.ask("GET", f"/api/v1/actions/{number}/status", query=f"wait={seconds}", **more)
    return status, answer["status"], time.monotonic() - started


async def test_a_held_request_learns_the_decision_long_before_its_time_is_over(place):
    async with place.serving():
        for number in range(1, 6):
            await place.submit(number)
        waiting = asyncio.gather(*(held(place, number) for number in range(1, 6) for _ in range(20)))
        await asyncio.sleep(0.2)
        started = time.monotonic()
        for number in range(1, 6):
            await place.ask("POST", f"/api/v1/actions/{number}/approve", {}, key=place.admin)
        answers = await waiting
        assert time.monotonic() - started < 20  # of 50 seconds, for which they would be held
        assert {answer[:2] for answer in answers} == {(200, "approved")}


async def test_a_decision_by_another_process_is_seen_too(place):
    async with place.serving():
        await place.submit()
        waiting = asyncio.create_task(held(place, 1))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        other = Store.open(place.path, now=lambda: 1_700_000_000.0)  # a connection of its own, as the command line has
        started = time.monotonic()
        decide(other, other.action(1, tenant="default"), {}, approved=False, by=operator())
        assert (await waiting)[:2] == (200, "denied")
        assert time.monotonic() - started < 20
        other.close()


async def test_what_is_decided_or_foreign_or_unknown_is_not_held(place):
    async with place.serving():
        await place.submit(kind="read")
        assert (await held(place, 1))[2] < 20
        await place.submit()
        stranger = place.store.issue_key(name="s", role=Role.ADMIN, tenant="other")
        for number in (2, 99, "act_"):
            status, answer = await place.ask("GET", f"/api/v1/actions/{number}/status", query="wait=30", key=stranger)
            assert status == 404
        for query in ("wait=x", "wait=-1", "wait=1&wait=2", "wait="):
            assert (await place.ask("GET", "/api/v1/actions/2/status", query=query))[0] == 422


async def test_a_wait_ends_with_its_time_or_its_client(place):
    async with place.serving():
        await place.submit()
        assert (await held(place, 1, 0.05))[1] == "pending"
        gone = asyncio.Event()
        task = asyncio.create_task(held(place, 1, gone=gone))
        await asyncio.sleep(0.05)
        gone.set()
        await asyncio.wait_for(task, 5)
        status, answer = await place.ask(
            "GET", "/api/v2/actions/act_1/status", headers=[(b"prefer", b"respond-async, wait=0")]
        )
        assert answer["data"]["status"] == "pending_approval"


async def test_those_who_wait_are_let_go_when_the_server_stops(place):
    async with place.serving():
        await place.submit()
        task = asyncio.create_task(held(place, 1))
        await asyncio.sleep(0.1)
    assert (await task)[1] == "pending"


async def test_too_many_waiters_are_answered_at_once(place):
    await place.submit()
    waiters = Waiters(place.store, most=2)
    tasks = [asyncio.create_task(waiters.until_decided(1, 30)) for _ in range(2)]
    await asyncio.sleep(0)
    assert waiters.count == 2
    await asyncio.wait_for(waiters.until_decided(1, 30), 5)
    await waiters.close()
    await asyncio.gather(*tasks)
    assert waiters.count == 0


async def test_one_who_comes_after_the_decision_is_not_held(place):
    """Between the answer "pending" and the wait the decision may have fallen, also while others wait."""
    await place.submit()
    await place.submit()
    waiters = Waiters(place.store)
    other = asyncio.create_task(waiters.until_decided(2, 30))
    await asyncio.sleep(0.1)
    decide(place.store, place.store.action(1, tenant="default"), {}, approved=True, by=operator())
    await asyncio.sleep(0.1)
    await asyncio.wait_for(waiters.until_decided(1, 30), 5)
    assert not other.done()
    await waiters.close()
    await other


def test_the_wait_is_read_from_the_query_or_a_preference():
    assert read_wait("", {}) == 0
    assert read_wait("wait=30", {"prefer": "wait=5"}) == 30
    assert read_wait("wait=0.5", {}) == 0.5
    assert read_wait("wait=3600", {}) == MAX_WAIT
    assert read_wait("", {"prefer": "respond-async, wait=10"}) == 10
    assert read_wait("", {"prefer": 'foo; wait="10"'}) == 10
    assert read_wait("", {"prefer": "await=10"}) == read_wait("", {"prefer": "wait=soon"}) == 0
    for query in ("wait=1e3", "wait=%D9%A7", "wait=1&wait=1"):
        with pytest.raises(ApiError):
            read_wait(query, {})


async def test_health_and_decisions_never_wait_for_those_who_read_much(place):
    going, reading, began = threading.Event(), threading.Semaphore(0), []

    def read(key):
        began.append(key)
        reading.release()
        going.wait(30)

    async with place.serving():
        await place.submit()
        service = place.service
        held = [asyncio.create_task(service.read(key, partial(read, key))) for key in (91, 92) for _ in range(16)]
        for _ in range(2):  # as many read at a time
            while not reading.acquire(blocking=False):
                await asyncio.sleep(0.01)
        assert sorted(began) == [91, 92]  # each key one
        assert (await place.ask("GET", "/health"))[1]["status"] == "healthy"
        assert (await place.submit(1))[0] == 200
        assert (await place.ask("GET", "/api/v1/actions/1/status"))[1]["status"] == "pending"
        assert (await place.ask("POST", "/api/v1/actions/1/approve", {}, key=place.admin))[1]["status"] == "approved"
        # Lists wait for lists, up to a bound for each key and one for all, and are told so beyond it.
        lists = [asyncio.create_task(place.ask("GET", "/api/v1/actions")) for _ in range(17)]
        done, _ = await asyncio.wait(lists, return_when=asyncio.FIRST_COMPLETED)
        assert [(status, answer["error"]["code"]) for status, answer in map(asyncio.Task.result, done)] == [
            (503, "READERS_BUSY")
        ]
        held += [asyncio.create_task(service.read(93, partial(read, 93))) for _ in range(16)]
        await asyncio.sleep(0)
        assert (await place.ask("GET", "/audit/logs", key=place.admin))[0] == 503
        # Whoever has no key is told so at once.
        assert (await place.ask("GET", "/api/v1/actions", key="owkai_user_unknown"))[0] == 401
        going.set()
        await asyncio.gather(*held)
        assert sorted(status for status, _ in await asyncio.gather(*lists)) == [200] * 16 + [503]
        assert (await place.ask("GET", "/audit/logs", key=place.admin))[0] == 200


async def test_what_reads_much_does_so_in_pieces_and_lets_decisions_go_first(place):
    going, writing, times = threading.Event(), threading.Event(), []

    def decide():
        writing.set()
        going.wait(30)

    def read():
        for _ in in_pieces(range(4)):
            times.append(time.monotonic())
            while time.monotonic() < times[-1] + 0.001:
                pass

    async with place.serving():
        for number in range(30):
            await place.submit(number)
        decision = asyncio.create_task(place.service.change(decide))
        while not writing.is_set():
            await asyncio.sleep(0.001)
        # It waits after each piece for as long as one takes many times over, and yet is done before the decision is.
        await place.service.read(91, read)
        assert all(after - before > 0.01 for before, after in zip(times, times[1:], strict=False))
        status, answer = await place.ask("GET", "/api/v1/actions")
        assert (status, len(answer["actions"])) == (200, 30) and not decision.done()
        going.set()
        await decision
