"""What every store of the shared state promises: in memory, in a file, in Redis."""

import contextlib
import os
import sqlite3
import threading
import time
import uuid
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
import redis
from kit.processes import in_a_child, python, together
from kit.states import NOW, order, state_at

from ascend_middleware.api.commands import parse_command
from ascend_middleware.api.orders import EVERYBODY, orders_of
from ascend_middleware.compose import build_guard
from ascend_middleware.config import Settings
from ascend_middleware.exceptions import ConfigurationError
from ascend_middleware.setting_values import default_directory
from ascend_middleware.state import open_state
from ascend_middleware.state.base import MAX_HINTS, Approval, StateError
from ascend_middleware.state.redis import RedisState
from ascend_middleware.state.sqlite import SQLState

REDIS = pytest.param("redis", marks=pytest.mark.slow)


def approval(**changed):
    fields = {"handle": uuid.uuid4().hex, "action_id": "7", "fingerprint": "f", "sharing": "s", "hint": "h"}
    told = {"agent_id": "bot", "rule": "refunds", "created_at": NOW, "expires_at": NOW + 100}
    return Approval(**{**fields, **told, **changed})


@pytest.fixture(params=["memory", "file", REDIS])
def state(request, tmp_path):
    if request.param == "redis":
        url = request.getfixturevalue("redis_server").url
        made = RedisState(url, scope=uuid.uuid4().hex, timeout=5.0)
    else:
        path = None if request.param == "memory" else tmp_path / "state.db"
        made = state_at(path, timeout=5.0)
    yield made
    made.close()


