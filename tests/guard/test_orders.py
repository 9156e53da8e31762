"""The client, the guard and the MCP kill switch obey the same commands alike, in whatever order they come."""

import itertools
import random

import pytest
from kit.states import order, state_at

from ascend_middleware import MCPKillSwitchConsumer
from ascend_middleware.api.commands import parse_command
from ascend_middleware.api.orders import EVERYBODY, Orders, orders_of
from ascend_middleware.client.killswitch import KillState
from ascend_middleware.exceptions import KillSwitchError, RateLimitError
from ascend_middleware.killswitch.switch import KillSwitch

NOW = 1_767_225_600.0
KINDS = ("BLOCK", "UNBLOCK", "SUSPEND", "RESUME", "RATE_LIMIT", "RATE_LIMIT")


def told_to_a_client(messages):
    kill = KillState(agent_id="bot", clock=lambda: 0.0, now=itertools.count(NOW, 2).__next__)
    for message in messages:
        kill.learn_command(message)
    for passed in range(10):
        try:
            kill.admit()
        except KillSwitchError:
            return "blocked"
        except RateLimitError:
            return passed
    return "free"


def told_to_a_guard(messages):
    clock = itertools.count(NOW, 2)
    state = state_at()
    for message in messages:
        command = parse_command(message, received_at=next(clock))
        state.apply(orders_of(command), command_id=command.command_id, now=NOW)
    kill = KillSwitch(state, environ={})
    kill.refresh()
    return "blocked" if kill.refusal("bot") else kill.limit("bot") or "free"


def told_to_mcp(messages):
    consumer = MCPKillSwitchConsumer(agent_id="bot", now=itertools.count(NOW, 2).__next__)
    for message in messages:
        consumer.apply_message(message)
    state = consumer.state("files")
    return "blocked" if state.blocked else state.max_per_minute or "free"


PARTIES = [told_to_a_client, told_to_a_guard, told_to_mcp]


def ordered(messages, agent):
    """What one target is ordered, in the words of the documentation."""
    mine = [message for message in messages if message["agent_id"] == agent]
    lifted_at = max((one["issued_at"] for one in mine if one["command_type"] in ("UNBLOCK", "RESUME")), default=0.0)
    standing = [one for one in mine if one["issued_at"] >= lifted_at]
    if any(one["command_type"] in ("BLOCK", "SUSPEND") for one in standing):
        return "blocked"
    limits = [one for one in standing if one["command_type"] == "RATE_LIMIT"]
    newest = max((one["issued_at"] for one in limits), default=0.0)
    return min((one["parameters"]["max_per_minute"] for one in limits if one["issued_at"] == newest), default="free")


@pytest.mark.parametrize("seed", range(60))
def test_every_party_obeys_the_newest_order_for_each_target_and_of_one_instant_the_stricter(seed):
    dice = random.Random(seed)
    messages = [
        {
            "command_id": str(number),
            "command_type": dice.choice(KINDS),
            "agent_id": dice.choice(("bot", None)),
            "issued_at": NOW - dice.randint(1, 5),
            "parameters": {"max_per_minute": dice.randint(1, 4)},
        }
        for number in range(dice.randint(1, 8))
    ]
    both = [ordered(messages, agent) for agent in ("bot", None)]
    limits = [one for one in both if isinstance(one, int)]
    expected = "blocked" if "blocked" in both else min(limits, default="free")
    for _ in range(3):
        dice.shuffle(messages)
        assert [told(messages + messages[:2]) for told in PARTIES] == [expected] * 3


@pytest.mark.parametrize("told", PARTIES)
def test_a_command_without_a_date_is_applied_once_by_its_id(told):
    block = {"command_id": "1", "command_type": "BLOCK", "agent_id": "bot"}
    lift = {"command_id": "2", "command_type": "UNBLOCK", "agent_id": "bot", "issued_at": NOW + 1}
    assert told([block, lift, block]) == "free"


def test_of_more_commands_than_are_remembered_the_latest_are():
    orders, clock = Orders(), itertools.count(NOW)
    blocks = [{"command_id": str(number), "command_type": "BLOCK", "agent_id": "bot"} for number in range(10_001)]
    for block in blocks:
        orders.apply(parse_command(block, received_at=next(clock)), "bot")
    again = [parse_command(block, received_at=next(clock)) for block in (blocks[1], blocks[-1], blocks[0])]
    assert [orders.apply(command, "bot") for command in again] == [False, False, True]


def test_a_state_that_was_put_back_to_an_older_copy_lifts_nothing(tmp_path, caplog):
    path = tmp_path / "state.db"
    state = state_at(path)
    kill = KillSwitch(state, environ={})
    state.apply([order("UNBLOCK", NOW, target=EVERYBODY)], command_id="", now=NOW)
    state.close()
    copy = path.read_bytes()
    state.apply([order("BLOCK", NOW + 1, target=EVERYBODY)], command_id="", now=NOW)
    kill.refresh()
    state.close()
    for file in tmp_path.glob("state.db*"):
        file.unlink()
    path.write_bytes(copy)
    kill.refresh()
    assert kill.refusal("bot")
    assert "put back" in caplog.text
    assert state.snapshot(now=NOW).orders[EVERYBODY, "block"].kind == "BLOCK"
