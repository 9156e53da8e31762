"""A rule at the handler: it governs like one of the table, and its view never runs undecided."""

import flask
import pytest
from flask.views import MethodView, View
from kit.engine import answer, options

from ascend_middleware import ConfigurationError
from ascend_middleware.flask import Ascend, governed
from ascend_middleware.wsgi import AscendMiddleware


def ask(app, method, path, **more):
    return app.test_client().open(path, method=method, **more)


def told(engine):
    return [action["action_type"] for action in engine.submitted]


def make(*rules, guarded=True, **settings):
    app, ran = flask.Flask("site"), []
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @app.post("/pay")
    @governed(action_type="pay", details={"amount": "body.amount"})
    def pay():
        ran.append("pay")
        return "x"

    @app.get("/slow")
    @governed(action_type="slow")
    async def slow():
        ran.append("slow")
        return "x"

    class Item(MethodView):
        @governed(action_type="read")
        def get(self, id):
            ran.append("get")
            return "x"

        @governed(action_type="remove")
        def delete(self, id):
            ran.append("delete")
            return "x"

        def put(self, id):
            ran.append("put")
            return "x"

    @governed(action_type="report")
    class Report(View):
        def dispatch_request(self):
            ran.append("report")
            return "x"

    @governed(action_type="all")
    class All(MethodView):
        async def get(self):
            ran.append("all")
            return "x"

    class Decorated(MethodView):
        decorators = (governed(action_type="decorated"),)

        def get(self):
            ran.append("decorated")
            return "x"

    app.add_url_rule("/items/<int:id>", view_func=Item.as_view("item"))
    app.add_url_rule("/report", view_func=Report.as_view("report"))
    app.add_url_rule("/all", view_func=All.as_view("all"))
    app.add_url_rule("/decorated", view_func=Decorated.as_view("decorated"))
    if guarded:
        Ascend(app, **options(list(rules), **settings))
    return app, ran


CASES = [
    ("POST", "/pay", "pay", "pay"),
    ("GET", "/slow", "slow", "slow"),
    ("GET", "/items/7", "read", "get"),
    ("HEAD", "/items/7", "read", "get"),
    ("DELETE", "/items/7", "remove", "delete"),
    ("GET", "/report", "report", "report"),
    ("GET", "/all", "all", "all"),
    ("GET", "/decorated", "decorated", "decorated"),
]


@pytest.mark.parametrize(("method", "path", "action", "view"), CASES)
def test_a_declared_rule_governs_its_view_once(engine, method, path, action, view):
    app, ran = make()
    more = {"json": {"amount": 5}} if method == "POST" else {}
    assert ask(app, method, path, **more).status_code == 200
    assert (told(engine), ran) == ([action], [view])
    engine.answers = [answer("denied")]
    assert ask(app, method, path, **more).status_code == 403
    assert ran == [view]


def test_it_reads_fields_like_a_rule_of_the_table(engine):
    app, ran = make()
    assert ask(app, "POST", "/pay", json={"amount": 5}).status_code == 200
    assert engine.submitted[0]["action_details"] == {"amount": 5}
    assert ask(app, "POST", "/pay", json={"other": 5}).status_code == 400
    assert ran == ["pay"]


def test_a_method_without_a_rule_is_unmapped(engine):
    app, ran = make()
    assert ask(app, "PUT", "/items/7").status_code == 403
    assert (ran, engine.submitted) == ([], [])


@pytest.mark.parametrize(
    ("rules", "settings", "status"),
    [
        ([{"match": "* /report", "block": "closed"}], {}, 403),  # a block of the table wins
        ([], {"enabled": False}, 200),
        ([], {}, 200),  # declared rules need no table
    ],
)
def test_the_table_may_close_it_and_need_not_name_it(engine, rules, settings, status):
    app, ran = make(*rules, **settings)
    assert ask(app, "GET", "/report").status_code == status
    assert ran == ["report"] * (status == 200)


@pytest.mark.parametrize(("method", "path", "action", "view"), CASES)
def test_without_the_extension_a_governed_view_does_not_run(caplog, method, path, action, view):
    app, ran = make(guarded=False)
    assert ask(app, method, path).status_code == 500
    assert ran == []
    assert "nobody decided" in caplog.text


def test_a_guard_around_the_application_does_not_see_the_rule(engine):
    app, ran = make(guarded=False)
    app.wsgi_app = AscendMiddleware(app.wsgi_app, **options([{"match": "GET /**", "exempt": True}]))
    assert ask(app, "GET", "/slow").status_code == 500
    assert ran == []


def test_below_another_decorator_that_hides_it_the_view_does_not_run(engine):
    app, ran = make({"match": "GET /hidden", "action_type": "other"})

    def hiding(function):
        return lambda: function()

    @app.get("/hidden")
    @hiding
    @governed(action_type="secret")
    def hidden():
        ran.append("hidden")
        return "x"

    assert ask(app, "GET", "/hidden").status_code == 500
    assert ran == []


@pytest.mark.parametrize(
    ("target", "place"), [(object(), "builtins.object"), (type("Plain", (), {}), f"{__name__}.Plain")]
)
def test_it_stands_at_views_only(target, place):
    with pytest.raises(ConfigurationError, match=f"^{place}: governed stands at"):
        governed(action_type="x")(target)


def test_a_wrong_rule_is_told_where_it_stands():
    with pytest.raises(ConfigurationError, match="test_flask_declared"):

        @governed(action_typ="x")
        def view(): ...
