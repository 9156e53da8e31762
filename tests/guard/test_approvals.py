"""Held actions: handles, resuming, one run for each approval, and whoever tries otherwise."""

import asyncio
import dataclasses
import json
import logging
import re
from datetime import UTC, datetime

import pytest
from kit.approvals import BODY, REFUND, UPLOAD, approved, ask, guarded, held, status
from kit.asgi import JSON, Handler, get, part, unattended

from ascend_middleware import Agent
from ascend_middleware.client.http import ConnectFailed
from ascend_middleware.journal.journal import JournalError

pytestmark = pytest.mark.anyio
LENGTH, CHUNKED = ("content-length", str(len(BODY))), ("transfer-encoding", "chunked")


def recorded(directory):
    """Return what the journal in a directory holds."""
    lines = b"".join(path.read_bytes().rstrip(b"\0") for path in directory.rglob("*.journal")).splitlines()
    return [json.loads(line.partition(b" ")[2]) for line in lines]


class TestTheLoop:
    async def test_held_approved_resumed_and_never_again(self, authority, handler):
        app = guarded(handler)
        wire = await ask(app)
        approval = wire.json["approval"]
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", approval["handle"])
        assert approval["state"] == "pending"
        assert 86_000 < approval["expires_in"] <= 86_400
        assert wire.headers["ascend-approval"] == approval["handle"]
        assert wire.headers["location"] == approval["status_url"] == f"/.ascend/approvals/{approval['handle']}"
        assert wire.headers["retry-after"] == "1"
        assert wire.json["executed"] is False
        assert handler.ran == 0

        again = await ask(app, approval["handle"])
        assert (again.status, again.problem) == (403, "approval-required")
        assert again.json["approval"]["handle"] == approval["handle"]
        assert await status(app, approval["handle"]) == (200, "pending")

        authority.decide("approved")
        resumed = await ask(app, approval["handle"])
        assert (resumed.status, resumed.body, handler.ran, handler.body) == (200, b"done", 1, BODY)
        used = await ask(app, approval["handle"])
        assert (used.status, used.problem, used.json["outcome"]) == (409, "approval-used", "completed")
        assert handler.ran == 1
        assert await status(app, approval["handle"]) == (200, "used")
        assert len(authority.submitted) == 1

    @pytest.mark.parametrize(("reports", "kinds"), [(False, []), (True, ["entry", "outcome"])])
    async def test_the_journal_has_a_run_only_where_outcomes_are_reported(
        self, authority, handler, tmp_path, reports, kinds
    ):
        app = unattended(guarded(handler, journal=str(tmp_path), report_outcomes=reports))
        handle = await approved(app, authority)
        assert (await ask(app, handle)).status == 200
        assert (await ask(app, handle)).json["outcome"] == "completed"
        records = recorded(tmp_path)
        assert [record["k"] for record in records] == kinds
        assert [record["error"] for record in records if record["k"] == "outcome"] == [None] * reports
        # Under the number of the claim: after a crash the two are known to be one run.
        claimed = json.loads(app.guard.state.find(handle).entry)["n"]
        assert {record["n"] for record in records} <= {claimed}
        await app.aclose()

    async def test_nothing_is_journalled_of_what_nobody_reports(self, authority, handler, tmp_path):
        app = unattended(guarded(handler, journal=str(tmp_path), report_outcomes=False))
        authority.word = "approved"
        for _ in range(2):  # the first one reads what the workers share
            assert (await ask(app, method="PUT", path="/files/a")).status == 200
        assert recorded(tmp_path) == []
        await app.aclose()

    async def test_what_passes_without_a_decision_is_journalled_though_nobody_reports(
        self, authority, handler, tmp_path
    ):
        app = unattended(guarded(handler, journal=str(tmp_path), report_outcomes=False, on_failure="open"))
        authority.down = ConnectFailed("no")
        assert (await ask(app)).status == 200
        assert [record.get("how") for record in recorded(tmp_path)] == ["open", None]
        await app.aclose()

    async def test_the_outcome_of_a_failed_run_is_what_the_second_use_learns(self, authority):
        async def handler(scope, receive, send):
            raise RuntimeError("no")

        app = guarded(handler)
        handle = await approved(app, authority)
        with pytest.raises(RuntimeError):
            await ask(app, handle)
        assert (await ask(app, handle)).json["outcome"] == "failed"

    async def test_a_second_use_while_the_first_runs_learns_that_it_is_unknown(self, authority):
        running, go_on = asyncio.Event(), asyncio.Event()

        async def handler(scope, receive, send):
            running.set()
            await go_on.wait()
            await Handler()(scope, receive, send)

        app = guarded(handler)
        handle = await approved(app, authority)
        first = asyncio.ensure_future(ask(app, handle))
        await running.wait()
        second = await ask(app, handle)
        assert (second.problem, second.json["outcome"]) == ("approval-used", "unknown")
        go_on.set()
        assert (await first).status == 200

    async def test_respond_async_says_202_and_not_executed(self, authority, handler):
        app = guarded(handler)
        wire = await ask(app, headers=[*JSON, ("prefer", "respond-async, wait=5")])
        assert (wire.status, wire.json["executed"]) == (202, False)
        assert wire.headers["location"].endswith(wire.json["approval"]["handle"])

    async def test_under_a_prefix_the_status_url_has_it(self, authority, handler):
        app = guarded(handler)
        wire = await ask(app, path="/api/refunds/7", root_path="/api")
        assert wire.json["approval"]["status_url"].startswith("/api/.ascend/approvals/")

    async def test_json_may_be_spelt_anew_but_not_say_anything_else(self, authority, handler):
        app = guarded(handler)
        handle = await approved(app, authority)
        for body in (
            b'{"amount": 5.0, "note": "a"}',
            b'{"amount": 5e0, "note": "a"}',
            b'{"amount": "5", "note": "a"}',
            b'{"amount": 5, "note": "b"}',
            b'{"amount": 5, "note": "a", "x": 1}',
        ):
            assert (await ask(app, handle, body=body)).problem == "approval-mismatch", body
        assert handler.ran == 0
        assert (await ask(app, handle, body=b'{"note":"\\u0061",\n "amount":5}')).status == 200

    async def test_a_large_body_has_no_handle(self, authority, handler):
        app = guarded(handler, body_limit=100)
        for size, has_one in ((101, False), (100, True)):
            wire = await ask(app, method="PUT", path="/files/a", body=b"x" * size, headers=[])
            assert (wire.status, wire.problem, "approval" in wire.json) == (403, "approval-required", has_one)

    async def test_body_bytes_are_bound_where_no_rule_reads_them(self, authority, handler):
        app, upload = guarded(handler), {"method": "PUT", "path": "/files/a", "headers": []}
        handle = await approved(app, authority, body=b"one", **upload)
        assert (await ask(app, handle, body=b"two", **upload)).status == 409
        assert (await ask(app, handle, body=b"one", **upload)).status == 200
        assert handler.body == b"one"


