"""A route's template says what Django's pattern matches, or more: never less, or a rule would be taken for another."""

import re

import django_site
import pytest
from django.http import HttpResponse
from django.test import RequestFactory, override_settings
from django.urls import Resolver404, URLResolver, include, path, re_path, register_converter
from django.urls.resolvers import RegexPattern
from django.utils import translation
from django.utils.translation import gettext_lazy
from django.views import View
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ascend_middleware.routing import Kind
from ascend_middleware.routing.django import DjangoResolver
from ascend_middleware.rules import parse_route
from ascend_middleware.rules.templates import is_open


def view(request, *args, **kwargs):
    return HttpResponse()


class Year:
    regex = "[0-9]{4}"

    def to_python(self, value):
        return int(value)

    def to_url(self, value):
        return str(value)


class Anything(Year):
    regex = ".*"


register_converter(Year, "yyyy")
register_converter(Anything, "anything")


def leaf_of(*patterns):
    (leaf,) = DjangoResolver(patterns).leaves()
    return leaf


@pytest.mark.parametrize(
    ("pattern", "template"),
    [
        (path("items/<int:n>", view), "/items/{n:int}"),
        (path("items/<uuid:n>/", view), "/items/{n:uuid}/"),
        (path("items/<n>/<slug:s>", view), "/items/{n}/{s}"),
        (path("files/<path:p>", view), "/files/{p:path}"),
        (path("archive/<yyyy:year>", view), "/archive/{year}"),
        (path("any/<anything:x>", view), "/any/{x:~anything}"),
        (path("things.<str:format>", view), "/things.{format}"),
        (path("", view), "/"),
        (path("brace/{id}", view), "/{text:~brace/<id>}"),
        (re_path(r"^items/(?P<n>[0-9]+)/?$", view), "/items/{n:int}"),
        (re_path(r"^items/(?P<n>\d+)$", view), "/items/{n}"),
        (re_path(r"^items/(\d+)/([\w-]+)\Z", view), "/items/{arg1}/{arg2}"),
        (re_path(r"^v1\.0/(?P<p>.*)$", view), "/v1.0/{p:path}"),
        (re_path(r"^(?P<y>[0-9]{4})-(?P<m>[0-9]{2})$", view), "/{y}-{m}"),
        (re_path(r"^x/(?P<s>[^/.]+)$", view), "/x/{s}"),
        # What may match a slash, nothing, or another spelling, has no type.
        (re_path(r"^x/(?P<s>[^.]+)$", view), "/{regex:~^x/(?P<s>[^.]+)$}"),
        (re_path(r"^x/(?P<s>(?:ab)+)$", view), "/{regex:~^x/(?P<s>(?:ab)+)$}"),
        (re_path(r"^x/(?P<s>[a-z]{0,3})$", view), "/{regex:~^x/(?P<s>[a-z]<0,3>)$}"),
        (re_path(r"^x/(?P<s>[^.]{2})$", view), "/{regex:~^x/(?P<s>[^.]<2>)$}"),
        (re_path(r"^x/(?P<s>\d*)$", view), r"/{regex:~^x/(?P<s>\d*)$}"),
        (re_path(r"^x/(?P<s>[+-9]+)$", view), "/{regex:~^x/(?P<s>[+-9]+)$}"),
        (re_path(r"^x/(?P<s>\S+)$", view), r"/{regex:~^x/(?P<s>\S+)$}"),
        (re_path(r"^x(?:/y)?$", view), "/{regex:~^x(?:/y)?$}"),
        (re_path(r"^a|b$", view), "/{regex:~^a|b$}"),
        (re_path(r"^ab+$", view), "/{regex:~^ab+$}"),
        (re_path(r"^a.b$", view), "/{regex:~^a.b$}"),
        (re_path(r"(?i)^secret$", view), "/{regex:~(?i)^secret$}"),
        (re_path(r"int", view), "/{regex:~int}"),
        (re_path(r"", view), "/{regex:~}"),
        (re_path(r"^open/end", view), "/open/{regex:~end…}"),
        (re_path(r"^cost\$", view), "/{regex:~cost$…}"),
        (re_path(r"^cost\\$", view), "/cost\\"),
        (re_path(r"^cost\\\$", view), r"/{regex:~cost\$…}"),
        (re_path(r"^cost\\\\$", view), r"/cost\\"),
        (re_path(r"^$", view), "/"),
        (re_path(r"^x$", view), "/x"),
        (path("a/", include([path("b/", include([path("<int:n>", view)]))])), "/a/b/{n:int}"),
        (re_path(r"^a/", include([re_path(r"^b$", view)])), "/a/b"),
        (re_path(r"^v", include([path("1/x", view)])), "/v1/x"),
        (path("a/", include([re_path(r"b$", view)])), "/a/{regex:~b$}"),
        (re_path(r"a/", include([path("b", view)])), "/{regex:~a/}b"),
    ],
)
def test_templates(pattern, template):
    assert leaf_of(pattern).template == template


