import os
import shutil
import tempfile

import pytest

# The tests' tiers: the default one is quick; --slow adds real servers, browsers, foreign clients and short loops; --full
# makes the loops as long as they are worth.


def pytest_configure(config):
    # Servers that outlive a test keep their state and journals at the default place: not in the home of who runs the tests.
    config.state_home = tempfile.mkdtemp(prefix="ascend-state-")
    os.environ["XDG_STATE_HOME"] = config.state_home


def pytest_unconfigure(config):
    shutil.rmtree(config.state_home, ignore_errors=True)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests of the CI tier too")
    parser.addoption("--full", action="store_true", help="with --slow: run every loop at its full length")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow") or config.getoption("--full"):
        return
    deselected = [item for item in items if "slow" in item.keywords]
    config.hook.pytest_deselected(items=deselected)
    items[:] = [item for item in items if "slow" not in item.keywords]


@pytest.fixture(scope="session")
def full(request):
    """Whether loops run at their full length."""
    return request.config.getoption("--full")


@pytest.fixture(autouse=True)
def _state_of_its_own(monkeypatch):
    """Each test's guards share nothing with others and ask no authority for commands, unless the test says so."""
    monkeypatch.setenv("ASCEND_STATE", "memory:")
    monkeypatch.setenv("ASCEND_KILL_SWITCH", "off")


@pytest.fixture
def anyio_backend():
    return "asyncio"
