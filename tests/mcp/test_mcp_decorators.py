"""Governed tools of every kind: they run only with permission, with what was decided on, and tell what became of them."""

import asyncio
import contextlib
import functools
import inspect
import itertools
import json
import logging
import threading
import time
from dataclasses import replace

import anyio
import httpx2
import pytest
from kit.clocked import World, answer
from kit.engine import KEY

import ascend_middleware
from ascend_middleware import (
    DeniedResult,
    MCPGovernanceConfig,
    MCPGovernanceMiddleware,
    MCPKillSwitchConsumer,
    high_risk_action,
    mcp_governance,
    require_governance,
)
from ascend_middleware import exceptions as errors
from ascend_middleware.api.decode import decode_decision
from ascend_middleware.client import AscendClient, AsyncAscendClient, Response
from ascend_middleware.mcp.governance import conclude
from ascend_middleware.testing import ScriptedAuthority


@pytest.fixture
def authority():
    with ScriptedAuthority() as scripted:
        yield scripted


class Kind:
    """One way to write a tool and to call it. `run(client, body, *args)` runs a governed tool over `body`."""

    def __init__(self, name, client, make, call):
        self.name, self._client, self._make, self._call = name, client, make, call

    def __repr__(self):
        return self.name

    def client(self, authority, **options):
        return (authority.client if self._client == "sync" else authority.async_client)(**options)

    def tool(self, client, body, decorate=mcp_governance, **options):
        return decorate(client, "database.query", "the database", **options)(self._make(body))

    def call(self, tool, *args, **kwargs):
        return self._call(tool, *args, **kwargs)


def plain(body):
    def tool(sql, limit=10):
        """Run a query.

        And more.
        """
        return body(sql, limit)

    return tool


def coroutine(body):
    async def tool(sql, limit=10):
        """Run a query."""
        await anyio.sleep(0)
        return body(sql, limit)

    return tool


def generator(body):
    def tool(sql, limit=10):
        """Run a query."""
        yield body(sql, limit)

    return tool


def async_generator(body):
    async def tool(sql, limit=10):
        """Run a query."""
        yield body(sql, limit)

    return tool


def direct(tool, *args, **kwargs):
    return tool(*args, **kwargs)


def in_loop(tool, *args, **kwargs):
    async def main():
        return tool(*args, **kwargs)

    return asyncio.run(main())


def awaited(tool, *args, **kwargs):
    return asyncio.run(tool(*args, **kwargs))


def awaited_on_trio(tool, *args, **kwargs):
    return anyio.run(functools.partial(tool, *args, **kwargs), backend="trio")


def first(tool, *args, **kwargs):
    items = list(tool(*args, **kwargs))
    return items[0] if items else None


def first_async(tool, *args, **kwargs):
    async def main():
        items = [item async for item in tool(*args, **kwargs)]
        return items[0]

    return asyncio.run(main())


def thrown(tool, *args, **kwargs):
    generator = tool(*args, **kwargs)
    try:
        next(generator)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it ran")


KINDS = [
    Kind("function", "sync", plain, direct),
    Kind("function in a running loop", "sync", plain, in_loop),
    Kind("coroutine", "async", coroutine, awaited),
    Kind("coroutine with a blocking client", "sync", coroutine, awaited),
    Kind("generator", "sync", generator, first),
    Kind("async generator", "async", async_generator, first_async),
    Kind("async generator with a blocking client", "sync", async_generator, first_async),
]
EVERY = pytest.mark.parametrize("kind", KINDS, ids=str)


def refused(kind, client, error, *, match=None, query="SELECT 1", **options):
    """Call a tool that must not run; return the error."""
    tool = kind.tool(client, lambda *_: pytest.fail("it ran"), **options)
    with pytest.raises(error, match=match) as caught:
        kind.call(tool, query)
    return caught.value


@EVERY
def test_an_approved_tool_runs_once_with_what_was_decided_on(authority, kind):
    authority.approve()
    ran = []
    with contextlib.ExitStack():
        client = kind.client(authority)
        tool = kind.tool(client, lambda *args: ran.append(args) or "rows", mcp_server="files", metadata={"team": "t"})
        assert kind.call(tool, "SELECT 1") == "rows"
    assert ran == [("SELECT 1", 10)]
    (asked,) = authority.asked
    assert asked.body == {
        "agent_id": "test-agent",
        "agent_name": "test-agent",
        "action_type": "database.query",
        "resource": "the database",
        "action_details": {"sql": "SELECT 1", "limit": 10},
        "context": {
            "source": "mcp",
            "metadata": {"team": "t"},
            "caller": f"test_mcp_decorators.{tool.__qualname__}",
        },
        "tool_name": "tool",
        "description": "Run a query.",
        "mcp_server_name": "files",
    }
    assert authority.outcomes == {"1": "completed"}


