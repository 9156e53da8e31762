"""How templates are written, what they match, cover and share."""

import pytest

from ascend_middleware.rules.templates import WEBSOCKET, parse_match, parse_route


def rule(text):
    return parse_match(f"* {text}")[1]


@pytest.mark.parametrize(
    ("template", "path", "matches"),
    [
        ("/", "/", True),
        ("/", "", False),
        ("/a", "/a", True),
        ("/a", "/a/", True),
        ("/a/", "/a", True),
        ("/a", "a", False),
        ("/a", "/A", False),
        ("/a", "/a\n", False),
        ("/a", "//a", False),
        ("/a", "/a//", False),
        ("/a/{x}", "/a/b", True),
        ("/a/{x}", "/a//", False),
        ("/a/{x}", "/a", False),
        ("/a/{x}", "/a/b/c", False),
        ("/a/{x:int}", "/a/12", True),
        ("/a/{x:int}", "/a/-1", False),
        ("/a/{x:int}", "/a/٣", False),
        ("/a/{x:uuid}", "/a/0f8fad5b-d9cb-469f-a165-70867728950e", True),
        ("/a/{x:uuid}", "/a/0F8FAD5BD9CB469FA16570867728950E", True),
        ("/a/{x:uuid}", "/a/0f8fad5b", False),
        ("/a/**", "/a", True),
        ("/a/**", "/a/", True),
        ("/a/**", "/a/b/c", True),
        ("/a/**", "/ab", False),
        ("/a/{p:path}", "/a/b/c", True),
        ("/**", "/", True),
        ("/a/**", "/a//b", True),
    ],
)
def test_a_template_matches(template, path, matches):
    assert rule(template).matches(path) is matches


def test_a_template_gives_its_parameters():
    assert rule("/a/{x}/{y:int}/{rest:path}").parameters("/a/b/2/c/d") == {"x": "b", "y": "2", "rest": "c/d"}
    assert rule("/a/**").parameters("/a/b") == {}
    for path in ("/a", "/a/", "a", ""):  # it does not match
        assert rule("/a/{x}").parameters(path) == {}


@pytest.mark.parametrize(
    ("text", "methods"),
    [
        ("GET /x", {"GET"}),
        ("get,Post /x", {"GET", "POST"}),
        ("GET, POST /x", {"GET", "POST"}),
        ("GET ,POST /x", {"GET", "POST"}),
        ("GET , POST /x", {"GET", "POST"}),
        ("* /x", {"*"}),
        ("WEBSOCKET /x", {WEBSOCKET}),
        ("PROPFIND /x", {"PROPFIND"}),
    ],
)
def test_methods_are_a_star_or_a_list(text, methods):
    found, template = parse_match(text)
    assert (found, template.text) == (methods, "/x")


WEBDAV = """ACL BIND CHECKIN CHECKOUT COPY LABEL LINK LOCK MERGE MKCOL MOVE PROPFIND PROPPATCH PURGE QUERY REBIND REPORT
SEARCH SUBSCRIBE UNBIND UNLINK UNLOCK UNSUBSCRIBE UPDATE"""


@pytest.mark.parametrize("method", [*WEBDAV.split(), "GET", "PATCH", "BREW", "X-OWN"])
def test_methods_that_there_are_are_taken_for_no_mistake(method):
    assert parse_match(f"{method} /x")[0] == {method}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("PATCHES /x", "did you mean PATCH?"),
        ("/x", 'write "GET /x"'),
        ("GET", "begins with a slash"),
        ("GET x", "begins with a slash"),
        ("GTE /x", "did you mean GET?"),
        ("WS /x", "did you mean WEBSOCKET?"),
        ("GET,wss /x", "did you mean WEBSOCKET?"),
        ("GET,* /x", "stands alone"),
        ("G=T /x", "no method"),
        ("GET,,POST /x", "no method"),
        ("GET /a//b", "empty and dot"),
        ("GET /a/../b", "empty and dot"),
        ("GET /a/*", "no literal"),
        ("GET /a/**/b", "stands at the end"),
        ("GET /{p:path}/b", "stands at the end"),
        ("GET /a/{x:float}", "{x} governs a route whatever"),
        ("GET /a/f.{x}", "mixes text and a parameter"),
        ("GET /a/{x", "mixes text and a parameter"),
        ("GET /a/x}", "mixes text and a parameter"),
        ("GET /a/<int:x>", "another framework"),
        ("GET /a/:x", "another framework"),
        ("GET /a/{x}/{x}", "occurs twice"),
        ("GET /a%20b", "percent-encoded"),
        ("GET /a?b=c", "query is no part"),
        ("GET /a b", "no path segment"),
        ("GET /a#b", "no path segment"),
        ("GET /a\x7fb", "no path segment"),
    ],
)
def test_a_wrong_match_says_what_is_wrong(text, part):
    with pytest.raises(ValueError, match=".") as caught:
        parse_match(text)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    "part", ["a", "é", "~x", "@me", "a+b", "a=b", "$all", "a:b", "a,b;c", "!", "(x)", "'", ".well-known"]
)
def test_a_segment_may_hold_whatever_a_path_may(part):
    assert rule(f"/a/{part}").matches(f"/a/{part}")
    assert not rule(f"/a/{part}").matches("/a/b")


