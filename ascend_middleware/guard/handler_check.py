"""At a handler: does the verdict under which a request came here stand under the rule that the handler declares?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..exceptions import ConfigurationError
from ..masking import get_logger
from ..verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..rules import Declaration

__all__ = ["standing"]

logger = get_logger("ascend_middleware.guard")


def standing(verdict: object, declared: Sequence[Declaration]) -> Verdict:
    """Return the verdict if the handler may run on it; nothing is decided here, and never twice.

    Args:
        verdict: what the adapter's middleware left with the request, if it did.
        declared: every rule that stands at the handler; one of them has to be the one that was decided under.

    Raises:
        ConfigurationError: nobody decided, or it was decided under another rule. The handler must not run.
    """
    places = ", ".join(dict.fromkeys(one.label for one in declared))
    if not isinstance(verdict, Verdict):
        why = "nobody decided about this request: the ASCEND middleware is missing, or stands behind the handler"
    elif not verdict.passes:
        why = f"the request was refused ({verdict.outcome})"
    elif verdict.outcome == "disabled" or (verdict.outcome == "observed" and verdict.rule is None):
        return verdict  # switched off, or only observing: the guard has said so
    elif verdict.rule is not None and any(one.same_outcome(verdict.rule) for one in declared):
        return verdict
    else:
        under = verdict.rule.label if verdict.rule is not None else f"no rule ({verdict.outcome})"
        why = (
            f"it was decided under {under}: the middleware cannot see this handler, "
            "because an application that it cannot look into stands between"
        )
    logger.error("the handler under %s was not run: %s", places, why)
    raise ConfigurationError(f"the handler under {places} was not run: {why}")
