"""The quick lookup against a slow one that says the same in other words; and its cost."""

import sys

from hypothesis import given, settings
from hypothesis import strategies as st
from kit.examples import examples

from ascend_middleware.exceptions import ConfigurationError
from ascend_middleware.rules import WEBSOCKET, RuleTable
from ascend_middleware.rules.templates import parse_match, parse_route

UID = "0f8fad5b-d9cb-469f-a165-70867728950e"
segments = st.sampled_from(["a", "b", "7", "{x}", "{x:int}", "{x:uuid}"])
ends = st.sampled_from(["", "/", "/**", "/{p:path}"])
RANK = {"{}": 3, "{int}": 2, "{uuid}": 1, "**": 4}


@st.composite
def templates(draw):
    parts = draw(st.lists(segments, max_size=3))
    parts = [part.replace("x", f"x{index}") for index, part in enumerate(parts)]
    text = "".join(f"/{part}" for part in parts) + draw(ends)
    return text or "/"


methods = st.sampled_from(["GET", "POST", "*", "GET,POST", "HEAD", "WEBSOCKET"])
kinds = st.sampled_from(["one", "two", "-", "!"])
rules = st.lists(st.tuples(methods, templates(), kinds), max_size=8)
paths = st.lists(st.sampled_from(["a", "b", "7", "0" * 32, UID, "c", ""]), max_size=4).map(lambda p: "/" + "/".join(p))
asked = st.sampled_from(["GET", "POST", "HEAD", "PUT", "WEBSOCKET", WEBSOCKET])


def build(rows):
    made = []
    for which, template, kind in rows:
        what = {"-": {"exempt": True}, "!": {"block": "no"}}.get(kind, {"action_type": kind})
        made.append({"match": f"{which} {template}", **what})
    try:
        return RuleTable.from_mapping({"rule": made})
    except ConfigurationError as error:
        # Quarrelling and dead rules are left out one at a time, so that most drawn tables are used.
        number = next(index for index in range(len(rows)) if f"rule {index + 1} " in error.problems[0].where)
        return build(rows[:number] + rows[number + 1 :])


def rank(template):
    return [RANK.get(segment, 0) for segment in template.segments]


def lists(rule, method):
    """How well a rule's methods fit: lower is better, None is not at all."""
    if method in rule.methods:
        return (0, len(rule.methods))
    if method == "HEAD" and "GET" in rule.methods:
        return (1, len(rule.methods))
    return (2, 0) if "*" in rule.methods else None


def slow(candidates, method):
    """Of rules that match the path, choose by the sentences of the table's description."""
    blocks = [rule for rule in candidates if rule.block and lists(rule, method)]
    candidates = blocks or [rule for rule in candidates if not rule.block]
    if not candidates:
        return None
    best = min(rank(rule.template) for rule in candidates)
    fitting = [rule for rule in candidates if rank(rule.template) == best and lists(rule, method)]
    return min(fitting, key=lambda rule: lists(rule, method), default=None)


def outcome(rule):
    return rule and (rule.template, rule.block, rule.exempt, rule.action_type)


@settings(max_examples=examples(300), deadline=None)
@given(rules, st.lists(st.tuples(asked, paths), min_size=1, max_size=12))
def test_lookup_by_path(rows, requests):
    table = build(rows)
    for method, path in requests:
        matching = [rule for rule in table.rules if rule.template.matches(path)]
        assert outcome(table.lookup(method, path)) == outcome(slow(matching, method))


@settings(max_examples=examples(300), deadline=None)
@given(rules, templates(), st.lists(st.tuples(asked, paths), min_size=1, max_size=8))
def test_lookup_by_route(rows, text, requests):
    table, route = build(rows), parse_route(text)
    chosen = table.for_route(text)
    for method, path in requests:
        near = [r for r in table.rules if r.template.covers(route)]
        near += [r for r in table.rules if r not in near and r.template.overlaps(route) and r.template.matches(path)]
        blocks = [rule for rule in near if rule.block and lists(rule, method)]
        equal = [rule for rule in near if rule.template == route and not rule.block]
        assert outcome(chosen.select(method, path)) == outcome(slow(blocks or equal or near, method))


@settings(max_examples=examples(150), deadline=None)
@given(rules, st.randoms(), st.lists(st.tuples(asked, paths), max_size=8))
def test_order_never_matters(rows, random, requests):
    table = build(rows)
    again = [
        {"match": rule.match, **{key: value for key, value in rule.given.items() if key != "match"}}
        for rule in table.rules
    ]
    random.shuffle(again)
    other = RuleTable.from_mapping({"rule": again})
    assert other.version == table.version
    for method, path in requests:
        assert outcome(other.lookup(method, path)) == outcome(table.lookup(method, path))


@settings(max_examples=examples(200), deadline=None)
@given(templates(), templates(), paths)
def test_covers_and_overlaps_agree_with_paths(one, other, path):
    first, second = parse_match(f"* {one}")[1], parse_match(f"* {other}")[1]
    if first.covers(second):
        assert first.overlaps(second)
        assert not second.matches(path) or first.matches(path)
    if first.matches(path) and second.matches(path):
        assert first.overlaps(second)
    assert first.matches(first.example())


@settings(max_examples=examples(200), deadline=None)
@given(st.text(alphabet="/{}:*ax.é[] %?", max_size=20))
def test_parsing_fails_in_one_way_only(text):
    parse_route(text)
    try:
        parse_match(text)
        parse_match(f"GET {text}")
    except ValueError:
        pass


def _calls(action):
    """Count the Python calls that an action makes: unlike time, the same on every machine."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(before)
    return count


def test_a_lookup_does_not_cost_more_with_more_rules():
    def table(size):
        rows = [{"match": f"GET /r{i}/{{id}}/x{i % 7}", "action_type": f"t{i}"} for i in range(size)]
        return RuleTable.from_mapping({"rule": [*rows, {"match": "* /internal/**", "block": "no"}]})

    small, large = table(10), table(10_000)
    assert large.lookup("GET", "/r9/1/x2").action_type == "t9"
    for path in ("/r9/1/x2", "/none/1/x2", "/internal/1"):
        assert _calls(lambda path=path: large.lookup("GET", path)) == _calls(
            lambda path=path: small.lookup("GET", path)
        )
    parse_route("/r9/{id}/x2")  # remembered from here on
    routes = [_calls(lambda made=made: made.for_route("/r9/{id}/x2")) for made in (small, large)]
    assert routes[0] == routes[1]
