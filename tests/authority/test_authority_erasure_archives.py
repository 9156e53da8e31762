"""Personal data is erased in archives too, and of all actions of somebody, and the log proves what stays."""

import gzip
import json

import pytest
from kit.desk import POLICY, Desk
from kit.served import Place

from ascend_middleware.authority import parse_policy
from ascend_middleware.authority.store import archive_erasure
from ascend_middleware.authority.store import archiver as module
from ascend_middleware.authority.store.archiver import Archiver
from ascend_middleware.authority.store.audit import iso_time
from ascend_middleware.authority.store.verification import verify
from ascend_middleware.cli import main

DAY = 86_400.0
SECRET = "grace.hopper"
OTHER = "alan.turing"
WHY = "asked for, case 12"


def submit(desk, who, number, kind="data_access", **more):
    context = {"principal": who, "n": number}
    return Desk.submit(desk, kind, resource=f"mailbox of {who}", context=context, **more)[1]["id"]


def fill(desk):
    """Submit actions of two people: denied ones, concluded ones, and one that nothing was told of; half are archived."""
    for number in range(12):
        who = SECRET if number % 3 == 0 else OTHER
        made = submit(desk, who, number, "database_schema" if number % 2 else "data_access", agent_id=f"agent-{number}")
        if not number % 2 and number != 6:
            body = {"error": f"{who} was away"}
            assert desk.post(f"/api/agent-action/{made}/fail", body)[0] == 200
    desk.time += 40 * DAY
    desk.lasting = submit(desk, SECRET, 99, agent_id="agent-99")
    desk.waiting = submit(desk, SECRET, 100, "transaction", agent_id="agent-100", amount=5000)


@pytest.fixture(params=["actions", "actions and entries"])
def old(request, desk_of, new_place, tmp_path, monkeypatch):
    """An authority with archives on either engine; of the entries, all are in the database, or some in files too."""
    monkeypatch.setattr(module, "_ACTIONS_IN_FILE", 5)
    monkeypatch.setattr(module, "_ENTRIES_IN_FILE", 8)
    desk = desk_of(path=new_place())
    fill(desk)
    desk.folder = tmp_path / "archive"
    desk.folder.mkdir()
    moment = iso_time(desk.time - 20 * DAY)
    list(Archiver(desk.store, desk.folder).run(actions=moment, audit=moment if request.param != "actions" else None))
    policy = parse_policy(f'[retention]\nactions = "20d"\narchive_to = "{desk.folder}"')
    desk.authority.use(policy)
    assert whole(desk)
    return desk


def whole(desk):
    alone, both = verify(desk.store), verify(desk.store, archive=desk.folder)
    return not [*alone.findings, *both.findings]


def everywhere(desk):
    """Return all texts of the database and of the files."""
    found = [path.read_bytes() for path in desk.folder.iterdir()]
    found = [gzip.decompress(one).decode() for one in found]
    for table in ("actions", "approvals", "audit", "answers"):
        found.append(str([tuple(map(str, row)) for row in desk.store.rows(f"SELECT * FROM {table}")]))
    return " ".join(found).replace("\\", "")  # texts within texts


def erase(desk, number, key="admin"):
    return desk.post(f"/api/v1/actions/{number}/erase", {"reason": WHY}, key=key)


def erase_all(desk, key="admin", **match):
    match = {name.replace("__", "."): value for name, value in match.items()}
    return desk.post("/api/v1/actions/erase", {"reason": WHY, "match": match}, key=key)


def test_an_archived_action_is_erased_in_its_archive_and_the_log_is_whole(old):
    head = verify(old.store).head
    names = {path.name for path in old.folder.iterdir()}
    before = everywhere(old).count(SECRET)
    assert erase(old, 1) == (200, {"success": True, "action_id": "1", "erased": True})
    assert whole(old) and not verify(old.store, archive=old.folder, known=(head,)).findings
    assert everywhere(old).count(SECRET) < before
    assert everywhere(old).count('"n":0') == 0 and '"n":3' in everywhere(old)
    assert {path.name for path in old.folder.iterdir()} != names  # another file, and the one before is gone
    assert {path.name for path in old.folder.iterdir()} == {
        row["name"] for row in old.store.rows("SELECT name FROM archives WHERE state = 'done'")
    }
    assert erase(old, 1)[1]["erased"] is False


def test_the_log_tells_which_file_took_the_place_of_which(old):
    files = {row["name"]: row["sha256"] for row in old.store.rows("SELECT name, sha256 FROM archives")}
    erase(old, 1)
    told = [data for event, data in old.audit() if event.endswith("_ARCHIVED") and "replaces" in data]
    assert told
    for data in told:
        assert files[data["replaces"]] == data["replaced_sha256"]
        assert data["sha256"] != data["replaced_sha256"]
    (why,) = (data for event, data in old.audit() if event == "ACTION_ERASED")
    assert why["reason"] == WHY and SECRET not in json.dumps([*told, why])


def test_all_of_one_person_are_erased_wherever_they_stand(old):
    assert SECRET in everywhere(old)
    status, answer = erase_all(old, context__principal=SECRET)
    expected = ["1", "4", "7", "10", str(old.lasting)]
    assert status == 200 and sorted(answer["erased"], key=int) == expected
    assert answer["waiting"] == [str(old.waiting)] and answer["refused"] == {} and answer["success"] is False
    assert whole(old)
    # What waits is erased once somebody has decided about it.
    assert old.post(f"/api/v1/actions/{old.waiting}/reject", {}, key="admin")[0] == 200
    assert erase_all(old, context__principal=SECRET)[1]["erased"] == [str(old.waiting)]
    assert SECRET not in everywhere(old) and OTHER in everywhere(old) and whole(old)
    assert erase_all(old, context__principal=SECRET)[1] == {
        "success": True, "erased": [], "waiting": [], "refused": {}
    }  # fmt: skip


