"""What a request is answered that could not be decided, whatever went wrong."""

from __future__ import annotations

import logging

from .bodies import ApiError
from .store.database import StorageError, UnstorableError
from .store.patience import TooLongError

__all__ = ["as_refusal", "policies_changing"]

log = logging.getLogger(__name__)


def as_refusal(error: Exception, correlation_id: str) -> ApiError:
    """Return the answer to a request that ended with an error, which is logged where it is no fault of the request."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, TooLongError):
        log.warning("request %s read for too long and was ended", correlation_id)
        message = "reading took too long and was ended; narrow it by dates, agent or status, or follow a cursor"
        return ApiError(503, "QUERY_TOO_LONG", message, headers={"retry-after": "1"})
    if isinstance(error, UnstorableError):
        message = "a text of the request holds a character that cannot be stored: NUL, or half of a pair"
        return ApiError(422, "VALIDATION_ERROR", message)
    if isinstance(error, StorageError):
        log.error("the database failed, request %s was refused: %s", correlation_id, error)
        message = "the authority's database failed; nothing was decided"
        return ApiError(503, "STORAGE_UNAVAILABLE", message, headers={"retry-after": "1"})
    log.error("request %s failed", correlation_id, exc_info=error)
    return ApiError(500, "INTERNAL_ERROR", "the authority failed; nothing was decided")


def policies_changing() -> ApiError:
    """Return the refusal of what would have to be judged anew without end."""
    message = "the policies changed again and again while they were asked; nothing was decided, ask again"
    return ApiError(503, "POLICIES_CHANGING", message, headers={"retry-after": "1"})
