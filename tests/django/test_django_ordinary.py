"""Requests in which nothing is out of the ordinary are seen at one glance on WSGI, and come to what all others come to."""

import pytest
from django.test import AsyncRequestFactory, Client, RequestFactory

from ascend_middleware.django import middleware, request
from ascend_middleware.django.request import OrdinaryView, is_ordinary, target_of, unrouted, view_of
from ascend_middleware.guard.firewall import inspect

ORDINARY = [
    {"path": "/customers/7", "RAW_URI": "/customers/7"},
    {"path": "/search", "QUERY_STRING": "q=a%20b&q=%C3%A9", "REQUEST_URI": "/search?q=a%20b&q=%C3%A9"},
    {"path": "/customers/7/", "RAW_URI": "/api/customers/7/", "SCRIPT_NAME": "/api"},
    {"path": "/search", "RAW_URI": "/search", "HTTP_X_REASON": "a, b", "HTTP_COOKIE": "é", "CONTENT_LENGTH": ""},
]
OTHERS = [
    {"path": "/customers/7"},
    {"path": "/customers/7", "RAW_URI": "/customers/%37"},
    {"path": "/customers/7", "RAW_URI": "/customers/7#x"},
    {"path": "/customers//7", "RAW_URI": "/customers//7"},
    {"path": "/customers/7", "RAW_URI": "/customers/7", "HTTP_X_HTTP_METHOD_OVERRIDE": "DELETE"},
    {"path": "/customers/7", "RAW_URI": "/customers/7", "HTTP_ASCEND_APPROVAL": "x"},
    {"path": "/customers/7", "RAW_URI": "/api/customers/7"},
]


def made(path, **environ):
    return RequestFactory().get(path, **environ)


@pytest.mark.parametrize("given", ORDINARY)
def test_an_ordinary_request_is_seen_as_every_other(given):
    found = made(**given)
    assert is_ordinary(found)
    quick = OrdinaryView(found, None)
    thorough = target_of(found, headers=request._headers(found))
    for name in ("method", "path", "raw_path", "query", "query_pairs", "headers", "header_names", "prefix", "findings"):
        assert getattr(quick, name) == getattr(thorough, name), name
    assert inspect(thorough) == []
    assert not thorough.tells("expect") and not thorough.tells("ascend-approval")
    assert view_of(found, unrouted(found)).is_ordinary


@pytest.mark.parametrize("given", OTHERS)
def test_others_are_looked_at_closely(given):
    assert not is_ordinary(made(**given))


def test_what_a_middleware_sets_anew_counts():
    found = made(**ORDINARY[0])
    found.path_info = "/customers/8"
    assert not is_ordinary(found)
    found = made(**ORDINARY[0])
    found.META["HTTP_X_ORIGINAL_URL"] = "/customers/8"
    assert not is_ordinary(found)
    found = made(**ORDINARY[0])
    found.META["HTTP_X_REASON"] = "late"
    assert view_of(found, unrouted(found)).header("x-reason") == ["late"]


def test_no_request_of_asgi_is_ordinary():
    found = AsyncRequestFactory().get("/customers/7")
    found.META["RAW_URI"] = "/customers/7"
    assert not is_ordinary(found)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "TRACE"])
@pytest.mark.parametrize("given", [*ORDINARY, {"path": "/health", "RAW_URI": "/health"}, *OTHERS[2:5]])
def test_a_glance_changes_nothing(ascend, ascend_authority, ran, monkeypatch, method, given):
    ascend_authority.approve()
    path, environ = given["path"], {name: value for name, value in given.items() if name != "path"}

    def once():
        ran.clear()
        before = len(ascend_authority.asked)
        answer = Client(raise_request_exception=False).generic(method, path, **environ)
        asked = [(one.action_type, one.resource, dict(one.details)) for one in ascend_authority.asked[before:]]
        return answer.status_code, answer.content, [*ran], asked

    quick = once()
    for module in (request, middleware):
        monkeypatch.setattr(module, "is_ordinary", lambda *_: False)
    assert once() == quick
