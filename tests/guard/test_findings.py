"""What the firewall finds in a target, word by word: in the path, in the target as it came, and beside them."""

from types import SimpleNamespace

import pytest

from ascend_middleware.guard.firewall import inspect
from ascend_middleware.guard.request import RequestView
from ascend_middleware.rules import WEBSOCKET


def found(path, raw=None, template=None, *, method="GET", headers=(), **more):
    resolved = None if template is None else SimpleNamespace(path=path, leaf=SimpleNamespace(template=template))
    headers = [(name, "1") for name in headers]
    return inspect(
        RequestView(method=method, path=path, raw_path=raw, query=b"", headers=headers, resolved=resolved, **more)
    )


@pytest.mark.parametrize(
    ("path", "findings"),
    [
        ("/", []),
        ("/a/b", []),
        ("/a/b/", []),
        ("/a.b/.c/..d/...", []),
        ("/é ü", []),
        ("", ["not-origin-form"]),
        ("a", ["not-origin-form"]),
        ("*", ["not-origin-form"]),
        ("http://x/a", ["not-origin-form", "empty-segment"]),
        ("//a", ["empty-segment"]),
        ("/a//", ["empty-segment"]),
        ("/./a", ["dot-segment"]),
        ("/a/..", ["dot-segment"]),
        ("/a\\b", ["backslash"]),
        ("/a;b", ["path-parameter"]),
        ("/a\n", ["control-character"]),
        ("/a\x7f", ["control-character"]),
        ("/a\x85", ["control-character"]),
        ("/a\u2028", ["control-character"]),
        ("/a\ufffd", ["invalid-utf8"]),
        ("/a\ud800", ["invalid-utf8"]),
    ],
)
def test_in_a_path(path, findings):
    assert found(path) == findings
    if path.isascii() and path.isprintable() and path.startswith("/"):
        assert found(path, path) == findings


@pytest.mark.parametrize(("path", "findings"), [("", []), ("x", ["not-origin-form"]), ("/x", [])])
def test_below_a_prefix_there_may_be_nothing(path, findings):
    assert found(path, prefix="/api") == findings


@pytest.mark.parametrize(
    ("path", "raw", "findings"),
    [
        ("/a b", "/a%20b", []),
        ("/a", "/%61", []),
        ("/a", "/a#x", ["fragment"]),
        ("/a", "a", ["not-origin-form"]),
        ("/a", "http://x/a", ["not-origin-form"]),
        ("/a", "//a", ["empty-segment"]),
        ("/a", "/x/../a", ["dot-segment"]),
        ("/a", "/%2e/a", ["dot-segment"]),
        ("/a", "/x/.%2E/a", ["dot-segment"]),
        ("/a", "/a/.", ["dot-segment"]),
        ("/.a", "/%2ea", []),
        ("/a", "/a;b", ["path-parameter"]),
        ("/a\\b", "/a%5cb", ["backslash"]),
        ("/a/b", "/a%5Cb", ["backslash"]),
        ("/a/b", "/a%2fb", ["encoded-separator"]),
        ("/a/b", "/a%2Fb", ["encoded-separator"]),
        ("/a%", "/a%25", ["encoded-separator"]),
        ("/a", None, []),
        ("/a;b", "/a;b", ["path-parameter"]),
        ("/a", "/x//..;/a", ["empty-segment", "path-parameter"]),
    ],
)
def test_in_a_target_as_it_came(path, raw, findings):
    assert found(path, raw) == findings


INSIDE, OUTSIDE = [], ["encoded-separator"]


@pytest.mark.parametrize(
    ("path", "raw", "template", "findings"),
    [
        ("/f/a/b", "/f/a%2fb", "/f/{p:path}", INSIDE),
        ("/f/a/b", "/f/a%2fb", "/f/**", INSIDE),
        ("/f/a%/b", "/f/a%25/b", "/f/**", INSIDE),
        ("/f/a/b", "/f%2fa/b", "/f/{p:path}", OUTSIDE),
        ("/f/a/b", "/f%2fa/b", "/{p:path}", INSIDE),
        ("/f/a%", "/f/a%25", "/f/{x}", INSIDE),
        ("/f/a%", "/f/a%25", "/f/{x:float}", INSIDE),
        ("/f/a%", "/f/a%25", "/f/{x}-{y}", OUTSIDE),
        ("/f/a%", "/f/a%25", "/f/a{x}", OUTSIDE),
        ("/f/a%", "/f/a%25", "/f/{x}%", OUTSIDE),
        ("/f/a%", "/f/a%25", "/f/a%", OUTSIDE),
        ("/f/a/b", "/f/a%2fb", "/f/{x}/{y}", OUTSIDE),
        ("/f/a/b", "/f/a%2fb", "/f/{x}", OUTSIDE),
        ("/f/a%/b", "/f/a%25/b", "/f/{x}/{y}", INSIDE),
        ("/f%/a/b", "/f%25/a/b", "/f%/{x}/{y}", OUTSIDE),
        ("/f%", "/f%25", "/{regex:~^f}", OUTSIDE),
        ("/f%", "/f%25", "/{x}/y", OUTSIDE),
        ("/f%", "/f%25", "/{x}", INSIDE),
        # A prefix that the server puts before the path stands for none of the template.
        ("/f/a/b", "/api/f/a%2fb", "/f/{p:path}", INSIDE),
        ("/f/a/b", "/api%2ff/a/b", "/f/{p:path}", OUTSIDE),
        ("/f/a/b", "/a%2fpi/f/a/b", "/f/{p:path}", OUTSIDE),
        ("/f/a/b", "/a%25pi/f/a/b", "/f/{p:path}", OUTSIDE),
        ("/f/a%", "/api/f/a%25", "/f/{x}", INSIDE),
        ("/f%/a", "/api/f%25/a", "/f%/{x}", OUTSIDE),
    ],
)
def test_what_a_parameter_may_hold_encoded(path, raw, template, findings):
    assert found(path, raw, template) == findings


def test_where_no_route_was_found_nothing_may_be_encoded():
    view = {"method": "GET", "path": "/a%", "raw_path": "/a%25", "query": b"", "headers": []}
    assert inspect(RequestView(**view, resolved=SimpleNamespace(path="/a%", leaf=None))) == OUTSIDE


@pytest.mark.parametrize(
    ("method", "findings"),
    [
        ("GET", []), ("BREW", []), ("M-SEARCH", []), ("X_1", []), (WEBSOCKET, []), ("G=T", ["bad-method"]), ("get", ["bad-method"]),
        ("", ["bad-method"]), ("1X", ["bad-method"]), ("GET\n", ["bad-method"]),
    ],
)  # fmt: skip
def test_a_method_is_a_word(method, findings):
    assert found("/a", method=method) == findings


@pytest.mark.parametrize(
    ("headers", "findings"),
    [
        (["x-http-method-override"], ["method-override"]),
        (["x_http_method"], ["method-override"]),
        (["X-Method-Override"], ["method-override"]),
        (["x-original-url"], ["path-override"]),
        (["X_Rewrite-Url"], ["path-override"]),
        (["x-original-uri", "x-http-method"], ["method-override", "path-override"]),
        (["x-original", "x-method"], []),
    ],
)
def test_a_header_that_says_otherwise(headers, findings):
    assert found("/a", headers=headers) == findings


def test_what_an_adapter_found_comes_first_and_each_once():
    assert found("/a;b", "/a;b%5c", findings=("root-path", "path-parameter")) == [
        "root-path",
        "path-parameter",
        "backslash",
    ]
