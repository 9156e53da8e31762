import time

import pytest
from kit.databases import Cluster
from kit.desk import POLICY, Desk

from ascend_middleware.authority.store.verification import verify
from ascend_middleware.text import is_postgres

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


def pytest_collection_modifyitems(config, items):
    """Leave out on PostgreSQL what is about SQLite's file."""
    left_out = [
        item
        for item in items
        if item.get_closest_marker("sqlite_file")
        and getattr(item, "callspec", None)
        and item.callspec.params.get("engine_kind") == "postgres"
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(params=ENGINES)
def engine_kind(request):
    """The test runs on SQLite, and in the slow tier on PostgreSQL too."""
    return request.param


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
    """Make authorities of the test's own, which end with it."""
    made = []

    def make(policy=POLICY, path=":memory:", kind=Desk, **options):
        place = path
        if engine_kind == "postgres" and not is_postgres(str(path)):
            place = new_place() if path == ":memory:" else path
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
