"""Receive kill-switch commands, over HTTP or from an SQS queue, and keep them in the state that all workers share."""

from __future__ import annotations

import bisect
import functools
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from ..api import endpoints
from ..api.commands import MalformedCommand, Target, UnknownCommand, parse_command
from ..api.orders import EVERYBODY, Order, orders_of
from ..client.background import FailureCount, Schedule
from ..exceptions import AscendError, ConfigurationError, NetworkError, NotFoundError, ServerError
from ..flow import Blocking, drive
from ..masking import get_logger
from ..state.base import StateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..api.commands import Command
    from ..api.endpoint import Operation
    from ..client.core import ClientCore
    from ..config import Settings
    from ..flow import Flow
    from ..state.base import State
    from .switch import KillSwitch

__all__ = ["CommandHandler", "CommandPoller", "LeasedPoller", "QueueConsumer"]

logger = get_logger("ascend_middleware.kill")

_CALL_SECONDS: Final = 5.0
_SEEN_SECONDS: Final = 86_400.0
# Of the other agents, so many are asked about in a round, each for so long at most.
_PER_TURN: Final = 10
_ONE_SECONDS: Final = 1.0
# How long an endpoint that the authority does not have is left alone.
_ABSENT_SECONDS: Final = 600.0
_MOST_HEARD: Final = 10_000
# Beside a queue that works, so many times less often is the authority asked over HTTP.
_BESIDE_A_QUEUE: Final = 12
# Of the queue: how long one call waits for messages, and how many it takes.
_WAIT_SECONDS: Final = 2
_BATCH: Final = 10

T = TypeVar("T")


class CommandHandler:
    """Read messages, and apply the commands for this organisation's agents."""

    def __init__(self, state: State, *, organization_id: str, now: Callable[[], float] = time.time) -> None:
        self._state = state
        self._organization = organization_id
        self._now = now
        self._said: set[str] = set()

    def read(self, message: Any) -> Command | None:
        """Return a message's command; None, told in the log, for one that is not obeyed."""
        try:
            command = parse_command(message, received_at=self._now())
        except (UnknownCommand, MalformedCommand) as error:
            what = "kill-switch" if isinstance(error, UnknownCommand) else "malformed kill-switch"
            self.log_once(f"a {what} message is left alone: {error}")
            return None
        if self._organization and command.organization_id not in (None, self._organization):
            self.log_once(f"a command of organisation {str(command.organization_id)[:40]!r} is ignored")
            return None
        return command

    def apply(self, command: Command) -> None:
        """Keep a command; raises `StateError`."""
        orders = orders_of(command)
        if orders and self._state.apply(orders, command_id=command.command_id, now=self._now()):
            whom = "every agent" if command.agent_id is None else f"agent {command.agent_id!r}"
            logger.warning("kill-switch command %s: %s %s", command.command_id or "without id", command.kind, whom)

    def log_once(self, text: str) -> None:
        """Log an error once: a queue delivers the same message again and again."""
        if text not in self._said:
            if len(self._said) > 1000:
                self._said.clear()
            self._said.add(text)
            logger.error("%s", text)


