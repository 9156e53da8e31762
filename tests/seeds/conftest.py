import pytest
from seed_kit import Town


@pytest.fixture(scope="session", params=["approved", "denied", "pending"])
def town(request, tmp_path_factory):
    """Each snippet about a decision runs three times: policy approves, denies, holds."""
    town = Town(request.param, tmp_path_factory.mktemp("town") / "authority.db")
    yield town
    town.close()


@pytest.fixture(scope="session")
def approving(tmp_path_factory):
    town = Town("approved", tmp_path_factory.mktemp("town") / "authority.db")
    yield town
    town.close()


@pytest.fixture(scope="session")
def holding(tmp_path_factory):
    town = Town("pending", tmp_path_factory.mktemp("town") / "authority.db")
    yield town
    town.close()


@pytest.fixture
def fresh(tmp_path):
    """An authority of the test's own, for wrong keys: an address may present a few in a minute."""
    town = Town("approved", tmp_path / "authority.db")
    yield town
    town.close()


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in ("ASCEND_AGENT_ID", "ASCEND_AGENT_NAME", "ASCEND_DEBUG", "OWKAI_TIMEOUT", "OWKAI_ORG_SLUG"):
        monkeypatch.delenv(name, raising=False)
