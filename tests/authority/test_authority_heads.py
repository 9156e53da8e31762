"""The audit log's head goes out at intervals, and proves later that no end was cut off."""

import asyncio
import json
import re

import pytest
from kit.databases import Owner, behind
from kit.desk import POLICY

from ascend_middleware.authority import Role, parse_policy
from ascend_middleware.authority.heads import Heads, read_heads
from ascend_middleware.authority.service import Service
from ascend_middleware.authority.store.archiver import Archiver
from ascend_middleware.authority.store.audit import head, iso_time
from ascend_middleware.authority.webhooks import Outbox
from ascend_middleware.cli import main
from ascend_middleware.exceptions import ConfigurationError

RULES = '\n[audit]\nhead_file = "head.txt"\nhead_interval = "5m"\n'


class Told:
    def __init__(self, desk, folder):
        self.desk, self.file = desk, folder / "head.txt"
        desk.authority.use(parse_policy(POLICY + RULES, folder=folder))
        self.heads = Heads(desk.authority, Outbox(desk.authority))

    def tell(self, seconds=300):
        self.desk.time += seconds
        self.heads.tell()
        return self.file.read_text() if self.file.exists() else ""


@pytest.fixture
def told(desk_of, database, tmp_path):
    return Told(desk_of(path=database, development=True), tmp_path)


def cut(database, entries):
    """Cut the end of a log off, with its head, as whoever owns the database can."""
    with Owner(database, guarded=False) as owner:
        last = owner.rows("SELECT max(seq) FROM audit")[0][0] - entries
        owner.change("DELETE FROM actions WHERE id IN (SELECT action_id FROM audit WHERE seq > ?)", last)
        owner.change("DELETE FROM audit WHERE seq > ?", last)
        owner.change("UPDATE audit_head SET (seq, hash) = (SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1)")
        for table in ("tallies", "actors", "actor_days"):
            owner.change(f"DELETE FROM {table}")


def test_the_file_names_the_head_and_changes_once_in_an_interval(told, tmp_path):
    first = told.tell()
    assert first == f"{head(told.desk.store)} 2023-11-14T22:18:20.000Z\n"
    told.desk.submit()
    assert told.tell(299) == first
    second = told.tell(1)
    assert second.split()[0] == str(head(told.desk.store)) and read_heads(told.file) == (head(told.desk.store),)
    assert told.tell() == second  # nothing new, nothing written
    assert not list(tmp_path.glob(".head*"))


def test_a_log_whose_end_was_cut_is_found_by_the_file(told, database, capsys):
    for _ in range(3):
        told.desk.submit()
    told.tell()
    told.desk.authority.close()
    place = ("--db", str(database), "--head", str(told.file))
    assert main(["audit", "verify", *place]) == 0
    cut(database, 3)
    assert main(["audit", "verify", *place[:2]]) == 0  # nothing inside can tell
    capsys.readouterr()
    assert main(["audit", "verify", *place]) == 1
    assert "removed: entries 5 to 7 were removed from the end" in capsys.readouterr().out
    told.file.write_text("no head\n")
    assert main(["audit", "verify", *place]) == 2
    assert "NUMBER:HASH" in capsys.readouterr().err


def test_a_file_that_names_what_the_log_does_not_hold_is_kept(told, tmp_path, caplog):
    told.desk.submit()
    other = f"7:{'a' * 64}\n"
    for text in (other, other.replace("7:", "2:")):
        told.file.write_text(text)
        told.desk.submit()
        assert told.tell() == text
        assert "does not hold: its end was cut" in caplog.text
        caplog.clear()
    told.file.unlink()
    told.desk.submit()
    assert told.tell().startswith(str(head(told.desk.store)))


@pytest.fixture
def archived(told, tmp_path):
    """A file that names an entry which went into an archive since; and the folder of that."""
    folder = tmp_path / "archive"
    folder.mkdir()
    rules = POLICY + RULES + '[retention]\naudit = "7d"\narchive_to = "archive"\n'
    told.desk.authority.use(parse_policy(rules, folder=tmp_path))
    told.desk.submit("transaction", amount=5000)  # its entry stays, as it waits
    told.desk.store.issue_key(name="n", role=Role.USER, tenant="default")
    told.tell()
    told.desk.time += 30 * 86_400
    told.desk.store.issue_key(name="later", role=Role.USER, tenant="default")
    (made,) = list(Archiver(told.desk.store, folder).run(actions=None, audit=iso_time(told.desk.time - 7 * 86_400)))
    told.archive = folder / made.file
    named = int(told.file.read_text().partition(":")[0])
    assert made.last == named and told.desk.store.rows("SELECT 1 FROM audit WHERE seq < ?", (named,))
    return told


