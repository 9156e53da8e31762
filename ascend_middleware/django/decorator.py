"""A rule at the view: `@governed(action_type=…)` for functions, classes and their methods, and `GovernedMixin`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, Unpack

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.views import View

from ..adapters.decorator import Framework, attach, caller_place, require_verdict
from ..exceptions import ConfigurationError
from ..rules import RuleFields, declaration, declare, declared, place_of
from .request import handled_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..rules import Declaration

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
    here = caller_place()
    rule: Declaration | None = None

    def decorate(target: Target) -> Target:
        nonlocal rule
        if rule is None:
            place = place_of(target)
            # `method_decorator` asks with a function of its own, and then again for each request.
            rule = declaration(here if place.startswith("django.") else place, fields)
        return attach(target, rule, _FRAMEWORK, place=here)

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
        rules = declared(type(self))
        if not rules:
            raise ConfigurationError(f"{place_of(type(self))}: GovernedMixin without a rule; set governed = {{…}}")
        require_verdict(_find_verdict((request,), {}), rules)
        return super().dispatch(request, *args, **kwargs)  # type: ignore[misc]  # a view's


def _find_verdict(args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    for one in (*args, *kwargs.values()):
        # Django REST framework wraps the request.
        request = one if isinstance(one, HttpRequest) else getattr(one, "_request", None)
        if isinstance(request, HttpRequest):
            handled = handled_of(request)
            return handled.verdict if handled is not None else None
    return None


_FRAMEWORK: Final = Framework(
    _find_verdict,
    "dispatch",
    "a class-based view, which has dispatch",
    targets="a view",
    is_target=callable,
    is_async=iscoroutinefunction,
)
