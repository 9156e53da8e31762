"""Commands are read from every wrapping, and nothing unreadable lifts a block."""

import json
import math
import time

import pytest
from kit.states import state_at

from ascend_middleware.api.commands import (
    MAX_SKEW,
    CommandKind,
    MalformedCommand,
    Target,
    UnknownCommand,
    parse_command,
)
from ascend_middleware.api.orders import rank
from ascend_middleware.killswitch.poller import CommandHandler, _region

NOW = 1_800_000_000.0
BLOCK = {
    "command_id": "c-1",
    "command_type": "BLOCK",
    "target_type": "agent",
    "agent_id": "bot",
    "organization_id": 4,
    "reason": "misbehaves",
    "issued_at": "2027-01-15T08:00:00Z",
}
UNBLOCK = {**BLOCK, "command_id": "c-2", "command_type": "UNBLOCK"}


def parse(message):
    return parse_command(message, received_at=NOW)


def sqs(body):
    return {"MessageId": "m", "ReceiptHandle": "r", "Body": body if isinstance(body, str) else json.dumps(body)}


def sns(body):
    return sqs({"Type": "Notification", "Message": json.dumps(body)})


@pytest.mark.parametrize(
    "wrap",
    [dict, json.dumps, lambda body: json.dumps(body).encode(), sqs, sns, lambda body: {"Body": body}],
    ids=["mapping", "text", "bytes", "sqs", "sns", "body as mapping"],
)
def test_every_wrapping_is_the_same_command(wrap):
    command = parse(wrap(BLOCK))
    assert command == parse(BLOCK)
    assert (command.command_id, command.kind, command.target) == ("c-1", CommandKind.BLOCK, Target.AGENT)
    assert (command.agent_id, command.organization_id, command.reason) == ("bot", "4", "misbehaves")
    assert command.issued_at == 1_800_000_000.0


@pytest.mark.parametrize("word", ["BLOCK", "block", "BLOCK ", "Suspend", "QUARANTINE"])
def test_letter_case_and_blanks_do_not_save_from_a_block(word):
    assert parse({**BLOCK, "command_type": word}).slots == ("block",)


@pytest.mark.parametrize("parameters", [[], "x", 3, None])
def test_a_block_with_odd_parameters_is_a_block(parameters):
    assert parse({**BLOCK, "parameters": parameters}).kind is CommandKind.BLOCK


@pytest.mark.parametrize(
    "parameters",
    [{}, [], {"max_per_minute": 0}, {"max_per_minute": "many"}, {"max_per_minute": True}, {"max_per_minute": 1.5}],
)
def test_a_rate_limit_that_cannot_be_read_blocks(parameters):
    message = {**BLOCK, "command_type": "RATE_LIMIT", "parameters": parameters}
    assert parse(message).kind is CommandKind.BLOCK


def test_a_rate_limit_says_how_many_a_minute():
    for value in (30, "30", 30.0):
        command = parse({**BLOCK, "command_type": "rate_limit", "parameters": {"max_per_minute": value}})
        assert (command.kind, command.max_per_minute) == (CommandKind.RATE_LIMIT, 30)


def test_a_block_needs_neither_time_nor_id():
    command = parse({"command_type": "BLOCK"})
    assert (command.target, command.agent_id, command.issued_at) == (Target.ORGANIZATION, None, NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"command_id": None},
        {"command_id": ""},
        {"issued_at": None},
        {"issued_at": "soon"},
        {"issued_at": NOW + MAX_SKEW + 1},
        {"target_type": "everything"},
        {"agent_id": 7},
        {"organization_id": []},
    ],
)
def test_a_lifting_command_with_a_flaw_lifts_nothing(change):
    with pytest.raises(MalformedCommand):
        parse({**UNBLOCK, **change})