def test_a_slash_within_a_routes_parameter_parts_no_segments():
    assert len(parse_route("/a/{x:any(b/c)}/d").segments) == 3


def test_templates_are_equal_whatever_their_parameters_are_called():
    assert rule("/a/{x}/") == rule("/a/{y}")
    assert hash(rule("/a/{x}")) == hash(rule("/a/{y}"))
    assert rule("/a/{x}") != rule("/a/{x:int}")
    assert rule("/a/**") == rule("/a/{p:path}") == parse_route("/a/{rest:path}")
    assert parse_route("/a/{x:str}") == parse_route("/a/{x}/") == rule("/a/{y}")


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("/**", "/a/{x}", True),
        ("/a/**", "/a", True),
        ("/a/**", "/a/{p:path}/b", True),
        ("/a/{x}", "/a/{x:int}", True),
        ("/a/{x}", "/a/{x:float}", True),
        ("/a/{x}", "/a/f.{e}", True),
        ("/a/{x}", "/a/{x:unheard}", False),
        ("/a/{x}", "/a/{p:path}", False),
        ("/a/{x:int}", "/a/7", True),
        ("/a/{x:int}", "/a/{y:int}", True),
        ("/a/{x:uuid}/**", "/a/{y:uuid}/b", True),
        ("/a/{x:int}", "/a/{x:uuid}", False),
        ("/a/{x:int}", "/a/b", False),
        ("/a/{x:int}", "/a/{x}", False),
        ("/a/7", "/a/{x:int}", False),
        ("/a", "/a/b", False),
        ("/a/b", "/a", False),
    ],
)
def test_a_template_covers_another(wide, narrow, covers):
    assert rule(wide).covers(parse_route(narrow)) is covers


@pytest.mark.parametrize(
    ("one", "other", "overlaps"),
    [
        ("/a/{x}", "/{y}/b", True),
        ("/a/**", "/{y}", True),
        ("/a/b/**", "/a", False),
        ("/a/{x:int}", "/a/b", False),
        ("/a/{x:int}", "/a/7", True),
        ("/a/{x:uuid}", "/a/0f8fad5b-d9cb-469f-a165-70867728950e", True),
        ("/a/{x:uuid}", "/a/7", False),
        ("/a/{x:int}", "/a/{x:uuid}", True),
        ("/a/f.txt", "/a/f.{e}", True),
        ("/a/g.txt", "/a/f.{e}", False),
        ("/a/f.", "/a/f.{e}", False),
        ("/a/ftxt", "/a/{e}.txt", False),
        ("/a/f.txt", "/a/{e}.txt", True),
        ("/a/f.csv", "/a/{e}.txt", False),
        ("/a/f-g.csv", "/a/f-{e}.txt", False),
        ("/a/h-g.txt", "/a/f-{e}.txt", False),
        ("/a/.txt", "/a/{e}.txt", False),
        ("/a/f-g.txt", "/a/f-{e}.txt", True),
        ("/a/f-.txt", "/a/f-{e}.txt", False),
        ("/a/b/c", "/a/{x:unheard}", True),
        ("/a/b/c", "/{p:path}/c", True),
        ("/b", "/a/{p:path}/c", False),
    ],
)
def test_templates_overlap(one, other, overlaps):
    assert rule(one).overlaps(parse_route(other)) is overlaps
    assert parse_route(other).overlaps(rule(one)) is overlaps


@pytest.mark.parametrize(
    "text", ["", "a", "/{", "/}", "/{a", "/{4}/x", "/{x:re:[a/b]}/y", "/**/a", "/f.{p:path}", "//"]
)
def test_a_framework_template_never_fails(text):
    parse_route(text)


def test_an_odd_framework_template_may_match_anything():
    odd = ("/{", "/}", "/{a", "/a}", "/{x}}", "/{{x}", "/{x}{", "/}{x}")
    for text in ("/{4}", "/{x:re:[a/b]}", "/f.{p:path}", "/**/a", *odd):
        assert parse_route(text).overlaps(rule("/z/z/z"))
        assert not rule("/{x}").covers(parse_route(text))
