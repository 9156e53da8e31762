"""Keep secrets out of logs: a filter for our own loggers and for those of the HTTP libraries we start."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from .secret_names import SECRET_PATTERN, is_secret

if TYPE_CHECKING:
    from .exceptions import AscendError

__all__ = ["MaskingFilter", "get_logger", "install", "mask", "mask_error", "mask_text"]

ROOT: Final = "ascend_middleware"
MASK: Final = "****"
_MAX_DEPTH: Final = 12
# A filter sees only what is logged at its very logger, not what descendants hand up, so each has to be named.
ENGINE_LOGGERS: Final[Mapping[str, tuple[str, ...]]] = {
    "httpx2": (
        "httpx2",
        "httpcore2",
        "httpcore2.connection",
        "httpcore2.http11",
        "httpcore2.http2",
        "httpcore2.proxy",
        "httpcore2.socks",
    ),
}

_KEY: Final = re.compile(r"(?<![A-Za-z0-9])(owkai_|ask_|sk[-_])[^\s'\"<>]{4,}")
_SCHEME: Final = re.compile(r"(?i)\b(bearer|basic)(\s+|%20)[A-Za-z0-9._~+/=*-]+")
_JWT: Final = re.compile(r"(?<![A-Za-z0-9])eyJ[\w-]{4,}\.[\w-]+\.[\w-]*")
_USERINFO: Final = re.compile(r"(?<=://)[^/\s:@'\"]*:[^/\s@'\"]*(?=@)")
# First what rules most words out: neither : nor = stands behind them.
# Names may follow one another (`password: password: x`); what is hidden is what stands behind the last.
_PAIR: Final = rf"""(?ix) (?<![\w-])(?=[\w-]+\\?['"]?\s*[:=]) (?P<name>{SECRET_PATTERN})
    (?P<mid>\\?['"]?\s*[:=]\s* (?:\\?['"]?{SECRET_PATTERN}\\?['"]?\s*[:=]\s*)*)
    (?P<value> \\+(?P<quote>["']).*?\\+(?P=quote)
    | b?"(?:[^"\\]|\\.)*" | b?'(?:[^'\\]|\\.)*' | [^\s,;&'"{{}}()\[\]]+ )"""
# The long ones are compiled at their first use: that takes a tenth of what importing the client does.
_compiled: Final = cache(re.compile)


def mask_text(text: str) -> str:
    """Return the text without keys, bearer or basic credentials, JWTs, passwords in URLs, values of secret names."""
    text = _KEY.sub(rf"\g<1>{MASK}", text)
    text = _SCHEME.sub(rf"\g<1>\g<2>{MASK}", text)
    text = _JWT.sub(MASK, text)
    text = _USERINFO.sub(MASK, text)
    return _compiled(_PAIR).sub(_mask_pair, text)


def _mask_pair(match: re.Match[str]) -> str:
    value = match["value"]
    if MASK in value or value.lower() in ("bearer", "basic", "none", "null", "true", "false"):
        return match[0]
    return f"{match['name']}{match['mid']}{MASK}"


def mask(value: Any, *, _depth: int = 0) -> Any:
    """Return a copy of the value with its secrets replaced, in nested containers, bytes and exceptions too."""
    if _depth > _MAX_DEPTH:
        return MASK
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, bytes | bytearray):
        return mask_text(bytes(value).decode("latin-1")).encode("latin-1")
    if isinstance(value, Mapping):
        return {
            mask(key, _depth=_depth + 1): MASK if _is_secret(key, item) else mask(item, _depth=_depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, tuple | list | set | frozenset):
        items = [mask(item, _depth=_depth + 1) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, BaseException):
        return mask_text(f"{type(value).__name__}: {value}")
    return value


def mask_error(error: AscendError) -> None:
    """Mask an error in place: an authority may repeat what it was sent, in its message and its details."""
    error.message = mask_text(error.message)
    error.args = (error.message,)
    for name, value in vars(error).items():
        if name != "message" and value is not None:
            setattr(error, name, mask(value))


def _is_secret(key: object, value: object) -> bool:
    if isinstance(key, bytes):
        key = key.decode("latin-1")
    if not isinstance(key, str) or value in (None, "", b""):
        return False
    return _compiled(SECRET_PATTERN, re.IGNORECASE).search(key) is not None or is_secret(key)


class MaskingFilter(logging.Filter):
    """Mask a record's message, arguments, traceback and extra fields; every record passes."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the record in place."""
        try:
            _mask_record(record)
        except Exception as error:  # a record that cannot be formatted must neither leak nor break its caller
            record.msg, record.args = f"a log record could not be masked ({type(error).__name__})", ()
            record.exc_info = record.exc_text = record.stack_info = None
        return True


# What a record has by itself; the rest was given to it.
STANDARD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def _mask_record(record: logging.LogRecord) -> None:
    if record.args:
        args = mask(record.args)
        record.msg, record.args = mask_text(str(record.msg) % args), ()
    else:
        masked = mask(record.msg)
        record.msg = mask_text(str(masked)) if not isinstance(masked, str) else masked
    if record.exc_info and record.exc_info[0] is not None:
        # The text stands for the exception from here on: handlers that format by themselves would leak its message.
        record.exc_text = mask_text(record.exc_text or logging.Formatter().formatException(record.exc_info))
        record.exc_info = None
    if record.stack_info:
        record.stack_info = mask_text(record.stack_info)
    for name, value in list(vars(record).items()):
        if name not in STANDARD_FIELDS:
            setattr(record, name, MASK if _is_secret(name, value) else mask(value))


_FILTER: Final = MaskingFilter("")


def install(*engines: str) -> None:
    """Mask what our loggers log, and what the loggers of the named engines log. Configures nothing else."""
    known = tuple(logging.root.manager.loggerDict)  # at once: other threads make loggers meanwhile
    names = {name for name in known if name == ROOT or name.startswith(f"{ROOT}.")}
    names.add(ROOT)
    for engine in engines:
        names.update(ENGINE_LOGGERS.get(engine, ()))
    for name in names:
        logging.getLogger(name).addFilter(_FILTER)


def get_logger(name: str) -> logging.Logger:
    """Return the logger of this name, masked."""
    logger = logging.getLogger(name)
    logger.addFilter(_FILTER)
    return logger