@EVERY
def test_a_denied_tool_does_not_run(authority, kind):
    authority.deny(reason="not today")
    refusal = refused(
        kind, kind.client(authority), errors.AuthorizationDeniedError, match="not today", query="DROP TABLE x"
    )
    assert (refusal.code, refusal.action_id) == ("MCP_ACTION_DENIED", "1")
    assert isinstance(refusal, PermissionError)
    assert authority.outcomes == {}


@EVERY
def test_a_denial_can_be_returned_and_is_never_mistaken_for_a_result(authority, kind):
    authority.deny(reason="not today")
    tool = kind.tool(
        kind.client(authority), lambda *_: pytest.fail("it ran"), config=MCPGovernanceConfig(raise_on_denial=False)
    )
    call = thrown if kind.name == "generator" else kind.call
    result = call(tool, "DROP TABLE x")
    assert isinstance(result, DeniedResult) and result.executed is False
    with pytest.raises(TypeError, match="executed"):
        DeniedResult(code="MCP_ACTION_DENIED", reason="", action_id="", status="denied", executed=True)
    assert (result.code, result.action_id, result.status) == ("MCP_ACTION_DENIED", "1", "denied")
    assert "not today" in result.reason
    with pytest.raises(TypeError, match="a denied result has no truth value"):
        bool(result)


@pytest.mark.parametrize("said", [{}, {"reason": ""}])
def test_a_denial_without_a_reason_says_who_denied(authority, said):
    authority.deny(**{"reason": None, **said})
    refusal = refused(KINDS[0], authority.client(), errors.AuthorizationDeniedError)
    assert refusal.message == "not executed: the authority denied it"


NOBODYS = b'{"status": "denied", "decision": "denied"}'


def test_a_decision_is_logged_with_its_action(authority, caplog):
    caplog.set_level(logging.INFO, "ascend_middleware")
    authority.approve()
    tool = KINDS[0].tool(authority.client(), lambda *_: "ran")
    tool("SELECT 1")
    authority.garbage(NOBODYS)
    with pytest.raises(errors.AuthorizationDeniedError):
        tool("SELECT 1")
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("tool tool: ")]
    assert said == ["tool tool: approved (action 1)", "tool tool: denied (action none)"]


def test_a_denial_that_names_no_action_has_none(authority):
    authority.garbage(NOBODYS)
    tool = KINDS[0].tool(authority.client(), lambda *_: "ran", config=MCPGovernanceConfig(raise_on_denial=False))
    assert tool("SELECT 1").action_id == ""


def test_an_approval_of_the_last_moment_counts(authority):
    authority.hold(then="approve", polls=2)
    config = MCPGovernanceConfig(approval_timeout_seconds=0.9, approval_poll_interval_seconds=0.5)
    assert KINDS[0].tool(authority.client(), lambda *_: "ran", config=config)("SELECT 1") == "ran"
    assert authority.time == 0.9


@pytest.mark.parametrize(("text", "sent"), [("x" * 500, "x" * 500), ("x" * 501, "x" * 500), ("  one \ntwo", "one")])
def test_the_first_line_of_a_tools_text_describes_it(authority, text, sent):
    def tool():
        return "ran"

    tool.__doc__ = text
    authority.approve()
    assert mcp_governance(authority.client(), "t", "r")(tool)() == "ran"
    assert authority.asked[0].body["description"].rstrip() == sent


def test_a_tool_without_a_text_is_not_described(authority):
    authority.approve()
    assert mcp_governance(authority.client(), "t", "r")(lambda: "ran")() == "ran"
    assert "description" not in authority.asked[0].body


def test_who_waits_on_an_event_loop_is_told_so_once(authority, caplog):
    authority.approve()
    tool = KINDS[0].tool(authority.client(), lambda *_: "ran")
    tool("SELECT 1")
    assert "called on an event loop" not in caplog.text
    for _ in range(2):
        in_loop(tool, "SELECT 1")
    assert caplog.text.count("called on an event loop") == 1


def test_how_long_a_tool_ran_is_told_in_milliseconds():
    world = World(answer(200, {}))
    decision = decode_decision(b'{"action_id": 7, "status": "approved"}')
    world.run(conclude(world.core, decision, None, 1.2345678, 5.0))
    assert json.loads(world.sent[0].request.content)["duration_ms"] == 1234.568


def test_a_middleware_has_a_configuration_without_being_given_one(authority):
    authority.approve()
    middleware = MCPGovernanceMiddleware(authority.client())
    assert middleware.default_config == MCPGovernanceConfig()
    assert middleware.govern("t", "r")(lambda: "ran")() == "ran"
    own = MCPGovernanceConfig(include_arguments=False)
    assert MCPGovernanceMiddleware(authority.client(), own).default_config is own


