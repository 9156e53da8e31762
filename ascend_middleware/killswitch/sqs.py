"""Receive kill-switch commands from an SQS queue; boto3 is used in the background worker only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ..api.commands import Target
from ..exceptions import ConfigurationError, NetworkError
from ..masking import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from .poller import CommandHandler

__all__ = ["QueueConsumer"]

logger = get_logger("ascend_middleware.kill")

_WAIT_SECONDS: Final = 2
_BATCH: Final = 10


class QueueConsumer:
    """Take commands from one queue.

    Applied ones are deleted; what is foreign, unknown, malformed or for an MCP server is left to the queue's own
    redrive policy, so that nothing which might be evidence disappears.

    Args:
        url: the queue's URL. Credentials, region and endpoint are left to boto3.
        handler: reads and applies messages.
        confirm: called after each answer of the queue.

    Raises:
        ConfigurationError: the extra is missing.
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
        """Take what is there, waiting up to two seconds for it; return the seconds until the next time.

        Raises:
            NetworkError: the queue could not be used.
        """
        import botocore.exceptions

        try:
            messages = self._receive()
            for message in messages:
                command = self._handler.read(message)
                if command is None or command.target is Target.MCP_SERVER:
                    continue
                self._handler.apply(command)
                self._client.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            raise NetworkError(f"the queue cannot be used: {type(error).__name__}: {error}"[:300]) from None
        self._confirm()
        return 0.0

    def _receive(self) -> list[Any]:
        if self._client is None:
            self._client = self._connect()
        answer = self._client.receive_message(
            QueueUrl=self._url, MaxNumberOfMessages=_BATCH, WaitTimeSeconds=_WAIT_SECONDS
        )
        messages: list[Any] = answer.get("Messages", [])
        return messages

    def _connect(self) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(connect_timeout=3, read_timeout=_WAIT_SECONDS + 3, retries={"max_attempts": 1})
        return boto3.session.Session().client("sqs", region_name=_region(self._url), config=config)


def _region(url: str) -> str | None:
    """Return the region that an AWS queue's URL names; None leaves it to boto3."""
    parts = (urlsplit(url).hostname or "").split(".")
    return parts[1] if len(parts) >= 4 and parts[0] == "sqs" and "amazonaws" in parts else None
