"""What comes again is decided about as it comes, each time."""

import itertools

import flask
import pytest
from kit.engine import options
from werkzeug.routing import BaseConverter

from ascend_middleware.flask import Ascend, governed
from ascend_middleware.routing import Kind, Leaf
from ascend_middleware.routing.recurring import Recurring

READ = {"match": "GET /items/{id:int}", "action_type": "read", "resource_id": "{path.id}"}
WRITE = {"match": "POST /items/{id:int}", "action_type": "write", "resource_id": "{path.id}"}
TIMES = 4


def make(*rules, route="/items/<int:id>", **converters):
    app = flask.Flask("site")
    app.url_map.converters |= converters

    @app.route(route, methods=["GET", "POST"])
    def items(id):
        return str(id)

    Ascend(app, **options(list(rules or (READ, WRITE))))
    return app


def ask(app, path, method="GET"):
    return app.test_client().open(path, method=method).status_code


def asked(engine):
    return [(action["action_type"], action["resource_id"]) for action in engine.submitted]


def test_each_request_is_asked_about(engine):
    app = make()
    assert [ask(app, "/items/7") for _ in range(TIMES)] == [200] * TIMES
    assert asked(engine) == [("read", "7")] * TIMES


def test_methods_and_paths_are_told_apart(engine):
    app = make()
    turns = [("GET", "7"), ("POST", "7"), ("GET", "8")] * TIMES
    assert {ask(app, f"/items/{number}", method) for method, number in turns} == {200}
    assert asked(engine) == [("read" if method == "GET" else "write", number) for method, number in turns]


@pytest.mark.parametrize(("value", "told"), [(8, "8"), ("1", "1"), (True, "true"), (1.0, "1.0")])
def test_what_the_application_made_of_a_parameter_before_counts(engine, value, told):
    app = make()
    assert [ask(app, "/items/1") for _ in range(TIMES)] == [200] * TIMES

    def early(sender):
        flask.request.view_args["id"] = value

    with flask.request_started.connected_to(early, app):
        assert [ask(app, "/items/1") for _ in range(TIMES)] == [200] * TIMES
    assert asked(engine) == [("read", "1")] * TIMES + [("read", told)] * TIMES


def test_what_the_application_makes_of_a_parameter_afterwards_is_seen_each_time(engine):
    app = make()

    @app.before_request
    def change():
        if flask.request.headers.get("x-change"):
            flask.request.view_args["id"] += 1

    for _ in range(TIMES):
        assert ask(app, "/items/1") == 200
        assert app.test_client().get("/items/1", headers={"x-change": "yes"}).status_code == 500


def test_another_view_in_its_place_is_another_one(engine):
    app = make()
    assert [ask(app, "/items/7") for _ in range(TIMES)] == [200] * TIMES
    app.view_functions["items"] = governed(action_type="look")(lambda id: "looked")
    assert [ask(app, "/items/7") for _ in range(TIMES)] == [200] * TIMES
    assert [action["action_type"] for action in engine.submitted] == ["read"] * TIMES + ["look"] * TIMES


def test_values_of_which_only_their_type_knows_whether_they_are_the_same_are_asked_for_each_time(engine):
    numbers = itertools.count()

    class Anything:
        def __init__(self):
            self.number = next(numbers)

        def __eq__(self, other):
            return True

        def __str__(self):
            return str(self.number)

        __hash__ = None

    class Converter(BaseConverter):
        def to_python(self, value):
            return Anything()

    app = make({**READ, "match": "GET /items/{id}"}, route="/items/<any_:id>", any_=Converter)
    assert {ask(app, "/items/x") for _ in range(TIMES)} == {200}
    assert len(set(asked(engine))) == TIMES


def test_a_long_path_is_none_that_is_kept(engine):
    app = make({**READ, "match": "GET /items/{id}"}, route="/items/<id>")
    path = f"/items/{'x' * 500}"
    assert [ask(app, path) for _ in range(TIMES)] == [200] * TIMES
    assert asked(engine) == [("read", "x" * 500)] * TIMES


def test_requests_that_share_a_place_are_told_apart():
    """There are fewer places than requests."""
    recurring = Recurring()
    leaf = Leaf(kind=Kind.ROUTE, template="/{name}")
    assert recurring.resolve(leaf, "GET", {}, "/").known is None
    for number in range(10_000):
        recurring.resolve(leaf, "GET", {}, "/")
        kept = recurring.resolve(leaf, "GET", {}, "/")
        assert kept.known is not None
        assert recurring.resolve(leaf, "GET", {}, "/") is kept
        assert recurring.resolve(leaf, f"M{number}", {}, "/") is not kept
        assert recurring.resolve(leaf, "GET", {}, f"/{number}") is not kept