@pytest.mark.anyio
async def test_a_tool_that_is_cancelled_is_reported():
    """Also where telling the authority takes its time."""
    told = []

    async def answer(request):
        await anyio.sleep(0)
        told.append(request.url.path.rpartition("/")[2])
        return httpx2.Response(200, json={"action_id": "7", "status": "approved", "decision": "approved"})

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as own:
        client = AsyncAscendClient(http_client=own, api_url="https://authority.example", api_key=KEY, agent_id="a")

        @mcp_governance(client, "t", "r")
        async def tool():
            scope.cancel()
            await anyio.sleep(30)

        with anyio.CancelScope() as scope:
            await tool()
    assert told == ["submit", "fail"]


BROKEN = {
    "unreachable": (lambda it: it.refuse_connections(), errors.NetworkError),
    "deadline": (lambda it: it.time_out(), errors.TimeoutError),
    "500": (lambda it: it.fail(), errors.ServerError),
    "401": (lambda it: it.fail(401), errors.AuthenticationError),
    "403": (lambda it: it.fail(403), errors.AuthorizationDeniedError),
    "429": (lambda it: it.fail(429), errors.RateLimitError),
    "html": (lambda it: it.garbage(), errors.ProtocolError),
    "empty": (lambda it: it.garbage(b""), errors.ProtocolError),
    "{}": (lambda it: it.garbage(b"{}"), errors.ProtocolError),
    "allowed without an id": (lambda it: it.garbage(b'{"status": "approved"}'), errors.ProtocolError),
    "killed": (lambda it: it.kill(), errors.KillSwitchError),
}


@EVERY
@pytest.mark.parametrize("name", BROKEN)
def test_without_a_decision_nothing_runs_whatever_a_denial_becomes(authority, kind, name):
    script, expected = BROKEN[name]
    script(authority)
    config = MCPGovernanceConfig(raise_on_denial=False)
    refused(kind, kind.client(authority), expected, config=config)


@EVERY
@pytest.mark.parametrize("then", ["approve", "deny"])
def test_a_held_action_is_waited_for(authority, kind, then):
    authority.hold(then=then, polls=3)
    told = []
    config = MCPGovernanceConfig(
        approval_poll_interval_seconds=5,
        on_approval_required=lambda decision, name: told.append(("held", name, decision.action_id)),
        on_allowed=lambda decision, name: told.append(("allowed", name)),
        on_denied=lambda decision, name: told.append(("denied", name)),
    )
    tool = kind.tool(kind.client(authority), lambda *_: "ran", config=config)
    if then == "approve":
        assert kind.call(tool, "SELECT 1") == "ran"
        assert told == [("held", "tool", "1"), ("allowed", "tool")]
    else:
        with pytest.raises(errors.AuthorizationDeniedError, match="denied by a person"):
            kind.call(tool, "SELECT 1")
        assert told == [("held", "tool", "1"), ("denied", "tool")]
    assert authority.time == 15.0


@EVERY
def test_the_kill_switch_is_looked_at_twice_a_second_while_an_action_is_held(authority, kind):
    class Looking(MCPKillSwitchConsumer):
        def state(self, *arguments):
            looks.append(authority.time)
            return super().state(*arguments)

    looks = []
    authority.hold(then="approve", polls=3)
    config = MCPGovernanceConfig(approval_poll_interval_seconds=5, mcp_server="files", kill_switch=Looking())
    tool = kind.tool(kind.client(authority), lambda *_: "ran", config=config)
    assert kind.call(tool, "SELECT 1") == "ran"
    assert (looks[0], looks[-1], authority.time) == (0.0, 15.0, 15.0)
    assert max(later - sooner for sooner, later in itertools.pairwise(looks)) == 0.5


def quick(**options):
    return MCPGovernanceConfig(approval_timeout_seconds=0.02, approval_poll_interval_seconds=0.01, **options)


@EVERY
def test_nobody_decides_in_time(authority, kind):
    authority.hold()
    told = []
    config = quick(on_timeout=lambda decision, name: told.append(name))
    refusal = refused(kind, kind.client(authority), errors.TimeoutError, config=config)
    assert (refusal.code, refusal.action_id) == ("APPROVAL_TIMEOUT", "1")
    assert told == ["tool"]


@EVERY
def test_who_does_not_wait_is_refused_at_once(authority, kind):
    authority.hold(then="approve")
    config = MCPGovernanceConfig(wait_for_approval=False)
    refusal = refused(kind, kind.client(authority), errors.AuthorizationDeniedError, config=config)
    assert refusal.code == "APPROVAL_REQUIRED"
    assert len(authority.requests) == 1


@EVERY
@pytest.mark.parametrize("fault", ["fail", "time_out", "refuse_connections"])
def test_a_poll_that_fails_neither_permits_nor_ends_the_wait(authority, kind, fault):
    authority.hold(then="approve")
    getattr(authority, fault)(on="status", times=5)
    client = kind.client(authority, fail_mode="open", max_retries=0)
    config = MCPGovernanceConfig(approval_poll_interval_seconds=0.01)
    assert kind.call(kind.tool(client, lambda *_: "ran", config=config), "x") == "ran"


class Boom(Exception):
    pass


