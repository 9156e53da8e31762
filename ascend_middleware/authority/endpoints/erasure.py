"""Erasing personal data over HTTP: of one action, or of all actions of somebody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ascend_middleware.api import endpoints
from ascend_middleware.api.bodies import Erasure, ErasureOfMany
from ascend_middleware.exceptions import AscendError, ConflictError, NotFoundError

from ..bodies import ApiError
from ..context import Call, Fields, action_number, answers
from ..judging import Apart, Task
from ..store.archive_erasure import Eraser, matches
from ..store.erasure import ArchivedError, erase

__all__: list[str] = []


@dataclass(frozen=True, slots=True)
class _Done:
    """What came of an erasure that was made outside of the transaction."""

    found: Any = None
    error: Exception | None = None


def _told(call: Call) -> dict[str, Any]:
    door: Fields = {"via": "command line"} if call.credential.is_operator else {"key": call.credential.key_id}
    more = {**door, "correlation_id": call.request.correlation_id}
    return {"reason": call.body(Erasure).reason, "by": call.credential, "more": more}


def _check_hold(call: Call, number: int | None = None) -> None:
    """Refuse to erase anything of an organisation under a legal hold; the audit log tells that somebody asked."""
    if call.tenant not in call.authority.policy.retention.legal_hold:
        return
    data: Fields = {"code": "LEGAL_HOLD", "reason": call.body(Erasure).reason}
    if number is not None:
        data["action"] = str(number)
    call.audit("ERASURE_REFUSED", **data)
    raise ApiError(
        409,
        "LEGAL_HOLD",
        f"the organisation {call.tenant!r} is under a legal hold: nothing of it is erased while legal_hold in "
        "[retention] of the policy file names it",
    )


def _apart(call: Call, work: Callable[[Eraser], object]) -> Any:
    """Return what an eraser gives, which reads and writes archives: not while others wait for the writer."""
    if isinstance(call.done, _Done):
        if call.done.error is not None:
            raise call.done.error
        return call.done.found
    eraser = Eraser(call.store, call.authority.policy.retention.archive_to, **_told(call))

    def done() -> _Done:
        try:
            return _Done(work(eraser))
        except Exception as error:
            return _Done(error=error)

    raise Apart(Task(call.tenant, work=done))


@answers(endpoints.ERASE_ACTION)
def _erase(call: Call) -> Fields:
    number = action_number(call.parameters["id"]) or 0
    _check_hold(call, number)
    try:
        try:
            erased = erase(call.store, number, **_told(call))
        except ArchivedError:
            if call.authority.policy.retention.archive_to is None:
                raise
            erased = _apart(call, lambda eraser: eraser.erase(number))
    except NotFoundError:
        raise ApiError(404, "NOT_FOUND", "there is no such action") from None
    except (ConflictError, AscendError) as error:
        raise _not_erasable(error) from None
    return {"success": True, "action_id": str(number), "erased": erased}


@answers(endpoints.ERASE_ACTIONS)
def _erase_many(call: Call) -> Fields:
    _check_hold(call)
    wanted = matches(call.body(ErasureOfMany).match)
    try:
        found = _apart(call, lambda eraser: eraser.erase_all(wanted))
    except (ConflictError, AscendError) as error:
        raise _not_erasable(error) from None
    return {
        "success": not (found.waiting or found.refused),
        "erased": [str(number) for number in found.erased],
        "waiting": [str(number) for number in found.waiting],
        "refused": {str(number): words for number, words in found.refused.items()},
    }


def _not_erasable(error: AscendError) -> ApiError:
    return ApiError(409, "NOT_ERASABLE", error.message)