def test_an_archived_entry_that_the_file_names_is_looked_up_in_its_archive(archived, caplog):
    assert archived.tell().startswith(str(head(archived.desk.store))) and not caplog.text


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("another hash", "which the log does not hold: its end was cut"),
        ("gone", "was not asked: the archive .* cannot be read: No such file"),
        ("changed", "was not asked: the archive .* was changed"),
        ("not named", "was not asked: entry .* does not name the archive"),
        ("no folder", "was not asked: nothing says where the archive .* is"),
    ],
)
def test_a_file_that_names_an_archived_entry_is_kept_unless_the_archive_holds_it(
    archived, tmp_path, caplog, what, words
):
    text = archived.file.read_text()
    if what == "another hash":
        text = f"{text.partition(':')[0]}:{'a' * 64}\n"
        archived.file.write_text(text)
    elif what == "gone":
        archived.archive.unlink()
    elif what == "changed":
        archived.archive.write_bytes(archived.archive.read_bytes()[:-1])
    elif what == "not named":
        behind(archived.desk.store, "UPDATE archives SET sha256 = 'x'", guarded=False)
    else:
        archived.desk.authority.use(parse_policy(POLICY + RULES, folder=tmp_path))
    assert archived.tell() == text
    assert re.search(words, caplog.text), caplog.text
    assert "does not hold" in caplog.text or "--archive DIR --head" in caplog.text


def test_webhooks_that_want_it_are_told(told):
    desk = told.desk
    for events in (["audit.head"], ["action.approved"]):
        assert (
            desk.post("/api/webhooks", {"target_url": "http://h.example/", "event_types": events}, key="admin")[0]
            == 201
        )
    told.tell()
    desk.submit()
    told.tell()
    (first,) = [json.loads(row["body"]) for row in desk.store.rows("SELECT body FROM deliveries ORDER BY id LIMIT 1")]
    assert [first["event"], first["data"]["seq"]] == ["audit.head", 6]
    assert first["data"]["head"] == f"6:{first['data']['hash']}"
    names = [
        row["name"] for row in desk.store.rows("SELECT name FROM deliveries WHERE event = 'audit.head' ORDER BY id")
    ]
    assert names == ["evt_6_audit.head", "evt_7_audit.head"]


def test_another_organisation_learns_the_head_and_nothing_else_of_the_log(told):
    """There is one log for all organisations, and each may keep its head as a proof; the documentation says so."""
    desk = told.desk
    hook = {"target_url": "http://h.example/", "event_types": ["audit.head", "action.submitted"]}
    assert desk.post("/api/webhooks", hook, key="stranger")[0] == 201
    desk.submit()
    while Outbox(desk.authority).fill():
        pass
    told.tell()
    (row,) = desk.store.rows("SELECT * FROM deliveries")
    found = head(desk.store)
    assert (row["tenant"], json.loads(row["body"])["data"]) == (
        "other",
        {"head": str(found), "seq": found.seq, "hash": found.hash},
    )


def test_a_server_tells_it_at_its_start_and_its_stop(told):
    async def served():
        service = Service(told.desk.authority)
        await service.start()
        async with asyncio.timeout(10):
            while not told.file.exists():
                await asyncio.sleep(0.01)
        began = told.file.read_text()
        told.desk.submit()
        await service.stop()
        return began

    assert asyncio.run(served()) != told.file.read_text()
    assert read_heads(told.file) == (head(told.desk.store),)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('head_interval = "0s"', "head_interval"),
        ('head_file = "none/head.txt"', "there is no folder"),
        ('head = "x"', "head"),
    ],
)
def test_what_is_wrong_in_the_policy_file_is_named(tmp_path, line, words):
    with pytest.raises(ConfigurationError, match=words):
        parse_policy(f"[audit]\n{line}\n", folder=tmp_path)
