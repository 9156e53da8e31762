"""Of an organisation under a legal hold nothing is archived or erased, and whoever asks learns why."""

import json

import pytest
from kit.desk import POLICY

from ascend_middleware.authority import parse_policy
from ascend_middleware.authority.approvals import what_cannot_be
from ascend_middleware.authority.retention import Retirement
from ascend_middleware.authority.store.archiver import Archiver
from ascend_middleware.authority.store.audit import iso_time
from ascend_middleware.authority.store.verification import verify
from ascend_middleware.cli import main
from ascend_middleware.exceptions import AscendError, ConfigurationError

DAY = 86_400.0


def retention(*held):
    return f'[retention]\nactions = "20d"\naudit = "20d"\narchive_to = "archive"\nlegal_hold = {json.dumps(held)}\n'


def fill(desk, folder):
    """Submit for both organisations, by turns, what is old and finished."""
    for _ in range(3):
        desk.submit("database_schema")
        desk.submit("database_schema", key="stranger")
    desk.time += 40 * DAY
    desk.folder = folder / "archive"
    desk.folder.mkdir()
    return desk


@pytest.fixture
def old(desk_of, new_place, tmp_path):
    return fill(desk_of(path=new_place()), tmp_path)


def archived(desk, *held):
    moment = iso_time(desk.time - 20 * DAY)
    archiver = Archiver(desk.store, desk.folder, held=held)
    return [(one.kind, one.rows) for one in archiver.run(actions=moment, audit=moment)], archiver.held_from


def first_entry(desk, tenant):
    return desk.store.rows("SELECT min(seq) FROM audit WHERE tenant = ?", (tenant,))[0][0]


def left(desk):
    return [(row["id"], row["tenant"]) for row in desk.store.rows("SELECT id, tenant FROM actions ORDER BY id")]


def test_an_archive_passes_over_what_is_held_and_ends_where_the_entries_of_it_begin(old):
    first = first_entry(old, "other")
    trail = old.store.rows("SELECT seq, entry FROM audit WHERE tenant = 'other' ORDER BY seq")
    assert archived(old, "other") == ([("actions", 3), ("audit", first - 1)], first)
    assert left(old) == [(2, "other"), (4, "other"), (6, "other")]
    assert [*map(tuple, old.store.rows("SELECT seq, entry FROM audit WHERE tenant = 'other' ORDER BY seq"))] == [
        *map(tuple, trail)
    ]
    assert verify(old.store).whole and verify(old.store, archive=old.folder).whole
    assert archived(old, "other") == ([], first)
    # Once the hold has ended, they go like all others.
    made, held_from = archived(old)
    assert made[0] == ("actions", 3) and made[1][0] == "audit" and held_from == 0 and left(old) == []
    assert verify(old.store).whole and verify(old.store, archive=old.folder).whole


def test_a_hold_of_every_organisation_leaves_everything(old):
    assert archived(old, "other", "default") == ([], 1) and len(left(old)) == 6
    assert [*old.folder.iterdir()] == []


def test_a_hold_that_names_nobody_is_told_and_nothing_is_archived(old):
    old.authority.use(parse_policy(POLICY + retention("othr", "default")))
    (told,) = [words for words in what_cannot_be(old.authority) if "legal_hold" in words]
    assert told == "legal_hold in [retention] names 'othr', and nothing is known of such an organisation"
    with pytest.raises(AscendError, match="nothing is archived: .* names 'othr'"):
        archived(old, "other", "othr")
    assert len(left(old)) == 6 and [*old.folder.iterdir()] == []


def test_a_server_says_what_it_leaves(old, tmp_path, caplog):
    caplog.set_level("INFO", "ascend_middleware")
    old.authority.use(parse_policy(POLICY + retention("other"), folder=tmp_path))
    Retirement(old.authority).look()
    first = first_entry(old, "other")
    assert f"not archived: other; audit entries from {first} on stay, those of others too" in caplog.text
    assert left(old) == [(2, "other"), (4, "other"), (6, "other")]


def test_erasing_is_refused_with_what_and_why_and_the_log_tells_who_asked(old):
    old.authority.use(parse_policy(POLICY + retention("default")))
    before = old.store.rows("SELECT * FROM actions WHERE id = 1")[0]["submission"]
    everybody = {"reason": "case 13", "match": {"agent_id": "a"}}
    for path, body, action in (
        ("/api/v1/actions/1/erase", {"reason": "case 12"}, {"action": "1"}),
        ("/api/v1/actions/erase", everybody, {}),
    ):
        answer = old.post(path, body, key="admin")
        assert old.code(answer) == (409, "LEGAL_HOLD")
        assert "'default' is under a legal hold" in answer[1]["error"]["message"]
        event, data = old.audit()[-1]
        assert event == "ERASURE_REFUSED" and data["code"] == "LEGAL_HOLD" and data["reason"] == body["reason"]
        assert data["key"] and {name: data[name] for name in data.keys() & {"action", "match"}} == action
    assert old.store.rows("SELECT * FROM actions WHERE id = 1")[0]["submission"] == before
    # Another organisation is not held; and who may not erase is told that first.
    assert old.post("/api/v1/actions/2/erase", {"reason": "w"}, key="stranger")[1]["erased"] is True
    assert old.code(old.post("/api/v1/actions/1/erase", {"reason": "w"})) == (403, "ADMIN_REQUIRED")
    old.authority.use(parse_policy(POLICY + retention("other")))
    assert old.post("/api/v1/actions/1/erase", {"reason": "w"}, key="admin")[1]["erased"] is True
    assert verify(old.store).whole


@pytest.fixture
def place(desk_of, policy_database, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.toml").write_text(POLICY + retention("other"))
    fill(desk_of(path=policy_database), tmp_path).authority.close()
    return policy_database


def test_the_commands_hold_what_the_policy_file_says(place, capsys):
    assert main(["authority", "archive", "--before", "2023-12-10"]) == 0
    said = capsys.readouterr().out
    assert "3 actions, 1 to 5" in said and "under a legal hold, and not archived: other; audit entries from" in said
    assert main(["authority", "archive"]) == 0
    assert capsys.readouterr().out.startswith("nothing is old enough\nunder a legal hold")
    assert main(["authority", "erase", "2", "--reason", "case", "--tenant", "other"]) != 0
    assert "'other' is under a legal hold" in capsys.readouterr().err
    assert main(["audit", "verify", "--archive", "archive"]) == 0


@pytest.mark.parametrize("command", [["archive", "--before", "2023-12-10"], ["erase", "2", "--reason", "case"]])
def test_without_a_policy_file_the_commands_do_nothing(place, capsys, command):
    words = ["--db", str(place), "--policy", "none.toml", "--to", "archive"]
    assert main(["authority", *command, *words]) == 2
    assert (
        "there is no policy file none.toml, whose [retention] tells what is under a legal hold"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("value", ['"other"', "[1]", '[""]', "true"])
def test_a_hold_that_names_no_organisations_is_refused(value):
    with pytest.raises(ConfigurationError, match=r"retention: legal_hold: expected a list of texts"):
        parse_policy(f"[retention]\nlegal_hold = {value}\n")