class TestAttacks:
    @pytest.mark.parametrize(
        "change",
        [
            {"path": "/refunds/8"},
            {"method": "PUT", "path": "/files/7"},
            {"host": "other"},
            {"query": b"dry=1"},
            {"body": b'{"amount": 5000, "note": "a"}'},
            {"headers": [("content-type", "application/vnd.x+json")]},
            {"headers": [*JSON, ("x-channel", "phone")]},
            {"headers": [*JSON, ("content-encoding", "identity")]},
        ],
        ids=str,
    )
    async def test_a_handle_is_for_its_own_request_only(self, authority, handler, change):
        app = guarded(handler)
        handle = await approved(app, authority)
        wire = await ask(app, handle, **change)
        assert (wire.status, wire.problem) == (409, "approval-mismatch")
        assert handler.ran == 0
        assert (await ask(app, handle)).status == 200  # what failed has used nothing up

    @pytest.mark.parametrize("change", ["agent", "principal"])
    async def test_a_handle_is_for_its_own_caller_only(self, authority, handler, change):
        caller = {"agent": "bot", "principal": "alice"}
        app = guarded(handler, identify=lambda _: Agent(caller["agent"], principal=caller["principal"]))
        handle = await approved(app, authority)
        caller[change] = "mallory"
        assert (await ask(app, handle)).problem == "approval-mismatch"
        # Nor does the same request of somebody else find it.
        assert (await ask(app)).json["approval"]["handle"] != handle
        assert handler.ran == 0

    @pytest.mark.parametrize(
        "other",
        [
            {"rules": [{**REFUND, "details": {}}, UPLOAD]},
            {"rules": [{**REFUND, "action_type": "data_access"}, UPLOAD]},
            {"rules": [REFUND]},
            {"api_key": "owkai_test_another_tenant"},
            {"organization_id": "2"},
            {"api_url": "https://elsewhere.example"},
        ],
        ids=str,
    )
    async def test_a_handle_is_for_its_own_table_and_tenant_only(self, authority, handler, tmp_path, other):
        place = {"state": str(tmp_path / "state.db"), "journal": "memory:"}
        handle = await held(guarded(handler, **place))
        authority.decide("approved")
        second = guarded(handler, **{**place, **other})
        wire = await ask(second, handle)
        assert (wire.status, wire.problem, handler.ran) == (409, "approval-mismatch", 0)
        assert (await ask(second)).json["approval"]["handle"] != handle
        await second.aclose()

    @pytest.mark.parametrize("handle", ["A" * 43, "short", "", "' OR 1=1 --", "é" * 43, "A" * 4000])
    async def test_guessed_handles(self, authority, handler, handle):
        app = guarded(handler)
        await approved(app, authority)
        wire = await ask(app, handle)
        assert (wire.status, wire.problem, handler.ran) == (409, "approval-mismatch", 0)

    @pytest.mark.parametrize("resumed", [True, False])
    async def test_a_body_that_does_not_arrive_is_no_large_one(self, authority, handler, resumed):
        app = guarded(handler, [UPLOAD], body_timeout=0.02)
        upload = {"path": "/files/a", "method": "PUT"}
        handle = await approved(app, authority, **upload)
        wire = await ask(app, handle if resumed else None, body=[part(BODY[:5], more=True)], **upload)
        assert (wire.status, wire.problem, handler.ran) == (408, "body-timeout", 0)
        assert (await ask(app, handle, **upload)).status == 200

    async def test_two_handles_are_refused(self, authority, handler):
        app = guarded(handler)
        handle = await held(app)
        wire = await ask(app, handle, headers=[*JSON, ("ascend-approval", handle)])
        assert (wire.status, wire.problem) == (400, "bad-request")

    async def test_an_expired_approval_runs_nothing(self, authority, handler, monkeypatch):
        app, now = guarded(handler, approval_expiry=60), [1_800_000_000.0]
        app.guard.approvals._now = lambda: now[0]
        handle = await approved(app, authority)
        now[0] += 60
        wire = await ask(app, handle)
        assert (wire.status, wire.problem) == (403, "denied")
        assert await status(app, handle) == (200, "expired")

    @pytest.mark.parametrize("reason", ["not any more", ""])
    async def test_what_ends_right_before_it_is_claimed_runs_nothing_and_says_why(self, authority, handler, reason):
        app = guarded(handler)
        handle = await approved(app, authority)
        claim = app.guard.state.claim

        def ended(handle, **named):
            app.guard.state.note(handle, status="denied", reason=reason)
            return claim(handle, **named)

        app.guard.state.claim = ended
        wire = await ask(app, handle)
        assert (wire.status, wire.problem, handler.ran) == (403, "denied", 0)
        assert wire.json["detail"] == wire.json["reason"] == (reason or "the approval has expired")

    async def test_what_is_lost_right_before_it_is_claimed_runs_nothing(self, authority, handler):
        app = guarded(handler)
        handle = await approved(app, authority)
        app.guard.state.claim = lambda handle, **named: None  # as of a state that was emptied
        wire = await ask(app, handle)
        assert (wire.status, wire.problem, handler.ran) == (409, "approval-mismatch", 0)

    @pytest.mark.parametrize(("left", "kept"), [(30, 30), (7200, 3600)])
    async def test_the_authoritys_own_expiry_counts_where_it_is_sooner(self, authority, handler, left, kept):
        app, now = guarded(handler, approval_expiry=3600), [1_800_000_000.0]
        app.guard.approvals._now = lambda: now[0]
        authority.more = {"expires_at": datetime.fromtimestamp(now[0] + left, UTC).isoformat()}
        wire = await ask(app)
        assert wire.json["approval"]["expires_in"] == kept
        handle = wire.json["approval"]["handle"]
        authority.decide("approved")
        now[0] += kept
        assert ((await ask(app, handle)).problem, handler.ran) == ("denied", 0)
        now[0] -= 1
        assert ((await ask(app, handle)).status, handler.ran) == (200, 1)

    async def test_what_the_authority_has_let_expire_already_is_offered_for_no_time(self, authority, handler):
        app, now = guarded(handler, approval_expiry=3600), [1_800_000_000.0]
        app.guard.approvals._now = lambda: now[0]
        authority.more = {"expires_at": datetime.fromtimestamp(now[0] - 10, UTC).isoformat()}
        wire = await ask(app)
        assert wire.json["approval"]["expires_in"] == 0
        assert (await ask(app, wire.json["approval"]["handle"])).problem == "denied"

    @pytest.mark.parametrize("odd", ["soon", 7, "", None, "99999-01-01T00:00:00Z"])
    async def test_an_expiry_that_cannot_be_read_is_ours(self, authority, handler, odd):
        app = guarded(handler, approval_expiry=3600)
        authority.more = {"expires_at": odd}
        assert 3590 < (await ask(app)).json["approval"]["expires_in"] <= 3600

    async def test_a_client_that_leaves_touches_no_claim_of_another_one(self, authority, handler):
        app = guarded(handler)
        handle = await approved(app, authority)
        state = app.guard.state
        claim, given = state.claim, {"by": "another run", "process": "p", "entry": "{}"}

        def lost(*arguments, **named):
            claim(*arguments, **{**named, **given})
            task.cancel()
            return claim(*arguments, **named)

        state.claim, state.blocks = lost, True
        task = asyncio.ensure_future(ask(app, handle))
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(lambda: None)
        await asyncio.wrap_future(app._governor.runner._threads.get().submit(lambda: None))
        row = state.find(handle)
        assert (row.claimed_by, row.outcome, row.given_back, handler.ran) == ("another run", "", 0, 0)

    @pytest.mark.parametrize(
        ("error", "detail"),
        [
            (JournalError("the journal is full", full=True), "Too much waits to be reported."),
            (JournalError("the journal cannot be written"), "What was to run could not be recorded."),
        ],
    )
    async def test_a_run_that_cannot_be_journalled_is_none(self, authority, handler, tmp_path, error, detail):
        """No claim stays unsettled, and the approval is still good."""
        app = guarded(handler, journal=str(tmp_path), report_outcomes=True)
        handle = await approved(app, authority)
        journal = app.guard.journal
        enter = journal.enter

        def full(*arguments, **named):
            raise error

        journal.enter = full
        wire = await ask(app, handle)
        assert (wire.status, wire.problem, handler.ran) == (503, "unavailable", 0)
        assert (wire.json["detail"], wire.headers["retry-after"]) == (detail, "5")
        assert list(app.guard.state.unsettled(journal.process)) == []
        assert recorded(tmp_path) == []  # nor does the journal tell of the end of what never began
        journal.enter = enter
        assert ((await ask(app, handle)).status, handler.ran) == (200, 1)
        assert list(app.guard.state.unsettled(journal.process)) == []
        await app.aclose()

    async def test_an_emptied_state_runs_nothing(self, authority, handler, tmp_path):
        app = guarded(handler, state=str(tmp_path / "state.db"), journal="memory:")
        handle = await approved(app, authority)
        for path in tmp_path.glob("state.db*"):
            path.unlink()
        wire = await ask(app, handle)
        assert (wire.status, wire.problem, handler.ran) == (409, "approval-mismatch", 0)
        await app.aclose()

    async def test_the_authoritys_current_word_counts(self, authority, handler):
        app = guarded(handler)
        handle = await approved(app, authority)
        assert await status(app, handle) == (200, "approved")
        authority.decide("denied")
        assert (await ask(app, handle)).problem == "denied"
        assert handler.ran == 0

    async def test_what_is_on_hold_is_never_passed_open(self, authority, handler):
        app = guarded(handler, on_failure="open", journal="memory:")
        handle = await held(app)
        authority.down = ConnectFailed("no")
        for given in (handle, None):
            wire = await ask(app, given)
            assert (wire.status, wire.problem, handler.ran) == (503, "unavailable", 0)

    async def test_what_is_on_hold_is_never_passed_open_as_a_stream_either(self, authority, handler):
        app = guarded(handler, on_failure="open", journal="memory:")
        upload = {"path": "/files/a", "method": "PUT"}
        await held(app, **upload)
        for code, problem in ((503, "unavailable"), (403, "denied")):
            authority.down = ConnectFailed("refused")
            wire = await ask(app, **upload, headers=(*JSON, ("transfer-encoding", "chunked")))
            assert (wire.status, wire.problem, handler.ran) == (code, problem, 0)
            authority.down = None
            authority.decide("denied")
            assert (await ask(app, **upload)).problem == "denied"

    async def test_an_approval_is_for_one_place_of_an_application_that_stands_in_two(self, authority, handler):
        app = guarded(handler)

        sandbox, live = ({"path": f"{place}/refunds/7", "root_path": place} for place in ("/sandbox", "/live"))
        handle = await approved(app, authority, **sandbox)
        assert await held(app, **live) != handle
        wire = await ask(app, handle, **live)
        assert (wire.status, wire.problem, handler.ran) == (409, "approval-mismatch", 0)
        assert (await ask(app, handle, **sandbox)).status == 200
        assert handler.ran == 1

    async def test_an_action_that_the_authority_forgot_is_not_run(self, authority, handler):
        app = guarded(handler)
        handle = await held(app)
        del authority.words["1"]
        wire = await ask(app, handle)
        assert (wire.problem, wire.json["detail"]) == ("denied", "the authority no longer knows the action")
        authority.words["0"] = "pending"
        fresh = await held(app)
        assert fresh != handle
        assert handler.ran == 0

    @pytest.mark.parametrize(
        ("shows", "told", "shown"),
        [(True, {"risk_score": 80}, 80), (True, {}, None), (False, {"risk_score": 80}, None)],
    )
    async def test_the_risk_is_told_where_that_is_wanted(self, authority, handler, shows, told, shown):
        app = guarded(handler, expose_risk=shows)
        authority.more = told
        for word in ("denied", "pending"):
            authority.word = word
            wire = await ask(app)
            assert (wire.json.get("risk_score"), "risk_score" in wire.json) == (shown, shown is not None)

    @pytest.mark.parametrize("reason", ["because", "", None])
    async def test_a_denial_says_the_same_however_often_it_is_asked_for(self, authority, handler, reason):
        app = guarded(handler)
        handle = await held(app)
        authority.decide("denied")
        authority.reason = reason
        wires = [await ask(app, handle) for _ in range(3)]
        assert {wire.problem for wire in wires} == {"denied"}
        assert {wire.json["detail"] for wire in wires} == {reason or "The authority denied it."}
        assert {wire.json.get("reason") for wire in wires} == {reason or None}

    async def test_the_authority_is_asked_how_it_stands_once_in_a_poll_interval(self, authority, handler):
        app, time = guarded(handler, poll_interval=2), [1000.0]
        handle = await held(app)
        app.guard.core.clock = lambda: time[0]
        asked = len(authority.requests)
        for later, number in ((0.0, 1), (1.9, 1), (0.1, 2)):
            time[0] += later
            assert await status(app, handle) == (200, "pending")
            assert len(authority.requests) - asked == number

    async def test_a_race_of_fifty_has_one_winner(self, authority, handler, tmp_path):
        apps = [guarded(handler, state=str(tmp_path / "state.db"), journal="memory:") for _ in range(2)]
        handle = await approved(apps[0], authority)
        wires = await asyncio.gather(*(ask(apps[number % 2], handle) for number in range(50)))
        assert sorted(wire.status for wire in wires) == [200, *[409] * 49]
        assert handler.ran == 1
        for app in apps:
            await app.aclose()

    async def test_a_client_that_leaves_while_its_claim_is_made_has_not_used_it(self, authority, handler):
        app = guarded(handler)
        handle = await approved(app, authority)
        state = app.guard.state
        claim, claimed = state.claim, []

        def slow(*arguments, **named):
            claimed.append(claim(*arguments, **named))
            task.cancel()
            return claimed[-1]

        state.claim, state.blocks = slow, True
        task = asyncio.ensure_future(ask(app, handle))
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(200):
            if state.find(handle).given_back:
                break
            await asyncio.sleep(0.01)
        assert handler.ran == 0
        assert (await ask(app, handle)).status == 200
        assert handler.ran == 1