# Whatever Django resolves, the template of its leaf matches.

LITERAL = st.sampled_from(["a", "b/", "a.b", "x-1/", "/", "int", "(", "é"])
ROUTE = st.one_of(
    LITERAL, st.sampled_from([f"<{t}:{{}}>" for t in ("int", "str", "slug", "path", "uuid", "yyyy", "anything")])
)
CLASS = st.sampled_from(
    [r"\d", r"\w", "[0-9]", "[a-z]", "[^/]", "[^.]", r"[\w.-]", "[a/]", r"\S", ".", "[+-9]", "[^/.]", r"\.", "a", "-"]
)
BODY = st.lists(
    st.tuples(CLASS, st.sampled_from(["", "+", "*", "?", "{2}", "{0,3}", "+?"])), min_size=1, max_size=3
).map(lambda parts: "".join(one + often for one, often in parts))
REGEX = st.one_of(
    st.sampled_from(["a", "b/", r"a\.b", "/", "a?", "(?:b/)?", "/?", "x+"]),
    BODY.map(lambda body: f"(?P<{{}}>{body})"),
    BODY.map(lambda body: f"({body})"),
)


def named(parts):
    return "".join(
        part.replace("{}", f"p{number}", 1) if "<{}" in part or ":{}" in part else part
        for number, part in enumerate(parts)
    )


routes = st.lists(ROUTE, max_size=4).map(named)
regexes = st.tuples(
    st.sampled_from(["^", "", "(?i)^"]),
    st.lists(REGEX, max_size=3).map(named),
    st.sampled_from(["$", r"\Z", "", "/?$"]),
).map("".join)
paths = st.text(alphabet="aAb/.-x1+09é_٣", max_size=12)


@st.composite
def requests(draw):
    """A pattern, maybe included, and a path that it may match."""
    make = path if draw(st.booleans()) else re_path
    pattern = make(draw(routes if make is path else regexes), view)
    matching = st.from_regex(pattern.pattern.regex.pattern)
    text = draw(st.one_of(paths, matching, matching, matching))
    if draw(st.booleans()):
        above = draw(st.one_of(routes.filter(lambda route: "<" not in route), st.sampled_from(["a/", "b"])))
        outer = path if draw(st.booleans()) else re_path
        pattern, text = outer(above if outer is path else "^" + re.escape(above), include([pattern])), above + text
    return pattern, text


# Generating from regular expressions is slow on a busy machine.
@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(requests())
def test_a_template_matches_what_django_matches(made):
    pattern, text = made
    resolver = URLResolver(RegexPattern(r"^/"), [pattern])
    request = RequestFactory().get("/")
    request.path_info = f"/{text}"
    try:
        request.resolver_match = match = resolver.resolve(request.path_info)
    except Resolver404:
        return
    resolved = DjangoResolver().resolve(request, match.func, match.args, match.kwargs)
    leaf = resolved.leaf
    assert leaf is not None
    assert covers(parse_route(leaf.template).segments, text), leaf.template
    # The listing tells of the same unit.
    assert leaf.template == leaf_of(pattern).template


def covers(segments, text):
    """Whether a route's segments say that it may match a path; an empty segment is refused before it counts."""
    parts = [part for part in text.split("/") if part]
    if "//" in f"/{text}":
        return True
    for number, segment in enumerate(segments):
        if is_open(segment):
            return True
        if number >= len(parts):
            return False
        expression = "".join(
            {"{}": "[^/]+", "{int}": "[0-9]+", "{uuid}": "[0-9a-f-]+", "{slug}": "[-a-zA-Z0-9_]+"}.get(piece)
            or re.escape(piece)
            for piece in re.split(r"(\{[a-z]*\})", segment)
        )
        if not re.fullmatch(expression, parts[number], re.DOTALL):
            return False
    return len(parts) == len(segments)


# Leaves


def resolved(request_path, urlconf=django_site, *, language="en", method="GET", **changed):
    request = RequestFactory().generic(method, request_path)
    with override_settings(ROOT_URLCONF=urlconf), translation.override(language):
        from django.urls import resolve

        request.resolver_match = match = resolve(request_path)
        for name, value in changed.items():
            setattr(request.resolver_match, name, value)
        return DjangoResolver().resolve(request, match.func, match.args, match.kwargs)