class CommandPoller:
    """Ask the authority for pending commands, apply and acknowledge them; ask for the kill switch's status."""

    def __init__(
        self,
        core: ClientCore,
        state: State,
        kill: KillSwitch,
        settings: Settings,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._core = core
        self._state = state
        self._kill = kill
        self._agent_id = settings.agent_id
        self._now = now
        self.handler: Final = CommandHandler(state, organization_id=settings.organization_id, now=now)
        self._absent: dict[str, float] = {}
        self._last = ""
        self._max_staleness = settings.max_staleness
        # A queue brings the commands of all agents at once.
        self._by_agent = bool(settings.max_staleness) and settings.kill_switch != "sqs"
        # When this process last heard of each of the other agents.
        self._heard: dict[str, float] = {}

    def poll(self, *, deadline: float | None = None) -> Flow[None]:
        """Do one round: the organisation and the service's own agent, which confirm the kill state, then some others.

        If one of the others cannot be asked about, or its answer cannot be read, the rest are asked about all the same.
        """
        until = self._core.clock() + _CALL_SECONDS if deadline is None else deadline
        failure: AscendError | None = None
        heard = False
        for part in (self._status(until), self._commands(self._agent_id, until)):
            try:
                heard |= yield from part
            except StateError:
                raise
            except AscendError as error:
                failure = failure or error
        if heard and failure is None:
            yield Blocking(self.confirm)
        elif heard:
            self._kill.expire()
        for agent_id in (yield Blocking(self._others)):
            now = self._core.clock()
            if now >= until:
                break
            self._last = agent_id
            try:
                yield from self._commands(agent_id, min(until, now + _ONE_SECONDS))
            except StateError:
                raise
            except AscendError as error:
                self.handler.log_once(f"the commands of agent {agent_id[:80]!r} cannot be received: {error}")
        if failure is not None:
            raise failure

    def is_silent_about(self, agent_id: str) -> bool:
        """Whether the commands of one of the other agents were asked for longer ago than `max_staleness`, or never."""
        if not self._by_agent or agent_id == self._agent_id:
            return False
        return not 0 <= self._now() - self._heard.get(agent_id, -1e9) <= self._max_staleness

    def ask_for(self, agent_id: str, *, deadline: float) -> Flow[None]:
        """Ask for the commands of one agent now."""
        yield from self._commands(agent_id, deadline)
        self._kill.expire()

    def _others(self) -> list[str]:
        """Return the next few of the other agents that acted within a day, by name."""
        names = sorted(name for name in self._state.agents(since=self._now() - _SEEN_SECONDS) if name != self._agent_id)
        start = bisect.bisect_right(names, self._last)
        return (names[start:] + names[:start])[:_PER_TURN]

    def confirm(self) -> None:
        """Keep that the authority's word on the kill state is known as of now."""
        self._state.confirm(now=self._now())
        self._kill.expire()

    def _commands(self, agent_id: str, deadline: float) -> Flow[bool]:
        asked_at = self._now()
        asks = self._core.clock() >= self._absent.get(f"commands {agent_id}", 0.0)
        operation = endpoints.PENDING_COMMANDS.call(agent_id=agent_id)
        rows = yield from self._ask(f"commands {agent_id}", operation, deadline)
        for row in rows or ():
            command = self.handler.read(_addressed(row, agent_id))
            if command is None or command.target is Target.MCP_SERVER:
                continue
            yield Blocking(self.handler.apply, (command,))
            if command.command_id:
                ack = endpoints.ACK_COMMAND.call(agent_id=agent_id, command_id=command.command_id)
                try:
                    yield from self._core.call(ack, deadline=deadline, breaker=self._core.unbroken)
                except AscendError as error:  # it is obeyed, and comes again
                    self.handler.log_once(f"command {command.command_id[:80]!r} cannot be acknowledged: {error}")
        if self._by_agent and asks:
            if len(self._heard) >= _MOST_HEARD:
                self._heard.clear()
            self._heard[agent_id] = asked_at
        return rows is not None

    def _status(self, deadline: float) -> Flow[bool]:
        """Ask whether the whole organisation is blocked; an answer that does not clearly say no lifts nothing."""
        status = yield from self._ask("status", endpoints.KILL_SWITCH_STATUS.call(), deadline)
        if status is None:
            return False
        self._core.note_policies(status)
        # Without requests, nobody has read the state since the last round.
        yield Blocking(self._kill.refresh)
        blocked = status.blocked
        old = self._kill.snapshot.orders.get((EVERYBODY, "status"))
        if blocked == (old is not None and not old.lifts):
            return True
        # The authority's present answer is newer than its last one, even where the clock was set back.
        issued_at = self._now() if old is None else max(self._now(), old.issued_at + 0.001)
        kind, reason = "BLOCK" if blocked else "UNBLOCK", "the authority's kill switch"
        order = Order(target=EVERYBODY, slot="status", kind=kind, issued_at=issued_at, reason=reason)
        yield Blocking(functools.partial(self._state.apply, [order], command_id="", now=self._now()))
        logger.warning("the authority's kill switch is %s", "thrown" if blocked else "released")
        return True

    def _ask(self, name: str, operation: Operation[Any], deadline: float) -> Flow[Any]:
        """Make a call; None where, for the moment, there is no such endpoint."""
        if self._core.clock() < self._absent.get(name, 0.0):
            return None
        try:
            return (yield from self._core.call(operation, deadline=deadline, breaker=self._core.unbroken))
        except (NotFoundError, ServerError) as error:
            if error.status_code not in (404, 501):
                raise
            if name not in self._absent:
                logger.info("the authority has no kill-switch %s: HTTP %d", name, error.status_code)
            if len(self._absent) >= _MOST_HEARD:
                self._absent.clear()
            pause = min(_ABSENT_SECONDS, self._max_staleness or _ABSENT_SECONDS)
            self._absent[name] = self._core.clock() + pause
            return None


def _addressed(row: Any, agent_id: str) -> Any:
    """Add the agent to a row of its list that does not name one."""
    if not isinstance(row, dict) or row.get("agent_id") is not None or row.get("is_broadcast") is True:
        return row
    if row.get("target_type") not in (None, "agent") or "agent_id" in row:
        return row
    return {**row, "agent_id": agent_id}


class QueueConsumer:
    """Take commands from one queue. Credentials, region and endpoint are left to boto3.

    Applied ones are deleted; what is foreign, unknown, malformed or for an MCP server is left to the queue's own
    redrive policy, so that nothing which might be evidence disappears.
    """

    def __init__(self, url: str, handler: CommandHandler, *, confirm: Callable[[], None]) -> None:
        try:
            import boto3  # noqa: F401 - a missing extra is told now
        except ImportError:
            raise ConfigurationError("kill_switch = sqs needs the extra ascend-middleware[sqs]") from None
        self._url = url
        self._handler = handler
        self._confirm = confirm
        self._client: Any = None

    def __call__(self) -> float:
        """Take what is there, waiting up to two seconds for it; return the seconds until the next time."""
        import botocore.exceptions

        try:
            if self._client is None:
                self._client = _connect(self._url)
            answer = self._client.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=_BATCH, WaitTimeSeconds=_WAIT_SECONDS
            )
            for message in answer.get("Messages", []):
                command = self._handler.read(message)
                if command is None or command.target is Target.MCP_SERVER:
                    continue
                self._handler.apply(command)
                self._client.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            raise NetworkError(f"the queue cannot be used: {type(error).__name__}: {error}"[:300]) from None
        self._confirm()
        return 0.0


