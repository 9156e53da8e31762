"""The personal data of an action is erased wherever it stands, and the audit log tells that from a change."""

import json

import pytest
from kit.databases import change
from kit.desk import POLICY
from kit.forger import Forger

from ascend_middleware.authority.store import audit
from ascend_middleware.authority.store.database import Database
from ascend_middleware.authority.store.verification import verify
from ascend_middleware.authority.webhooks import Outbox
from ascend_middleware.cli import main
from ascend_middleware.exceptions import StorageError

SECRET = "grace.hopper"
PERSONAL = {
    "resource": f"mailbox of {SECRET}",
    "resource_id": SECRET,
    "description": f"reads {SECRET}",
    "context": {"principal": SECRET},
    "business_justification": SECRET,
    "orchestration_session_id": f"session-{SECRET}",
}
WHY = {"reason": "asked for, case 12"}


@pytest.fixture
def lived(desk_of):
    """An authority in which action 1 was approved and failed, with the person's data in all of it; action 2 waits."""
    desk = desk_of()
    hook = {"target_url": "https://h.example.com/x", "event_types": ["action.pending", "action.approved"]}
    assert desk.post("/api/webhooks", hook, key="admin")[0] == 201
    for number in (1, 2):
        body = {
            "agent_id": "a",
            "action_type": "transaction",
            "action_details": {"amount": 5000, "to": SECRET},
            **PERSONAL,
        }
        assert desk.post("/api/v1/actions/submit", body, idempotency_key=f"k{number}")[0] == 200
    assert (
        desk.post("/api/v1/actions/1/approve", {"comments": f"for {SECRET}"}, key="admin", idempotency_key="y")[0]
        == 200
    )
    assert desk.post("/api/agent-action/1/fail", {"error": f"{SECRET} was away"})[0] == 200
    while Outbox(desk.authority).fill():
        pass
    assert verify(desk.store).whole
    return desk


def everything(desk, *, but=2):
    """Return all that the tables hold, but for what is about another action."""
    found = []
    for table, where in (
        ("actions", f"id <> {but}"),
        ("approvals", f"action_id <> {but}"),
        ("audit", f"action_id IS NULL OR action_id <> {but}"),
        ("answers", "name <> 'k2'"),
        ("deliveries", "name NOT IN ('evt_7_action.pending')"),
    ):
        rows = [tuple(row) for row in desk.store.rows(f"SELECT * FROM {table} WHERE {where}")]
        found.append(str([bytes(value) if isinstance(value, memoryview) else value for row in rows for value in row]))
    return " ".join(found)


def erase(desk, number=1, key="admin"):
    return desk.post(f"/api/v1/actions/{number}/erase", WHY, key=key)


def test_it_is_gone_from_everywhere_and_the_log_is_whole(lived):
    (pending,) = [
        row["name"] for row in lived.store.rows("SELECT name, body FROM deliveries") if '"action_id":"2"' in row["body"]
    ]
    assert SECRET in everything(lived)
    before = [tuple(row) for row in lived.store.rows("SELECT seq, previous, hash FROM audit ORDER BY seq")]
    assert erase(lived) == (200, {"success": True, "action_id": "1", "erased": True})
    assert SECRET not in everything(lived).replace(pending, "")
    after = [tuple(row) for row in lived.store.rows("SELECT seq, previous, hash FROM audit ORDER BY seq")]
    assert after[: len(before)] == before
    found = verify(lived.store)
    assert found.whole and found.erased == 3, found.findings
    assert SECRET in lived.store.rows("SELECT submission FROM actions WHERE id = 2")[0][0]


def test_the_log_tells_who_when_which_and_why(lived):
    erase(lived)
    event, data = next(one for one in lived.audit() if one[0] == "ACTION_ERASED")
    assert data["reason"] == WHY["reason"] and len(data["entries"]) == 3
    entry = json.loads(lived.store.rows("SELECT entry FROM audit WHERE entry LIKE '%ACTION_ERASED%'")[0][0])
    assert (entry["actor"], entry["action_id"], event) == ("boss", 1, "ACTION_ERASED")
    assert SECRET not in json.dumps(entry)


def test_what_is_left_can_be_shown_and_used(lived):
    erase(lived)
    status, shown = lived.get("/api/v1/actions/1")
    assert (status, shown["status"], shown["resource"], shown["comments"]) == (200, "approved", "erased", "")
    assert shown["agent_id"] == "a" and shown["decided_by"] == "boss"
    assert lived.get("/api/v1/actions")[0] == lived.get("/audit/logs", key="admin")[0] == 200
    # A repetition is refused, and decided by nobody.
    body = {"agent_id": "a", "action_type": "transaction", "action_details": {"amount": 5000, "to": SECRET}, **PERSONAL}
    again = lived.post("/api/v1/actions/submit", body, idempotency_key="k1")
    assert lived.code(again) == (409, "IDEMPOTENCY_CONFLICT")
    assert erase(lived)[1]["erased"] is False
    assert verify(lived.store).whole