class TestSharing:
    async def test_identical_requests_of_one_caller_share_one_action(self, authority, handler):
        app = guarded(handler)
        handles = {await held(app) for _ in range(3)}
        assert (len(handles), len(authority.submitted)) == (1, 1)
        snapshot = app.guard.state.snapshot
        app.guard.state.snapshot = lambda **named: dataclasses.replace(snapshot(**named), hints=None)  # too many
        app.guard.kill.expire()
        assert (await held(app) in handles, len(authority.submitted)) == (True, 1)
        app.guard.state.snapshot = snapshot
        app.guard.kill.expire()
        assert await held(app, body=b'{"amount": 6}') not in handles
        assert len(authority.submitted) == 2

    @pytest.mark.parametrize(
        ("headers", "submitted"),
        [((), 1), ((LENGTH,), 1), ((CHUNKED,), 3), ((LENGTH, CHUNKED), 1)],
    )
    async def test_only_a_stream_is_not_read_before_it_is_submitted(self, authority, handler, headers, submitted):
        """It is not held up for what is on hold, and shares its handle all the same."""
        app = guarded(handler)
        upload = {"path": "/files/a", "method": "PUT", "headers": [*JSON, *headers]}
        assert len({await held(app, **upload) for _ in range(3)}) == 1
        assert len(authority.submitted) == submitted

    async def test_a_stream_that_its_rule_has_read_is_not_submitted_again(self, authority, handler):
        app = guarded(handler)
        assert len({await held(app, headers=[*JSON, CHUNKED]) for _ in range(3)}) == 1
        assert len(authority.submitted) == 1

    async def test_a_stream_takes_the_place_of_what_the_authority_has_forgotten(self, authority, handler):
        app = guarded(handler)
        upload = {"path": "/files/a", "method": "PUT", "headers": [*JSON, ("transfer-encoding", "chunked")]}
        old = await held(app, **upload)
        authority.words = {"another": "denied"}
        new = await held(app, **upload)
        authority.decide("approved", "2")
        assert new != old
        assert (await ask(app, new, **upload)).status == 200

    async def test_those_that_come_at_once_share_one_handle(self, authority, handler):
        app = guarded(handler)
        wires = await asyncio.gather(*(ask(app) for _ in range(10)))
        assert len({wire.json["approval"]["handle"] for wire in wires}) == 1

    async def test_without_a_principal_the_credentials_tell_callers_apart(self, authority, handler):
        app = guarded(handler)
        alice = await held(app, who="alice")
        assert alice != await held(app, who="mallory")
        assert alice == await held(app, who="alice")

    async def test_an_approved_action_is_not_run_by_a_request_without_the_handle(self, authority, handler):
        app = guarded(handler)
        handle = await approved(app, authority)
        wire = await ask(app)
        assert (wire.problem, wire.json["approval"]["state"], handler.ran) == ("approval-required", "approved", 0)
        assert wire.json["approval"]["handle"] == handle

    async def test_a_used_approval_leaves_room_for_a_new_action(self, authority, handler):
        app = guarded(handler)
        handle = await approved(app, authority)
        await ask(app, handle)
        assert await held(app) != handle
        assert len(authority.submitted) == 2

    async def test_a_denial_stays_one_and_nobody_is_asked_again(self, authority, handler):
        app = guarded(handler)
        handle = await held(app)
        authority.decide("denied")
        assert (await ask(app)).json["reason"] == "because"
        asked = len(authority.requests)
        for given in (None, handle, None):
            wire = await ask(app, given)
            assert (wire.status, wire.problem) == (403, "denied")
        authority.decide("approved")  # a change of mind is a new action's matter
        assert (await ask(app, handle)).problem == "denied"
        assert (len(authority.requests), handler.ran) == (asked, 0)
        assert await status(app, handle) == (200, "denied")

    async def test_a_denial_ends_with_its_expiry(self, authority, handler):
        app, now = guarded(handler, approval_expiry=60), [1_800_000_000.0]
        app.guard.approvals._now = app.guard.kill._now = lambda: now[0]
        first = await held(app)
        authority.decide("denied")
        await ask(app)
        now[0] += 61
        app.guard.kill.expire()
        assert await held(app) != first


