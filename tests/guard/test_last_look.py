"""Kill switch and approval are looked at after every wait, right before the handler; and what did not run is given back."""

import asyncio
import threading

import anyio
import pytest
from kit.approvals import BODY, REFUND, UPLOAD, approved, ask, guarded, held
from kit.asgi import JSON, Wire, http_scope, part, unattended

pytestmark = pytest.mark.anyio


@pytest.fixture
def file(tmp_path):
    return tmp_path / "kill"


HEADERS = [("host", "site"), *JSON, ("authorization", "Bearer alice")]


class Slow(Wire):
    """A client that sends the last part of its body only after something has happened."""

    def __init__(self, happens):
        super().__init__(part(BODY[:5], more=True))
        self._happens = happens

    async def receive(self):
        if self._happens is not None and not self.messages:
            happens, self._happens = self._happens, None
            happens()
            return part(BODY[5:])
        return await super().receive()


def thrown(app, file):
    """The kill switch, thrown longer ago than anybody may go by what he read."""

    def throw():
        file.write_text("")
        app.guard.kill.expire()

    return throw


async def slowly(app, happens, handle=None):
    headers = [*HEADERS, *([("ascend-approval", handle)] if handle else [])]
    return await Slow(happens).through(app, http_scope("POST", "/refunds/7", headers=headers))


BOUND = {**UPLOAD, "match": "POST /refunds/{id}"}  # its body is compared, and read by no rule


class TestAfterTheBody:
    async def test_a_kill_while_the_body_of_a_rule_arrives(self, authority, handler, file):
        app = guarded(handler, kill_file=str(file))
        wire = await slowly(app, thrown(app, file))
        assert (wire.status, wire.problem, handler.ran, authority.submitted) == (503, "kill-switch", 0, [])

    @pytest.mark.parametrize("rule", [REFUND, BOUND], ids=str)
    async def test_a_kill_while_the_body_of_a_resumed_request_arrives(self, authority, handler, file, rule):
        app = guarded(handler, [rule], kill_file=str(file))
        handle = await approved(app, authority)
        wire = await slowly(app, thrown(app, file), handle)
        assert (wire.status, wire.problem, handler.ran) == (503, "kill-switch", 0)
        # Nothing ran, so the approval is still good when the switch is released.
        file.unlink()
        app.guard.kill.expire()
        assert (await ask(app, handle)).status == 200

    @pytest.mark.parametrize("rule", [REFUND, BOUND], ids=str)
    async def test_an_approval_withdrawn_while_the_body_arrives(self, authority, handler, rule):
        app = guarded(handler, [rule])
        handle = await approved(app, authority)
        wire = await slowly(app, lambda: authority.decide("denied"), handle)
        assert (wire.status, wire.problem, handler.ran) == (403, "denied", 0)

    async def test_the_time_of_the_client_is_not_the_authoritys(self, authority, handler, monkeypatch):
        """However long the body took, the authority has its whole time to answer."""
        app = guarded(handler, [BOUND], deadline=5)
        handle = await approved(app, authority)
        clock = app.guard.core.clock
        wire = await slowly(app, lambda: setattr(app.guard.core, "clock", lambda: clock() + 60), handle)
        assert (wire.status, handler.ran) == (200, 1)


class TestAfterEverythingElse:
    async def test_a_kill_while_the_authority_answers(self, authority, handler, file):
        app = guarded(handler, kill_file=str(file))
        handle = await approved(app, authority)
        authority.meanwhile = thrown(app, file)
        wire = await ask(app, handle)
        assert (wire.status, wire.problem, handler.ran) == (503, "kill-switch", 0)
        # The claim was made, and undone.
        authority.meanwhile = lambda: None
        file.unlink()
        app.guard.kill.expire()
        assert (await ask(app, handle)).status == 200

    # The one reads the body; about the other the authority is asked at once.
    @pytest.mark.parametrize("rule", [REFUND, BOUND], ids=str)
    @pytest.mark.parametrize("mode", ["enforce", "observe"])
    @pytest.mark.parametrize("word", ["approved", "denied"])
    async def test_a_kill_while_an_action_is_submitted(self, authority, handler, file, mode, word, rule):
        app = guarded(handler, [rule], kill_file=str(file), mode=mode)
        authority.word = "approved"
        assert (await ask(app)).status == 200  # it has read what the workers share
        authority.word, authority.meanwhile = word, thrown(app, file)
        wire = await ask(app)
        kind = "denied" if (mode, word) == ("enforce", "denied") else "kill-switch"
        assert (wire.problem, handler.ran) == (kind, 1)

    async def test_a_kill_while_the_run_is_journalled(self, authority, handler, file, tmp_path):
        app = guarded(handler, kill_file=str(file), report_outcomes=True, journal=str(tmp_path / "journal"))
        authority.word = "approved"
        journal = app.guard.journal
        throw, enter = thrown(app, file), journal.enter

        def entering(*arguments, **named):
            throw()
            return enter(*arguments, **named)

        journal.enter = entering
        wire = await ask(app)
        assert (wire.status, wire.problem, handler.ran) == (503, "kill-switch", 0)
        lines = b"".join(path.read_bytes() for path in (tmp_path / "journal").rglob("*.journal"))
        assert lines.count(b'"k":"entry"') == 1
        assert lines.count(b"the handler did not run: the agent is blocked") == 1