def test_what_is_erased_is_repeated_to_nobody_who_shares_its_commit(lived):
    body = {"agent_id": "b", "action_type": "data_access", **PERSONAL}
    with lived.store.group():
        status, given = lived.post("/api/v1/actions/submit", body, idempotency_key="k3")
        assert status == 200 and erase(lived, given["id"])[0] == 200
        again = lived.post("/api/v1/actions/submit", body, idempotency_key="k3")
    assert lived.code(again) == (409, "IDEMPOTENCY_CONFLICT")
    assert verify(lived.store).whole


def test_only_an_admin_of_the_organisation_erases_and_not_what_waits(lived):
    assert lived.code(erase(lived, key="user")) == (403, "ADMIN_REQUIRED")
    assert lived.code(erase(lived, key="stranger")) == (404, "NOT_FOUND")
    assert lived.code(erase(lived, 99)) == (404, "NOT_FOUND")
    assert lived.code(erase(lived, 2)) == (409, "NOT_ERASABLE")
    assert lived.post("/api/v1/actions/1/erase", {"reason": " "}, key="admin")[0] == 422
    assert SECRET in everything(lived) and verify(lived.store).whole


def test_no_hash_confirms_a_guess(lived):
    """All that is left of an erased action covers random numbers that went with the data."""
    before = lived.store.rows("SELECT salt FROM actions WHERE id = 1")[0]["salt"]
    salts = {
        json.loads(row["entry"])["salt"] for row in lived.store.rows("SELECT entry FROM audit WHERE action_id = 1")
    }
    assert len(before) == 32 and len(salts) == 3
    erase(lived)
    left = everything(lived)
    assert not [salt for salt in (before, *salts) if salt in left]


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE audit SET entry = replace(entry, 'boss', 'b0ss') WHERE action_id = 1 AND seq < 9", "changed"),
        ("UPDATE actions SET submission = replace(submission, 'erased', 'e') WHERE id = 1", "submission"),
        ("UPDATE audit SET entry = replace(entry, '\"erased\":', '\"erased_\":') WHERE action_id = 1", "changed"),
        ("UPDATE audit SET entry = replace(entry, '{', '{\"actor\":\"x\",') WHERE seq = 6", "changed"),
        # Of two equal names, readers of JSON take the last one, which is still what the hash covers.
        (
            """UPDATE audit SET entry = '{"actor":"x",' || substr(entry, 2) WHERE entry LIKE '%"sealed":%'""",
            "changed",
        ),
        ("UPDATE actions SET salt = 'x' WHERE id = 1", "salt"),
    ],
)
def test_a_change_of_what_is_erased_is_found(database, desk_of, statement, words):
    desk = desk_of(path=database)
    desk.submit("transaction", amount=5000)
    desk.post("/api/v1/actions/1/approve", {"comments": SECRET}, key="admin")
    erase(desk)
    assert verify(desk.store).whole
    assert change(database, statement) > 0
    assert words in " ".join(one.message for one in verify(desk.store).findings)


def other_decision(forger):
    entry = forger.entry("ACTION_APPROVED")
    entry["data"]["by"] = entry["actor"] = "alice"
    forger.write_over(entry)
    forger.put(approval=audit.canonical_json(entry["data"]))


def other_decision_without_its_seal(forger):
    entry = {**forger.entry("ACTION_APPROVED"), "actor": "alice"}
    del entry["salt"], entry["sealed"]
    forger.write_over(entry)


def other_decision_sealed_anew(forger):
    entry = {**forger.entry("ACTION_APPROVED"), "actor": "alice"}
    entry["sealed"] = audit.digest(audit.canonical_json(entry["data"]), entry["salt"])
    forger.write_over(entry)


def other_key(forger):
    entry = forger.entry("KEY_ISSUED")
    entry["data"]["name"] = "mallory"
    forger.write_over(entry)
    forger.change("UPDATE keys SET name = 'mallory' WHERE id = 1")


def other_submission(forger):
    text = audit.canonical_json({**forger.entry("ACTION_SUBMITTED")["data"], "resource": "the weather"})
    forger.append("ACTION_ERASED", {"reason": "x", "entries": {}, "columns": {"submission": audit.digest(text)}})
    forger.put(submission=text, salt="")


def comments_are_lost(forger):
    entry = {**forger.entry("ACTION_APPROVED")}
    entry["data"]["comments"] = ""
    del entry["salt"]
    text = audit.canonical_json(entry)
    forger.change("UPDATE audit SET entry = ? WHERE seq = ?", text, entry["seq"])
    forger.put(approval=audit.canonical_json(entry["data"]))


