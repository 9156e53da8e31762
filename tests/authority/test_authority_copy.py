"""A database is copied from file to server and back: everything stays what it was, or nothing is made."""

import contextlib
import time

import pytest
from kit.databases import behind, contents
from kit.desk import POLICY, Desk

from ascend_middleware.authority import Store
from ascend_middleware.authority.store import copying
from ascend_middleware.authority.store.verification import verify
from ascend_middleware.cli import main
from ascend_middleware.exceptions import AscendError, ConfigurationError

pytestmark = pytest.mark.slow


@pytest.fixture
def file(tmp_path):
    """A database with something in every table that requests fill."""
    place = tmp_path / "authority.db"
    desk = Desk(POLICY, place)
    desk.submit("data_access")
    desk.submit("transaction", amount=5000)
    desk.post("/api/v1/actions/2/approve", {}, key="admin")
    desk.submit("transaction", amount=7000, resource="Zürich 🎉")
    body = {"agent_id": "a", "action_type": "data_access"}
    first = desk.post("/api/v1/actions/submit", body, idempotency_key="once")
    desk.post("/api/registry/agents", {"agent_id": "a", "display_name": "A"})
    desk.post("/api/webhooks", {"target_url": "https://h.example.com/", "event_types": ["action.denied"]}, key="admin")
    desk.store.organization_id("default")
    desk.store.revoke_key(3)
    desk.authority.close()
    return str(place), desk, first


def copied(capsys, source, target):
    code = main(["authority", "copy", "--from", source, "--to", target])
    return code, capsys.readouterr()


def all_of(place):
    with contextlib.closing(Store.open(place, now=time.time)) as store:
        assert verify(store).whole
        return contents(store), store.engine.last_numbers(store.engine.writer)


def test_there_and_back_everything_is_what_it_was(file, cluster, tmp_path, capsys):
    place, before, first = file
    url, back = cluster.fresh(empty=True), str(tmp_path / "back.db")
    for source, target in ((place, url), (url, back)):
        code, shown = copied(capsys, source, target)
        assert code == 0 and "the log is whole, head" in shown.out, shown.err
    found = all_of(place), all_of(url), all_of(back)
    revision = [line for line in found[0][0].splitlines() if line]
    assert [sorted(one[0].splitlines()) for one in found[1:]] == [sorted(revision)] * 2
    assert found[0][1] == found[1][1] == found[2][1]
    # It goes on there: keys are good, answers are kept, numbers follow.
    for target in (url, back):
        desk = Desk(POLICY, target)
        desk.user, desk.admin = before.user, before.admin
        body = {"agent_id": "a", "action_type": "data_access"}
        assert desk.post("/api/v1/actions/submit", body, idempotency_key="once") == first
        assert desk.submit()[1]["id"] == 5
        assert desk.post("/api/v1/actions/3/approve", {}, key="admin")[0] == 200
        assert desk.post("/api/registry/agents", {"agent_id": "b", "display_name": "B"})[0] == 201
        assert desk.call("GET", "/api/v1/actions", key=before.peer)[0] == 401
        assert verify(desk.store).whole
        desk.authority.close()


def test_what_is_there_is_not_touched(file, cluster, tmp_path, capsys):
    place, *_ = file
    occupied = cluster.borrow()
    code, shown = copied(capsys, place, occupied)
    assert code != 0 and "holds tables already" in shown.err
    code, shown = copied(capsys, place, place)
    assert code != 0 and "exists already" in shown.err
    code, shown = copied(capsys, str(tmp_path / "none.db"), cluster.fresh(empty=True))
    assert code != 0 and "there is no database" in shown.err
    assert main(["authority", "copy", "--to", occupied]) != 0
    cluster.give_back([occupied])
    with contextlib.closing(Store.open(occupied, now=time.time)) as store:
        assert store.rows("SELECT count(*) FROM keys")[0][0] == 0


@pytest.mark.parametrize("url", ["@127.0.0.1:1/x", "@[bad/x?password=hunter2", "@/x?host=/nowhere&bogus=hunter2"])
def test_no_message_tells_a_password(file, tmp_path, capsys, url):
    place, *_ = file
    for source, target in (
        (place, f"postgresql://u:hunter2{url}"),
        (f"postgresql://u:hunter2{url}", tmp_path / "n.db"),
    ):
        code, shown = copied(capsys, source, str(target))
        assert code == 2 and len(shown.err.splitlines()) == 1 and "hunter2" not in shown.out + shown.err
    assert not (tmp_path / "n.db").exists()


def test_a_link_that_leads_nowhere_is_no_place_for_a_copy(file, tmp_path, capsys):
    place, *_ = file
    (tmp_path / "link.db").symlink_to("gone.db")
    code, shown = copied(capsys, place, str(tmp_path / "link.db"))
    assert code == 2 and "exists already" in shown.err and not (tmp_path / "gone.db").exists()


def nothing_at(cluster, url):
    name = "test_" + url.partition("/test_")[2].partition("?")[0]
    return cluster.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", name) == [(0,)]


def test_a_copy_that_is_interrupted_leaves_nothing(file, cluster, tmp_path):
    place, *_ = file
    url, back = cluster.fresh(empty=True), tmp_path / "back.db"

    def interrupt(rows, what, total):
        for row in rows:
            yield row
            if what == "audit":
                raise KeyboardInterrupt

    for target in (url, str(back)):
        with pytest.raises(KeyboardInterrupt):
            copying.copy(place, target, watch=interrupt)
    assert nothing_at(cluster, url) and not back.exists()
    assert [path.name for path in tmp_path.iterdir() if "back" in path.name] == []
    assert copying.copy(place, url).rows > 10


def test_a_source_that_is_not_whole_or_changes_meanwhile_is_refused(file, cluster):
    place, *_ = file
    url = cluster.fresh(empty=True)
    store = Store.open(place, now=time.time)

    def meanwhile(rows, what, total):
        if what == "audit":
            store.audit("E", tenant="t", actor="a", data={})
        return rows

    with pytest.raises(AscendError, match="written to while it was copied"):
        copying.copy(place, url, watch=meanwhile)
    behind(store, "UPDATE actions SET status = 'denied' WHERE id = 1", guarded=False)
    store.close()
    with pytest.raises(AscendError, match="the copy is not whole"):
        copying.copy(place, url)
    assert nothing_at(cluster, url)


def test_a_text_that_postgresql_cannot_keep_is_named(tmp_path, cluster):
    desk = Desk(POLICY, tmp_path / "a.db")
    desk.submit(agent_id="a")
    with desk.store.write():
        desk.store.insert("organizations", {"tenant": "a\0b"})
    desk.authority.close()
    url = cluster.fresh(empty=True)
    with pytest.raises(AscendError, match="the row of organizations with id 1 cannot be kept"):
        copying.copy(str(tmp_path / "a.db"), url)
    assert nothing_at(cluster, url)


def test_a_database_of_another_version_is_started_first(file, cluster):
    place, *_ = file
    url = cluster.fresh(empty=True)
    with contextlib.closing(Store.open(place, now=time.time)) as store:
        store.engine.connection.execute("PRAGMA user_version = 3")
    with pytest.raises(ConfigurationError, match="start the authority on it once"):
        copying.copy(place, url)
    assert nothing_at(cluster, url)