class TestGivenBack:
    """An approval whose action did not happen is still good: bounded, counted, and the authority is told."""

    @staticmethod
    def answering(status, *headers):
        async def handler(scope, receive, send):
            await send({"type": "http.response.start", "status": status, "headers": list(headers)})
            await send({"type": "http.response.body", "body": b""})

        return handler

    LATER = (b"Retry-After", b"1")

    @pytest.mark.parametrize(
        ("status", "headers", "runs", "outcome"),
        [
            (429, [LATER], 4, "failed"),
            (503, [LATER], 4, "failed"),
            # Whatever else it answers has used it.
            (200, [LATER], 1, "completed"),
            (302, [LATER], 1, "completed"),
            (429, [], 1, "failed"),
            (503, [], 1, "failed"),
            (500, [LATER], 1, "failed"),
            (404, [LATER], 1, "failed"),
            (399, [], 1, "completed"),
            (400, [], 1, "failed"),
            (500, [], 1, "failed"),
        ],
    )
    async def test_an_application_that_has_no_time_now(self, authority, status, headers, runs, outcome):
        app = guarded(self.answering(status, *headers))
        handle = await approved(app, authority)
        for _ in range(runs):
            assert (await ask(app, handle)).status == status
        used = await ask(app, handle)
        assert (used.status, used.problem, used.json["outcome"]) == (409, "approval-used", outcome)

    async def test_an_answer_that_breaks_off_has_used_it(self, authority):
        async def handler(scope, receive, send):
            await send({"type": "http.response.start", "status": 503, "headers": [self.LATER]})
            await send({"type": "http.response.body", "body": b"come", "more_body": True})

        app = guarded(handler)
        handle = await approved(app, authority)
        await ask(app, handle)
        assert (await ask(app, handle)).problem == "approval-used"

    async def test_the_journal_tells_of_it_and_a_busy_one_is_waited_for_apart(self, authority, tmp_path):
        options = {"journal": str(tmp_path / "journal"), "report_outcomes": True}
        app = unattended(guarded(self.answering(503, self.LATER), **options))
        handle, waits, conclude = await approved(app, authority), [], app.guard.journal.conclude

        def busy(*arguments, wait=True, **named):
            waits.append(wait)
            return wait and conclude(*arguments, **named)

        app.guard.journal.conclude = busy
        assert (await ask(app, handle)).status == 503
        assert waits == [False, True]
        lines = b"".join(path.read_bytes() for path in (tmp_path / "journal").rglob("*.journal"))
        assert lines.count(b"; the approval was given back (1 of 3)") == lines.count(b'"k":"outcome"') == 1
        await app.aclose()

    async def test_a_waiting_rule_finds_it_again(self, authority):
        app = guarded(self.answering(503, self.LATER), pending="wait:0.02s", poll_interval=0.01)
        await held(app)
        authority.decide("approved")
        for _ in range(2):
            assert (await ask(app)).status == 503
        assert len(authority.words) == 1

    async def test_beside_an_action_that_took_its_place_its_handle_finds_it(self, authority):
        running, go_on = asyncio.Event(), asyncio.Event()

        async def handler(scope, receive, send):
            running.set()
            await go_on.wait()
            await self.answering(503, self.LATER)(scope, receive, send)

        app = guarded(handler)
        handle = await approved(app, authority)
        first = asyncio.ensure_future(ask(app, handle))
        await running.wait()
        other = await held(app)
        go_on.set()
        assert (await first).status == 503
        assert await held(app) == other != handle
        assert (await ask(app, handle)).status == 503

    async def test_a_request_that_is_cancelled_at_the_last_look_has_not_used_it(self, authority, handler):
        app = unattended(guarded(handler, report_outcomes=True))
        handle = await approved(app, authority)
        state, enter, loop = app.guard.state, app.guard.journal.enter, asyncio.get_running_loop()
        snapshot = state.snapshot

        def leaving(**named):
            loop.call_soon_threadsafe(task.cancel)
            return snapshot(**named)

        def entering(*arguments, **named):
            app.guard.kill.expire()
            state.blocks, state.snapshot = True, leaving
            return enter(*arguments, **named)

        app.guard.journal.enter = entering
        task = asyncio.ensure_future(ask(app, handle))
        await asyncio.wait({task})
        for _ in range(200):
            if state.find(handle).given_back:
                break
            await asyncio.sleep(0.01)
        state.snapshot, app.guard.journal.enter = snapshot, enter
        assert (task.cancelled(), handler.ran) == (True, 0)
        assert (await ask(app, handle)).status == 200

    async def test_a_request_that_is_cancelled_right_before_the_handler_has_not_used_it(self, authority, handler):
        class Leaving(Wire):
            async def receive(self):
                if not self.messages:
                    task.cancel()
                return await super().receive()

        app = guarded(handler)
        handle = await approved(app, authority)
        scope = http_scope("POST", "/refunds/7", headers=[*HEADERS, ("ascend-approval", handle)])
        task = asyncio.ensure_future(Leaving(part(BODY)).through(app, scope))
        await asyncio.wait({task})
        assert (task.cancelled(), handler.ran) == (True, 0)
        assert (await ask(app, handle)).status == 200

    @pytest.mark.parametrize("blocks", [True, False])
    @pytest.mark.parametrize("held", [True, False])
    async def test_only_what_may_wait_for_a_shared_state_is_given_back_by_a_thread(
        self, authority, handler, blocks, held
    ):
        class Leaving(Wire):
            async def receive(self):
                if not self.messages:
                    task.cancel()
                return await super().receive()

        app, by = unattended(guarded(handler, report_outcomes=True)), []
        handle = await approved(app, authority) if held else ""
        authority.word = "approved"
        conclude = app.guard.journal.conclude

        def concluding(*arguments, **named):
            by.append(threading.current_thread().name)
            return conclude(*arguments, **named)

        app.guard.state.blocks, app.guard.journal.conclude = blocks, concluding
        headers = [*HEADERS, ("ascend-approval", handle)] if held else HEADERS
        task = asyncio.ensure_future(
            Leaving(part(BODY)).through(app, http_scope("POST", "/refunds/7", headers=headers))
        )
        await asyncio.wait({task})
        for thread in threading.enumerate():
            if thread.name == "ascend-give-up":
                thread.join()
        own = "ascend-give-up" if blocks and held else threading.current_thread().name
        assert (task.cancelled(), handler.ran, by) == (True, 0, [own])

    async def test_what_was_told_already_is_not_given_back(self, authority, handler, tmp_path):
        app = unattended(guarded(handler, journal=str(tmp_path / "journal"), report_outcomes=True))
        handle = await approved(app, authority)
        assert (await ask(app, handle)).status == 200
        app.guard.runs.give_up(handler.scope["state"]["ascend"].run)
        assert (await ask(app, handle)).json["outcome"] == "completed"
        lines = b"".join(path.read_bytes() for path in (tmp_path / "journal").rglob("*.journal"))
        assert (handler.ran, lines.count(b'"k":"outcome"')) == (1, 1)


