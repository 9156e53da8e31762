import time

import pytest
from kit.databases import Cluster, sqlite_files
from kit.desk import POLICY, Desk

from ascend_middleware.authority.store.sqlite_engine import SQLiteEngine
from ascend_middleware.authority.store.verification import verify

ENGINES = ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)]


@pytest.fixture(scope="session")
def cluster():
    """A PostgreSQL server of this test run's own."""
    cluster = Cluster()
    yield cluster
    cluster.stop()


@pytest.fixture
def url(cluster):
    """Where a database of PostgreSQL is that is empty of everything but the tables."""
    url = cluster.borrow()
    yield url
    cluster.give_back([url])


def _is_on_postgres(item):
    return hasattr(item, "callspec") and item.callspec.params.get("engine_kind") == "postgres"


def pytest_collection_modifyitems(config, items):
    """Leave out on PostgreSQL what is about SQLite's file, and what takes long but with --full."""
    marks = ["sqlite_file"] if config.getoption("--full") else ["sqlite_file", "full_on_postgres"]
    left_out = [item for item in items if _is_on_postgres(item) and any(map(item.get_closest_marker, marks))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(params=ENGINES)
def engine_kind(request):
    """The test runs on SQLite, and in the slow tier on PostgreSQL too."""
    return request.param


@pytest.fixture(autouse=True)
def _no_sqlite_on_postgres(request, monkeypatch):
    """A test that says it runs on PostgreSQL fails where an authority uses a file of SQLite, or a database in memory."""
    if not _is_on_postgres(request.node) or request.node.get_closest_marker("both_engines"):
        yield
        return
    opened, folder = [], request.getfixturevalue("tmp_path")

    def refuse(_self, *_, path=":memory:", shown="", **__):
        opened.append(str(shown or path))
        pytest.fail(f"this runs on PostgreSQL, and an authority opened SQLite's {opened[-1]}")

    monkeypatch.setattr(SQLiteEngine, "__init__", refuse)
    yield
    # What a thread or a process of the test opened.
    opened += [file.name for file in sqlite_files(folder)]
    assert not opened, "this runs on PostgreSQL, and an authority opened SQLite"


@pytest.fixture
def new_place(engine_kind, request, tmp_path):
    """Make places of databases that are empty of everything but the tables; they are lent for the test."""
    if engine_kind == "sqlite":
        numbers = iter(range(1000))
        yield lambda: tmp_path / f"authority-{next(numbers)}.db"
        return
    cluster, lent = request.getfixturevalue("cluster"), []

    def make():
        lent.append(cluster.borrow())
        return lent[-1]

    yield make
    cluster.give_back(lent)


@pytest.fixture
def database(new_place):
    """Where one such database is: a file's path, or a URL."""
    return new_place()


@pytest.fixture
def policy_database(engine_kind, new_place, tmp_path, monkeypatch):
    """Where commands look for the database: beside the policy file `policy.toml`, or as the environment says."""
    if engine_kind == "sqlite":
        return tmp_path / "policy.db"
    monkeypatch.setenv("ASCEND_AUTHORITY_DB", place := new_place())
    return place


@pytest.fixture
def store_of(new_place):
    """Open stores of a place, a new one unless told, which end with the test."""
    from ascend_middleware.authority import Store

    made = []

    def make(place=None, now=time.time, **options):
        made.append(Store.open(place or new_place(), now=now, **options))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def desk_of(engine_kind, new_place):
    """Make authorities of the test's own, which end with it; on PostgreSQL each has a database of its own unless told."""
    made = []

    def make(policy=POLICY, path=":memory:", kind=Desk, **options):
        place = new_place() if (engine_kind, path) == ("postgres", ":memory:") else path
        made.append(kind(policy, place, **options))
        return made[-1]

    yield make
    for desk in made:
        desk.authority.close()


@pytest.fixture
def desk(desk_of):
    desk = desk_of()
    yield desk
    assert verify(desk.store).findings == ()
