"""Rules that stand at handlers: how they are found, checked, and ranked."""

import functools

import pytest

from ascend_middleware.exceptions import ConfigurationError
from ascend_middleware.rules import RuleTable, declaration, declare, declared

ACTION = {"action_type": "transaction"}
TABLE = RuleTable.from_mapping(
    {
        "rule": [
            {"match": "POST /orders/{id}", "action_type": "of-the-table"},
            {"match": "GET /orders/{id}", "exempt": True},
            {"match": "* /closed/**", "block": "closed"},
            {"endpoint": "named", "action_type": "of-the-endpoint"},
            {"endpoint": "same", "action_type": "transaction"},
            {"endpoint": "narrow", "match": "POST /**", "action_type": "other"},
            {"endpoint": "shut", "block": "shut"},
        ]
    }
)


def handler():
    pass


def found(target):
    return [(sorted(one.methods), one.given["action_type"]) for one in declared(target)]


class Base:
    def dispatch(self):
        pass

    def post(self):
        pass


# --- where rules are found


def test_a_function_its_wrappers_partials_and_bound_methods():
    class Owner:
        def method(self):
            pass

    target = declare(lambda: None, ACTION)

    @functools.wraps(target)
    def wrapper():
        pass

    def undressed():
        pass

    undressed.__wrapped__ = target
    declare(Owner().method, ACTION)
    for one in (target, wrapper, undressed, functools.partial(target, 1), Owner().method, Owner.method):
        assert found(one) == [(["*"], "transaction")]
    assert found(handler) == found(None) == found(7) == []


def test_classes_hand_their_rule_down_and_views_are_followed_to_their_class():
    class View(Base):
        pass

    class Below(View):
        pass

    declare(View, ACTION)

    def view():
        pass

    view.view_class = Below
    assert found(view) == found(Below) == found(Below()) == [(["*"], "transaction")]
    assert found(Base) == []


def test_the_functions_of_a_class_declare_for_their_method_only():
    class View(Base):
        def get(self):
            pass

        def post(self):
            pass

    declare(View.get, {"action_type": "reading"})
    declare(View.post, {"action_type": "writing"})
    assert found(View) == [(["GET"], "reading"), (["POST"], "writing")]
    rules = TABLE.for_route("/orders/{id}", declared=declared(View))
    assert [rules.select(method, "").action_type for method in ("GET", "HEAD", "POST")] == ["reading"] * 2 + ["writing"]
    assert rules.select("DELETE", "") is None


def test_dispatch_declares_for_every_method():
    class View(Base):
        def dispatch(self):
            pass

    declare(View.dispatch, ACTION)
    assert found(View) == [(["*"], "transaction")]


def test_what_a_class_leaves_open_the_table_governs():
    class View(Base):
        def post(self):
            pass

    declare(View.post, ACTION)
    rules = TABLE.for_route("/orders/{id}", declared=declared(View))
    assert rules.select("GET", "/orders/7").exempt
    assert rules.select("POST", "/orders/7").action_type == "transaction"


def test_a_narrower_rule_of_a_class_wins():
    class View(Base):
        def post(self):
            pass

    declare(View, {"action_type": "reading"})
    declare(View.post, {"action_type": "writing"})
    rules = TABLE.for_route("/x", declared=declared(View))
    assert rules.problem is None
    assert (rules.select("POST", "/x").action_type, rules.select("PUT", "/x").action_type) == ("writing", "reading")


def test_loops_and_objects_that_answer_to_every_name_declare_nothing():
    class Anything:
        def __getattr__(self, name):
            return self

    def one():
        pass

    def two():
        pass

    one.__wrapped__, two.__wrapped__ = two, one

    class Own:
        pass

    class Odd:
        """What it calls its attributes is no mapping."""

        __dict__ = property(lambda self: ["__ascend_declaration__", "__wrapped__"])

    class Endless:
        __dict__ = property(lambda self: {"__wrapped__": Endless()})

    Own.get = Own
    for target in (Anything(), one, Own, Own(), Odd(), Endless()):
        assert declared(target) == ()


@pytest.mark.parametrize(("wrappers", "is_found"), [(63, True), (64, False)])
def test_a_rule_is_found_through_63_wrappers_and_no_more(wrappers, is_found):
    target = declare(lambda: None, ACTION)
    for _ in range(wrappers):
        outer = lambda: None  # noqa: E731
        outer.__wrapped__ = target
        target = outer
    assert bool(declared(target)) is is_found


def test_a_class_may_say_otherwise_than_the_class_above_it():
    class Above(Base):
        pass

    class Below(Above):
        pass

    declare(Above, ACTION)
    declare(Below, {"action_type": "other"})
    assert (found(Above), found(Below)) == ([(["*"], "transaction")], [(["*"], "other")])


@pytest.mark.parametrize(("target", "kind"), [(len, "builtin_function_or_method"), (int, "type"), (object(), "object")])
def test_where_nothing_can_be_written_that_is_said(target, kind):
    with pytest.raises(ConfigurationError, match=f"nothing can be written at a {kind}"):
        declare(target, ACTION)


def test_it_covers_all_of_its_route():
    (part,) = TABLE.for_route("/elsewhere/{x}", declared=(declaration("here", ACTION),)).parts("GET")
    assert part.covers and part.rule.action_type == "transaction"


def test_a_bound_method_stands_for_what_its_function_wraps():
    class Owner:
        def method(self):
            pass

    Owner.method.__wrapped__ = declare(lambda self: None, ACTION)
    assert found(Owner().method) == [(["*"], "transaction")]