def test_a_block_from_the_future_is_held_to_the_skew():
    assert parse({**BLOCK, "issued_at": NOW + 1e6}).issued_at == NOW + MAX_SKEW


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2027-01-15T08:00:00", 1_800_000_000.0),  # without a zone it is UTC
        ("2027-01-15T10:00:00+02:00", 1_800_000_000.0),
        (1_800_000_000_000, 1_800_000_000.0),  # milliseconds
        (1_799_999_999, 1_799_999_999.0),
    ],
)
def test_a_moment_is_read_in_each_of_its_forms(written, moment, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert parse({**BLOCK, "issued_at": written}).issued_at == moment
    finally:
        monkeypatch.undo()
        time.tzset()


def test_of_one_instant_the_stricter_command_ranks_higher():
    assert rank(parse(BLOCK)) > rank(parse(UNBLOCK))
    assert rank(parse({**UNBLOCK, "issued_at": NOW + 1})) > rank(parse(BLOCK))


@pytest.mark.parametrize(
    ("fields", "target", "agent"),
    [
        ({"target_type": None}, Target.AGENT, "bot"),
        ({"target_type": None, "agent_id": None}, Target.ORGANIZATION, None),
        ({"agent_id": None}, Target.ORGANIZATION, None),
        ({"target_type": "ORGANIZATION"}, Target.ORGANIZATION, None),
        ({"is_broadcast": True}, Target.ORGANIZATION, None),
        ({"target_type": "fleet"}, Target.AGENT, "bot"),
        ({"target_type": 7, "agent_id": None}, Target.ORGANIZATION, None),
    ],
)
def test_whom_a_block_is_aimed_at(fields, target, agent):
    command = parse({**BLOCK, **fields})
    assert (command.target, command.agent_id) == (target, agent)


def test_a_lift_that_names_an_agent_lifts_that_agent_only():
    command = parse({**UNBLOCK, "target_type": "organization"})
    assert (command.target, command.agent_id) == (Target.AGENT, "bot")


def test_mcp_servers_by_name_and_number():
    named = parse({**BLOCK, "target_type": "mcp_server", "parameters": {"mcp_server": "files"}})
    assert (named.target, named.mcp_server) == (Target.MCP_SERVER, "files")
    numbered = parse({**BLOCK, "target_type": None, "target_mcp_server_config_id": "12"})
    assert (numbered.target, numbered.mcp_server_config_id) == (Target.MCP_SERVER, 12)
    both = parse({**BLOCK, "target_type": "mcp_server", "mcp_server": " files ", "target_mcp_server_config_id": 12})
    assert (both.mcp_server, both.mcp_server_config_id) == ("files", 12)
    long = parse({**BLOCK, "target_type": "mcp_server", "target_mcp_server_config_id": "12" * 2500})
    assert long.mcp_server_config_id == int("12" * 9)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"mcp_server": " "},
        {"mcp_server": 12},
        {"target_mcp_server_config_id": "12a"},
        {"target_mcp_server_config_id": "١٢"},
        {"target_mcp_server_config_id": ""},
        {"target_mcp_server_config_id": True},
        {"target_mcp_server_config_id": [12]},
        {"target_mcp_server_config_id": 1.0, "mcp_server": "files"},
    ],
)
def test_a_command_for_no_mcp_server_is_malformed(fields):
    with pytest.raises(MalformedCommand):
        parse({**BLOCK, "target_type": "mcp_server", **fields})


@pytest.mark.parametrize(("given", "known"), [(7, "7"), (" c ", "c"), ("x" * 200, "x" * 200)])
def test_a_commands_id_is_a_text_or_a_number(given, known):
    assert parse({**BLOCK, "command_id": given}).command_id == known


@pytest.mark.parametrize("given", [True, False, None, "", " ", "x" * 201, 1.5, ["c"]])
def test_what_is_no_id_blocks_and_lifts_nothing(given):
    assert parse({**BLOCK, "command_id": given}).command_id == ""
    with pytest.raises(MalformedCommand):
        parse({**UNBLOCK, "command_id": given})


