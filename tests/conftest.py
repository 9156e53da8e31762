import gc
import logging
import os
import re
import shutil
import socket
import sys
import tempfile

import hypothesis
import kit.examples
import pytest
from kit.engine import Engine, plug

# The tests' tiers: the default one is quick; --slow adds real servers, browsers, foreign clients and short loops; --full
# makes the loops as long as they are worth.


LOCAL = {"", "localhost", "127.0.0.1", "::1", "0.0.0.0"}
resolve = socket.getaddrinfo


def resolve_here(host, *args, **kwargs):
    """Names of other machines are unknown at once: no test asks a network, or waits for one."""
    name = host.decode() if isinstance(host, bytes) else host or ""
    if name not in LOCAL:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return resolve(host, *args, **kwargs)


# How long an example takes is a matter of the machine.
hypothesis.settings.register_profile("same", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("random", deadline=None)


def pytest_configure(config):
    # A property test tries the same values at each run, so that a failure is about the change at hand.
    hypothesis.settings.load_profile("random" if config.getoption("--random") else "same")
    kit.examples.share = 1 if any(config.getoption(name) for name in ("--slow", "--full", "--random")) else 3
    socket.getaddrinfo = resolve_here
    # Servers that outlive a test keep their state and journals at the default place: not in the home of who runs the tests.
    config.state_home = tempfile.mkdtemp(prefix="ascend-state-")
    os.environ["XDG_STATE_HOME"] = config.state_home
    if sys.dont_write_bytecode and not sys.pycache_prefix:
        # Who wants no compiled files beside the sources has a place for them all the same, as long as the tests run:
        # compiling takes most of the time in which a server or a nested test run starts.
        sys.dont_write_bytecode = False
        sys.pycache_prefix = f"{config.state_home}/bytecode"
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_unconfigure(config):
    socket.getaddrinfo = resolve
    shutil.rmtree(config.state_home, ignore_errors=True)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests of the CI tier too")
    parser.addoption("--random", action="store_true", help="let property tests draw other values at each run")
    parser.addoption("--full", action="store_true", help="with --slow: run every loop at its full length")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One more worker than there are processors, because tests wait for servers a third of their time."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests of one file stay in one process, since they share servers; the conformance table goes server by server."""
    from xdist.scheduler import LoadFileScheduling

    class ByServer(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file, _, name = nodeid.partition("::")
            case = re.search(r"\[(\w+-\w+)-", name) if file.endswith("test_conformance.py") else None
            return f"{file}::{case[1]}" if case else file

    return ByServer(config, log)


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow") or config.getoption("--full"):
        return
    deselected = [item for item in items if "slow" in item.keywords]
    config.hook.pytest_deselected(items=deselected)
    items[:] = [item for item in items if "slow" not in item.keywords]


def pytest_collection_finish():
    """What is there before the first test stays to the end: no collection of garbage has to go through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def full(request):
    """Whether loops run at their full length."""
    return request.config.getoption("--full")


@pytest.fixture(autouse=True)
def _state_of_its_own(monkeypatch):
    """Each test's guards share nothing with others and ask no authority for commands, unless the test says so."""
    monkeypatch.setenv("ASCEND_STATE", "memory:")
    monkeypatch.setenv("ASCEND_KILL_SWITCH", "off")


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    """What a program of the documents sets up in logging ends with its test."""
    loggers = [logging.getLogger(name) for name in ("", "ascend_middleware", "ascend_middleware.guard")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        for handler in [each for each in logger.handlers if each not in handlers]:
            logger.removeHandler(handler)
            if isinstance(handler, logging.FileHandler):
                handler.close()


@pytest.fixture
def engine(monkeypatch):
    """The authority of every adapter that is made in this test."""
    return plug(monkeypatch, Engine())


@pytest.fixture
def ran():
    """What handlers of this test note down when they run."""
    return []


@pytest.fixture
def anyio_backend():
    return "asyncio"