@EVERY
@pytest.mark.parametrize("error", [Boom("x"), TimeoutError("own"), errors.TimeoutError("own"), PermissionError("own")])
def test_a_tools_own_exception_passes_unchanged_and_is_reported_as_failed(authority, kind, error):
    authority.approve()

    def body(*_):
        raise error

    tool = kind.tool(kind.client(authority), body, config=MCPGovernanceConfig(raise_on_denial=False))
    with pytest.raises(type(error)) as caught:
        kind.call(tool, "SELECT 1")
    assert caught.value is error
    assert authority.outcomes == {"1": "failed"}
    assert authority.requests[-1].body["error"] == f"the tool raised {type(error).__name__}"


@EVERY
@pytest.mark.parametrize("fault", ["fail", "garbage", "refuse_connections", "time_out"])
def test_a_report_that_fails_changes_nothing_but_the_log(authority, kind, fault, caplog):
    authority.approve()
    getattr(authority, fault)(on="outcome")
    tool = kind.tool(kind.client(authority, max_retries=0), lambda *_: "rows")
    assert kind.call(tool, "SELECT 1") == "rows"
    assert fault == "garbage" or "the outcome of action 1 was not reported" in caplog.text


@EVERY
@pytest.mark.parametrize(("seconds", "reports"), [(0, 0), (5, 1)])
def test_who_gives_a_report_no_time_sends_none(authority, kind, seconds, reports, caplog):
    authority.approve()
    config = MCPGovernanceConfig(outcome_seconds=seconds)
    assert kind.call(kind.tool(kind.client(authority), lambda *_: "rows", config=config), "SELECT 1") == "rows"
    assert len(authority.outcomes) == reports
    assert "was not reported" not in caplog.text


@EVERY
@pytest.mark.parametrize("told", [True, False])
def test_decisions_are_logged_unless_told_otherwise(authority, kind, told, caplog):
    caplog.set_level("INFO", "ascend_middleware.mcp")
    authority.approve()
    tool = kind.tool(kind.client(authority), lambda *_: "rows", config=MCPGovernanceConfig(log_all_decisions=told))
    assert kind.call(tool, "SELECT 1") == "rows"
    authority.deny()
    with pytest.raises(errors.AuthorizationDeniedError):
        kind.call(tool, "SELECT 1")
    lines = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    assert lines == (["tool tool: approved (action 1)", "tool tool: denied (action 2)"] if told else [])


@EVERY
def test_a_denial_without_an_action_names_none(authority, kind):
    authority.garbage(b'{"decision": "denied", "reason": "never"}')
    refusal = refused(kind, kind.client(authority), errors.AuthorizationDeniedError, match="never")
    assert refusal.action_id is None


@EVERY
def test_arguments_that_change_while_it_is_decided_do_not_reach_the_tool(authority, kind):
    query = {"sql": ["SELECT 1"]}
    authority.hold(then="approve")

    def change(decision, name):
        query["sql"][0] = "DROP TABLE x"

    ran = []
    config = MCPGovernanceConfig(on_approval_required=change, on_allowed=change, approval_poll_interval_seconds=0.01)
    tool = kind.tool(kind.client(authority), lambda sql, limit: ran.append(sql), config=config)
    kind.call(tool, query)
    assert query == {"sql": ["DROP TABLE x"]}
    assert ran == [{"sql": ["SELECT 1"]}]
    assert authority.asked[0].details == {"sql": {"sql": ["SELECT 1"]}, "limit": 10}


@EVERY
def test_arguments_that_cannot_be_shown_are_refused_unasked(authority, kind):
    authority.approve()
    refused(kind, kind.client(authority), errors.ValidationError, match="argument sql", query=object())
    assert authority.requests == []


@EVERY
def test_a_callback_can_only_prevent(authority, kind):
    authority.approve()

    def veto(decision, name):
        raise Boom("no")

    refused(kind, kind.client(authority), Boom, config=MCPGovernanceConfig(on_allowed=veto))


def blocked_consumer():
    consumer = MCPKillSwitchConsumer()
    consumer.apply_message({"command_type": "BLOCK", "target_type": "mcp_server", "mcp_server": "files"})
    return consumer


@EVERY
def test_a_blocked_server_is_not_even_asked_about(authority, kind):
    authority.approve()
    client = kind.client(authority, fail_mode="open")
    refused(kind, client, errors.KillSwitchError, match="files", mcp_server="files", kill_switch=blocked_consumer())
    assert authority.requests == []
    other = kind.tool(client, lambda *_: "ran", mcp_server="other", kill_switch=blocked_consumer())
    assert kind.call(other, "SELECT 1") == "ran"