class TestApprovals:
    @pytest.fixture
    def row(self, state):
        """An approval that the state holds."""
        return state.hold(approval(), now=NOW)

    def test_a_row_is_found_as_it_was_kept(self, state):
        row = approval()
        assert state.hold(row, now=NOW) == row
        assert state.find(row.handle) == row
        assert state.find_open("s", now=NOW) == row
        assert state.find("guessed") is None
        assert state.find_open("other", now=NOW) is None

    def test_identical_requests_share_one_row(self, state):
        first, second = approval(), approval(action_id="8")
        assert state.hold(first, now=NOW) == first
        assert state.hold(second, now=NOW) == first
        assert state.find(second.handle) is None

    def test_an_expired_row_makes_place_for_a_new_one_and_is_still_known(self, state):
        first, second = approval(), approval(created_at=NOW + 200, expires_at=NOW + 300)
        state.hold(first, now=NOW)
        assert state.find_open("s", now=NOW + 100) is None
        assert state.hold(second, now=NOW + 200) == second
        assert replace(state.find(first.handle), sharing="s") == first
        assert state.claim(first.handle, by="a", process="p", entry="", now=NOW + 200).claimed_by == ""

    def test_a_dropped_row_is_expired_at_once(self, state, row):
        state.drop(row.handle, now=NOW)
        assert state.find_open("s", now=NOW) is None
        assert state.find(row.handle).expires_at == NOW
        assert state.snapshot(now=NOW).hints == frozenset()
        assert state.hold(approval(), now=NOW).handle != row.handle

    def test_one_claim_wins_and_the_entry_is_kept_with_it(self, state, row):
        won = state.claim(row.handle, by="a", process="p", entry='{"n": 1}', now=NOW + 1)
        assert (won.claimed_by, won.process, won.entry, won.claimed_at) == ("a", "p", '{"n": 1}', NOW + 1)
        assert state.claim(row.handle, by="b", process="q", entry="", now=NOW + 2) == won
        # The answer to a claim may be lost on its way; the same claim tried again is still the one that won.
        assert state.claim(row.handle, by="a", process="p", entry='{"n": 1}', now=NOW + 3) == won
        assert state.find_open("s", now=NOW) is None
        assert state.hold(approval(), now=NOW).handle != row.handle

    def test_nothing_is_claimed_without_a_row(self, state):
        assert state.claim("guessed", by="a", process="p", entry="", now=NOW) is None

    def test_a_denial_stays_and_cannot_be_claimed(self, state, row):
        state.note(row.handle, status="denied", reason="no")
        state.note(row.handle, status="approved")
        assert (state.find(row.handle).status, state.find(row.handle).reason) == ("denied", "no")
        assert state.claim(row.handle, by="a", process="p", entry="", now=NOW).claimed_by == ""
        assert state.hold(approval(), now=NOW).handle == row.handle

    def test_the_outcome_is_recorded_once(self, state, row):
        state.settle(row.handle, outcome="completed")
        assert state.find(row.handle).outcome == ""
        state.claim(row.handle, by="a", process="p", entry="", now=NOW)
        assert [each.handle for each in state.unsettled("p")] == [row.handle]
        assert list(state.unsettled("q")) == []
        state.settle(row.handle, outcome="unknown")
        state.settle(row.handle, outcome="completed")
        state.settle(row.handle, outcome="failed")
        assert state.find(row.handle).outcome == "completed"
        assert list(state.unsettled("p")) == []

    def test_a_claim_for_nothing_is_given_back_and_counted(self, state, row):
        assert state.give_back(row.handle, by="", most=3) == 0 or state.find(row.handle) == row
        for count in (1, 2):
            state.claim(row.handle, by=f"run {count}", process="p", entry="{}", now=NOW)
            assert state.give_back(row.handle, by="another run", most=2) == 0
            state.settle(row.handle, outcome="unknown")
            assert state.give_back(row.handle, by=f"run {count}", most=2) == count
            # The answer may be lost on its way.
            assert state.give_back(row.handle, by=f"run {count}", most=2) in (0, count)
            assert state.find(row.handle) == replace(row, given_back=count)
            assert state.find_open("s", now=NOW) == replace(row, given_back=count)
            assert state.snapshot(now=NOW).hints == frozenset({row.hint})
            assert list(state.unsettled("p")) == []
        last = state.claim(row.handle, by="last", process="p", entry="", now=NOW)
        assert state.give_back(row.handle, by="last", most=2) == 0
        assert state.find(row.handle) == last

    def test_what_is_given_back_late_leaves_an_identical_request_its_own_row(self, state):
        first, second = approval(), approval(action_id="8")
        state.hold(first, now=NOW)
        state.claim(first.handle, by="a", process="p", entry="", now=NOW)
        assert state.hold(second, now=NOW) == second
        assert state.give_back(first.handle, by="a", most=3) == 1
        assert state.find_open("s", now=NOW) == second
        assert state.claim(first.handle, by="b", process="p", entry="", now=NOW).claimed_by == "b"
        assert state.find_open("s", now=NOW) == second

    def test_sixteen_threads_claim_and_one_wins(self, state, row):
        won, ready = [], threading.Barrier(16)

        def race(name):
            ready.wait()
            if state.claim(row.handle, by=name, process="p", entry="", now=NOW).claimed_by == name:
                won.append(name)

        together(*(partial(race, str(number)) for number in range(16)))
        assert len(won) == 1

    def test_hints_are_those_of_open_rows(self, state):
        for number in range(3):
            state.hold(approval(sharing=f"s{number}", hint=f"h{number // 2}"), now=NOW)
        used = approval(sharing="used", hint="used")
        state.hold(used, now=NOW)
        state.claim(used.handle, by="a", process="p", entry="", now=NOW)
        assert state.snapshot(now=NOW).hints == {"h0", "h1"}
        assert state.snapshot(now=NOW + 100).hints == frozenset()

    def test_too_many_hints_are_not_listed(self, state):
        for number in range(MAX_HINTS + 1):
            state.hold(approval(sharing=f"s{number}", hint=f"h{number}"), now=NOW)
        assert state.snapshot(now=NOW).hints is None


