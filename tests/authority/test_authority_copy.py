"""A database is copied from file to server and back: everything stays what it was, or nothing is made."""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kit.databases import behind, contents
from kit.desk import POLICY, Desk
from kit.growth import Growth

from ascend_middleware.authority import Store
from ascend_middleware.authority.store import copying
from ascend_middleware.authority.store.verification import verify
from ascend_middleware.cli import main
from ascend_middleware.exceptions import AscendError, ConfigurationError
from ascend_middleware.text import is_postgres

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


def test_a_file_is_made_by_one_at_a_time(file, tmp_path, capsys):
    place, *_ = file
    target = str(tmp_path / "a.db")

    def meanwhile(rows, what, total):
        if what == "audit":
            code, shown = copied(capsys, place, target)
            assert code == 1 and f"another process makes {target} already" in shown.err
            command = ["authority", "backup", target, "--db", place]
            assert main(command) == 1 and "already; wait until it is done" in capsys.readouterr().err
        return rows

    assert copying.copy(place, target, watch=meanwhile).rows > 10
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.skipif(os.name != "posix", reason="needs permissions")
def test_a_folder_that_others_can_write_is_no_place_to_make_a_file(file, tmp_path, capsys):
    place, *_ = file
    folder = tmp_path / ".a.db.part"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "a.db").write_text("of somebody else")
    code, shown = copied(capsys, place, str(tmp_path / "a.db"))
    assert code == 1 and f"{folder} is in the way" in shown.err and (folder / "a.db").exists()


# --- killed

CALLS = ("mkdir", "link", "unlink", "rmdir", "fsync")


def counted(step):
    """Return what calls `step` at each row that is copied or verified, and before each call that changes the folder."""
    for name in CALLS:
        setattr(os, name, lambda *values, call=getattr(os, name), **options: (step(), call(*values, **options))[1])

    def watch(rows, what, total):
        for row in rows:
            step()
            yield row
        step()

    return watch


def copied_in_a_child(source, target, *, left=None):
    """Copy in a process that kills itself after so many steps; return how it ended, and at which step."""
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        numbers = itertools.count()

        def step():
            number = next(numbers)
            os.write(tell, b".")
            if number == left:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            copying.copy(source, target, watch=counted(step))
            os._exit(0)
        finally:
            os._exit(1)
    os.close(tell)
    with open(told, "rb") as steps:
        count = len(steps.read())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), count


def source_of(place):
    return all_of(place) if is_postgres(place) else Path(place).read_bytes()


def check_after_a_kill(source, target, expected):
    """Say whether the target is whole; else it is refused, and a copy to it can be made again."""
    assert source_of(source) == expected[0]
    ended = ""
    try:
        with contextlib.closing(Store.open(target, now=time.time, create=False)) as store:
            assert verify(store).whole and contents(store) == expected[1]
        whole = True
    except ConfigurationError as error:
        ended, whole = error.message, False
    if not whole and "ended half-way" in ended:
        # Nobody begins a new authority there.
        with pytest.raises(ConfigurationError, match="ended half-way. Run"):
            Store.open(target, now=time.time)
    assert whole or "ended half-way" in ended or "there is no database" in ended or "there are no tables" in ended
    try:
        copying.copy(source, target)
        assert not whole
    except ConfigurationError as error:
        assert whole and ("exists already" in error.message or "holds tables already" in error.message)
    with contextlib.closing(Store.open(target, now=time.time, create=False)) as store:
        assert verify(store).whole and contents(store) == expected[1]
    return whole


@pytest.fixture(params=["file to file", "file to server", "server to file"])
def ways(request, file, cluster, tmp_path, full):
    """A source, what it holds and what a copy of it holds, a maker of targets, and the steps at which to kill."""
    source, numbers = file[0], itertools.count()
    if request.param == "server to file":
        source = cluster.fresh(empty=True)
        copying.copy(file[0], source)

    def target():
        return cluster.fresh(empty=True) if request.param.endswith("server") else str(tmp_path / f"{next(numbers)}.db")

    whole = target()
    code, steps = copied_in_a_child(source, whole)
    assert code == 0 and steps > 30
    chosen = {*range(0, steps, 1 if full else -(-steps // 3))}
    if request.param == "file to file":
        chosen |= {*range(steps - 8, steps)}  # in which a file gets its name
    return source, (source_of(source), all_of(whole)[0]), target, sorted(chosen)


@pytest.mark.skipif(os.name != "posix", reason="kills a fork of itself")
def test_whenever_a_copy_is_killed_its_target_is_whole_or_refused_and_it_can_be_made_again(ways, tmp_path):
    source, expected, target, chosen = ways
    found = []
    for left in chosen:
        place = target()
        code, count = copied_in_a_child(source, place, left=left)
        assert code == -signal.SIGKILL or (code == 0 and count <= left)  # it had come to its end before
        found.append(check_after_a_kill(source, place, expected))
    assert found == sorted(found) and not found[0]  # from some step on it is there
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_copy_that_is_killed_by_the_clock_is_whole_or_refused(cluster, tmp_path, full):
    if not full:
        pytest.skip("a long loop")
    dice, source = random.Random(14), str(tmp_path / "grown.db")
    desk = Desk(POLICY, source)
    Growth(desk).actions(5000)
    desk.authority.close()
    served, targets = cluster.fresh(empty=True), itertools.count()
    copying.copy(source, served)
    for origin, to_server in ((source, False), (source, True), (served, False)):
        expected = source_of(origin), all_of(origin)[0]
        begun = time.monotonic()
        copying.copy(origin, str(tmp_path / f"{next(targets)}.db"))
        most = 1 + 1.2 * (time.monotonic() - begun)
        for _ in range(20):
            target = cluster.fresh(empty=True) if to_server else str(tmp_path / f"{next(targets)}.db")
            command = [sys.executable, "-m", "ascend_middleware.cli", "authority", "copy"]
            with subprocess.Popen([*command, "--from", origin, "--to", target], stdout=subprocess.DEVNULL) as child:
                time.sleep(dice.uniform(0.2, most))
                child.kill()
            check_after_a_kill(origin, target, expected)