@EVERY
@pytest.mark.parametrize("moment", ["while it is held", "after the decision"])
def test_a_block_that_comes_meanwhile_still_stops_it(authority, kind, moment):
    authority.hold(then="approve", polls=1 if moment == "after the decision" else 1000)
    consumer = MCPKillSwitchConsumer()

    def block(*_):
        consumer.apply_message({"command_type": "QUARANTINE", "target_type": "mcp_server", "mcp_server": "files"})

    name = "on_approval_required" if moment == "while it is held" else "on_allowed"
    config = MCPGovernanceConfig(
        approval_poll_interval_seconds=0.01, mcp_server="files", kill_switch=consumer, **{name: block}
    )
    refused(kind, kind.client(authority), errors.KillSwitchError, config=config)


@EVERY
@pytest.mark.parametrize("moment", ["before", "while it is held", "after the decision"])
def test_a_command_that_the_client_has_fetched_stops_it_too(authority, kind, moment):
    authority.hold(then="approve", polls=1 if moment == "after the decision" else 1000)
    client = kind.client(authority, fail_mode="open")

    def block(*_):
        client.kill.learn_command(
            {"command_id": "1", "command_type": "BLOCK", "target_type": "agent", "reason": "stop"}
        )

    if moment == "before":
        block()
    name = "on_approval_required" if moment == "while it is held" else "on_allowed"
    config = MCPGovernanceConfig(approval_poll_interval_seconds=0.01, **{name: block})
    refused(kind, client, errors.KillSwitchError, match="stop", config=config)
    assert len(authority.asked) == (0 if moment == "before" else 1)


@EVERY
def test_the_agents_rate_limit_counts_its_tools(authority, kind):
    authority.approve()
    client = kind.client(authority)
    client.kill.learn_command(
        {"command_id": "1", "command_type": "RATE_LIMIT", "target_type": "agent", "parameters": {"max_per_minute": 1}}
    )
    tool = kind.tool(client, lambda *_: "ran")
    assert kind.call(tool, "SELECT 1") == "ran"
    with pytest.raises(errors.RateLimitError):
        kind.call(tool, "SELECT 1")


@EVERY
def test_a_kill_by_the_authority_ends_the_wait(authority, kind):
    authority.hold()
    config = MCPGovernanceConfig(approval_poll_interval_seconds=0.01, on_approval_required=lambda *_: kill())

    def kill():
        authority.fail(403, code="AGENT_BLOCKED", on="status")

    refused(kind, kind.client(authority), errors.KillSwitchError, config=config)


@EVERY
def test_a_rate_limit_counts_runs(authority, kind):
    authority.approve()
    consumer = MCPKillSwitchConsumer()
    consumer.apply_message(
        {"command_type": "RATE_LIMIT", "mcp_server": "files", "parameters": {"max_per_minute": 2}, "command_id": "1"}
    )
    tool = kind.tool(kind.client(authority), lambda *_: "ran", mcp_server="files", kill_switch=consumer)
    assert [kind.call(tool, "x") for _ in range(2)] == ["ran", "ran"]
    with pytest.raises(errors.KillSwitchError, match="RATE_LIMIT"):
        kind.call(tool, "x")


# --- a person's approval


@EVERY
def test_a_high_risk_action_needs_a_person(authority, kind):
    authority.approve()
    tool = kind.tool(kind.client(authority), lambda *_: "ran", high_risk_action)
    with pytest.raises(errors.AuthorizationDeniedError) as caught:
        kind.call(tool, "SELECT 1")
    assert caught.value.code == "HUMAN_APPROVAL_MISSING"
    (asked,) = authority.asked
    assert asked.body["context"]["require_human_approval"] is True
    assert asked.body["risk_indicators"] == {"declared_risk": "high"}
    authority.hold(then="approve")
    tool = kind.tool(
        kind.client(authority),
        lambda *_: "ran",
        high_risk_action,
        config=MCPGovernanceConfig(approval_poll_interval_seconds=0.01),
    )
    assert kind.call(tool, "SELECT 1") == "ran"


PERSONS = [
    ({"decided_by": "ada"}, True),
    ({"approved_by": "ada", "enforcement_decision": None}, True),
    ({"metadata": {"approved_by": "ada"}}, True),
    ({}, False),
    ({"decided_by": ""}, False),
    ({"decided_by": "system"}, False),
    ({"decided_by": "Auto"}, False),
    ({"required_approvers": ["ada"]}, False),
    ({"reason": "approved by ada"}, False),
]


@pytest.mark.parametrize(("fields", "runs"), PERSONS)
def test_an_approval_at_once_counts_only_if_it_names_a_person(authority, fields, runs):
    authority.approve(**{"enforcement_decision": None, **fields})
    tool = KINDS[0].tool(authority.client(), lambda *_: "ran", high_risk_action)
    if runs:
        assert tool("x") == "ran"
    else:
        with pytest.raises(errors.AuthorizationDeniedError):
            tool("x")


