"""What an approval is bound to, one thing at a time; and whose it is."""

import asyncio
import logging
from types import SimpleNamespace
from typing import ClassVar

import pytest
from kit.approvals import REFUND, UPLOAD, approved, ask, guarded, held, status
from kit.asgi import JSON, part

from ascend_middleware import Agent
from ascend_middleware.client.http import ConnectFailed
from ascend_middleware.guard.fingerprint import Binding
from ascend_middleware.guard.request import RequestView
from ascend_middleware.rules import RuleTable

pytestmark = pytest.mark.anyio


class TestOneThingChanged:
    """The resumed request differs in one thing from the one that was approved, and does not run."""

    FILE: ClassVar = {"path": "/files/a", "method": "PUT"}
    ANY: ClassVar = {
        "name": "any",
        "match": "* /things/{id}",
        "action_type": "change",
        "details": {"mode": "header.x-mode?"},
    }

    @pytest.mark.parametrize(
        "change",
        [
            {"method": "PUT"},
            {"path": "/things/8"},
            {"query": b"a=2"},
            {"host": "other"},
            {"headers": [("content-type", "text/plain"), ("x-mode", "a")]},
            {"headers": [*JSON, ("x-mode", "b")]},
            {"headers": JSON},
            {"headers": [*JSON, ("x-mode", "a"), ("content-encoding", "identity")]},
            {"who": "mallory"},
            {"who": None},
            {"body": b'{"amount": 6, "note": "a"}'},
        ],
        ids=str,
    )
    async def test_it_is_another_request(self, authority, handler, change):
        app = guarded(handler, [self.ANY])
        given = {"path": "/things/7", "query": b"a=1", "headers": [*JSON, ("x-mode", "a")]}
        handle = await approved(app, authority, **given)
        wire = await ask(app, handle, **{**given, **change})
        assert (wire.status, wire.problem, handler.ran) == (409, "approval-mismatch", 0)
        assert (await ask(app, handle, **given)).status == 200

    @pytest.mark.parametrize(
        "body",
        [
            b'{"amount": 5, "amount": 5, "note": "a"}',
            b'{"amount": 9, "amount": 5, "note": "a"}',
            b'{"amount": 5.0, "note": "a"}',
            b'{"amount": 5e0, "note": "a"}',
            b'{"amount": 50e-1, "note": "a"}',
            b'{"amount": "5", "note": "a"}',
            b'{"amount": true, "note": "a"}',
            b'\xef\xbb\xbf{"amount": 5, "note": "a"}',
            b'{"amount": 5, "note": "a", "more": null}',
            b'{"amount": [5], "note": "a"}',
            b'{"amount": 5, "note": "\\ud800"}',
        ],
    )
    async def test_a_body_that_a_handler_may_read_otherwise(self, authority, handler, body):
        # No rule reads it, so it is compared and not judged.
        app = guarded(handler, [UPLOAD])
        handle = await approved(app, authority, **self.FILE)
        wire = await ask(app, handle, body=body, **self.FILE)
        assert (wire.status, wire.problem, handler.ran) == (409, "approval-mismatch", 0)
        assert (await ask(app, handle, body=b'{"note":"a",\n"amount":5}', **self.FILE)).status == 200

    @pytest.mark.parametrize(
        ("bound", "same", "others"),
        [
            (
                b'{"a": 5.5}',
                b'{ "a":5.5 }',
                [b'{"a": 5.50}', b'{"a": 55e-1}', b'{"a": 5.5e0}', b'{"a": "5.5"}', b'{"a": 5}'],
            ),
            (b'{"a": true}', b'{ "a":true }', [b'{"a": false}', b'{"a": null}', b'{"a": 1}', b'{"a": "true"}']),
            (b'{"a": null}', None, [b'{"a": false}', b'{"a": 0}', b'{"a": ""}', b'{"a": []}', b"{}"]),
            (b'{"a": [1]}', b'{"a":[ 1 ]}', [b'{"a": [2]}', b'{"a": []}', b'{"a": [1, 1]}', b'{"a": [[1]]}']),
            (b'{"a": {"b": 1}}', b'{"a":{"b":1}}', [b'{"a": {"b": 2}}', b'{"a": {"c": 1}}', b'{"a": {}}']),
            (b'["a", "b"]', b'["a","b"]', [b'["b", "a"]', b'["a", "c"]', b'{"a": "b"}']),
            # What is ambiguous is bound byte by byte.
            (b'{"a": 1, "a": 2}', None, [b'{"a": 2}', b'{"a": 2, "a": 1}', b'{"a":1,"a":2}', b'{"a": 2, "a": 2}']),
        ],
    )
    async def test_another_value_or_spelling(self, authority, handler, bound, same, others):
        app = guarded(handler, [UPLOAD])
        handle = await approved(app, authority, body=bound, **self.FILE)
        for other in others:
            assert (await ask(app, handle, body=other, **self.FILE)).problem == "approval-mismatch"
        assert (await ask(app, handle, body=same or bound, **self.FILE)).status == 200

    async def test_a_body_over_the_limit_resumes_nothing(self, authority, handler):
        app, given = guarded(handler, [UPLOAD], body_limit=100), {**self.FILE, "headers": ()}
        handle = await approved(app, authority, body=b"x" * 100, **given)
        for body in (b"x" * 101, [part(b"x" * 60, more=True), part(b"x" * 60)]):
            wire = await ask(app, handle, body=body, **given)
            assert (wire.status, wire.problem, handler.ran) == (413, "body-too-large", 0)
        assert (await ask(app, handle, body=b"x" * 100, **given)).status == 200

    @pytest.mark.parametrize(
        "change",
        [
            {"action_type": "other"},
            {"details": {"mode": "header.x-mode?", "channel": {"const": "web"}}},
            {"resource": "thing {path.id}"},
            {"risk_indicators": {"pii": True}},
            {"tool_name": "other"},
        ],
        ids=str,
    )
    def test_a_rule_at_a_handler_that_says_something_else(self, change):
        """Such a rule is no part of the table, whose version stays the same."""

        def binding(**fields):
            (rule,) = RuleTable.from_mapping({"rule": [{**self.ANY, **fields}]}).rules
            view = RequestView(method="POST", path="/things/7", raw_path=None, query=b"", headers=[])
            return Binding(view=view, rule=rule, agent=Agent("bot"), table="1", tenant="t", params={})

        assert binding().fingerprint(b"") == binding().fingerprint(b"")
        assert binding().fingerprint(b"") != binding(**change).fingerprint(b"")

    def test_a_rule_says_the_same_in_any_order(self):
        (one,) = RuleTable.from_mapping({"rule": [{**self.ANY, "mode": "enforce"}]}).rules
        (two,) = RuleTable.from_mapping({"rule": [{"mode": "enforce", **dict(reversed(self.ANY.items()))}]}).rules
        assert bound(rule=one).fingerprint(b"") == bound(rule=two).fingerprint(b"")
        assert bound(rule=one).ruled() == bound(rule=two).ruled()

    @pytest.mark.parametrize(
        ("fields", "headers", "another"),
        [
            ({}, [("x-forwarded-user", "alice")], True),
            ({}, [("X_Forwarded_User", "alice")], True),
            ({}, [("x-forwarded-user", " ")], False),
            ({}, [("x-other", "alice")], False),
            ({"single_caller": True}, [("x-forwarded-user", "alice")], False),
            ({"agent": Agent("bot", principal="alice")}, [("x-forwarded-user", "bob")], False),
            ({"agent": Agent("bot", principal="alice")}, [("authorization", "bob")], False),
            ({"single_caller": True}, [("authorization", "bob")], True),
            ({"single_caller": True}, [("authorization", "")], False),
        ],
    )
    def test_who_makes_another_caller(self, fields, headers, another):
        """An approval for a request without these headers is none for one with them."""
        assert (bound(**fields).fingerprint(b"") != bound(headers, **fields).fingerprint(b"")) is another

    def test_what_is_no_text_has_a_fingerprint_too(self):
        fields = {"params": {"id": "\ud800"}, "agent": Agent("\ud800")}
        assert bound(**fields).fingerprint(b"") != bound().fingerprint(b"")
        assert bound(resolved=SimpleNamespace(leaf=None)).fingerprint(b"") == bound().fingerprint(b"")


