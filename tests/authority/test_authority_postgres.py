"""The authority on PostgreSQL: how it is reached, what is refused, and what becomes of it when the server goes away."""

import contextlib
import json
import subprocess
import sys
import threading
import time

import pytest
from kit.databases import Cluster, Pooler, behind
from kit.desk import Desk
from kit.processes import together, wait_until

from ascend_middleware import AscendClient
from ascend_middleware.authority import Store
from ascend_middleware.authority.store import postgres_link, postgres_watch
from ascend_middleware.authority.store.patience import TooLongError, patience
from ascend_middleware.authority.store.verification import verify
from ascend_middleware.cli import main
from ascend_middleware.exceptions import ConfigurationError, StorageError

pytestmark = [pytest.mark.slow, pytest.mark.socket]

SECRET = "pa:s/s@w#rd?%"


@pytest.fixture
def store(url):
    with contextlib.closing(Store.open(url, now=lambda: 1_700_000_000.0)) as store:
        yield store


@pytest.fixture(scope="module")
def own_cluster():
    """A server that tests end and start again; it listens on a port, and asks the user `guarded` for a password."""
    cluster = Cluster(tcp=True)
    quoted = SECRET.replace("'", "''")
    cluster.execute(f"CREATE ROLE guarded LOGIN PASSWORD '{quoted}'")
    yield cluster
    cluster.stop()


def note(store, event="E", **data):
    store.audit(event, tenant="t", actor="a", data=data)


def beat(agent):
    """A row of which the log tells nothing."""
    return {"tenant": "t", "agent_id": agent, "first_at": "", "last_at": "", "fields": "{}"}


# --- reaching it


def refusal(url, **options):
    with pytest.raises(ConfigurationError) as caught:
        Store.open(url, now=time.time, **options)
    return str(caught.value)


def test_a_password_opens_and_is_never_shown(own_cluster, capsys, tmp_path):
    own_cluster.execute("CREATE DATABASE guarded OWNER guarded")
    url = own_cluster.url("guarded", "guarded", SECRET, tcp=True)
    with contextlib.closing(Store.open(url, now=time.time)) as store:
        note(store)
        shown = [store.engine.place, repr(store.engine.link), str(store.engine.link)]
    assert shown[0] == f"postgresql://guarded@127.0.0.1:{own_cluster.port}/guarded"
    shown.append(refusal(own_cluster.url("guarded", "guarded", "wr0ng-" + SECRET, tcp=True)))
    assert "password authentication failed" in shown[-1]
    own_cluster.stop_server()
    try:
        shown.append(refusal(url))
        assert "cannot be opened" in shown[-1] and "refused" in shown[-1]
        policy = tmp_path / "policy.toml"
        policy.write_text("")
        assert main(["pending", "--policy", str(policy), "--db", url]) != 0
        shown.append(capsys.readouterr().err)
        assert "cannot be opened" in shown[-1] and "Traceback" not in shown[-1]
    finally:
        own_cluster.start()
    for text in shown:
        assert not any(part in text for part in (SECRET, "pa%3As", "wr0ng", "s@w", "w#rd")), text


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}@h/db",
        "postgresql://u:hunter@2@h/db",
        "postgresql://u:hun/ter2@h/db",
        "postgresql://u:hunter2@h/db?hunter2=hunter2",
        "postgresql:hunter2",
        "postgres:/hunter2",
    ],
)
def test_a_url_that_cannot_be_read_is_not_repeated(url):
    text = refusal(url)
    assert "expected postgresql://user@host/name" in text
    assert not any(part in text for part in ("hunt", "ter2", "hunter2", "s@w", "w#rd"))


def test_without_the_extra_it_is_named():
    script = "import sys; sys.modules['psycopg'] = None; from ascend_middleware.authority import Store;"
    script += "Store.open('postgresql:///x', now=float)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "ascend-middleware[postgres]" in found.stderr.splitlines()[-1]


def test_another_encoding_is_refused(cluster):
    cluster.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    text = refusal(cluster.url("latin"))
    assert "LATIN1" in text and "ENCODING 'UTF8'" in text
    cluster.execute("DROP DATABASE latin")


def test_an_old_server_is_refused(url, monkeypatch):
    monkeypatch.setattr(postgres_link, "_OLDEST", 990_000)
    assert "this needs 99 or newer" in refusal(url)