def test_an_automatic_approval_after_a_hold_does_not_count(authority):
    authority.hold()
    config = MCPGovernanceConfig(
        approval_poll_interval_seconds=0.01,
        on_approval_required=lambda decision, name: authority.actions["1"].update(
            status="approved", decision="approved", enforcement_decision="auto_approved", execution_allowed=True,
            requires_approval=False,
        ),
    )  # fmt: skip
    told = []
    config = replace(config, on_denied=lambda decision, name: told.append(name))
    tool = KINDS[0].tool(authority.client(), lambda *_: "ran", high_risk_action, config=config)
    with pytest.raises(errors.AuthorizationDeniedError) as caught:
        tool("x")
    assert (caught.value.code, told) == ("HUMAN_APPROVAL_MISSING", ["tool"])


def test_an_action_that_expires_at_the_authority_is_no_permission(authority):
    authority.hold()
    told = []
    config = MCPGovernanceConfig(
        approval_poll_interval_seconds=0.01,
        on_approval_required=lambda decision, name: authority.actions["1"].update(
            status="timeout", decision="timeout", requires_approval=False
        ),
        on_timeout=lambda decision, name: told.append(name),
    )
    tool = KINDS[0].tool(authority.client(), lambda *_: pytest.fail("it ran"), config=config)
    with pytest.raises(errors.TimeoutError, match="action 1 has expired undecided") as caught:
        tool("x")
    assert (caught.value.code, told) == ("APPROVAL_TIMEOUT", ["tool"])


def test_an_open_client_runs_ordinary_tools_unasked_and_high_risk_ones_never(authority, caplog):
    authority.refuse_connections()
    client = authority.client(fail_mode="open", max_retries=0)
    assert KINDS[0].tool(client, lambda *_: "ran")("x") == "ran"
    assert authority.outcomes == {} and "was not reported" not in caplog.text
    with pytest.raises(errors.AuthorizationDeniedError):
        KINDS[0].tool(client, lambda *_: "ran", high_risk_action)("x")


# --- what a server sees


@EVERY
def test_a_wrapper_is_of_its_tools_kind_and_shows_its_signature(authority, kind):
    tool = kind.tool(kind.client(authority), lambda *_: None, require_governance)
    for check in (
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
    ):
        assert check(tool) == check(tool.__wrapped__)
    assert str(inspect.signature(tool)) == "(sql, limit=10)"
    assert tool.__name__ == "tool"


def test_methods_static_methods_partials_and_callable_objects(authority):
    authority.approve()
    client = authority.client()
    govern = mcp_governance(client, "t", "r")

    class Server:
        @govern
        def method(self, a):
            return self, a

        @govern
        @staticmethod
        def static(a):
            return a

        @govern
        @classmethod
        def of_class(cls, a):
            return cls, a

        def __call__(self, a):
            return "called", a

    server = Server()
    assert server.method(1) == (server, 1)
    assert server.static(2) == Server.static(2) == 2
    assert server.of_class(3) == (Server, 3)
    assert govern(server)(4) == ("called", 4)
    assert govern(functools.partial(lambda a, b: (a, b), 5))(6) == (5, 6)
    assert [asked.details for asked in authority.asked] == [{"a": 1}, {"a": 2}, {"a": 2}, {"a": 3}, {"a": 4}, {"b": 6}]


def test_a_plain_function_that_returns_an_awaitable_is_reported_when_that_is_done(authority):
    authority.approve()

    async def later(a):
        assert authority.outcomes == {}
        return a

    tool = mcp_governance(authority.client(), "t", "r")(lambda a: later(a))

    async def main():
        return await tool(1)

    assert asyncio.run(main()) == 1
    assert authority.outcomes == {"1": "completed"}


def test_generators_are_driven_as_they_are(authority):
    authority.approve()
    client = authority.client()
    seen = []

    @mcp_governance(client, "t", "r")
    def talk():
        got = yield 1
        try:
            yield got
        except Boom:
            seen.append("thrown")
        yield 3
        return "end"

    it = talk()
    assert (next(it), it.send("two"), it.throw(Boom())) == (1, "two", 3)
    with pytest.raises(StopIteration) as stop:
        next(it)
    assert stop.value.value == "end" and seen == ["thrown"]
    early = talk()
    next(early)
    early.close()
    assert authority.outcomes == {"1": "completed", "2": "failed"}

    closed = []

    @mcp_governance(client, "t", "r")
    async def stream():
        try:
            got = yield 1
            try:
                yield got
            except Boom:
                yield 3
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main():
        it = stream()
        assert await anext(it) == 1
        assert await it.asend("two") == "two"
        assert await it.athrow(Boom()) == 3
        assert [item async for item in it] == []
        early = stream()
        await anext(early)
        await early.aclose()

    asyncio.run(main())
    assert closed == [True, True]
    assert authority.outcomes == {"1": "completed", "2": "failed", "3": "completed", "4": "failed"}


