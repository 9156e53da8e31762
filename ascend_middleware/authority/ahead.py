"""What requests that share one commit will each ask the database for, asked for all of them at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .context import IDEMPOTENCY_KEY, versionless
from .keys import presented
from .store.store import Store

__all__ = ["Coming", "look_ahead"]


class Coming(NamedTuple):
    """What is known of a request before it is answered."""

    path: str
    headers: Mapping[str, str]


def look_ahead(store: Store, coming: Iterable[Coming]) -> None:
    """Read which of the requests came before, by their idempotency keys; only within a group, and for that group.

    It decides nothing: each request is looked at by itself all the same, and finds there what it would have asked for.
    """
    named = [
        (key, versionless(path), name)
        for path, headers in coming
        if IDEMPOTENCY_KEY.fullmatch(name := headers.get("idempotency-key", "")) and (key := presented(headers)[0])
    ]
    if len(named) < 2:
        return
    worth = [key for key in {key for key, *_ in named} if store.is_worth_a_transaction(key)]
    if worth:
        with store.write():
            numbers = {key: who.key_id for key in worth if (who := store.find_key(key)) is not None}
            store.look_up_answers([(numbers[key], path, name) for key, path, name in named if key in numbers])
