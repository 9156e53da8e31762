import pytest
from wsgi_kit import Engine, plug


@pytest.fixture
def engine(monkeypatch):
    return plug(monkeypatch, Engine())