def test_a_server_that_may_lose_what_it_acknowledged_is_refused(cluster, url):
    name = url.partition("/test_")[2].partition("?")[0]
    cluster.execute(f"ALTER DATABASE test_{name} SET synchronous_commit = off")
    try:
        assert "synchronous_commit is off" in refusal(url)
    finally:
        cluster.execute(f"ALTER DATABASE test_{name} RESET synchronous_commit")


def test_a_database_of_another_program_is_not_touched(cluster):
    url = cluster.fresh(empty=True)
    name = url.partition("/test_")[2].partition("?")[0]
    cluster.execute("CREATE TABLE keys (mine TEXT)", f"test_{name}")
    assert "another program" in refusal(url)
    assert cluster.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", f"test_{name}") == [(1,)]


def test_a_user_who_may_make_no_tables_is_told_so(own_cluster):
    own_cluster.execute("CREATE DATABASE others")
    text = refusal(own_cluster.url("others", "guarded", SECRET, tcp=True))
    assert "permission denied" in text and "CREATE" in text


def test_a_newer_version_and_missing_tables_are_refused(cluster, url):
    name = "test_" + url.partition("/test_")[2].partition("?")[0]
    cluster.execute("UPDATE ascend_schema SET version = version + 1", name)
    assert "newer version" in refusal(url)
    cluster.execute("UPDATE ascend_schema SET version = version - 1", name)
    cluster.execute("ALTER INDEX actions_list RENAME TO mine", name)
    assert "has no index actions_list" in refusal(url)
    cluster.execute("ALTER INDEX mine RENAME TO actions_list", name)


