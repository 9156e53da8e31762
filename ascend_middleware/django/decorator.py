"""A rule at the view: `@governed(action_type=…)` for functions, classes and their methods, and `GovernedMixin`.

The middleware decides under the rule that stands here. The view is only seen to: it runs on the verdict that was made
under this very rule, or not at all.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, Unpack

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.views import View

from ..exceptions import ConfigurationError
from ..guard import standing
from ..rules import RuleFields, declaration, declare, declared, place_of
from .handle import Passage

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..rules import Declaration

__all__ = ["GovernedMixin", "governed"]

Target = TypeVar("Target", bound="Callable[..., Any]")


def governed(**fields: Unpack[RuleFields]) -> Callable[[Target], Target]:
    """Return a decorator that puts a rule at a view: a function, a class with `dispatch`, or one of its methods.

        @governed(action_type="transaction", details={"amount": "body.amount"})
        def refund(request, customer_id): ...

    `method_decorator(governed(…))` works likewise. It ranks like a rule of the table that names the view's endpoint,
    and follows the view to every URL pattern. Above `@api_view`, not below it.

    Args:
        fields: what a `[[rule]]` may say, but `match` and `endpoint`.

    Raises:
        ConfigurationError: at decoration, with everything that is wrong, naming module and function.
    """
    caller = sys._getframe(1)
    here = f"{caller.f_globals.get('__name__', '?')} line {caller.f_lineno}"
    rule: Declaration | None = None

    def decorate(target: Target) -> Target:
        nonlocal rule
        if rule is None:
            place = place_of(target)
            # `method_decorator` asks with a function of its own, and then again for each request.
            rule = declaration(here if place.startswith("django.") else place, fields)
        if isinstance(target, type):
            _guard_class(target)
            return declare(target, rule)
        if not callable(target):
            raise ConfigurationError(f"{here}: governed stands at a view, not at a {type(target).__name__}")
        guarded: Target = _guarded(target)
        return declare(guarded, rule)

    return decorate


class GovernedMixin:
    """A rule at a class-based view, as an attribute; the leftmost base class.

        class Refund(GovernedMixin, View):
            governed = {"action_type": "transaction", "details": {"amount": "body.amount"}}

    Raises:
        ConfigurationError: when the class is made, with everything that is wrong.
    """

    governed: ClassVar[RuleFields]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check and declare the rule of a class that has one of its own."""
        super().__init_subclass__(**kwargs)
        order = cls.__mro__
        if View in order and order.index(View) < order.index(GovernedMixin):
            raise ConfigurationError(f"{place_of(cls)}: GovernedMixin stands before View among the base classes")
        if "governed" in vars(cls):
            declare(cls, vars(cls)["governed"])

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the view on the verdict that was made under its rule.

        Raises:
            ConfigurationError: there is none.
        """
        _see((request,), declared(type(self)), type(self))
        return super().dispatch(request, *args, **kwargs)  # type: ignore[misc]  # a view's


def _guard_class(cls: Any) -> None:
    """Let every request of a class-based view be seen to, before it is dispatched."""
    dispatch = getattr(cls, "dispatch", None)
    if dispatch is None:
        raise ConfigurationError(f"{place_of(cls)}: governed stands at a class-based view, which has dispatch")

    @functools.wraps(dispatch)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        _see((*args, *kwargs.values()), declared(type(self)), type(self))
        return dispatch(self, *args, **kwargs)

    cls.dispatch = guarded


def _guarded(function: Any) -> Any:
    """Return the function so that it runs only on a verdict under its own rule."""
    guarded: Any
    if iscoroutinefunction(function):

        @functools.wraps(function)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            _see((*args, *kwargs.values()), declared(guarded), function)
            return await function(*args, **kwargs)

    else:

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            _see((*args, *kwargs.values()), declared(guarded), function)
            return function(*args, **kwargs)

    return guarded


def _see(arguments: tuple[Any, ...], rules: tuple[Declaration, ...], target: Any) -> None:
    if not rules:
        raise ConfigurationError(f"{place_of(target)}: GovernedMixin without a rule; set governed = {{…}}")
    for one in arguments:
        # Django REST framework wraps the request.
        request = one if isinstance(one, HttpRequest) else getattr(one, "_request", None)
        if isinstance(request, HttpRequest):
            passage = Passage.of(request)
            standing(passage.verdict if passage is not None else None, rules)
            return
    standing(None, rules)