def test_middleware_lists_its_tools_and_uses_its_configuration(authority):
    authority.deny()
    middleware = MCPGovernanceMiddleware(authority.client(), MCPGovernanceConfig(raise_on_denial=False))

    @middleware.govern("t", "r")
    def one():
        pytest.fail("it ran")

    two = middleware.wrap("t", "r", lambda: pytest.fail("it ran"))
    three = middleware.wrap("t", "r")(one.__wrapped__)
    strict = middleware.govern("t", "r", MCPGovernanceConfig())(lambda: pytest.fail("it ran"))
    assert all(isinstance(tool(), DeniedResult) for tool in (one, two, three))
    with pytest.raises(errors.AuthorizationDeniedError):
        strict()
    assert middleware.governed_tools == ["one", "<lambda>", "one", "<lambda>"]


BAD = [
    lambda client: mcp_governance(lambda: None, "t", "r"),
    lambda client: mcp_governance(client, "", "r"),
    lambda client: mcp_governance(client, "t", None),
    lambda client: mcp_governance(client, "t", "r")(5),
    lambda client: mcp_governance(client, "t", "r", kill_switch=MCPKillSwitchConsumer()),
    lambda client: high_risk_action(client, "t", "r", require_human_approval=False),
    lambda client: MCPGovernanceConfig(approval_timeout_seconds=-1),
    lambda client: MCPGovernanceConfig(approval_poll_interval_seconds=0),
    lambda client: MCPGovernanceConfig(outcome_seconds=True),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_what_cannot_work_is_told_when_it_is_declared(authority, number):
    with pytest.raises(errors.ConfigurationError):
        BAD[number](authority.client())


def test_a_plain_tool_needs_a_blocking_client_and_an_agent(authority):
    with pytest.raises(errors.ConfigurationError, match="plain function"):
        mcp_governance(authority.async_client(), "t", "r")(lambda: None)
    nobody = AscendClient("owkai_live_0123456789abcdef", api_url="http://localhost:1", engine=authority.engine)
    with nobody, pytest.raises(errors.ConfigurationError, match="agent_id"):
        mcp_governance(nobody, "t", "r")


def test_a_plain_tool_with_async_callbacks_is_refused_and_nothing_runs(authority):
    authority.approve()

    async def callback(decision, name):
        pytest.fail("never awaited")

    config = MCPGovernanceConfig(on_allowed=callback)
    tool = KINDS[0].tool(authority.client(), lambda *_: pytest.fail("it ran"), config=config)
    with pytest.raises(errors.ConfigurationError):
        tool("x")


def test_async_callbacks_of_async_tools_are_awaited(authority):
    authority.approve()
    told = []

    async def callback(decision, name):
        await asyncio.sleep(0)
        told.append(name)

    config = MCPGovernanceConfig(on_allowed=callback)
    assert awaited(KINDS[2].tool(authority.async_client(), lambda *_: "ran", config=config), "x") == "ran"
    assert told == ["tool"]


def test_how_tools_are_governed_unless_told_otherwise():
    config = MCPGovernanceConfig()
    on = ("wait_for_approval", "include_tool_name", "include_arguments", "include_caller_info", "raise_on_denial")
    assert all(getattr(config, name) is True for name in (*on, "log_all_decisions"))
    off = ("on_approval_required", "on_denied", "on_allowed", "on_timeout", "mcp_server", "kill_switch")
    assert all(getattr(config, name) is None for name in off)
    assert (config.redact, config.represent, config.by_reference) == ((), {}, ())
    assert (config.approval_timeout_seconds, config.approval_poll_interval_seconds, config.outcome_seconds) == (
        50,
        5,
        5,
    )
    assert config.max_argument_bytes == 65_536


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("approval_timeout_seconds", 0),
        ("approval_poll_interval_seconds", 0.001),
        ("max_argument_bytes", 0),
        ("outcome_seconds", 0),
    ],
)
def test_bounds_of_the_configuration(name, least):
    assert getattr(MCPGovernanceConfig(**{name: least}), name) == least
    for value in (least - 0.0001, float("inf"), float("nan"), True, "5", None):
        with pytest.raises(errors.ConfigurationError, match=f"{name} must be a number, at least {least}"):
            MCPGovernanceConfig(**{name: value})


def test_the_public_names_are_those_of_the_documents():
    from ascend_middleware import mcp

    for name in ("mcp_governance", "require_governance", "high_risk_action", "MCPGovernanceConfig",
                 "MCPGovernanceMiddleware", "MCPKillSwitchConsumer"):  # fmt: skip
        assert getattr(ascend_middleware, name) is getattr(mcp, name)


def test_trio_too(authority):
    authority.approve()
    tool = KINDS[3].tool(authority.client(), lambda *_: "ran")
    assert awaited_on_trio(tool, "x") == "ran"


# --- event loops, threads, tenants


class HeldEngine:
    """Blocks each request until the event loop lets it go on; answers with an approval."""

    def __init__(self):
        self.held = []

    def send(self, request, timeout):
        turn = threading.Event()
        self.held.append(turn)
        assert turn.wait(30), "the event loop is held up"
        return Response(200, {}, b'{"action_id": "1", "status": "approved"}')

    def close(self):
        pass


