"""Handlers watched by their code: who runs it, and whether that may be."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import threading
from dataclasses import dataclass
from types import CodeType, FrameType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final

from ...adapters.decorator import VERDICT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Handler", "Watch", "handlers_of"]

_MAX_DEPTH: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """Code that answers a route.

    Attributes:
        code: what is watched.
        owner: the class or object whose method it is, where others may have the same.
        method: for which requests it answers the route.
        route: how the route is called.
        exempt: whether it may run.
        asks: whether it may run for a request that the guard found exempt, and for no other.
    """

    code: CodeType
    owner: object
    method: str
    route: str
    exempt: bool = False
    asks: bool = False


def handlers_of(target: Any, method: str, **more: Any) -> list[Handler]:
    """Return the code that a framework runs for a method, through decorators and views made from classes.

    It is empty for what is not written in Python.
    """
    owner: object = None
    for _ in range(_MAX_DEPTH):
        cls = (
            target if isinstance(target, type) else getattr(target, "view_class", None) or getattr(target, "cls", None)
        )
        wrapped = inspect.getattr_static(target, "__wrapped__", None)
        if isinstance(cls, type):
            name = (getattr(target, "actions", None) or {}).get(method.lower(), method.lower())
            names = (name, *(("get",) if name == "head" else ()), "dispatch_request", "dispatch", "__call__")
            owner, target = cls, next((getattr(cls, one) for one in names if hasattr(cls, one)), None)
        elif isinstance(target, MethodType):
            owner, target = target.__self__, target.__func__
        elif isinstance(target, functools.partial):
            target = target.func
        elif wrapped is not None:
            target = wrapped
        elif isinstance(target, FunctionType):
            return [Handler(code=target.__code__, owner=owner, method=method, **more)]
        elif target is None or not isinstance(call := getattr(type(target), "__call__", None), FunctionType):  # noqa: B004
            break
        else:
            owner, target = target, call
    return []


class Watch:
    """Calls `ran` with the route of each handler that runs and may not."""

    def __init__(self, handlers: Iterable[Handler], ran: Callable[[str], None]) -> None:
        self._codes: dict[CodeType, list[Handler]] = {}
        for one in handlers:
            self._codes.setdefault(one.code, []).append(one)
        self._ran: Final = ran

    def sees(self, handlers: Iterable[Handler]) -> bool:
        """Whether a run of each of these can be told from what may run."""
        return all(
            not other.exempt
            or (other.owner is not one.owner and None not in (one.owner, other.owner))
            or (other.method != one.method and _knows_method(one.code))
            for one in handlers
            for other in self._codes[one.code]
        )

    def start(self) -> None:
        """Watch from now on, in this thread and in those that begin later."""
        if sys.version_info >= (3, 12):
            monitoring = sys.monitoring
            tool = next(number for number in (4, 3, 2, 5, 1, 0) if monitoring.get_tool(number) is None)
            monitoring.use_tool_id(tool, "ascend-bypass")
            started = monitoring.events.PY_START
            monitoring.register_callback(tool, started, lambda code, _: self._begun(code, sys._getframe(1)))
            for code in self._codes:
                monitoring.set_local_events(tool, code, started)
        else:
            threading.setprofile(self._profile)
            sys.setprofile(self._profile)

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code in self._codes:
            self._begun(frame.f_code, frame)

    def _begun(self, code: CodeType, frame: FrameType) -> None:
        given = [frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]]
        found = [one for one in self._codes[code] if _fits(one.owner, given)]
        method = _method_of(given)
        found = [one for one in found if one.method == method] or found
        if found and not any(one.exempt or (one.asks and _is_exempt(given)) for one in found):
            self._ran(found[0].route)


def _fits(owner: object, given: list[Any]) -> bool:
    if owner is None or not given:
        return True
    # The last is a dependant of FastAPI's.
    return (
        given[0] is owner
        or (isinstance(owner, type) and isinstance(given[0], owner))
        or any(getattr(one, "call", None) is owner for one in given)
    )


def _is_exempt(given: list[Any]) -> bool:
    verdicts = [one.get(VERDICT) for one in given if isinstance(one, dict)]
    return any(getattr(verdict, "outcome", None) == "exempt" for verdict in verdicts)


def _knows_method(code: CodeType) -> bool:
    names = code.co_varnames[: code.co_argcount]
    return "flask" in sys.modules or bool({"request", "environ", "scope"} & set(names))


def _method_of(given: list[Any]) -> str | None:
    """Return the method of the request that a handler was given, if it was."""
    flask = sys.modules.get("flask")
    if flask is not None and flask.has_request_context():
        return str(flask.request.method)
    for value in given:
        with contextlib.suppress(Exception):  # whatever a handler takes may answer so to a question
            found = value.get("REQUEST_METHOD") or value.get("method") if isinstance(value, dict) else value.method
            if isinstance(found, str):
                return found
    return None
