import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))  # a scripted authority, and requests as raw bytes

from wsgi_kit import Engine, plug


@pytest.fixture
def engine(monkeypatch):
    return plug(monkeypatch, Engine())