class TestKillState:
    def test_the_newest_by_issue_time_wins_whatever_comes_last(self, state):
        state.apply([order(at=NOW)], command_id="b", now=NOW)
        state.apply([order("UNBLOCK", NOW - 5)], command_id="stale", now=NOW)
        assert state.snapshot(now=NOW).orders["bot", "block"].kind == "BLOCK"
        state.apply([order("UNBLOCK", NOW)], command_id="same instant", now=NOW)
        assert state.snapshot(now=NOW).orders["bot", "block"].kind == "BLOCK"
        state.apply([order("UNBLOCK", NOW + 1)], command_id="u", now=NOW)
        assert state.snapshot(now=NOW).orders["bot", "block"].lifts
        state.apply([order("SUSPEND", NOW + 1)], command_id="s", now=NOW)
        assert state.snapshot(now=NOW).orders["bot", "block"].kind == "SUSPEND"

    @pytest.mark.parametrize("limits", [(5, 3, 4), (3, 5, 4)])
    def test_of_two_limits_of_one_instant_the_stricter_holds(self, state, limits):
        for limit in limits:
            state.apply([order("RATE_LIMIT", NOW, slot="limit", max_per_minute=limit)], command_id="", now=NOW)
        assert state.snapshot(now=NOW).orders["bot", "limit"].max_per_minute == 3

    def test_a_command_is_applied_once(self, state):
        # Without an issue time of its own, a repeated BLOCK would else be newer than the UNBLOCK after it.
        assert state.apply([order(at=NOW)], command_id="b", now=NOW)
        state.apply([order("UNBLOCK", NOW + 1)], command_id="u", now=NOW)
        assert not state.apply([order(at=NOW + 9)], command_id="b", now=NOW)
        assert state.snapshot(now=NOW).orders["bot", "block"].lifts
        assert state.apply([order(at=NOW + 9)], command_id="", now=NOW)
        assert state.snapshot(now=NOW).orders["bot", "block"].kind == "BLOCK"

    def test_targets_and_slots_do_not_touch_each_other(self, state):
        limit = order("RATE_LIMIT", NOW + 5, slot="limit", max_per_minute=30)
        state.apply([order(target=EVERYBODY), limit], command_id="x", now=NOW)
        found = state.snapshot(now=NOW).orders
        assert found == {(EVERYBODY, "block"): order(target=EVERYBODY), ("bot", "limit"): limit}

    def test_a_lift_lifts_blocks_and_limits_of_its_target(self, state):
        for number, kind in enumerate(("BLOCK", "RATE_LIMIT", "UNBLOCK")):
            message = {"command_id": kind, "command_type": kind, "agent_id": "bot", "issued_at": NOW + number}
            message["parameters"] = {"max_per_minute": 3}
            command = parse_command(message, received_at=NOW)
            state.apply(orders_of(command), command_id=command.command_id, now=NOW)
        assert all(found.lifts for found in state.snapshot(now=NOW).orders.values())

    @pytest.mark.slow
    def test_what_the_server_holds_and_cannot_be_read_is_an_error(self, redis_server):
        state = RedisState(redis_server.url, scope=uuid.uuid4().hex, timeout=5.0)
        state.apply([order()], command_id="b", now=NOW)
        row = state.hold(approval(), now=NOW)
        with redis.Redis.from_url(redis_server.url) as other:
            for key in other.scan_iter("*"):
                if other.type(key) == b"hash":
                    other.hset(key, mapping=dict.fromkeys(other.hkeys(key), "{"))
        with pytest.raises(StateError, match="order that cannot be read"):
            state.snapshot(now=NOW)
        with pytest.raises(StateError, match="approval that cannot be read"):
            state.find(row.handle)
        state.close()

    def test_when_it_was_confirmed(self, state):
        assert state.snapshot(now=NOW).confirmed_at == 0.0
        state.confirm(now=NOW)
        assert state.snapshot(now=NOW).confirmed_at == NOW

    def test_what_is_for_an_mcp_server_is_no_agents_order(self):
        message = {"command_type": "BLOCK", "target_type": "mcp_server", "mcp_server": "files"}
        assert orders_of(parse_command(message, received_at=NOW)) == []


class TestRateLimit:
    def test_no_more_than_the_limit_in_any_minute_and_the_exact_wait(self, state):
        now = time.time()
        assert [state.take("bot", limit=3, now=now + step) for step in range(3)] == [None, None, None]
        wait = state.take("bot", limit=3, now=now + 10)
        if isinstance(state, SQLState):
            assert wait == pytest.approx(50.0)
            assert state.take("bot", limit=3, now=now + 59.9) == pytest.approx(0.1, abs=1e-6)
            assert state.take("bot", limit=3, now=now + 60) is None
            assert state.take("bot", limit=3, now=now + 60) == pytest.approx(1.0)
        else:
            assert 55 < wait <= 60
        assert state.take("other", limit=1, now=now) is None

    def test_a_lower_limit_counts_what_was_taken_before(self, state):
        now = time.time()
        for _ in range(5):
            state.take("bot", limit=10, now=now)
        assert state.take("bot", limit=2, now=now + 1) > 50

    def test_a_clock_set_back_by_a_day_does_not_lock_an_agent_out(self, tmp_path):
        state = state_at(tmp_path / "s.db")
        assert state.take("bot", limit=1, now=NOW) is None
        assert state.take("bot", limit=1, now=NOW - 86_400) is None


