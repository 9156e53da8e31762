"""How a scripted authority is reached: engines, and clients for which no time passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio.lowlevel

from ..client import AscendClient, AsyncAscendClient, ClientCore
from ..client.http.transport import Request, Response
from ..config import TEST_SCHEME, Settings
from ..exceptions import ConfigurationError
from ..masking import get_logger
from .answers import Scripted

__all__ = [
    "AsyncScriptedClient",
    "AsyncScriptedEngine",
    "ScriptedClient",
    "ScriptedEngine",
    "open_authorities",
    "open_engine",
]

logger = get_logger("ascend_middleware.testing")

# By name, while they are open: what `test:<name>` finds.
open_authorities: Final[dict[str, Scripted]] = {}


class ScriptedEngine:
    """Asks a scripted authority, blocking; `find` returns it, for each request anew."""

    def __init__(self, find: Callable[[], Scripted]) -> None:
        self._find: Final = find

    def send(self, request: Request, timeout: float) -> Response:
        """Return what the script answers."""
        return self._find().answer(request)

    def close(self) -> None:
        """Nothing is open."""


class AsyncScriptedEngine:
    """Asks a scripted authority on an event loop; see `ScriptedEngine`."""

    def __init__(self, find: Callable[[], Scripted]) -> None:
        self._find: Final = find

    async def send(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - what an engine is
        """Return what the script answers; others run meanwhile, as while a real authority is asked."""
        await anyio.lowlevel.checkpoint()
        return self._find().answer(request)

    async def aclose(self) -> None:
        """Nothing is open."""


def open_engine(settings: Settings, *, asynchronous: bool) -> ScriptedEngine | AsyncScriptedEngine:
    """Return the engine for `test:<name>`: it asks whichever authority of that name is open at each request.

    A request for which none of that name is open in this process raises `ConfigurationError`.

    Args:
        settings: name the authority in `api_url`.
        asynchronous: whether the engine is for event loops.
    """

    def find() -> Scripted:
        name, _, number = settings.api_url.removeprefix(f"{TEST_SCHEME}:").partition(":")
        authority = open_authorities.get(name)
        if authority is None or number not in ("", str(authority.number)):
            missing = (
                f"api_url {settings.api_url!r}: no scripted authority of that name is open now; with pytest, a test "
                "that asks for a decision names the fixture ascend_authority"
            )
            # At each request, so that each test's own log has it: a guard says the same thing once a minute.
            logger.error(missing)
            raise ConfigurationError(missing)
        return authority

    return AsyncScriptedEngine(find) if asynchronous else ScriptedEngine(find)


# --- clients for which no time passes: what they wait for is added to the authority's clock


def _options(authority: Scripted, options: Mapping[str, Any], engine: object) -> dict[str, Any]:
    given = {"agent_id": "test-agent", **options}
    if not {"api_url", "base_url", "engine", "settings"}.isdisjoint(options):
        raise ConfigurationError("a client of a scripted authority takes no api_url, engine or settings")
    return {**given, "api_url": authority.api_url, "engine": engine}


class ScriptedClient(AscendClient):
    """A client for which no time passes but the authority's."""

    def __init__(self, authority: Scripted, options: Mapping[str, Any]) -> None:
        self._authority = authority
        super().__init__(**_options(authority, options, ScriptedEngine(lambda: authority)))
        self.core = ClientCore(self.settings, clock=lambda: authority.time)

    def _sleep(self, seconds: float) -> None:
        self._authority.time += seconds

    async def _sleep_on_loop(self, seconds: float) -> None:
        self._sleep(seconds)


class AsyncScriptedClient(AsyncAscendClient):
    """A client for event loops for which no time passes but the authority's."""

    def __init__(self, authority: Scripted, options: Mapping[str, Any]) -> None:
        self._authority = authority
        super().__init__(**_options(authority, options, AsyncScriptedEngine(lambda: authority)))
        self.core = ClientCore(self.settings, clock=lambda: authority.time)

    async def _sleep(self, seconds: float) -> None:
        self._authority.time += seconds