def test_all_of_one_agent_and_all_places_must_hold(old):
    assert erase_all(old, agent_id="agent-0", context__principal=OTHER)[1]["erased"] == []
    assert erase_all(old, agent_id="agent-0", context__n="0")[1]["erased"] == ["1"]
    assert erase_all(old, context="agent-0")[1]["erased"] == []
    assert whole(old)


def test_only_an_admin_of_the_organisation_erases(old):
    before = everywhere(old)
    assert old.code(erase_all(old, key="user", agent_id="agent-0")) == (403, "ADMIN_REQUIRED")
    assert erase_all(old, key="stranger", context__principal=SECRET)[1]["erased"] == []
    assert old.code(erase(old, 1, key="stranger")) == (404, "NOT_FOUND")
    assert erase_all(old)[0] == 422
    assert everywhere(old).count(SECRET) == before.count(SECRET) and whole(old)


def test_where_the_folder_is_unknown_gone_or_changed_nothing_is_erased(old):
    old.authority.use(parse_policy(""))
    assert old.code(erase(old, 1)) == (409, "NOT_ERASABLE")
    assert old.code(erase_all(old, agent_id="agent-0")) == (409, "NOT_ERASABLE")
    old.authority.use(parse_policy(f'[retention]\nactions = "20d"\narchive_to = "{old.folder}"'))
    path = next(path for path in old.folder.iterdir() if path.name.startswith("actions-1-"))
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    status, answer = erase(old, 1)
    assert status == 409 and "was changed" in answer["error"]["message"]
    path.write_bytes(content)
    running = Archiver(old.store, old.folder)
    assert running.lease.take()
    assert "another process archives" in erase(old, 1)[1]["error"]["message"]
    running.lease.give_back()
    assert whole(old) and erase(old, 1)[1]["erased"] is True


@pytest.mark.parametrize("ends", range(8))
def test_an_erasure_that_is_cut_short_is_told_and_ended_by_the_next(old, monkeypatch, ends):
    """Wherever it ends, nothing is lost, and only the data that is still there is found."""
    count = iter(range(100))

    class Cut(BaseException):
        pass

    written, store_write = archive_erasure.write_archive, type(old.store).write

    def counted(call):
        def counting(*args, **options):
            if next(count) == ends:
                raise Cut
            return call(*args, **options)

        return counting

    with monkeypatch.context() as patch:
        patch.setattr(archive_erasure, "write_archive", counted(written))
        patch.setattr(archive_erasure, "erase", counted(archive_erasure.erase))
        patch.setattr(Archiver, "resume", counted(Archiver.resume))
        try:
            erase_all(old, agent_id="agent-0")
        except Cut:
            pass
    assert store_write is type(old.store).write
    assert verify(old.store).whole
    found = verify(old.store, archive=old.folder).findings
    told = [one.message for one in found if "erase it again" not in one.message and "still there" not in one.message]
    assert told == []
    old.time += 60  # the turn of a process that was killed has ended
    erase_all(old, agent_id="agent-0")
    list(Archiver(old.store, old.folder).run(actions=None, audit=None))
    assert whole(old) and '"n":0' not in everywhere(old)


def test_a_file_in_the_place_of_another_is_held_to_the_log(old):
    erase(old, 1)
    path = next(path for path in old.folder.iterdir() if path.name.startswith("actions-1-"))
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b"erased", b"eraseD")))
    assert "was changed" in " ".join(one.message for one in verify(old.store, archive=old.folder).findings)


@pytest.mark.anyio
async def test_the_writer_waits_for_no_archive(new_place, tmp_path):
    """While archives are read and written, a served authority decides."""
    place = Place(new_place(), '[retention]\nactions = "20d"\narchive_to = "' + str(tmp_path) + '"')
    fill(place)
    moment = iso_time(place.time - 20 * DAY)
    list(Archiver(place.store, tmp_path).run(actions=moment, audit=None))
    async with place.serving():
        body = {"reason": WHY, "match": {"context.principal": SECRET}}
        status, answer = await place.ask("POST", "/api/v1/actions/erase", body, key=place.admin)
        assert status == 200 and len(answer["erased"]) == 6
    assert verify(place.store, archive=tmp_path).whole
    place.authority.close()


def test_the_command_erases_in_archives_and_of_somebody(desk_of, database, tmp_path, capsys):
    desk = desk_of(path=database)
    fill(desk)
    folder = tmp_path / "archive"
    folder.mkdir()
    moment = iso_time(desk.time - 20 * DAY)
    list(Archiver(desk.store, folder).run(actions=moment, audit=moment))
    (tmp_path / "policy.toml").write_text(POLICY)
    place = ["--db", str(database), "--policy", str(tmp_path / "policy.toml"), "--reason", "asked for"]
    assert main(["authority", "erase", "1", *place]) != 0 and "archive_to" in capsys.readouterr().err
    place += ["--to", str(folder)]
    assert main(["authority", "erase", "1", *place]) == 0
    assert capsys.readouterr().out == "erased the personal data of action 1\n"
    assert main(["authority", "erase", "--match", f"context.principal={SECRET}", *place]) == 0
    assert capsys.readouterr().out.count("erased the personal data") == 5  # what waited has expired since
    assert verify(desk.store, archive=folder).whole
    for wrong in (["1", "--match", "a=b"], ["--match", "a"], ["--match", "=b"]):
        assert main(["authority", "erase", *wrong, *place]) == 2