class TestLeases:
    def test_one_owner_at_a_time(self, state):
        assert state.lease("receive", owner="a", seconds=30, now=NOW)
        assert state.lease("receive", owner="a", seconds=30, now=NOW + 1)
        assert not state.lease("receive", owner="b", seconds=30, now=NOW + 2)
        assert state.lease("other", owner="b", seconds=30, now=NOW + 2)

    def test_it_ends(self, tmp_path):
        state = state_at(tmp_path / "s.db")
        state.lease("receive", owner="a", seconds=10, now=NOW)
        assert not state.lease("receive", owner="b", seconds=10, now=NOW + 9)
        assert state.lease("receive", owner="b", seconds=10, now=NOW + 10)
        # A clock set back by a day must not keep everybody away for a day.
        assert state.lease("receive", owner="a", seconds=10, now=NOW - 86_400)

    def test_agents_seen(self, state):
        state.see("old", now=NOW - 100)
        state.see("bot", now=NOW)
        state.see("crow", now=NOW + 1)
        assert list(state.agents(since=NOW)) == ["crow", "bot"]
        for number in range(250):
            state.see(f"agent-{number}", now=NOW)
        assert len(state.agents(since=NOW)) == 252


def test_scopes_do_not_see_each_other(tmp_path):
    one, two = (state_at(tmp_path / "s.db", scope=scope) for scope in ("one", "two"))
    row = approval()
    one.hold(row, now=NOW)
    one.apply([order()], command_id="c", now=NOW)
    assert two.find(row.handle) is None
    assert two.snapshot(now=NOW).orders == {}
    assert two.hold(row, now=NOW) == row


def test_two_processes_share_a_file(tmp_path):
    one, two = (state_at(tmp_path / "s.db") for _ in range(2))
    row = approval()
    one.hold(row, now=NOW)
    two.claim(row.handle, by="two", process="p", entry="", now=NOW)
    assert one.claim(row.handle, by="one", process="p", entry="", now=NOW).claimed_by == "two"


@pytest.mark.slow
@pytest.mark.parametrize(("place", "processes", "threads"), [("file", 4, 64), ("redis", 2, 32)])
def test_of_many_threads_in_several_processes_one_claims(request, tmp_path, place, processes, threads):
    if place == "redis":
        place = request.getfixturevalue("redis_server").url
        state = RedisState(place, scope="race", timeout=5.0)
    else:
        place = tmp_path / "state.db"
        state = state_at(place, scope="race", timeout=5.0)
    row = state.hold(approval(expires_at=time.time() + 1000), now=time.time())
    given = [place, row.handle]
    start = time.time() + 3.0
    won = []

    def race(number):
        done = python(Path(__file__).with_name("racer.py"), *given, f"p{number}", threads, start, timeout=120)
        won.append(int(done.stdout))

    together(*(partial(race, number) for number in range(processes)), timeout=120)
    assert sorted(won) == [*[0] * (processes - 1), 1]


class TestFiles:
    def test_the_file_is_its_owners_only(self, tmp_path):
        path = tmp_path / "made" / "state.db"
        state_at(path)
        assert path.stat().st_mode & 0o077 == 0
        assert path.parent.stat().st_mode & 0o077 == 0

    def test_a_deleted_file_is_noticed_and_made_anew_without_its_rows(self, tmp_path, caplog):
        state = state_at(tmp_path / "s.db")
        row = approval()
        state.hold(row, now=NOW)
        for path in tmp_path.glob("s.db*"):
            path.unlink()
        assert state.find(row.handle) is None
        assert "deleted or replaced" in caplog.text
        assert state.hold(row, now=NOW) == row

    def test_a_busy_file_is_an_error_after_the_timeout(self, tmp_path):
        state = state_at(tmp_path / "s.db", timeout=0.05)
        other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StateError, match="locked"):
            state.confirm(now=NOW)
        other.execute("ROLLBACK")
        other.close()
        state.confirm(now=NOW)

    def test_a_broken_file_is_an_error_and_works_again_when_it_is_replaced(self, tmp_path):
        path = tmp_path / "s.db"
        state = state_at(path)
        state.close()
        path.write_bytes(b"nonsense " * 1000)
        with pytest.raises(StateError):
            state.snapshot(now=NOW)
        path.unlink()
        assert state.snapshot(now=NOW).orders == {}

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_opens_its_own_connection(self, tmp_path):
        state = state_at(tmp_path / "s.db", timeout=5.0)
        row = approval()
        state.hold(row, now=NOW)
        claim = partial(state.claim, row.handle, process="p", entry="", now=NOW)
        assert in_a_child(lambda: claim(by="child").claimed_by == "child")
        assert claim(by="parent").claimed_by == "child"
        state.close()

    def test_what_is_in_memory_outlives_a_close(self):
        state = state_at()
        state.apply([order()], command_id="c", now=NOW)
        state.close()
        assert state.snapshot(now=NOW).orders


