"""The kill-switch consumer: every shape of a message, every command, order, duplicates, strangers and damage."""

import itertools
import json
import logging
import os
import threading
from functools import partial

import pytest
from kit.processes import in_a_child, together

from ascend_middleware import MCPKillSwitchConsumer
from ascend_middleware.exceptions import ConfigurationError

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def at(seconds):
    return NOW + seconds


class Clock:
    def __init__(self):
        self.now = NOW + 1000
        self.mono = 0.0


@pytest.fixture
def clock():
    return Clock()


def consumer(clock, **options):
    return MCPKillSwitchConsumer(now=lambda: clock.now, clock=lambda: clock.mono, **options)


_ids = itertools.count(1)


def command(kind="BLOCK", issued=0, **fields):
    """A documented command for the server `fs`."""
    return {
        "command_id": f"c{next(_ids)}",
        "command_type": kind,
        "target_type": "mcp_server",
        "agent_id": None,
        "mcp_server": "fs",
        "organization_id": 1,
        "reason": "because",
        "parameters": {},
        "issued_at": at(issued),
        **fields,
    }


def without(message, *names):
    return {name: value for name, value in message.items() if name not in names}


WRAPPINGS = {
    "bare": lambda body: body,
    "text": json.dumps,
    "bytes": lambda body: json.dumps(body).encode(),
    "bytearray": lambda body: bytearray(json.dumps(body).encode()),
    "sqs": lambda body: {"MessageId": "m", "ReceiptHandle": "r", "Body": json.dumps(body)},
    "sqs text": lambda body: json.dumps({"MessageId": "m", "ReceiptHandle": "r", "Body": json.dumps(body)}),
    "sns": lambda body: {"Type": "Notification", "MessageId": "n", "Message": json.dumps(body)},
    "sns in sqs": lambda body: {
        "MessageId": "m",
        "Body": json.dumps({"Type": "Notification", "MessageId": "n", "Message": json.dumps(body)}),
    },
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_every_documented_shape_is_obeyed(clock, wrap):
    it = consumer(clock)
    it.apply_message(wrap(command("BLOCK", 1)))
    assert it.is_blocked("fs") and not it.is_blocked("other")
    it.apply_message(wrap(command("UNBLOCK", 2)))
    assert not it.is_blocked("fs")
    assert it.degraded is None


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_snippet_1_18_runs_as_it_stands(clock, wrap):
    # Messages that say nothing but what is needed, as a program that writes them by hand would.
    for message in (
        {"target_type": "mcp_server", "command_type": "BLOCK", "parameters": {"mcp_server": "filesystem-server"}},
        {"target_type": "mcp_server", "command_type": "BLOCK", "mcp_server": "filesystem-server"},
    ):
        it = consumer(clock)
        it.apply_message(wrap(message))
        with pytest.raises(RuntimeError):
            if it.is_blocked("filesystem-server"):
                raise RuntimeError("MCP server blocked by administrator")
        it.apply_message(wrap({**message, "command_type": "UNBLOCK"}))
        assert not it.is_blocked("filesystem-server")
        assert it.degraded is None


@pytest.mark.parametrize("word", ["BLOCK", "SUSPEND", "QUARANTINE", "block", " Block ", "BLOCK\n", "Quarantine"])
@pytest.mark.parametrize("lift", ["UNBLOCK", "RESUME", "unblock "])
def test_block_suspend_and_quarantine_block_until_they_are_lifted(clock, word, lift):
    it = consumer(clock)
    it.apply_message(command(word, 1))
    assert it.is_blocked("fs")
    assert it.state("fs").command.reason == "because"
    assert it.blocked_servers == ["fs"]
    it.apply_message(command(lift, 2))
    assert not it.is_blocked("fs")
    assert it.blocked_servers == []


BROADCASTS = [
    {"target_type": "organization", "mcp_server": None},
    {"target_type": "agent", "agent_id": None, "mcp_server": None},
    {"target_type": None, "agent_id": None, "mcp_server": None},
]


@pytest.mark.parametrize("aim", BROADCASTS)
def test_a_broadcast_blocks_every_server_and_only_a_broadcast_lifts_it(clock, aim):
    it = consumer(clock)
    it.apply_message(command("BLOCK", 1, **aim))
    assert it.is_blocked("fs") and it.is_blocked("other") and it.is_blocked() and it.is_blocked(mcp_server_config_id=3)
    it.apply_message(command("UNBLOCK", 2))
    assert it.is_blocked("fs")
    it.apply_message(command("UNBLOCK", 3, **aim))
    assert not it.is_blocked("fs")
    it.apply_message(command("BLOCK", 4))
    it.apply_message(command("UNBLOCK", 5, **aim))
    assert it.is_blocked("fs"), "what was ordered for one server is lifted for that server"


def test_the_newest_by_issue_time_wins_in_every_order_of_delivery(clock):
    messages = [command("BLOCK", 1), command("UNBLOCK", 2), command("SUSPEND", 3)]
    for order in itertools.permutations(messages):
        it = consumer(clock)
        for message in order:
            it.apply_message(message)
        assert it.is_blocked("fs")
    for order in itertools.permutations([*messages, command("RESUME", 4)]):
        it = consumer(clock)
        for message in order:
            it.apply_message(message)
        assert not it.is_blocked("fs")


def undated(kind, **fields):
    return without(command(kind, **fields), "issued_at")


def queued(kind, seconds, identity):
    """What the queue says, and the command does not: when it was sent, and its id."""
    body = {"target_type": "mcp_server", "mcp_server": "fs", "command_type": kind}
    sent = {"SentTimestamp": str(int(at(seconds) * 1000))}
    return {"MessageId": identity, "Attributes": sent, "Body": json.dumps(body)}


def to_agent(kind, issued, agent):
    return command(kind, issued, target_type="agent", agent_id=agent, mcp_server=None)


LIFT = command("UNBLOCK", 2)
UNDATED = undated("BLOCK"), undated("UNBLOCK")
# One message after the other, each with whether the server `fs` is blocked then.
SEQUENCES = {
    "of one instant the block stands": [(command("BLOCK", 1), True), (command("UNBLOCK", 1), True)],
    "of one instant the block stands, also when it comes last": [
        (command("UNBLOCK", 1), False),
        (command("BLOCK", 1), True),
    ],
    "a stale unblock that is delivered again lifts nothing": [
        (command("BLOCK", 1), True),
        (LIFT, False),
        (command("BLOCK", 3), True),
        (LIFT, True),
        ({**LIFT, "command_id": "another"}, True),
    ],
    "a command is applied once, also when it has no date": [
        (UNDATED[0], True),
        (UNDATED[1], False),
        (UNDATED[0], False),  # delivered again
        ({**UNDATED[0], "command_id": "new"}, True),
        (UNDATED[1], True),  # delivered again
    ],
    "an undated unblock lifts no dated block": [(command("BLOCK", 1), True), (undated("UNBLOCK"), True)],
    "an undated block is lifted by what is dated after it came": [
        (undated("BLOCK"), True),  # it comes at 1000
        (command("UNBLOCK", 999), True),
        (command("UNBLOCK", 1000), True),
        (command("UNBLOCK", 1001), False),
    ],
    "the queue says what the command does not": [
        (queued("BLOCK", 5, "b"), True),
        (queued("UNBLOCK", 3, "a"), True),
        (queued("UNBLOCK", 6, "c"), False),
    ],
    "what the command says itself counts": [
        (command("BLOCK", 5), True),
        ({**queued("UNBLOCK", 6, "a"), "Body": json.dumps(command("UNBLOCK", 4))}, True),
        ({**queued("UNBLOCK", 3, "a"), "Body": json.dumps(command("UNBLOCK", 6))}, False),
    ],
    "an id cannot be spent beforehand": [
        (command("UNBLOCK", 1, command_id="same"), False),
        (command("BLOCK", 2, command_id="same"), True),
    ],
    "a lift expires": [(command("BLOCK", 1), True), (command("UNBLOCK", 2, expires_at=at(1000)), True)],
    "a lift that has not expired lifts": [
        (command("BLOCK", 1), True),
        (command("UNBLOCK", 2, expires_at=at(1001)), False),
    ],
    "a block does not expire": [(command("BLOCK", 2, expires_at=at(900)), True)],
    "without an organisation each lifts only its own": [
        (command("BLOCK", 1, organization_id=1), True),
        (command("UNBLOCK", 2, organization_id=2), True),
    ],
    "an unknown command lifts nothing": [(command("BLOCK", 1), True), (command("PARDON", 2), True)],
    "without an agent nobody's commands are obeyed": [(to_agent("BLOCK", 1, "b"), False)],
    **{
        f"a rate limit of {parameters} cannot be read and blocks": [
            (command("RATE_LIMIT", 1, parameters=parameters), True)
        ]
        for parameters in ({}, [], None, {"max_per_minute": "many"}, {"max_per_minute": True})
    },
    "a list of parameters hides no block": [(command("BLOCK", 1, parameters=["x"]), True)],
}
OF_AN_AGENT = [
    (to_agent("BLOCK", 1, "b"), False),
    (to_agent("BLOCK", 1, "a"), True),
    (to_agent("UNBLOCK", 2, "a"), False),
]
OF_AN_ORGANISATION = [
    (command("BLOCK", 1, organization_id=2), False),
    (command("BLOCK", 1, organization_id="2"), False),
    ({"organization_id": 2, "command_type": 5}, False),
    (command("BLOCK", 1, organization_id="1"), True),
    (command("UNBLOCK", 2, organization_id=2), True),
    (command("UNBLOCK", 2, organization_id=None), True),  # a lifting command has to say whose it is
    (command("UNBLOCK", 2), False),
    (command("BLOCK", 3, organization_id=None), True),
]
SEQUENCES_OF = [
    *(pytest.param({}, steps, id=name) for name, steps in SEQUENCES.items()),
    pytest.param({"agent_id": "a"}, OF_AN_AGENT, id="an agent obeys what is for it"),
    pytest.param({"organization_id": 1}, OF_AN_ORGANISATION, id="strangers are ignored"),
]


@pytest.mark.parametrize(("options", "steps"), SEQUENCES_OF)
def test_what_is_ordered_one_after_the_other(clock, options, steps):
    it = consumer(clock, **options)
    for message, blocked in steps:
        it.apply_message(message)
        it.recover()  # from what could not be read, and blocks in the meantime
        assert it.is_blocked("fs") is blocked


def test_an_unknown_command_is_loud(clock, caplog):
    consumer(clock).apply_message(command("PARDON", 2))
    assert "unknown command type 'PARDON'" in caplog.text


@pytest.mark.parametrize("organization", [None, True, False, 2.0, [2], {"id": 2}])
def test_a_block_that_does_not_say_clearly_whose_it_is_blocks(clock, organization):
    it = consumer(clock, organization_id=1)
    it.apply_message(command("BLOCK", 1, organization_id=organization))
    assert it.is_blocked("fs")


@pytest.mark.parametrize(
    ("stamp", "dated"),
    [
        ("2026-01-01T00:00:05Z", True),
        (str(int(at(5) * 1000)), True),
        (int(at(5) * 1000), True),
        ("0", False),
        ("", False),
        (None, False),
    ],
)
def test_what_a_queue_may_say_of_the_time(clock, stamp, dated):
    it = consumer(clock)

    def send(kind):
        body = json.dumps({"target_type": "mcp_server", "mcp_server": "fs", "command_type": kind})
        it.apply_message({"MessageId": kind, "Attributes": {"SentTimestamp": stamp}, "Body": body})

    send("BLOCK")
    assert it.is_blocked("fs") and it.degraded is None
    assert it.state("fs").command.issued_at == (at(5) if dated else clock.now)
    send("UNBLOCK")
    assert it.is_blocked("fs") is dated, "of one instant the block stands; without a date the last one counts"


@pytest.mark.parametrize("stamp", ["soon", "\u0661", "1.5.2026", -1, True, [5]])
def test_a_time_of_the_queue_that_cannot_be_read_blocks(clock, stamp):
    it = consumer(clock)
    body = json.dumps({"target_type": "mcp_server", "mcp_server": "fs", "command_type": "BLOCK"})
    it.apply_message({"MessageId": "b", "Attributes": {"SentTimestamp": stamp}, "Body": body})
    assert it.is_blocked("fs") and it.degraded is None
    assert it.state("fs").command.issued_at == clock.now


@pytest.mark.parametrize(
    ("carried", "dated"),
    [
        ({"MessageId": "a", "Attributes": {"SentTimestamp": str(int(at(5) * 1000))}}, True),
        ({"messageId": "a", "attributes": {"SentTimestamp": str(int(at(5) * 1000))}}, True),
        ({"MessageId": "a", "Timestamp": "2026-01-01T00:00:05Z"}, True),
        # What the notification says is older than the queue that it came by.
        ({"MessageId": "a", "Timestamp": "2026-01-01T00:00:05Z", "Attributes": {"SentTimestamp": "1"}}, True),
        ({"MessageId": "a", "Timestamp": "2026-01-01T00:00:05Z", "Attributes": {}}, True),
        ({"MessageId": "a", "Attributes": ["SentTimestamp"]}, False),
        ({"MessageId": "a", "Attributes": "SentTimestamp"}, False),
        ({"MessageId": "a", "Attributes": None}, False),
    ],
)
def test_where_a_queue_may_say_what_the_command_does_not(clock, carried, dated):
    it = consumer(clock)
    body = json.dumps({"target_type": "mcp_server", "mcp_server": "fs", "command_type": "BLOCK"})
    it.apply_message({**carried, "Body": body})
    assert it.degraded is None
    found = it.state("fs").command
    assert (found.command_id, found.issued_at) == ("a", at(5) if dated else clock.now)


@pytest.mark.parametrize(
    ("fields", "aim"),
    [
        ({}, "MCP server 'fs' (None)"),
        ({"target_mcp_server_config_id": 5}, "MCP server 'fs' (5)"),
        ({"target_type": "agent", "agent_id": "a", "mcp_server": None}, "agent 'a'"),
        ({"target_type": "organization", "mcp_server": None}, "the organisation"),
    ],
)
def test_the_log_says_who_is_stopped_and_why(clock, caplog, fields, aim):
    it = consumer(clock, agent_id="a")
    it.apply_message(command("BLOCK", 1, **fields))
    it.apply_message(command("QUARANTINE", 2, **fields, reason=None))
    assert f"BLOCK for {aim}: because" in caplog.text
    assert f"QUARANTINE for {aim}: no reason given" in caplog.text


def test_a_state_says_the_order_and_cannot_be_changed(clock):
    it = consumer(clock)
    it.apply_message(command("BLOCK", 1))
    it.apply_message(command("BLOCK", 1, mcp_server="db", reason=None))
    assert (it.state("fs").reason, it.state("db").reason, it.state("crm").reason) == ("BLOCK: because", "BLOCK", "")
    with pytest.raises(AttributeError):
        it.state("fs").blocked = False


def test_what_has_no_date_counts_in_the_order_of_arrival_also_when_the_clock_is_set_back(clock):
    it = consumer(clock)
    for kind in ("BLOCK", "UNBLOCK", "BLOCK", "UNBLOCK"):
        it.apply_message(without(command(kind), "issued_at"))
        assert it.is_blocked("fs") is (kind == "BLOCK") and it.degraded is None
        clock.now -= 5000


def test_an_order_for_one_agents_use_of_a_server_concerns_that_agent(clock):
    agents = {"a": consumer(clock, agent_id="a"), "b": consumer(clock, agent_id="b"), None: consumer(clock)}
    for it in agents.values():
        it.apply_message(command("BLOCK", 1, agent_id="b"))
        assert not it.is_blocked("other")
    assert {agent: it.is_blocked("fs") for agent, it in agents.items()} == {"a": False, "b": True, None: True}
    for it in agents.values():
        it.apply_message(command("UNBLOCK", 2))
    assert agents["b"].is_blocked("fs"), "lifted is what was ordered for the same"


def test_nobody_unblocks_from_the_future_or_after_expiry(clock):
    it = consumer(clock)
    it.apply_message(command("BLOCK", 1))
    it.apply_message(command("UNBLOCK", 2, expires_at=at(900)))
    assert it.is_blocked("fs") and it.degraded is None
    it.apply_message(command("UNBLOCK", 100_000))
    assert it.degraded is not None
    it.recover()
    assert it.is_blocked("fs")


MALFORMED = [
    b"\xff",
    "not json",
    "",
    "[]",
    "null",
    None,
    5,
    [],
    {},
    {"command_type": None},
    {"command_type": ["BLOCK"]},
    {"Body": ""},
    {"Body": None},
    {"Body": "{"},
    {"Type": "SubscriptionConfirmation", "Message": "x"},
    '{"command_type": "BLOCK", "command_type": "UNBLOCK"}',
    "[" * 100_000,
    "x" * 300_000,
    {"command_type": "BLOCK", "target_type": "mcp_server"},
    {"command_type": "BLOCK", "target_type": "mcp_server", "parameters": ["fs"]},
    {"command_type": "BLOCK", "target_type": "mcp_server", "target_mcp_server_config_id": 1.5},
    {"command_type": "BLOCK", "agent_id": 5},
    {"command_type": "UNBLOCK", "target_type": "fleet", "mcp_server": "fs"},
]


class Raises(dict):
    def __contains__(self, key):
        raise RuntimeError("boo")


@pytest.mark.parametrize("message", [*MALFORMED, Raises()], ids=lambda message: repr(message)[:40])
def test_what_cannot_be_read_never_raises_and_blocks(clock, message, caplog):
    it = consumer(clock)
    it.apply_message(message)
    assert it.is_blocked("fs") and it.is_blocked("other")
    assert it.degraded and it.degraded in it.state("fs").reason
    assert any(record.levelno == logging.ERROR for record in caplog.records)
    it.apply_message(command("UNBLOCK", 1))
    assert it.is_blocked("fs"), "it may have been a block of anybody"
    it.recover()
    assert not it.is_blocked("fs")


@pytest.mark.parametrize("message", MALFORMED, ids=lambda message: repr(message)[:40])
def test_damage_can_be_ignored_by_choice(clock, message, caplog):
    it = consumer(clock, on_malformed="ignore")
    it.apply_message(message)
    assert not it.is_blocked("fs") and it.degraded is None
    assert any(record.levelno == logging.ERROR for record in caplog.records)


def test_a_rate_limit_counts_runs_and_lets_go_after_a_minute(clock):
    it = consumer(clock)
    it.apply_message(command("RATE_LIMIT", 1, parameters={"max_per_minute": 2}))
    assert it.state("fs").max_per_minute == 2
    for _ in range(5):
        assert not it.state("fs").blocked, "looking is no run"
    assert [it.is_blocked("fs") for _ in range(4)] == [False, False, True, True]
    assert it.state("fs").blocked and not it.is_blocked("other")
    clock.mono += 59.9
    assert it.is_blocked("fs")
    clock.mono += 0.2
    assert not it.is_blocked("fs")
    it.apply_message(command("UNBLOCK", 2))
    assert not any(it.is_blocked("fs") for _ in range(5))


def test_a_rate_limit_lifts_no_block_and_the_newest_counts(clock):
    it = consumer(clock)
    it.apply_message(command("BLOCK", 1))
    it.apply_message(command("RATE_LIMIT", 2, parameters={"max_per_minute": 5}))
    assert it.is_blocked("fs")
    it.apply_message(command("UNBLOCK", 1.5))
    assert not it.state("fs").blocked and it.state("fs").max_per_minute == 5
    it.apply_message(command("RATE_LIMIT", 1.7, parameters={"max_per_minute": 50}))
    assert it.state("fs").max_per_minute == 5


@pytest.mark.parametrize(("undated", "dated"), [(5, 50), (50, 5)])
def test_of_a_limit_with_and_one_without_a_date_the_strictest_holds(clock, undated, dated):
    it = consumer(clock)
    it.apply_message(without(command("RATE_LIMIT", parameters={"max_per_minute": undated}), "issued_at"))
    it.apply_message(command("RATE_LIMIT", 1001, parameters={"max_per_minute": dated}))  # the other came at 1000
    assert it.state("fs").max_per_minute == 5


def test_names_and_numbers_of_one_server(clock):
    it = consumer(clock, servers={"fs": 5, "crm": 6})
    by_number = {"mcp_server": None, "target_mcp_server_config_id": 5}
    it.apply_message(command("BLOCK", 1, **by_number))
    assert it.is_blocked("fs") and it.is_blocked("FS ") and it.is_blocked(mcp_server_config_id=5)
    assert not it.is_blocked("crm") and not it.is_blocked(mcp_server_config_id=6)
    it.apply_message(command("UNBLOCK", 2))
    assert not it.is_blocked("fs") and not it.is_blocked(mcp_server_config_id=5)


def test_asked_by_a_number_that_nobody_can_name_a_block_by_name_may_be_its(clock):
    it = consumer(clock, servers={"crm": 6, "fs": 5})
    it.apply_message(command("BLOCK", 1, mcp_server="db"))
    assert it.is_blocked(mcp_server_config_id=7), "7 may be db"
    assert it.is_blocked("db", 7) and it.is_blocked("db")
    assert not it.is_blocked(mcp_server_config_id=6) and not it.is_blocked(mcp_server_config_id=5)
    assert not it.is_blocked("crm", 7), "the name says which one it is"
    it.apply_message(command("UNBLOCK", 2, mcp_server="db"))
    it.apply_message(command("BLOCK", 3, mcp_server="fs"))
    assert not it.is_blocked(mcp_server_config_id=7), "fs is 5, so 7 is another one"
    assert it.is_blocked(mcp_server_config_id=5)


def test_a_block_by_a_number_that_nobody_can_name_stops_whoever_it_may_be(clock):
    it = consumer(clock, servers={"crm": 6})
    it.apply_message(command("BLOCK", 1, mcp_server=None, target_mcp_server_config_id=5))
    assert it.is_blocked("fs"), "5 may be fs"
    assert not it.is_blocked("crm"), "crm is 6"
    assert it.is_blocked("fs", 5) and not it.is_blocked("fs", 7)
    it.apply_message(
        command("RATE_LIMIT", 1, mcp_server="db", target_mcp_server_config_id=5, parameters={"max_per_minute": 9})
    )
    assert not it.is_blocked("fs"), "5 is db, as is known now"
    assert it.is_blocked("db")


def test_an_order_for_everybody_is_one_for_this_agent(clock):
    it = consumer(clock, agent_id="mine", organization_id=1)
    it.apply_message(command())
    assert it.is_blocked("fs")
    it.apply_message(command("UNBLOCK", 1))
    assert not it.is_blocked("fs")
    it.apply_message(command("BLOCK", 2, target_type="organization", mcp_server=None))
    assert it.is_blocked("any")


def test_an_order_by_a_number_concerns_no_other_number(clock):
    it = consumer(clock)
    it.apply_message(command(mcp_server=None, target_mcp_server_config_id=5))
    assert it.is_blocked(mcp_server_config_id=5) and not it.is_blocked(mcp_server_config_id=6)
    assert it.blocked_servers == []


def test_an_order_that_names_a_server_names_no_other(clock):
    it = consumer(clock, servers={"git": 5})
    it.apply_message(command(target_mcp_server_config_id=5))
    assert it.blocked_servers == ["fs"]
    it.apply_message(command("UNBLOCK", 1, target_mcp_server_config_id=5))
    it.apply_message(command("BLOCK", 2, mcp_server=None, target_mcp_server_config_id=5))
    assert it.blocked_servers == ["git"]


def test_a_bare_command_has_no_other_id_than_its_own(clock):
    it = consumer(clock)
    for kind, issued in (("BLOCK", 1), ("UNBLOCK", 2)):
        it.apply_message({**without(command(kind, issued), "command_id"), "MessageId": "m"})
    assert not it.is_blocked("fs")


def test_reset_forgets_everything(clock):
    it = consumer(clock)
    it.apply_message(command("BLOCK", 1))
    it.apply_message("?")
    it.reset()
    assert not it.is_blocked("fs") and it.degraded is None


@pytest.mark.parametrize(
    "options", [{"on_malformed": "allow"}, *({"organization_id": it} for it in (True, 1.0, [1], b"1"))]
)
def test_bad_arguments_are_told(options):
    with pytest.raises(ConfigurationError):
        MCPKillSwitchConsumer(**options)


def test_threads_share_it(clock):
    it = consumer(clock)
    it.apply_message(command("RATE_LIMIT", 1, parameters={"max_per_minute": 100}))
    passed, barrier = [], threading.Barrier(8)

    def work(number):
        barrier.wait()
        for index in range(50):
            if not it.is_blocked("fs"):
                passed.append((number, index))
            it.apply_message(command("BLOCK", index, mcp_server=f"s{number}"))
            it.apply_message(command("UNBLOCK", index + 1, mcp_server=f"s{number}"))

    together(*(partial(work, number) for number in range(8)))
    assert len(passed) == 100, "exactly the limit, whatever the threads do"
    assert it.blocked_servers == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_still_obeys_and_does_not_hang_on_the_parents_lock(clock):
    it = consumer(clock)
    it.apply_message(command("BLOCK", 1))
    with it._lock:  # as if another thread of the parent were in the middle
        assert in_a_child(lambda: it.is_blocked("fs") and not it.is_blocked("other"))


def test_who_asks_for_no_server_hears_of_orders_for_all_servers_only(clock):
    it = consumer(clock)
    it.apply_message(command())
    it.apply_message(command(mcp_server=None, target_mcp_server_config_id=7))
    assert it.is_blocked("fs") and it.is_blocked(mcp_server_config_id=7)
    assert not it.is_blocked()