def test_a_command_that_makes_nothing_finds_no_tables(cluster, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASCEND_AUTHORITY_DB", cluster.fresh(empty=True))
    assert main(["pending"]) != 0
    assert "there are no tables of an authority" in capsys.readouterr().err
    assert main(["audit", "verify"]) != 0
    assert "there are no tables of an authority" in capsys.readouterr().err
    assert main(["keys", "issue", "--name", "me"]) == 0
    assert main(["keys", "list"]) == 0
    assert main(["audit", "verify"]) == 0
    assert main(["audit", "export"]) == 0
    assert '"KEY_ISSUED"' in capsys.readouterr().out
    assert main(["authority", "backup", "copy.db"]) != 0
    assert "pg_dump" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_replicas_that_start_together_make_the_tables_once(cluster):
    url, made = cluster.fresh(empty=True), []
    together(*[lambda: made.append(Store.open(url, now=time.time))] * 4)
    assert len(made) == 4
    for store in made:
        note(store)
        store.close()
    with contextlib.closing(Store.open(url, now=time.time)) as store:
        assert verify(store).whole and verify(store).entries == 4


def test_local_urls_take_it(url, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text("")
    with AscendClient(api_url=f"local:{policy}?db={url.replace('&', '%26')}", agent_id="a", agent_name="a") as client:
        assert client.evaluate_action("read", "r").is_approved()
    with contextlib.closing(Store.open(url, now=time.time)) as store:
        assert [row["agent_id"] for row in store.rows("SELECT agent_id FROM actions")] == ["a"]
    assert [file.name for file in tmp_path.iterdir()] == ["policy.toml"]


# --- values


@pytest.mark.parametrize("text", ["a\0b", "\ud800"], ids=["NUL", "half of a pair"])
def test_a_text_that_cannot_be_stored_is_refused_and_harms_nobody_else(store, text):
    with store.group():
        with store.write():
            note(store, "before")
        for values in ({"tenant": text}, {"actor": "a", "tenant": "t", "action_id": None}):
            with pytest.raises(StorageError, match="NUL"), store.write():
                note(store, "undone")
                store.insert("organizations", {"tenant": text})
        with pytest.raises(StorageError, match="NUL"), store.write():
            store.insert_late("answers", {"path": text})
        with pytest.raises(StorageError, match="NUL"), store.write():
            store.execute("UPDATE keys SET name = ?", (text,))
        with store.write():
            note(store, "after")
    assert [json.loads(row[0])["event"] for row in store.rows("SELECT entry FROM audit")] == ["before", "after"]
    assert verify(store).whole


def test_a_nul_in_a_request_is_answered(url):
    desk = Desk(path=url)
    answers = [
        desk.submit(agent_id="a\0b"),
        desk.submit(resource="r\0"),
        desk.get("/api/v1/actions", query="agent_id=%00"),
        desk.call("POST", "/api/v1/actions/submit\0", {}),
        desk.call("POST", "/api/v1/actions/submit", {"agent_id": "\ud800", "action_type": "read"}),
        desk.get("/api/registry/agents/a\0b"),
    ]
    desk.submit("transaction", amount=5000)
    number = desk.store.rows("SELECT max(id) FROM actions")[0][0]
    answers.append(desk.post(f"/api/v1/actions/{number}/approve", {"comments": "fi\0ne"}, key="admin"))
    assert not {status for status, _ in answers if status >= 500}, answers
    assert desk.submit()[0] == 200
    desk.authority.close()


# --- groups


def test_a_statement_that_fails_unwaited_for_takes_the_whole_group_and_nobody_was_told(store):
    told = []
    with pytest.raises(StorageError), store.group():
        with store.write():
            note(store, "first")
            store.after_commit(lambda: told.append("first"))
            store.execute("DELETE FROM audit_head")  # refused by a trigger; nobody waits for it
        with store.write():
            note(store, "second")
            store.rows("SELECT 1")
    assert told == [] and store.rows("SELECT count(*) FROM audit")[0][0] == 0
    note(store)
    assert verify(store).whole


def test_a_part_that_fails_is_undone_alone(store):
    with store.group():
        with store.write():
            note(store, "first")
            store.insert("heartbeats", beat("a"))
        with pytest.raises(StorageError, match="unique"), store.write():
            note(store, "undone")
            store.insert("heartbeats", beat("a"))
        with store.write():
            note(store, "last")
    assert [json.loads(row[0])["event"] for row in store.rows("SELECT entry FROM audit")] == ["first", "last"]
    assert verify(store).whole


def test_two_replicas_take_turns_and_the_chain_stays_one(url):
    stores = [Store.open(url, now=time.time) for _ in range(2)]

    def write(store):
        for _ in range(30):
            with store.group():
                for _ in range(3):
                    with store.write():
                        note(store)

    together(*[lambda store=store: write(store) for store in stores])
    found = verify(stores[0])
    assert found.whole and found.entries == 180
    for store in stores:
        store.close()


def test_the_log_cannot_be_emptied_either(store):
    note(store)
    for statement in ("TRUNCATE audit", "DELETE FROM audit", "UPDATE audit SET entry = '{}'", "TRUNCATE audit_head"):
        with pytest.raises(Exception, match="audit log"):
            behind(store, statement)
    assert verify(store).entries == 1


def test_a_replica_that_stands_still_holds_nobody_up_for_long(url, monkeypatch):
    from ascend_middleware.authority.store import postgres_engine

    monkeypatch.setattr(postgres_engine, "_LIMITS", postgres_engine._LIMITS.replace("10000", "300"))
    frozen, other = (Store.open(url, now=time.time) for _ in range(2))
    with pytest.raises(StorageError), frozen.group(), frozen.write():
        note(frozen, "frozen")
        frozen.rows("SELECT 1")
        note(other, "other")  # waits until the server has ended the first one's transaction
        frozen.rows("SELECT 1")
    note(frozen, "again")
    assert [json.loads(row[0])["event"] for row in other.rows("SELECT entry FROM audit ORDER BY seq")] == [
        "other",
        "again",
    ]
    frozen.close()
    other.close()


# --- reading


def test_reading_ends_in_time_and_the_connection_is_used_again(store):
    slow = "SELECT count(*) FROM generate_series(1, 1000000000)"
    for lend in (store.reading, store.snapshot):
        began = time.monotonic()
        with pytest.raises(TooLongError), patience(0.2), lend() as reader:
            reader.rows(slow)
        with pytest.raises(TooLongError), patience(0.2), lend() as reader:
            list(reader.each(slow))
        assert time.monotonic() - began < 5
    with patience(5), store.reading() as reader:
        assert reader.rows("SELECT current_setting('statement_timeout')")[0][0] != "0"
    with store.reading() as reader:
        assert reader.rows("SELECT current_setting('statement_timeout')")[0][0] == "0"


def test_readers_cannot_write(store):
    for lend in (store.reading, store.snapshot):
        with lend() as reader, pytest.raises(StorageError, match="read-only"):
            reader.rows("DELETE FROM keys")


def test_a_snapshot_is_one_state_and_long_answers_come_in_parts(url, store):
    with contextlib.closing(Store.open(url, now=time.time)) as other:
        for _ in range(3):
            with store.group():
                for _ in range(1000):
                    with store.write():
                        note(store)
        with store.snapshot() as reader:
            rows = reader.each("SELECT seq FROM audit ORDER BY seq")
            assert next(rows)["seq"] == 1
            note(other, "later")
            assert sum(1 for _ in rows) == 2999
            assert [row["seq"] for row in reader.each("SELECT seq FROM audit WHERE seq > ?", (2998,))] == [2999, 3000]
        assert store.rows("SELECT count(*) FROM audit")[0][0] == 3001


# --- hearing of others


def test_what_another_replica_writes_is_heard_of_at_once(url):
    here, there = (Store.open(url, now=time.time) for _ in range(2))
    watch = here.watch()
    wait_until(watch.changed)
    time.sleep(0.2)  # until it listens
    watch.changed()
    assert not watch.changed()
    began = time.monotonic()
    note(there)
    wait_until(watch.changed)
    assert time.monotonic() - began < 0.9  # not by the look each second
    note(here)
    assert watch.changed()
    watch.close()
    for store in (here, there):
        store.close()


# --- the server goes away


def test_a_server_that_was_started_anew_is_used_again(own_cluster):
    url = own_cluster.fresh()
    with contextlib.closing(Store.open(url, now=time.time)) as store:
        watch = store.watch()
        wait_until(watch.changed)
        note(store, "before")
        own_cluster.kill()
        for what in (lambda: note(store), lambda: store.rows("SELECT 1"), store.probe):
            with patience(0.5), pytest.raises(StorageError):
                what()
        own_cluster.start()
        note(store, "after")
        store.probe()
        assert [json.loads(row[0])["event"] for row in store.rows("SELECT entry FROM audit ORDER BY seq")] == [
            "before",
            "after",
        ]
        assert verify(store).whole
        own_cluster.stop_server()
        own_cluster.start()
        note(store, "once more")  # the connection was lost while nothing was under way
        time.sleep(1.1)
        assert store.rows("SELECT count(*) FROM audit")[0][0] == 3
        wait_until(lambda: not store.engine.listener.problem)
        watch.changed()
        note(store)
        assert watch.changed()


def test_who_listens_for_changes_ends_at_once(url, monkeypatch):
    monkeypatch.setattr(postgres_watch, "_PERIOD", 60.0)  # how long it waits for one
    store = Store.open(url, now=time.time)
    store.watch()
    wait_until(lambda: store.engine.listener.count)
    began = time.monotonic()
    store.close()
    assert time.monotonic() - began < 30
    assert "ascend-authority-listener" not in [thread.name for thread in threading.enumerate()]


def test_a_connection_that_is_lost_within_a_group_keeps_nothing_of_it(cluster, url):
    store, told = Store.open(url, now=time.time), []
    with pytest.raises(StorageError), store.group():
        with store.write():
            note(store, "first")
            store.after_commit(lambda: told.append(1))
            pid = store.rows("SELECT pg_backend_pid()")[0][0]
        cluster.execute(f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(StorageError), store.write():
            note(store, "second")
            store.rows("SELECT 1")
        with pytest.raises(StorageError, match="undid"), store.write():
            note(store, "third")
    assert told == [] and store.rows("SELECT count(*) FROM audit")[0][0] == 0
    note(store)
    assert verify(store).whole
    store.close()


# --- behind pgbouncer


def test_behind_a_pooler_of_transactions(cluster, url, monkeypatch):
    with Pooler(cluster) as pooler:
        name = "test_" + url.partition("/test_")[2].partition("?")[0]
        stores = [Store.open(pooler.url(name), now=time.time) for _ in range(2)]
        assert all(store.engine.link.pooled for store in stores)

        def work(store):
            for _ in range(20):
                with store.group():
                    for _ in range(2):
                        with store.write():
                            note(store)
                            store.insert("heartbeats", beat(f"{time.monotonic_ns()} {threading.get_ident()}"))
                with patience(5), store.snapshot() as reader:
                    assert len(list(reader.each("SELECT * FROM audit"))) >= 2
                store.probe()

        together(*[lambda store=store: work(store) for store in stores * 2])
        assert verify(stores[0]).whole and verify(stores[0]).entries == 160
        # Nothing is heard of through the pooler; the look each second finds it.
        watch = stores[0].watch()
        wait_until(watch.changed)
        note(stores[1])
        wait_until(watch.changed, seconds=5)
        monkeypatch.setenv("ASCEND_AUTHORITY_DB_DIRECT", url)
        with contextlib.closing(Store.open(pooler.url(name), now=time.time)) as direct:
            hearing = direct.watch()
            wait_until(hearing.changed)
            time.sleep(0.1)
            hearing.changed()
            began = time.monotonic()
            note(stores[1])
            wait_until(hearing.changed)
            assert time.monotonic() - began < 0.9
        for store in stores:
            store.close()
