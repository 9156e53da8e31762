"""`ascend-middleware journal`: what an operator sees and does about the journals of a machine."""

import json

import pytest
from kit.desk import local_authority
from test_journal import ENTRY, OPEN, crash, journal_of, run

from ascend_middleware import AscendClient
from ascend_middleware.cli import main
from ascend_middleware.config import Settings
from ascend_middleware.journal.journal import directory_of


@pytest.fixture
def service(tmp_path, monkeypatch):
    """The environment of one service, and the directory of its journals."""
    url = local_authority(tmp_path)
    monkeypatch.setenv("ASCEND_API_URL", url)
    monkeypatch.setenv("ASCEND_AGENT_ID", "bot")
    monkeypatch.setenv("ASCEND_JOURNAL", str(tmp_path / "journal"))
    return directory_of(Settings(api_url=url, agent_id="bot", journal=str(tmp_path / "journal")))


def command(capsys, *argv):
    code = main(["journal", *argv])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_nothing(capsys, service):
    assert command(capsys, "status") == (0, "no journals\n", "")
    assert command(capsys, "deliver") == (0, "delivered the journals of 0 processes, 0 left\n", "")
    assert command(capsys, "export") == (0, "", "")


def test_status_deliver_and_export(capsys, service, tmp_path):
    with AscendClient(agent_id="bot") as client:
        action_id = client.submit_action(action_type="t", resource="r").action_id
    crash(service, f"journal.enter(1, { ({**ENTRY, 'id': action_id})!r})\njournal.enter(2, {OPEN!r})")
    journal = journal_of(service)
    run(journal)

    code, out, _ = command(capsys, "status", "--json")
    dead, alive = sorted(json.loads(out)["journals"], key=lambda row: row["alive"])
    assert (code, dead["waiting"], dead["open"], alive["waiting"], alive["open"]) == (0, 2, 2, 2, 0)
    assert "ended  2 waiting" in command(capsys, "status")[1]

    lines = [json.loads(line) for line in command(capsys, "export")[1].splitlines()]
    assert sorted(line["k"] for line in lines) == ["entry", "entry", "entry", "outcome"]
    assert {line["state"] for line in lines} == {"waiting"}

    code, out, _ = command(capsys, "deliver", "--json")
    assert (code, json.loads(out)) == (0, {"delivered": 1, "left": 0})
    with AscendClient(agent_id="bot") as client:
        actions = client.list_actions().actions
        assert len(actions) == 2
        for action in actions:
            record = client.get_action(action.action_id)
            assert "process ended" in str(record.to_dict())
    assert json.loads(command(capsys, "status", "--json")[1])["journals"] == [
        {**alive, "oldest_seconds": pytest.approx(alive["oldest_seconds"], abs=60)}
    ]
    journal.close(remove=True)


def test_an_authority_that_is_away_is_said(capsys, service, tmp_path, monkeypatch):
    url = "http://127.0.0.1:1"
    monkeypatch.setenv("ASCEND_API_URL", url)
    monkeypatch.setenv("ASCEND_API_KEY", "owkai_test_0123456789abcdef")
    directory = directory_of(Settings(api_url=url, agent_id="bot", journal=str(tmp_path / "journal")))
    crash(directory, f"journal.enter(1, {ENTRY!r})")
    code, out, err = command(capsys, "deliver")
    assert (code, out) == (1, "")
    assert "no connection" in err
    assert json.loads(command(capsys, "status", "--json")[1])["journals"][0]["open"] == 1


def test_what_was_set_aside_is_exported(capsys, service):
    service.mkdir(parents=True)
    from ascend_middleware.journal.lines import encode_line

    (service / "1-2-3.rejected").write_bytes(encode_line({"k": "outcome", "n": 1, "at": 1.0}) + b"nonsense\n")
    code, out, err = command(capsys, "export")
    assert (code, json.loads(out)["state"]) == (0, "set aside")
    assert "damaged" in err
    assert "set aside" in command(capsys, "status")[1]


def test_the_settings_of_a_rules_file_hold(capsys, service, tmp_path, monkeypatch):
    monkeypatch.delenv("ASCEND_JOURNAL")
    rules = tmp_path / "ascend.toml"
    rules.write_text(f'[ascend]\nagent_id = "bot"\njournal = "{tmp_path / "journal"}"\n')
    crash(service, f"journal.enter(1, {ENTRY!r})")
    assert "1 waiting" in command(capsys, "status", "--rules", str(rules))[1]
