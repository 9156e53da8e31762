"""One governed tool: it asks before a run and reports after it, around each kind of function.

A wrapper is of the same kind as its tool, so that a server sees what it saw before.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from ..client import AscendClient, AsyncAscendClient
from ..client.base import action_from_fields
from ..client.drivers import run_on_loop
from ..exceptions import AuthorizationDeniedError, ConfigurationError
from ..exceptions import TimeoutError as DecisionTimeoutError
from ..flow import running_loop
from ..masking import get_logger
from .arguments import Binder
from .governance import DeniedResult, MCPGovernanceConfig, Question, conclude, decide

if TYPE_CHECKING:
    from ..api.models import AuthorizationDecision
    from ..flow import Flow

__all__ = ["GovernedTool", "tool_name", "wrapped"]

T = TypeVar("T")
logger = get_logger("ascend_middleware.mcp")
_CODES: Final = frozenset({"MCP_ACTION_DENIED", "APPROVAL_TIMEOUT", "APPROVAL_REQUIRED", "HUMAN_APPROVAL_MISSING"})


class _Ending:
    """Whether a run goes on after its call has returned, as that of a function that returns an awaitable does."""

    is_open = False


class GovernedTool:
    """What the four kinds of wrappers share: asking and telling, with and without an event loop."""

    def __init__(
        self,
        function: Callable[..., Any],
        client: AscendClient | AsyncAscendClient,
        config: MCPGovernanceConfig,
        *,
        fields: Mapping[str, Any],
        needs_person: bool,
    ) -> None:
        if not callable(function):
            raise ConfigurationError("a tool must be callable")
        self.client: Final = client
        self.config: Final = config
        self._name: Final = tool_name(function)
        self._needs_person: Final = needs_person
        self._binder: Final = Binder(
            function,
            redact_names=config.redact,
            represent=config.represent,
            by_reference=config.by_reference,
            limit=config.max_argument_bytes,
        )
        context = dict(fields["context"])
        if config.include_caller_info:
            context["caller"] = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', self._name)}"
        described = (inspect.getdoc(function) or "").strip().partition("\n")[0][:500]
        self._fields: Final = {
            **fields,
            "context": context,
            "tool_name": self._name if config.include_tool_name else None,
            "description": described or None,
            "mcp_server_name": config.mcp_server,
        }
        self._warned = False

    def question(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Question:
        """Bind one call's arguments and put them into a question."""
        arguments = self._binder.bind(args, kwargs)
        details = arguments.shown if self.config.include_arguments else None
        settings = self.client.settings
        action = action_from_fields(
            {**self._fields, "action_details": details}, agent_id=settings.agent_id, agent_name=settings.agent_name
        )
        return Question(action=action, tool=self._name, arguments=arguments, needs_person=self._needs_person)

    def run(self, flow: Flow[T]) -> T:
        """Run a flow in this thread."""
        if not self._warned and _on_event_loop():
            self._warned = True
            logger.warning(
                "tool %s is a plain function called on an event loop, which waits for the decision with it: "
                "make it async, or run it in a thread",
                self._name,
            )
        assert isinstance(self.client, AscendClient)  # noqa: S101 - checked when the tool was declared
        return self.client.run(flow)

    async def run_async(self, flow: Flow[T]) -> T:
        """Run a flow on the event loop; a blocking client sends in worker threads."""
        if isinstance(self.client, AsyncAscendClient):
            return await self.client.run(flow)
        return await run_on_loop(self.client, flow)

    def decision(self, question: Question) -> Flow[AuthorizationDecision | DeniedResult]:
        """Decide; a denial is raised or returned, as the configuration says."""
        try:
            return (yield from decide(self.client, question, self.config))
        except (AuthorizationDeniedError, DecisionTimeoutError) as error:
            if self.config.raise_on_denial or error.code not in _CODES:
                raise
            status = str(error.details.get("status", ""))
            return DeniedResult(
                code=str(error.code), reason=error.message, action_id=error.action_id or "", status=status
            )

    @contextlib.contextmanager
    def outcome(self, decision: AuthorizationDecision) -> Generator[_Ending]:
        """Report what becomes of the run inside."""
        started, raised, ending = self.client.core.clock(), None, _Ending()
        try:
            yield ending
        except BaseException as error:
            raised = type(error).__name__
            raise
        finally:
            if not ending.is_open:
                self.run(self._told(decision, raised, started))

    @contextlib.asynccontextmanager
    async def outcome_async(self, decision: AuthorizationDecision) -> AsyncGenerator[None]:
        """Report what becomes of the run inside."""
        started, raised = self.client.core.clock(), None
        try:
            yield
        except BaseException as error:
            raised = type(error).__name__
            raise
        finally:
            # Also when the tool was cancelled: what has happened is to be told.
            with anyio.CancelScope(shield=True):
                await self.run_async(self._told(decision, raised, started))

    def _told(self, decision: AuthorizationDecision, raised: str | None, started: float) -> Flow[None]:
        core = self.client.core
        return conclude(core, decision, raised, core.clock() - started, self.config.outcome_seconds)


