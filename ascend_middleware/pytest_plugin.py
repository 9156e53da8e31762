"""pytest fixtures for users' own tests: an authority that answers by a script, and clients of it.

Installed with the package (entry point `pytest11`), so a test only names a fixture. The fixtures are described in
docs/testing.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from .client import AscendClient, AsyncAscendClient
    from .testing import ScriptedAuthority

__all__ = ["ascend_authority", "ascend_client", "async_ascend_client"]


_UNSET: Final = (
    "ASCEND_API_KEY",
    "ASCEND_JOURNAL",
    "ASCEND_KILL_FILE",
    "ASCEND_KILL_QUEUE_URL",
    "OWKAI_API_KEY",
    "OWKAI_API_URL",
)


@pytest.fixture
def ascend_authority(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedAuthority]:
    """A scripted authority. `ASCEND_API_URL` names it, so clients and guards made in the test ask it and nobody else.

    What the test does not script is denied. Guards made in the test keep their state in memory, so that tests share no
    approvals and no denials, and leave no file.
    """
    from .testing import ScriptedAuthority

    with ScriptedAuthority() as authority:
        monkeypatch.setenv("ASCEND_API_URL", authority.api_url)
        monkeypatch.setenv("ASCEND_AGENT_ID", "test-agent")
        monkeypatch.setenv("ASCEND_STATE", "memory:")
        monkeypatch.setenv("ASCEND_KILL_SWITCH", "off")
        # No test sends a developer's own key anywhere, or writes into what a service of the same machine reads.
        for name in _UNSET:
            monkeypatch.delenv(name, raising=False)
        # Nothing is left behind on a developer's machine, and no test sees what another one held.
        monkeypatch.setenv("ASCEND_STATE", "memory:")
        monkeypatch.setenv("ASCEND_JOURNAL", "memory:")
        monkeypatch.setenv("ASCEND_KILL_SWITCH", "off")
        yield authority


@pytest.fixture
def ascend_client(ascend_authority: ScriptedAuthority) -> Iterator[AscendClient]:
    """An `AscendClient` of `ascend_authority`, for which waiting takes no time."""
    with ascend_authority.client() as client:
        yield client


@pytest.fixture
def async_ascend_client(ascend_authority: ScriptedAuthority) -> Iterator[AsyncAscendClient]:
    """An `AsyncAscendClient` of `ascend_authority`, for which waiting takes no time."""
    client = ascend_authority.async_client()
    yield client
    client.core.closed = True