def _connect(url: str) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=3, read_timeout=_WAIT_SECONDS + 3, retries={"max_attempts": 1})
    return boto3.session.Session().client("sqs", region_name=_region(url), config=config)


def _region(url: str) -> str | None:
    """Return the region that an AWS queue's URL names; None leaves it to boto3."""
    parts = (urlsplit(url).hostname or "").split(".")
    return parts[1] if len(parts) >= 4 and parts[0] == "sqs" and "amazonaws" in parts else None


class LeasedPoller:
    """Poll while this process has the lease: one of the processes that share the state polls for all of them.

    With a queue, which it polls all the time, it asks over HTTP twelve times less often than each `interval` seconds.
    """

    def __init__(
        self,
        poller: CommandPoller,
        *,
        state: State,
        owner: Callable[[], str],
        interval: float,
        queue: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._poller = poller
        self._state = state
        self._owner = owner
        self._interval = interval
        self._queue = queue
        self._now = now
        self._http = Schedule(interval, clock)
        # Counted apart: when one way works, failures of the other are still told only at first and after a while.
        self._failures = {"queue": FailureCount(again=11), "http": FailureCount(again=11)}

    def __call__(self, perform: Callable[[Any], Any]) -> float:
        """Do what is due; return the seconds until the next time."""
        held = self._state.lease("receive", owner=self._owner(), seconds=3 * self._interval, now=self._now())
        if not held:
            return self._interval
        pause = None if self._queue is None else self._try("queue", self._queue)
        if not self._http.left(times=1 if pause is None else _BESIDE_A_QUEUE):
            self._http.start()
            self._try("http", lambda: drive(self._poller.poll(), perform))
        return self._interval if pause is None else pause

    def _try(self, way: str, ask: Callable[[], T]) -> T | None:
        try:
            answer = ask()
        except AscendError as error:
            if self._failures[way].failed():
                logger.warning("kill-switch commands cannot be received: %s", error)
            return None
        self._failures[way].succeeded()
        return answer