def wrapped(function: Callable[..., Any], tool: GovernedTool) -> Callable[..., Any]:
    """Return a function of the same kind as the tool."""
    plain = function
    while isinstance(plain, functools.partial):
        plain = plain.func
    if not inspect.isroutine(plain) and not inspect.isclass(plain):
        plain = type(plain).__call__
    if inspect.isasyncgenfunction(plain):
        return functools.wraps(function)(_async_generator(function, tool))
    if inspect.iscoroutinefunction(plain):
        return functools.wraps(function)(_coroutine(function, tool))
    if not isinstance(tool.client, AscendClient):
        raise ConfigurationError(
            f"{tool_name(function)} is a plain function, for which an AsyncAscendClient cannot ask: "
            "make it async, or give an AscendClient"
        )
    if inspect.isgeneratorfunction(plain):
        return functools.wraps(function)(_generator(function, tool))
    return functools.wraps(function)(_plain(function, tool))


def _plain(function: Callable[..., Any], tool: GovernedTool) -> Callable[..., Any]:
    def governed(*args: Any, **kwargs: Any) -> Any:
        question = tool.question(args, kwargs)
        decision = tool.run(tool.decision(question))
        if isinstance(decision, DeniedResult):
            return decision
        with tool.outcome(decision) as ending:
            result = function(*question.arguments.args, **question.arguments.kwargs)
            ending.is_open = inspect.isawaitable(result)
        return _awaited(result, decision, tool) if ending.is_open else result

    return governed


async def _awaited(result: Any, decision: AuthorizationDecision, tool: GovernedTool) -> Any:
    async with tool.outcome_async(decision):
        return await result


def _coroutine(function: Callable[..., Any], tool: GovernedTool) -> Callable[..., Any]:
    async def governed(*args: Any, **kwargs: Any) -> Any:
        question = tool.question(args, kwargs)
        decision = await tool.run_async(tool.decision(question))
        if isinstance(decision, DeniedResult):
            return decision
        async with tool.outcome_async(decision):
            return await function(*question.arguments.args, **question.arguments.kwargs)

    return governed


def _generator(function: Callable[..., Any], tool: GovernedTool) -> Callable[..., Any]:
    def governed(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        question = tool.question(args, kwargs)
        decision = tool.run(tool.decision(question))
        if isinstance(decision, DeniedResult):
            return decision
        with tool.outcome(decision):
            return (yield from function(*question.arguments.args, **question.arguments.kwargs))

    return governed


def _async_generator(function: Callable[..., Any], tool: GovernedTool) -> Callable[..., Any]:
    async def governed(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        question = tool.question(args, kwargs)
        decision = await tool.run_async(tool.decision(question))
        if isinstance(decision, DeniedResult):
            yield decision  # it has no other way to return one
            return
        async with tool.outcome_async(decision):
            inner = function(*question.arguments.args, **question.arguments.kwargs)
            try:
                step = inner.asend(None)
                while True:
                    try:
                        item = await step
                    except StopAsyncIteration:
                        return
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        step = inner.athrow(error)
                    else:
                        step = inner.asend(sent)
            finally:
                await inner.aclose()

    return governed


def tool_name(function: Callable[..., Any]) -> str:
    """Return the name of the function, or of the class, that a tool is."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def _on_event_loop() -> bool:
    try:
        running_loop()
    except RuntimeError:
        return False
    return True
