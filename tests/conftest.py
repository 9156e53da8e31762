import pytest


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests of the CI tier too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    deselected = [item for item in items if "slow" in item.keywords]
    config.hook.pytest_deselected(items=deselected)
    items[:] = [item for item in items if "slow" not in item.keywords]


@pytest.fixture
def anyio_backend():
    return "asyncio"