def newer(path):
    state_at(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")


class TestOpening:
    def settings(self, place):
        return Settings(agent_id="bot", state=str(place))

    @pytest.mark.parametrize(
        ("prepare", "place", "says"),
        [
            (
                lambda folder: (folder / "file").write_text(""),
                "file/state.db",
                r"file/state\.db.*setting state \(ASCEND_STATE\)",
            ),
            (
                lambda folder: (folder / "state.db").write_bytes(b"nonsense " * 1000),
                "state.db",
                r"state\.db.*ASCEND_STATE",
            ),
            (lambda folder: newer(folder / "state.db"), "state.db", "newer version"),
        ],
        ids=["cannot be made", "no database", "newer"],
    )
    def test_a_file_that_cannot_be_used_names_path_and_setting(self, tmp_path, prepare, place, says):
        prepare(tmp_path)
        with pytest.raises(ConfigurationError, match=says):
            open_state(self.settings(tmp_path / place))

    def test_an_unreachable_redis_names_the_setting_and_no_password(self):
        with pytest.raises(ConfigurationError, match="setting state") as caught:
            open_state(self.settings("redis://user:hunter2@127.0.0.1:1/0"))
        assert "hunter2" not in str(caught.value)

    def test_the_settings_do_not_show_a_password(self):
        assert "hunter2" not in repr(self.settings("redis://user:hunter2@cache:6379/0"))

    def test_the_default_place(self, tmp_path):
        home = Path.home()
        assert default_directory({}, platform="linux") == home / ".local" / "state" / "ascend-middleware"
        assert default_directory({"XDG_STATE_HOME": "/s"}, platform="linux") == Path("/s/ascend-middleware")
        assert default_directory({"STATE_DIRECTORY": "/v/a:/v/b"}) == Path("/v/a/ascend-middleware")
        assert "Application Support" in str(default_directory({}, platform="darwin"))
        assert default_directory({"LOCALAPPDATA": "/l"}, platform="win32") == Path("/l/ascend-middleware")


@pytest.mark.slow
class TestRedisOutages:
    def test_a_wrong_password_names_the_setting_and_not_the_password(self, tmp_path, own_redis):
        own_redis.stop()
        own_redis.options = ("--requirepass", "right")
        own_redis.start()
        with pytest.raises(ConfigurationError, match=r"setting state.*Auth") as caught:
            open_state(Settings(state=f"redis://:hunter2@127.0.0.1:{own_redis.port}/0"))
        assert "hunter2" not in str(caught.value)
        state = open_state(Settings(state=f"redis://:right@127.0.0.1:{own_redis.port}/0"))
        state.confirm(now=NOW)
        state.close()

    def test_it_is_reached_by_a_socket_of_the_machine(self, tmp_path, own_redis):
        own_redis.stop()
        own_redis.options = ("--unixsocket", str(tmp_path / "redis.sock"))
        own_redis.start()
        state = open_state(Settings(state=f"unix://{tmp_path}/redis.sock"))
        state.confirm(now=NOW)
        assert state.snapshot(now=NOW).confirmed_at == NOW
        state.close()

    def test_a_stopped_server_is_an_error_and_a_restarted_one_serves_again_without_rows(self, own_redis):
        state = RedisState(own_redis.url, scope="t", timeout=1.0)
        row = approval()
        state.hold(row, now=NOW)
        own_redis.stop()
        with pytest.raises(StateError):
            state.claim(row.handle, by="a", process="p", entry="", now=NOW)
        own_redis.start()
        assert state.claim(row.handle, by="a", process="p", entry="", now=NOW) is None
        assert state.hold(row, now=NOW) == row
        state.close()

    def test_a_server_that_does_not_answer_is_an_error_within_the_timeout(self, own_redis):
        state = RedisState(own_redis.url, scope="t", timeout=0.3)
        state.confirm(now=NOW)
        own_redis.process.send_signal(19)  # SIGSTOP
        try:
            began = time.monotonic()
            with pytest.raises(StateError):
                state.snapshot(now=NOW)
            assert time.monotonic() - began < 50
        finally:
            own_redis.process.send_signal(18)  # SIGCONT
        assert state.snapshot(now=NOW).confirmed_at == NOW
        state.close()

    def test_out_of_memory_refuses_writes_and_still_reads(self, own_redis):
        state = RedisState(own_redis.url, scope="t", timeout=2.0)
        row = approval()
        state.hold(row, now=NOW)
        state._redis.config_set("maxmemory", "1")
        with pytest.raises(StateError, match="OutOfMemory|OOM"):
            state.claim(row.handle, by="a", process="p", entry="", now=NOW)
        assert state.find(row.handle) == row
        state._redis.config_set("maxmemory", "0")
        assert state.claim(row.handle, by="a", process="p", entry="", now=NOW).claimed_by == "a"
        state.close()


WRONG_PLACES = [
    ("state", "rediss2://user:hunter2@host/0", "rediss2"),
    ("state", "reddis://user:hunter2@host", "reddis"),
    ("state", "REDIS://user:hunter2@host", "REDIS"),
    ("state", "redis:user:hunter2@host", "redis"),
    ("state", "sqlite:///var/state.db", "sqlite"),
    ("state", "memory", "memory"),
    ("journal", "redis://user:hunter2@host", "redis"),
    ("journal", "OFF", "OFF"),
    ("kill_file", "file:///run/kill", "file"),
    ("state", "u:hunter2@cache:6379/0", "…@cache:6379/0"),
    ("state", "redis//u:hunter2@cache", "…@cache"),
    ("state", "hunter2@cache", "…@cache"),
    ("state", "redis//cache:6379/0", "redis//cache"),
    ("journal", "u:hunter2@cache:6379/0", "…@cache:6379/0"),
    ("journal", "u:hunt@hunter2@cache", "…@cache"),
]


@pytest.mark.parametrize(("name", "value", "shown"), WRONG_PLACES)
def test_what_only_looks_like_a_place_is_refused_and_makes_no_folder(tmp_path, monkeypatch, name, value, shown):
    monkeypatch.chdir(tmp_path)
    given = {"agent_id": "a", "api_key": "owkai_test_0123456789abcdef", "state": "memory:", "journal": "memory:"}
    for settings, environ in (({name: value}, {}), ({name: None}, {f"ASCEND_{name.upper()}": value})):
        with pytest.raises(ConfigurationError, match=shown) as caught:
            build_guard({"rule": []}, {**given, **settings}, environ=environ)
        assert "hunter2" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "value", ["C:\\state.db", "./redis:/x", "/var/lib/a:b@c//state.db", "a/memory:", "state.db", "./u@h", "~/u@h"]
)
def test_a_path_with_a_colon_is_a_path(value):
    assert Settings.load({"state": value}, environ={}).state == value


def test_the_database_of_an_embedded_authority_is_a_path_or_a_url_without_password(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def checked(database):
        return Settings.load({"api_url": f"local:policy.toml?db={database}"}, environ={}).checked().api_url

    assert unquote(checked("a.db")).endswith(f"?db={tmp_path}/a.db")
    assert checked("postgresql://u@h/db%3Fa=1%26b=2").endswith(quote("postgresql://u@h/db?a=1&b=2", safe=""))
    with pytest.raises(ConfigurationError, match="db is the path"):
        checked("http://h/db")
    for database in ("postgres://u:hunter2@h/db", "postgresql://u@h/db?password=hunter2", "postgresql://:hunter2@/db"):
        with pytest.raises(ConfigurationError, match="PGPASSWORD") as caught:
            checked(database)
        assert "hunter2" not in str(caught.value)
