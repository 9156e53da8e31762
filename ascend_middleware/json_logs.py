"""Our logs as JSON, one object to a line, for those who collect logs by machine."""

from __future__ import annotations

import datetime
import json
import logging
import sys
import threading
from typing import Any, Final, TextIO

from .masking import ROOT, STANDARD_FIELDS, install

__all__ = ["JSONFormatter", "log_as_json"]

_NOT_TOLD: Final = STANDARD_FIELDS | {"taskName", "color_message"}
_installing: Final = threading.Lock()


class JSONFormatter(logging.Formatter):
    """Formats a record as one line of JSON.

    `time` is in UTC (ISO 8601), `level` and `logger` are the record's, `message` is its text; what else was given to
    the record stands under its own name, an error under `exception`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        found: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        found |= {name: value for name, value in vars(record).items() if name not in _NOT_TOLD and value is not None}
        if record.exc_info or record.exc_text:
            found["exception"] = record.exc_text or self.formatException(record.exc_info)  # type: ignore[arg-type]
        return json.dumps(found, default=str)


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, by which it is known that it is there already; writes to what stderr is at the time."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(JSONFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def log_as_json() -> None:
    """Write what our loggers say to stderr as JSON, from INFO on unless a level was set; others are not touched."""
    logger = logging.getLogger(ROOT)
    with _installing:
        if not any(isinstance(one, _Handler) for one in logger.handlers):
            install()
            logger.addHandler(_Handler())
            logger.propagate = False  # else every line would come a second time, as text
            if logger.level == logging.NOTSET:
                logger.setLevel(logging.INFO)