def test_a_name_is_one_that_was_given():
    assert "name" not in declaration("here", ACTION).given
    assert declaration("here", {**ACTION, "name": "mine"}).given["name"] == "mine"


@pytest.mark.parametrize("fields", [{"cache": "30s"}, {"coalesce": True}])
def test_a_handler_of_any_method_may_use_decisions_again(fields):
    """Which methods it has, its routes say."""
    assert declaration("here", {**ACTION, **fields}).given.keys() >= fields.keys()


# --- what is checked


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"action_tipe": "x"}, "action_tipe: no such key: did you mean action_type?"),
        ({}, "does not say what it does"),
        ({"action_type": "x", "on_failure": "maybe"}, "on_failure"),
        ({"action_type": "x", "details": {"a": "bdy.amount"}}, "bdy"),
        ({"action_type": "x", "match": "GET /"}, "match: no such key: the handler's own route is what it governs"),
        ({"action_type": "x", "endpoint": "y"}, "endpoint: no such key"),
        ({"exempt": True, "block": "no"}, "both exempt and block"),
    ],
)
def test_a_bad_rule_is_refused_where_it_is_written(fields, says):
    with pytest.raises(ConfigurationError) as caught:
        declare(handler, fields)
    assert "test_declared_rules.handler" in str(caught.value)
    assert says in str(caught.value).replace(" (", ": ").replace(")", "")
    assert declared(handler) == ()


def test_two_rules_at_one_handler():
    first = declare(lambda: None, ACTION)
    declare(first, {**ACTION, "name": "another name, no other outcome"})
    with pytest.raises(ConfigurationError, match="different outcomes"):
        declare(functools.wraps(first)(lambda: None), {"action_type": "other"})

    class View(Base):
        pass

    declare(View, ACTION)
    with pytest.raises(ConfigurationError, match="different outcomes"):
        declare(View, {"action_type": "other"})


# --- how it ranks


def route(template, fields=ACTION, **more):
    return TABLE.for_route(template, declared=(declaration("shop.refund", fields),), **more)


def test_it_beats_templates_and_loses_to_blocks():
    for method in ("GET", "POST", "DELETE"):
        rule = route("/orders/{id}").select(method, "/orders/7")
        assert (rule.action_type, rule.label) == ("transaction", "governed at shop.refund")
    assert route("/closed/{id}").select("POST", "/closed/7").block == "closed"
    assert route("/x", endpoint="shut").select("POST", "/x").block == "shut"
    assert route("/x", endpoint="shut").problem is None


def test_its_own_block_and_exemption():
    assert route("/orders/{id}", {"block": "not here"}).select("GET", "/orders/7").block == "not here"
    assert route("/orders/{id}", {"exempt": True}).select("POST", "/orders/7").exempt


def test_of_two_blocks_the_one_at_the_handler_is_told():
    assert route("/closed/{id}", {"block": "not here"}).select("POST", "/closed/7").block == "not here"
    assert route("/closed/x", {"block": "not here"}, endpoint="shut").select("POST", "/closed/x").block == "not here"
    assert [part.covers for part in route("/x", {"block": "not here"}).parts("POST")] == [True]


def test_it_has_the_tables_defaults():
    table = RuleTable.from_mapping({"ascend": {"on_failure": "open", "pending": "wait:5s"}, "rule": []})
    rule = table.for_route("/x", declared=(declaration("x", ACTION),)).select("GET", "/x")
    assert (rule.on_failure, rule.pending.seconds) == ("open", 5.0)


@pytest.mark.parametrize(("endpoint", "conflicts"), [("named", True), ("same", False), ("narrow", True), ("no", False)])
def test_a_rule_for_the_endpoint_with_another_outcome_is_a_problem(endpoint, conflicts):
    rules = route("/x", endpoint=endpoint)
    assert (rules.problem is not None) is conflicts
    if conflicts:
        assert rules.problem.code == "rules.conflict"
        assert "governed at shop.refund" in str(rules.problem)
        assert f"endpoint {endpoint}" in str(rules.problem)


@pytest.mark.parametrize(
    ("method", "match", "conflicts"),
    [("post", "POST /**", True), ("post", "GET,POST /**", True), ("post", "* /**", True), ("post", "GET /**", False)],
)
def test_a_rule_of_a_class_quarrels_with_what_is_said_for_its_own_method_only(method, match, conflicts):
    class View(Base):
        def post(self):
            pass

    declare(getattr(View, method), ACTION)
    table = RuleTable.from_mapping({"rule": [{"endpoint": "pay", "match": match, "action_type": "other"}]})
    assert (table.for_route("/x", endpoint="pay", declared=declared(View)).problem is not None) is conflicts


def test_a_block_at_a_handler_stands_beside_any_rule_for_its_endpoint():
    rules = route("/x", {"block": "not here"}, endpoint="named")
    assert rules.problem is None
    assert rules.select("POST", "/x").block == "not here"


def test_two_declared_rules_that_differ_are_a_problem_and_two_alike_are_not():
    one, other = declaration("a", ACTION), declaration("b", {"action_type": "other"})
    assert TABLE.for_route("/x", declared=(one, other)).problem is not None
    rules = TABLE.for_route("/x", declared=(one, declaration("b", ACTION)))
    assert rules.problem is None
    assert len(rules.candidates()) == 1