def submitted_twice(forger):
    entry = forger.entry("ACTION_SUBMITTED")
    text = audit.canonical_json({"resource": "the weather"})
    forger.append("ACTION_SUBMITTED", {**entry["data"], "submission": audit.digest(text)})
    forger.put(submission=text, salt="")


def decided_twice(forger):
    data = {
        "at": "2023-11-14T22:13:20.000Z",
        "by": "boss",
        "comments": "",
        "decision": "denied",
        "key": 2,
        "via": "api",
    }
    forger.append("ACTION_DENIED", data)
    forger.put(status="denied", approval=audit.canonical_json(data))


FORGERIES = (
    other_decision,
    other_decision_without_its_seal,
    other_decision_sealed_anew,
    other_key,
    other_submission,
    comments_are_lost,
    submitted_twice,
    decided_twice,
)


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_what_is_appended_changes_nothing_that_was_told_before(database, desk_of, forge):
    """An erasure, or another entry with a right hash, is no way around a head that was noted elsewhere."""
    desk = desk_of(path=database)
    desk.submit("transaction", amount=5000)
    desk.post("/api/v1/actions/1/approve", {"comments": SECRET}, key="admin")
    noted = audit.head(desk.store)
    assert verify(desk.store, known=(noted,)).whole
    desk.store.close()
    with Forger(database) as forger:
        forge(forger)
    with Database.evidence(database) as evidence:
        assert not verify(evidence, known=(noted,)).whole


def test_what_comes_after_an_erasure_can_be_erased_too(desk_of):
    desk = desk_of()
    desk.submit("transaction", amount=5000)
    desk.post("/api/v1/actions/1/approve", {}, key="admin")
    assert erase(desk)[1]["erased"] is True
    assert desk.post("/api/agent-action/1/fail", {"error": f"{SECRET} was away"})[0] == 200
    assert SECRET in everything(desk)
    assert erase(desk)[1]["erased"] is True and erase(desk)[1]["erased"] is False
    assert SECRET not in everything(desk) and verify(desk.store).whole


def test_what_an_earlier_version_stored_is_not_erased(desk_of):
    """Its entries have no seal: nothing could tell erased from changed."""
    desk = desk_of()
    desk.submit("transaction", amount=5000)
    desk.post("/api/v1/actions/1/approve", {"comments": SECRET}, key="admin")
    with desk.store.write():
        data = {"reason": "x", "comments": SECRET}
        row = {"seq": desk.store.tip()[0] + 1, "tenant": "default", "action_id": 1, "previous": desk.store.tip()[1]}
        entry = {"at": "2023-11-14T22:13:20.000Z", "event": "ACTION_NOTED", "actor": "boss", "data": data}
        text = audit.canonical_json({"seq": row["seq"], "tenant": "default", "action_id": 1, **entry})
        row |= {"entry": text, "hash": audit.chained(row["previous"], text)}
        desk.store.insert("audit", row)
        desk.store.advance(row["seq"], row["hash"])
    assert verify(desk.store).whole
    assert desk.code(erase(desk)) == (409, "NOT_ERASABLE")
    assert SECRET in everything(desk) and verify(desk.store).whole


def test_only_an_erasure_may_change_an_entry_and_only_once(lived):
    erase(lived)
    number = lived.store.rows("SELECT max(seq) FROM audit")[0][0]
    for seq, other in ((1, number), (number, number)):
        with pytest.raises(StorageError, match="fixed"), lived.store.write():
            lived.store.execute("UPDATE audit SET entry = ? WHERE seq = ?", (f'{{"erased":{other}}}', seq))


def test_the_command_erases_one_action_or_all_of_an_agent(database, desk_of, tmp_path, capsys):
    desk = desk_of(path=database)
    for agent in ("a", "b", "b"):
        desk.submit("data_access", agent_id=agent, resource=SECRET)
    desk.submit("transaction", amount=5000, agent_id="b")
    (tmp_path / "policy.toml").write_text(POLICY)
    place = ["--db", str(database), "--policy", str(tmp_path / "policy.toml"), "--reason", "asked for"]
    assert main(["authority", "erase", "1", *place]) == 0
    assert main(["authority", "erase", "--agent", "b", *place]) == 0
    assert capsys.readouterr().out.splitlines() == [f"erased the personal data of action {n}" for n in (1, 2, 3, 4)]
    assert main(["authority", "erase", "1", *place]) == 0 and "nothing to erase" in capsys.readouterr().out
    assert verify(desk.store).whole
    for wrong in ([*place], ["1", *place[:4]], ["9", *place]):
        assert main(["authority", "erase", *wrong]) != 0