@pytest.mark.parametrize(
    "message",
    [
        None,
        7,
        [],
        "",
        "nonsense",
        b"\xff",
        "[]",
        '{"command_type": "BLOCK", "command_type": "UNBLOCK"}',
        {},
        {"command_type": None},
        {"command_type": ["BLOCK"]},
        {"Body": ""},
        {"Type": "SubscriptionConfirmation", "Message": "x"},
        sqs(sqs(sqs(sqs(BLOCK)))),
        "[" * 100_000,
    ],
)
def test_what_cannot_be_read_is_malformed(message):
    with pytest.raises(MalformedCommand):
        parse(message)


def test_an_unknown_type_is_told_apart():
    with pytest.raises(UnknownCommand, match="PARDON"):
        parse({**UNBLOCK, "command_type": "PARDON"})


def test_the_reason_cannot_forge_a_line():
    assert parse({**BLOCK, "reason": "a\nb\x1b[2J"}).reason == "a b [2J"


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.eu-central-1.amazonaws.com/1/q", "eu-central-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", "cn-north-1"),
        ("https://sqs.amazonaws.com/1/q", None),
        ("https://eu-west-1.queue.amazonaws.com/1/q", None),
        ("https://sqs.internal.company.example/q", None),
        ("http://localhost:4566/q", None),
        ("nonsense", None),
    ],
)
def test_the_region_of_a_queue_is_in_its_url(url, region):
    assert _region(url) == region


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (1, 1),
        (1_000_000, 1_000_000),
        (7.0, 7),
        ("7", 7),
        (" 7 ", 7),
        ("1000000", 1_000_000),
        (0, None),
        (-1, None),
        (1_000_001, None),
        ("1000001", None),
        ("12345678901234567890", None),
        (7.5, None),
        (math.inf, None),
        (math.nan, None),
        (True, None),
        ("\u0667", None),
        ("\xb2", None),
        ("7/min", None),
        ("", None),
        ([7], None),
        (None, None),
    ],
)
def test_a_limit_that_is_not_clearly_a_number_blocks(given, read):
    limit = {**BLOCK, "command_type": "RATE_LIMIT", "parameters": {"max_per_minute": given}}
    assert parse(limit).max_per_minute == read


class TestWhatIsReceived:
    """By the queue and over HTTP alike."""

    @pytest.fixture
    def handler(self):
        return CommandHandler(state_at(), organization_id="4", now=lambda: NOW)

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({}, "kill-switch command c-1: BLOCK agent 'bot'"),
            ({"agent_id": None, "target_type": "organization"}, "kill-switch command c-1: BLOCK every agent"),
        ],
    )
    def test_a_command_that_is_kept_is_told_once_with_whom_it_is_for(self, handler, caplog, changed, said):
        for _ in range(2):
            handler.apply(handler.read({**BLOCK, **changed}))
        assert [line.getMessage() for line in caplog.records] == [said]

    @pytest.mark.parametrize("given", [4, "4", None])
    def test_ours_and_what_names_no_organisation_are_obeyed(self, handler, given):
        assert handler.read({**BLOCK, "organization_id": given}).kind is CommandKind.BLOCK

    def test_without_an_organisation_of_its_own_everybodys_are(self):
        assert CommandHandler(state_at(), organization_id="", now=lambda: NOW).read({**BLOCK, "organization_id": 5})

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"organization_id": 5}, "a command of organisation '5' is ignored"),
            ({"organization_id": "x" * 99}, f"a command of organisation '{'x' * 40}' is ignored"),
            ({"command_type": "PARDON"}, "a kill-switch message is left alone: "),
            ({"command_type": None}, "a malformed kill-switch message is left alone: "),
        ],
    )
    def test_what_is_not_obeyed_is_said_once(self, handler, caplog, changed, said):
        for _ in range(3):
            assert handler.read({**BLOCK, **changed}) is None
        (line,) = caplog.records
        assert line.getMessage().startswith(said) and line.levelname == "ERROR"