def test_every_route_is_listed_in_every_language():
    leaves = DjangoResolver().leaves()
    found = {leaf.template: leaf for leaf in leaves}
    assert found["/shop/orders/{number:int}/refund"].endpoint == "shop:orders:refund"
    assert {"/en/about", "/de/about"} <= set(found)
    assert found["/customers/{customer_id:int}"].methods is None
    assert found["/plain"].methods == {"GET", "HEAD", "POST"}
    assert found["/wrapped"].methods == {"GET", "HEAD", "POST", "OPTIONS"}
    assert found["/api/things/"].methods == {"GET", "HEAD", "POST", "OPTIONS"}
    assert found["/api/things/{pk}/"].methods == {"GET", "HEAD", "DELETE", "OPTIONS"}
    assert len(leaves) == len(set(leaves))


def test_the_same_unit_is_the_same_leaf():
    resolver = DjangoResolver()
    listed = {leaf.template: leaf for leaf in resolver.leaves()}
    request = RequestFactory().get("/customers/7")
    from django.urls import resolve

    for number in (7, 8):
        request.resolver_match = match = resolve(f"/customers/{number}")
        found = resolver.resolve(request, match.func, match.args, match.kwargs)
        assert found.leaf is listed["/customers/{customer_id:int}"]
        assert found.params == {"customer_id": number}


def test_two_patterns_of_one_text_are_two_units():
    """A path says literally what a regular expression means otherwise."""
    patterns = [path("first", view), path("x/[0-9]+", view), re_path("x/[0-9]+", view)]
    urls, resolver = URLResolver(RegexPattern(r"^/"), patterns), DjangoResolver()
    request, found = RequestFactory().get("/"), []
    for text in ("/x/[0-9]+", "/x/12", "/x/[0-9]+"):
        request.path_info = text
        request.resolver_match = match = urls.resolve(text)
        found.append(resolver.resolve(request, match.func, match.args, match.kwargs).leaf.template)
    assert found == ["/x/[0-9]+", "/{regex:~x/[0-9]+}", "/x/[0-9]+"]


def test_a_match_that_is_not_djangos_own_is_taken_for_anything():
    assert resolved("/health", tried=None).leaf.template == "/{regex:~health}"
    assert resolved("/health", tried=[]).leaf.template == "/{regex:~health}"
    assert resolved("/health", route="other").leaf.template == "/{regex:~other}"
    other = resolved("/health", func=view)
    assert other.leaf.template == "/{regex:~health}"
    request = RequestFactory().get("/health")
    request.resolver_match = None
    strange = DjangoResolver().resolve(request, view, (), {"x": 1})
    assert (strange.leaf.template, strange.leaf.endpoint, strange.params) == (
        "/{regex:~}",
        "test_django_patterns.view",
        {"x": 1},
    )


def test_a_route_in_another_language_is_another_template():
    class Urls:
        urlpatterns = [path(gettext_lazy("Monday"), view, name="day")]

    leaves = {
        resolved(f"/{name}", Urls, language=code).leaf.template for name, code in (("Monday", "en"), ("Montag", "de"))
    }
    assert leaves == {"/Monday", "/Montag"}


class Late(View):
    def get(self, request): ...


class Urls:
    urlpatterns = [path("late", Late.as_view()), path("narrow", Late.as_view(http_method_names=["options"]))]


def test_a_method_that_a_class_gets_later_counts_at_once(monkeypatch):
    assert resolved("/late", Urls, method="POST").kind is Kind.METHOD_NOT_ALLOWED
    monkeypatch.setattr(Late, "post", lambda self, request: None, raising=False)
    assert resolved("/late", Urls, method="POST").kind is Kind.ROUTE
    assert resolved("/late", Urls, method="OPTIONS").kind is Kind.OPTIONS
    assert resolved("/narrow", Urls, method="GET").kind is Kind.METHOD_NOT_ALLOWED


@pytest.mark.parametrize("name", ["setup", "dispatch", "http_method_not_allowed", "options", "__init__", "__getattr__"])
def test_a_class_that_does_anything_of_its_own_is_always_a_route(name):
    cls = type("Own", (Late,), {name: lambda self, *args, **kwargs: None})

    class Own:
        urlpatterns = [path("own", cls.as_view())]

    assert resolved("/own", Own, method="PUT").kind is Kind.ROUTE
    assert resolved("/own", Own, method="OPTIONS").kind is Kind.ROUTE


def test_a_replaced_dispatch_is_seen_in_the_arguments_of_as_view():
    class Own:
        urlpatterns = [path("own", Late.as_view(dispatch=lambda request: None))]

    assert resolved("/own", Own, method="PUT").kind is Kind.ROUTE
