import shutil
import subprocess

import pytest
from authority_stub import AuthorityStub
from kit.asgi import Handler
from kit.engine import KEY, Holding, plug
from kit.processes import free_port, is_open, wait_until


class Redis:
    """A real redis-server of this test session, without persistence."""

    def __init__(self, directory, *options):
        self.directory = directory
        self.options = options
        self.port = free_port()
        self.process = None
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        # fmt: off
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                   "--dir", str(self.directory), *self.options]
        # fmt: on
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: is_open(self.port), "redis-server did not start")

    def stop(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    assert shutil.which("redis-server"), "the slow tier needs redis-server: apt-get install redis-server"
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def own_redis(tmp_path):
    """A redis-server for one test, which it may stop and start."""
    assert shutil.which("redis-server"), "the slow tier needs redis-server: apt-get install redis-server"
    server = Redis(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def authority(monkeypatch):
    """An authority that holds every action."""
    return plug(monkeypatch, Holding())


@pytest.fixture
def handler():
    return Handler()


@pytest.fixture
def stub():
    """An authority on a socket, for the processes of servers; it may stop and start."""
    stub = AuthorityStub()
    yield stub
    if stub._server is not None:
        stub.stop()


@pytest.fixture
def environment(stub, tmp_path):
    return {
        "ASCEND_API_URL": stub.url,
        "ASCEND_API_KEY": KEY,
        "ASCEND_AGENT_ID": "bot",
        "ASCEND_STATE": str(tmp_path / "state.db"),
        "ASCEND_JOURNAL": str(tmp_path / "journal"),
        "RAN": str(tmp_path / "ran"),
    }
