import pytest
from kit.desk import POLICY, Desk


@pytest.fixture
def desk_of():
    """Make authorities of the test's own, which end with it."""
    made = []

    def make(policy=POLICY, path=":memory:", kind=Desk, **options):
        made.append(kind(policy, path, **options))
        return made[-1]

    yield make
    for desk in made:
        desk.authority.close()


@pytest.fixture
def desk(desk_of):
    desk = desk_of()
    yield desk
    assert desk.store.verify_audit() is None
