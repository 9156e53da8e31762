"""The two clients are one: the same methods, the same arguments, the same text that teaches them."""

import inspect
import io
import pydoc

import pytest

from ascend_middleware.client import AscendClient, AsyncAscendClient


def public(cls):
    return {
        name: value for name, value in inspect.getmembers(cls) if not name.startswith("_") and inspect.isfunction(value)
    }


BLOCKING, AWAITING = public(AscendClient), public(AsyncAscendClient)
METHODS = sorted(BLOCKING)


def test_the_same_names():
    assert BLOCKING.keys() == AWAITING.keys() - {"aclose"}


@pytest.mark.parametrize("name", METHODS)
def test_the_same_signatures_awaitable(name):
    assert inspect.signature(BLOCKING[name]) == inspect.signature(AWAITING[name])
    assert inspect.iscoroutinefunction(AWAITING[name]) and not inspect.iscoroutinefunction(BLOCKING[name])


@pytest.mark.parametrize("cls", [AscendClient, AsyncAscendClient])
@pytest.mark.parametrize("name", METHODS)
def test_the_docstring_tells_every_parameter_and_where_its_meaning_is_from(cls, name):
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
