"""pytest fixtures for users' own tests: an authority that answers by a script, and clients of it.

Installed with the package (entry point `pytest11`), so a test only names a fixture. The fixtures are described in
docs/testing.md.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest

from . import substitute

if TYPE_CHECKING:
    from .client import AscendClient, AsyncAscendClient
    from .testing import ScriptedAuthority

__all__ = ["ascend_authority", "ascend_client", "async_ascend_client"]

_FIXTURE: Final = "ascend_authority"
# What an application is made with that is imported before any test names the fixture, and finds no authority set.
_FALLBACK: Final = {
    "api_url": "test:pytest",
    "agent_id": "test-agent",
    "state": "memory:",
    "journal": "memory:",
    "kill_switch": "off",
}


class _Plugin:
    """One test run's authority. Each test that names the fixture, also by way of another one, has it to itself."""

    def __init__(self) -> None:
        self._authority: ScriptedAuthority | None = None
        self._standing: Final = ExitStack()
        self._stands = False
        self._always = False

    def authority(self) -> ScriptedAuthority:
        """Return the authority, which stands in for others from now to the end of the test."""
        if not self._stands:
            # Asked for by `getfixturevalue`: pytest tells no other time which later tests will do that.
            self._always = True
            self.begin()
        assert self._authority is not None  # noqa: S101 - made at the beginning
        return self._authority

    def begin(self) -> None:
        from .testing import ScriptedAuthority

        self._authority = self._authority or ScriptedAuthority("pytest")
        self._standing.enter_context(self._authority.standing_in())
        self._stands = True

    def end(self) -> None:
        self._stands = False
        self._standing.close()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        if self._always or _FIXTURE in getattr(item, "fixturenames", ()):
            self.begin()
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        try:
            return (yield)
        finally:
            self.end()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        # An application of the whole session may be made for a test that asks no authority.
        before, substitute.fallback = substitute.fallback, {} if fixturedef.scope == "function" else _FALLBACK
        try:
            return (yield)
        finally:
            substitute.fallback = before

    def pytest_collection_finish(self) -> None:
        substitute.fallback = {}

    def pytest_unconfigure(self) -> None:
        substitute.fallback = substitute.late = {}


_PLUGIN: Final = pytest.StashKey[_Plugin]()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Let modules be imported for whose authority nothing is set."""
    substitute.fallback = substitute.late = _FALLBACK
    plugin = early_config.stash[_PLUGIN] = _Plugin()
    early_config.pluginmanager.register(plugin, "ascend_middleware.authority")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the bypass pack."""
    group = parser.getgroup("ascend", "ascend-middleware: the bypass pack")
    group.addoption("--ascend-bypass", metavar="MODULE:NAME", help="attack this application; see docs/bypass.md")
    group.addoption("--ascend-bypass-dir", default=".", metavar="DIR", help="where the module is looked for")
    group.addoption(
        "--ascend-bypass-server",
        default="",
        metavar="COMMAND",
        help="serve with this command; {app} and {port} stand in it",
    )
    group.addoption("--ascend-bypass-report", metavar="NAME", help="write NAME.json and NAME.md")
    for name, what in (
        ("header", "NAME: VALUE, sent with every request"),
        ("path", "a path of a route where none is found"),
        ("handler", "MODULE:NAME of a function that may never run, where no router can be asked"),
    ):
        group.addoption(
            f"--ascend-bypass-{name}", action="append", default=[], metavar=name.upper(), help=f"{what}; repeatable"
        )


def pytest_configure(config: pytest.Config) -> None:
    """Add the bypass pack, where it is asked for."""
    if config.getoption("ascend_bypass"):
        from .testing.bypass.plugin import BypassPlugin

        config.pluginmanager.register(BypassPlugin(config), "ascend_middleware.bypass")


@pytest.fixture(scope="session")
def ascend_authority(pytestconfig: pytest.Config) -> ScriptedAuthority:
    """A scripted authority that stands in for every other one while a test runs that names it; anew for each test.

    What the test does not script is denied. Guards ask it wherever and whenever they were made, keep their state in
    memory, and share no approvals and no denials with other tests.
    """
    return pytestconfig.stash[_PLUGIN].authority()


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