class TestWaiting:
    PATIENT = {"pending": "wait:30s", "poll_interval": 0.01}

    async def test_a_held_request_runs_when_it_is_approved_and_only_once(self, authority, handler):
        app = guarded(handler, **self.PATIENT)
        waiting = [asyncio.ensure_future(ask(app)) for _ in range(3)]
        while app.guard.waiters < 3:
            await asyncio.sleep(0.001)
        authority.decide("approved")
        authority.decide("approved", "2")
        wires = [await each for each in waiting]
        assert sorted(wire.status for wire in wires) == [200, 409, 409]
        assert handler.ran == 1

    async def test_a_denial_at_the_end_of_a_wait_stays_one(self, authority, handler):
        app = guarded(handler, **self.PATIENT)
        waiting = asyncio.ensure_future(ask(app))
        while app.guard.waiters < 1:
            await asyncio.sleep(0.001)
        authority.decide("denied")
        assert (await waiting).problem == "denied"
        authority.decide("approved")
        asked = len(authority.requests)
        assert (await ask(app)).problem == "denied"
        assert (len(authority.requests), handler.ran) == (asked, 0)

    async def test_after_the_wait_the_same_request_finds_its_approval(self, authority, handler):
        app = guarded(handler, pending="wait:0.05s", poll_interval=0.01)
        handle = await approved(app, authority)
        assert (await ask(app)).status == 200
        assert (await ask(app, handle)).problem == "approval-used"
        assert handler.ran == 1