def test_defect_e12_an_async_tool_never_holds_up_its_loop():
    """Five decisions, then five reports, are all under way at the same time before the loop lets the first go on."""
    engine = HeldEngine()
    client = AscendClient("owkai_live_0123456789abcdef", api_url="http://localhost:1", agent_id="a", engine=engine)
    tool = mcp_governance(client, "t", "r")(coroutine(lambda *_: "ran"))

    async def let_go():
        for sent in (5, 10):
            while len(engine.held) < sent:
                await asyncio.sleep(0.001)
            for turn in engine.held[sent - 5 : sent]:
                turn.set()

    async def main():
        held, results = asyncio.create_task(let_go()), asyncio.gather(*(tool("x") for _ in range(5)))
        return await results, await held

    assert asyncio.run(main()) == (["ran"] * 5, None)
    client.close()


def test_a_plain_tool_on_a_loop_says_once_that_it_holds_it_up(authority, caplog):
    authority.approve()
    tool = KINDS[0].tool(authority.client(), lambda *_: "ran")

    async def main():
        return [tool("x"), tool("y")]

    assert asyncio.run(main()) == ["ran", "ran"]
    assert caplog.text.count("called on an event loop") == 1


def test_a_cancelled_tool_is_reported_as_failed(authority):
    authority.approve()
    started = asyncio.Event()

    @mcp_governance(authority.async_client(), "t", "r")
    async def tool():
        started.set()
        await asyncio.sleep(60)

    async def main():
        task = asyncio.create_task(tool())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert authority.outcomes == {"1": "failed"}


def test_a_call_cancelled_while_it_is_held_runs_nothing(authority):
    authority.hold()

    async def main():
        held = asyncio.Event()
        config = MCPGovernanceConfig(on_approval_required=lambda *_: held.set())
        tool = KINDS[3].tool(authority.client(), lambda *_: pytest.fail("it ran"), config=config)
        task = asyncio.create_task(tool("x"))
        await held.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    authority.decide()
    assert authority.outcomes == {}


def test_no_state_crosses_tenants_threads_or_tasks():
    """Two tenants, eight threads and as many tasks through the same function, each with arguments of its own."""
    tenants = {name: ScriptedAuthority() for name in ("red", "blue")}
    raw = {name: [] for name in tenants}
    lock = threading.Lock()

    def body(sql, limit):
        return f"{sql}/{limit}"

    class Recording:
        def __init__(self, name):
            self.name = name

        def send(self, request, timeout):
            with lock:
                raw[self.name].append(dict(request.headers))
            time.sleep(0.001)
            return tenants[self.name].answer(request)

        def close(self):
            pass

    clients, tools = {}, {}
    for name, authority in tenants.items():
        authority.approve()
        clients[name] = AscendClient(
            f"owkai_live_{name}_0123456789", api_url="http://localhost:1", agent_id=name, engine=Recording(name)
        )
        govern = mcp_governance(clients[name], "t", name)
        tools[name, "sync"] = govern(plain(body))
        tools[name, "async"] = govern(coroutine(body))
    results = {}

    def thread(number):
        name = "red" if number % 2 else "blue"
        for index in range(10):
            results["sync", number, index] = tools[name, "sync"](f"{name}-{number}", limit=index)

    async def tasks():
        async def one(number, index):
            name = "red" if number % 2 else "blue"
            results["async", number, index] = await tools[name, "async"](f"{name}-{number}", limit=index)

        await asyncio.gather(*(one(number, index) for number in range(8) for index in range(10)))

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(8)]
    threads.append(threading.Thread(target=lambda: asyncio.run(tasks())))
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for (how, number, index), result in results.items():
        assert result == f"{'red' if number % 2 else 'blue'}-{number}/{index}", how
    assert len(results) == 160
    for name, authority in tenants.items():
        assert len(authority.asked) == 80
        assert {asked.agent_id for asked in authority.asked} == {asked.resource for asked in authority.asked} == {name}
        assert all(asked.details["sql"].startswith(f"{name}-") for asked in authority.asked)
        assert set(authority.outcomes.values()) == {"completed"} and len(authority.outcomes) == 80
        assert {headers["X-API-Key"] for headers in raw[name]} == {f"owkai_live_{name}_0123456789"}
        assert len({headers["X-Correlation-ID"] for headers in raw[name]}) == len(raw[name]) == 160
        clients[name].close()


def test_secrets_of_a_call_reach_neither_the_wire_nor_a_log(authority, caplog):
    authority.approve()
    caplog.set_level(logging.DEBUG)

    @mcp_governance(authority.client(), "t", "r", metadata={"api_key": "hunter2"})
    def tool(user, password, options):
        raise ValueError(f"bad password {password}")

    with pytest.raises(ValueError, match="hunter2"):
        tool("u", "hunter2", {"token": "hunter2"})
    assert "hunter2" not in caplog.text
    assert "hunter2" not in repr([request.body for request in authority.requests])