async def test_what_became_of_an_approved_run_is_journalled_though_its_scope_was_cancelled(authority, tmp_path):
    async def handler(scope, receive, send):
        group.cancel_scope.cancel()
        await anyio.sleep(60)

    options = {"state": str(tmp_path / "state.db"), "journal": str(tmp_path / "journal"), "report_outcomes": True}
    app = unattended(guarded(handler, **options))
    handle = await approved(app, authority)
    async with anyio.create_task_group() as group:
        group.start_soon(ask, app, handle)
    lines = b"".join(path.read_bytes() for path in (tmp_path / "journal").rglob("*.journal"))
    assert lines.count(b"the handler was interrupted") == 1
    assert (await ask(app, handle)).json["outcome"] == "failed"


async def test_what_became_of_it_is_journalled_though_the_request_is_cancelled_while_it_is_recorded(
    authority, handler, tmp_path
):
    options = {"state": str(tmp_path / "state.db"), "journal": str(tmp_path / "journal"), "report_outcomes": True}
    app = unattended(guarded(handler, **options))
    handle = await approved(app, authority)
    state, loop = app.guard.state, asyncio.get_running_loop()
    settle = state.settle

    def leaving(*arguments, **named):
        loop.call_soon_threadsafe(task.cancel)
        settle(*arguments, **named)

    state.settle = leaving
    task = asyncio.ensure_future(ask(app, handle))
    await asyncio.wait({task})
    for _ in range(200):
        lines = b"".join(path.read_bytes() for path in (tmp_path / "journal").rglob("*.journal"))
        if b'"k":"outcome"' in lines:
            break
        await asyncio.sleep(0.01)
    assert (handler.ran, lines.count(b'"k":"outcome"')) == (1, 1)
