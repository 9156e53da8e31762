"""Read a request's body whole, or say why not; and what a rule may read of the request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..flow import BodyConsumed, BodyTimeout, BodyTooLarge, ReadBody
from ..masking import get_logger
from ..rules import RequestFields
from ..verdict import Refusal
from .body import parse_form, parse_json

if TYPE_CHECKING:
    from ..flow import Flow
    from ..rules import CompiledRule
    from .request import RequestView

__all__ = ["Unreadable", "body_of", "declared_length", "fields_of", "read_whole"]

logger = get_logger("ascend_middleware.guard")


class Unreadable(Exception):  # noqa: N818 - what happened, not an error of ours
    """A body that a rule has to read cannot be had.

    Attributes:
        refusal: what to answer.
        firm: whether that holds in observe mode too: the request is not whole.
    """

    def __init__(self, problem: str, detail: str, *, firm: bool = False) -> None:
        super().__init__(detail)
        self.refusal = Refusal(problem=problem, detail=detail)
        self.firm = firm


def declared_length(view: RequestView) -> int | None:
    """Return what the one content-length says; servers refuse the ill-formed, and the body's own size counts anyway."""
    texts = set(view.header("content-length"))
    text = texts.pop() if len(texts) == 1 else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def read_whole(view: RequestView, limit: int, seconds: float) -> Flow[bytes]:
    """Return the whole body.

    Raises:
        BodyTooLarge: it holds more than `limit` bytes, or says so.
        BodyTimeout: it did not arrive within `seconds`.
        ClientGone: the client left.
        ValueError: it is not as long as it says.
    """
    declared = declared_length(view)
    if declared is not None and declared > limit:
        raise BodyTooLarge
    content: bytes = yield ReadBody(limit, seconds)
    if declared is not None and declared != len(content):
        raise ValueError("The body is not as long as its content-length says.")
    return content


def body_of(view: RequestView, rule: CompiledRule) -> Flow[bytes | None]:
    """Return the body that the rule reads, whole; None when it reads none.

    Raises:
        Unreadable: there is none that can be judged.
        ClientGone: the client left.
    """
    if rule.body is None:
        return None
    try:
        return (yield from read_whole(view, rule.body_limit, rule.body_timeout))
    except BodyTooLarge:
        detail = f"A governed body holds at most {rule.body_limit} bytes."
        raise Unreadable("body-too-large", detail) from None
    except BodyTimeout:
        detail = f"The body did not arrive within {rule.body_timeout:g} seconds."
        raise Unreadable("body-timeout", detail, firm=True) from None
    except BodyConsumed as error:
        logger.error("%s reads the body, but something before the guard has used it up", rule.label)
        raise Unreadable("bad-request", str(error)) from None
    except ValueError as error:
        raise Unreadable("bad-request", str(error), firm=True) from None


def fields_of(view: RequestView, rule: CompiledRule, content: bytes | None) -> RequestFields:
    """Return what the rule may read of the request; a body that no rule reads is None.

    Raises:
        ValueError: the body cannot be read in one way only.
    """
    resolved = view.resolved
    params = resolved.params if resolved is not None else rule.path_params(view.path)
    template = resolved.leaf.template if resolved is not None and resolved.leaf is not None else view.path
    values: dict[str, Any] = {}
    recipe = rule.recipe
    if recipe.body == "json":
        values["body"] = parse_json(view, content or b"")
    elif recipe.body == "form":
        values["form"] = parse_form(view, content or b"")
    return RequestFields(
        method=view.verb,
        template=template,
        path_params=params,
        # What nobody reads may be written as it likes.
        query=view.query_pairs if view.query and recipe.reads_query else (),
        headers=view.headers if recipe.reads_headers else (),
        **values,
    )
