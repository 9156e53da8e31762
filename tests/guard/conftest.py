import shutil
import socket
import subprocess
import time

import pytest


class Redis:
    """A real redis-server of this test session, without persistence."""

    def __init__(self, directory, *options):
        self.directory = directory
        self.options = options
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
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
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < until, "redis-server did not start"
                time.sleep(0.02)

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
