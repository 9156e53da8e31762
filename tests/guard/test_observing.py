"""Observe mode: nothing is refused, what would have been is seen, and nobody is asked to decide about what ran already."""

import logging

import httpx2
import pytest
from fastapi import FastAPI
from kit.approvals import REFUND, ask, guarded
from kit.asgi import JSON, Handler
from kit.desk import local_authority

from ascend_middleware import AscendClient
from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.authority.core import Authority
from ascend_middleware.authority.keys import LOCAL, Role
from ascend_middleware.authority.webhooks import events_of

pytestmark = pytest.mark.anyio

POLICY = '[[policy]]\nname = "people"\naction_types = ["*"]\ndecision = "{}"\n'


def warnings(caplog):
    return [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]


class TestTheLog:
    async def test_what_would_have_been_refused_is_a_warning_and_said_once_in_a_while(self, authority, handler, caplog):
        caplog.set_level(logging.WARNING)  # what servers leave the root logger at
        app = guarded(handler, mode="observe")
        for word in ("pending", "denied", "denied", "denied"):
            authority.word = word
            assert (await ask(app)).status == 200
        authority.reason = ""
        assert (await ask(app, path="/files/x", method="PUT")).status == 200
        assert (await ask(app, path="/nowhere", method="GET")).status == 200
        said = [text for text in warnings(caplog) if "would have been refused" in text]
        assert [text.partition("refused (")[2].partition(")")[0] for text in said] == [
            "approval-required: because",
            "denied: because",
            "denied",
            "unmapped-route",
        ]
        assert "POST /refunds/7 passes" in said[0]
        assert handler.ran == 6

    async def test_an_agent_cannot_write_lines_of_its_own(self, authority, handler, caplog):
        app = guarded(handler, mode="observe")
        await ask(app, path="/x\nCRITICAL forged", method="GET")
        authority.word, authority.reason = "denied", "no\nCRITICAL forged"
        await ask(app)
        assert not any("\n" in text for text in warnings(caplog))

    @pytest.mark.parametrize(
        ("settings", "rules", "said"),
        [
            ({"mode": "observe"}, [REFUND], 'mode = "observe": requests are judged and logged'),
            ({}, [{**REFUND, "mode": "observe"}], "these rules refuse nothing"),
            ({}, [REFUND], None),
        ],
    )
    async def test_the_start_tells_the_mode(self, authority, handler, caplog, settings, rules, said):
        guarded(handler, rules, **settings)
        assert [text.startswith(said) for text in warnings(caplog)] == ([True] if said else [])

    @pytest.mark.parametrize(("mode", "words"), [("observe", "would be refused"), ("enforce", "are refused")])
    async def test_the_start_says_what_becomes_of_routes_that_nothing_covers(self, authority, caplog, mode, words):
        app = FastAPI(openapi_url=None)

        @app.get("/forgotten")
        def forgotten():
            return {}

        inside = guarded(app, mode=mode)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=inside), base_url="http://site") as client:
            await client.get("/forgotten")
        (said,) = (text for text in warnings(caplog) if "no rule covers these routes" in text)
        assert f"requests for them {words}: GET" in said


class TestTheAuthority:
    async def observe(self, tmp_path, decision, **settings):
        url = local_authority(tmp_path, decision)
        app = AscendMiddleware(Handler(), rules={"rule": [REFUND]}, api_url=url, agent_id="a", **settings)
        wire = await ask(app)
        await app.aclose()
        return wire, AscendClient(api_url=url, agent_id="a")

    async def test_nobody_is_asked_about_what_ran_already(self, tmp_path):
        wire, client = await self.observe(tmp_path, "pending", mode="observe")
        assert wire.status == 200
        with client:
            assert client.list_actions(status="pending").total == 0
            (row,) = client.list_actions().actions
            assert (row.status, row["observed"], row["context"]) == ("pending", True, {"observed": True})
            record = client.get_action(row.action_id)
            assert (record["required_approvers"], record["approval_request_id"]) == ([], None)
            assert events_of(record["audit_trail"][0]) == ("action.submitted",)
        authority = Authority.open(tmp_path / "policy.toml")
        try:
            body = b'{"approved": true}'
            answer = authority.handle("POST", "/api/v1/actions/1/approve", "", {}, body, credential=admin(authority))
            assert answer[0] == 409
        finally:
            authority.close()

    async def test_what_is_enforced_waits_for_a_person(self, tmp_path):
        wire, client = await self.observe(tmp_path, "pending")
        assert wire.status == 403
        with client:
            assert client.list_actions(status="pending").total == 1

    @pytest.mark.parametrize("decision", ["approved", "denied"])
    async def test_what_is_decided_at_once_stays_so_and_is_marked(self, tmp_path, decision):
        wire, client = await self.observe(tmp_path, decision, mode="observe")
        assert wire.status == 200
        with client:
            (row,) = client.list_actions().actions
            assert (row.status, row["observed"]) == (decision, True)


def admin(authority):
    return authority.store.find_key(authority.store.issue_key(name="eve", role=Role.ADMIN, tenant=LOCAL.tenant))


@pytest.mark.parametrize("length", ["3", "99"])
async def test_a_body_that_is_not_as_long_as_it_says_is_refused_since_there_is_nothing_to_pass_on(
    authority, handler, length
):
    wire = await ask(guarded(handler, mode="observe"), headers=[*JSON, ("content-length", length)])
    assert (wire.status, wire.problem, handler.ran) == (400, "bad-request", 0)


async def test_one_that_is_whole_and_cannot_be_judged_passes(authority, handler):
    app = guarded(handler, mode="observe", body_limit=10)
    for body in (b"{", b'{"amount": 5, "more": 1}'):
        assert (await ask(app, body=body)).status == 200
        assert handler.body == body
    assert (handler.ran, authority.submitted) == (2, [])


@pytest.mark.parametrize(
    ("settings", "rule", "files"), [({"mode": "observe"}, {}, 1), ({}, {"mode": "observe"}, 1), ({}, {}, 0)]
)
async def test_what_was_seen_is_kept_where_something_is_observed(authority, handler, tmp_path, settings, rule, files):
    app = guarded(handler, [{**REFUND, **rule}], journal=str(tmp_path), **settings)
    await ask(app)
    await app.aclose()
    assert len(list(tmp_path.rglob("observed-*.json"))) == files


async def test_a_journal_without_a_place_keeps_none_of_it(authority, handler):
    app = guarded(handler, mode="observe", journal="memory:")
    assert (await ask(app)).status == 200
    await app.aclose()
