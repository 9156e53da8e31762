"""The two clients are one: the same methods, the same arguments, the same text that teaches them."""

import inspect
import io
import pydoc
from unittest.mock import AsyncMock, create_autospec

import pytest

from ascend_middleware.client import (
    AscendClient,
    AsyncAscendClient,
    AsyncAuthorizedAgent,
    AsyncOWKAIClient,
    AuthorizedAgent,
    OWKAIClient,
)


def public(cls):
    return {
        name: value for name, value in inspect.getmembers(cls) if not name.startswith("_") and inspect.isfunction(value)
    }


PAIRS = [(AscendClient, AsyncAscendClient), (OWKAIClient, AsyncOWKAIClient), (AuthorizedAgent, AsyncAuthorizedAgent)]
METHODS = [pytest.param(*pair, name, id=f"{pair[0].__name__}.{name}") for pair in PAIRS for name in public(pair[0])]


@pytest.mark.parametrize(("blocking", "awaiting"), PAIRS)
def test_the_same_names(blocking, awaiting):
    assert public(blocking).keys() == public(awaiting).keys() - {"aclose"}


@pytest.mark.parametrize(("blocking", "awaiting", "name"), METHODS)
def test_the_same_signatures_awaitable(blocking, awaiting, name):
    one, other = getattr(blocking, name), getattr(awaiting, name)
    assert inspect.iscoroutinefunction(other) and not inspect.iscoroutinefunction(one)
    if name == "execute_if_authorized":  # what it runs may be a coroutine function too
        one, other = inspect.signature(one).parameters, inspect.signature(other).parameters
        assert [*one] == [*other] and all(one[key].default == other[key].default for key in one)
    else:
        assert inspect.signature(one) == inspect.signature(other)


@pytest.mark.parametrize(("blocking", "awaiting", "name"), METHODS)
def test_the_docstring_tells_every_parameter_and_where_its_meaning_is_from(blocking, awaiting, name):
    for cls in (blocking, awaiting):
        function = getattr(cls, name)
        text = inspect.getdoc(function)
        for parameter in list(inspect.signature(function).parameters)[1:]:
            assert f"{parameter}: " in text
        assert name == "run" or "Source: contract §" in text


def test_construction_is_the_same():
    assert inspect.signature(AscendClient) == inspect.signature(AsyncAscendClient)
    text = inspect.getdoc(AscendClient)
    for parameter in inspect.signature(AscendClient).parameters:
        assert f"{parameter}:" in text or f"`{parameter}`" in text


def test_help_teaches():
    shown = io.StringIO()
    pydoc.Helper(output=shown)(AscendClient.evaluate_action)
    text = shown.getvalue()
    for taught in ("timeout: seconds", "Returns:", "Raises:", "is_approved()", "orchestration_depth: 0", "pending"):
        assert taught in text


def test_a_mock_of_a_client_takes_the_arguments_of_its_methods():
    client = create_autospec(AscendClient, instance=True)
    client.get_action_status("7")
    with pytest.raises(TypeError):
        client.get_action_status()
    assert isinstance(create_autospec(AsyncAscendClient, instance=True).get_action_status, AsyncMock)


@pytest.mark.parametrize("cls", [AscendClient, AsyncAscendClient])
def test_a_subclass_may_have_a_method_of_its_own(cls):
    class Subclass(cls):
        def get_action(self, action_id):
            return f"its own {action_id}"

    client = Subclass("owkai_live_0123456789abcdef", api_url="http://localhost:1")
    assert client.get_action("7") == "its own 7"
    assert Subclass.get_action_status is cls.get_action_status