class TestStatusURL:
    async def test_it_needs_the_handle_and_tells_its_state_only(self, authority, handler, caplog):
        caplog.set_level(logging.DEBUG)
        app = guarded(handler)
        handle = await held(app)
        wire = await get(app, f"/.ascend/approvals/{handle}")
        assert wire.json == {"state": "pending"}
        assert {"cache-control", "retry-after"} <= set(wire.headers)
        assert handle not in caplog.text

    @pytest.mark.parametrize("handle", ["A" * 43, "x", "../refunds", ""])
    async def test_what_is_no_handle_is_unknown(self, authority, handler, handle):
        assert await status(guarded(handler), handle) == (404, "unknown")

    async def test_the_authority_is_not_asked_more_often_than_it_would_be_polled(self, authority, handler):
        app = guarded(handler, poll_interval=60)
        handle = await held(app)
        for _ in range(5):
            assert await status(app, handle) == (200, "pending")
        assert len(authority.requests) == 2

    async def test_its_path_can_be_set(self, authority, handler):
        app = guarded(handler, approvals_path="/held")
        handle = await held(app)
        assert (await get(app, f"/held/{handle}")).status == 200
        # Anything else about it is an ordinary, here unmapped, request.
        assert (await ask(app, path=f"/held/{handle}")).status == 403