def bound(headers=(), *, resolved=None, **fields):
    (rule,) = RuleTable.from_mapping({"rule": [TestOneThingChanged.ANY]}).rules
    view = RequestView(
        method="POST", path="/things/7", raw_path=None, query=b"", headers=list(headers), resolved=resolved
    )
    given = {"rule": rule, "agent": Agent("bot"), "table": "1", "tenant": "t", "params": {}, **fields}
    return Binding(view=view, **given)


class TestCallers:
    PATIENT = {"pending": "wait:30s", "poll_interval": 0.01}

    async def test_principal_headers_name_further_ones(self, authority, handler):
        app = guarded(handler, principal_headers=["X-Forwarded-User"])
        one, other, twin = (
            {"headers": [*JSON, (name, value)], "who": None}
            for name, value in (("x-forwarded-user", "one"), ("x-forwarded-user", "other"), ("x_forwarded_user", "two"))
        )
        handle = await held(app, **one)
        assert len({handle, await held(app, **other), await held(app, **twin)}) == 3
        assert await held(app, **one) == handle
        authority.decide("approved")
        assert (await ask(app, handle, **other)).problem == "approval-mismatch"

    @pytest.mark.parametrize(
        ("name", "common", "shares"),
        [
            *((name, (), True) for name in ("authorization", "cookie", "x-api-key", "proxy-authorization")),
            # Whom a proxy names parts callers; without a credential it joins none.
            *(
                (name, common, bool(common))
                for name in ("x-forwarded-user", "X_Auth-Request_Email", "x-remote-user")
                for common in ((), (("cookie", "lang=en"),), (("authorization", "Basic Z2F0ZXdheQ=="),))
            ),
        ],
    )
    async def test_each_credential_tells_callers_apart(self, authority, handler, name, common, shares):
        app = guarded(handler)
        one, other = ({"headers": [*JSON, *common, (name, value)], "who": None} for value in ("one", "other"))
        handle = await held(app, **one)
        assert await held(app, **other) != handle
        assert (await held(app, **one) == handle) is shares
        authority.decide("approved")
        assert (await ask(app, handle, **other)).problem == "approval-mismatch"
        assert handler.ran == 0
        assert (await ask(app, handle, **one)).status == 200

    @pytest.mark.parametrize("blank", [(), (("authorization", ""), ("cookie", "  "))])
    async def test_where_nobody_is_known_each_has_an_action_of_its_own(self, authority, handler, blank):
        app = guarded(handler, **self.PATIENT)
        given = {"who": None, "headers": [*JSON, *blank]}
        first, second = (asyncio.ensure_future(ask(app, **given)) for _ in range(2))
        while app.guard.waiters < 2:
            await asyncio.sleep(0.001)
        assert len(authority.words) == 2
        authority.decide("approved", "1")
        done, _ = await asyncio.wait({first, second}, return_when="FIRST_COMPLETED")
        assert (len(done), handler.ran) == (1, 1)
        authority.decide("denied", "2")
        assert sorted([(await first).status, (await second).status]) == [200, 403]
        assert handler.ran == 1

    async def test_a_late_request_of_nobody_known_inherits_nothing(self, authority, handler):
        app = guarded(handler, pending="wait:0.02s", poll_interval=0.01)
        await held(app, who=None)
        authority.decide("approved")
        assert (await ask(app, who=None)).problem == "approval-required"
        assert (handler.ran, len(authority.words)) == (0, 2)

    async def test_its_handle_resumes_it_all_the_same(self, authority, handler):
        app = guarded(handler)
        handle = await approved(app, authority, who=None)
        assert (await ask(app, handle, who=None)).status == 200

    async def test_all_requests_may_be_one_callers(self, authority, handler):
        app = guarded(handler, single_caller=True)
        assert await held(app, who=None) == await held(app, who=None)
        assert len(authority.words) == 1

    async def test_a_principal_counts_whatever_the_credentials_are(self, authority, handler):
        def identify(scope):
            return Agent("bot", principal=dict(scope["headers"])[b"x-user"].decode())

        app = guarded(handler, identify=identify)
        ann = {"headers": [*JSON, ("x-user", "ann")]}
        handle = await held(app, **ann, who="an old token")
        assert await held(app, **ann, who="a new token") == handle
        assert await held(app, headers=[*JSON, ("x-user", "bob")], who="an old token") != handle
        authority.decide("approved")
        assert (await ask(app, handle, headers=[*JSON, ("x-user", "bob")])).problem == "approval-mismatch"
        assert (await ask(app, handle, **ann, who="a new token")).status == 200

    async def test_what_is_on_hold_for_nobody_known_is_not_passed_open(self, authority, handler):
        app = guarded(handler, on_failure="open", journal="memory:")
        await held(app, who=None)
        authority.down = ConnectFailed("refused")
        for who in (None, "mallory"):
            wire = await ask(app, who=who)
            assert (wire.status, wire.problem, handler.ran) == (503, "unavailable", 0)
        other = await ask(app, path="/refunds/8", who=None)
        assert (other.status, handler.ran) == (200, 1)

    @pytest.mark.parametrize(
        ("rule", "settings", "level"),
        [
            ({}, {}, logging.INFO),
            ({}, {"pending": "wait:5s"}, logging.WARNING),
            ({"pending": "wait:5s"}, {}, logging.WARNING),
            ({}, {"pending": "wait:5s", "single_caller": True}, None),
            ({}, {"pending": "wait:5s", "identify": lambda scope: Agent("bot")}, None),
        ],
    )
    async def test_the_start_says_who_shares(self, authority, handler, caplog, rule, settings, level):
        caplog.set_level(logging.INFO)
        guarded(handler, [{**REFUND, **rule}], principal_headers="x-user", **settings)
        said = [line for line in caplog.records if "single_caller" in line.getMessage()]
        assert [line.levelno for line in said] == ([] if level is None else [level])
        assert all("authorization, cookie, x-api-key, proxy-authorization, x-user" in one.getMessage() for one in said)


async def test_the_status_url_tells_of_a_handle_without_its_credentials(authority, handler):
    app = guarded(handler, [REFUND])
    assert await status(app, await held(app)) == (200, "pending")
