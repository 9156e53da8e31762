"""What a governed Flask application does, request by request."""

import contextlib
import gc
import json
import weakref
from functools import partial
from typing import ClassVar

import click
import flask
import pytest
from flask.cli import ScriptInfo
from flask.views import MethodView
from kit.engine import GIVEN, answer, options
from kit.wsgi import JSON, Call, Input, environ
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import BaseConverter, IntegerConverter, Rule
from werkzeug.test import Client

from ascend_middleware import AscendError, ConfigurationError
from ascend_middleware.exceptions import MissingAPIKeyError
from ascend_middleware.flask import Ascend, governed
from ascend_middleware.guard import Agent, NotAnAgent, Verdict
from ascend_middleware.routing import Kind
from ascend_middleware.routing.werkzeug import FlaskResolver
from ascend_middleware.wsgi import AscendMiddleware

READ = {"match": "GET /items/{id}", "action_type": "read", "resource_id": "{path.id}"}
PAY = {"match": "POST /pay", "action_type": "pay", "details": {"amount": "body.amount"}}


def make(*rules, app=None, ran=None, **settings):
    """Return an application and the list of what ran in it."""
    app = app or flask.Flask("site")
    ran = [] if ran is None else ran

    @app.get("/items/<id>")
    def items(id):
        ran.append(("items", id, flask.g.get("ascend")))
        return "item"

    @app.post("/pay")
    def pay():
        ran.append(("pay", flask.request.get_json()))
        return "paid"

    @app.get("/other")
    def other():
        ran.append(("other",))
        return "other"

    Ascend(app, **options(list(rules or (READ, PAY)), **settings))
    return app, ran


def ask(app, method, path, **more):
    return app.test_client().open(path, method=method, **more)


def problem(response):
    return json.loads(response.data)["type"].rpartition(":")[2]


def types(engine):
    return [action["action_type"] for action in engine.submitted]


def test_an_allowed_view_runs_and_finds_its_verdict(engine):
    app, ran = make()
    assert ask(app, "GET", "/items/7").data == b"item"
    ((name, item, verdict),) = ran
    assert (name, item) == ("items", "7")
    assert isinstance(verdict, Verdict)
    assert (verdict.outcome, verdict.action_id) == ("allowed", "7")
    assert engine.submitted[0]["resource_id"] == "7"


def test_nothing_is_said_of_a_request_that_passes(engine, caplog):
    app, ran = make()
    assert (ask(app, "GET", "/items/7").status_code, len(ran)) == (200, 1)
    assert [line.getMessage() for line in caplog.records if line.name == "ascend_middleware.flask"] == []


def test_a_denial_is_a_problem_document(engine):
    engine.answers = [answer("denied", reason="no")]
    app, ran = make()
    response = ask(app, "GET", "/items/7")
    assert (response.status_code, problem(response), ran) == (403, "denied", [])
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["ascend-action-id"] == "7"


def test_the_application_answers_in_its_own_style(engine):
    engine.answers = [answer("denied")]
    app, _ = make(render=lambda status, headers, body: (451, [("x-was", str(status))], b"no"))
    response = ask(app, "GET", "/items/7")
    assert (response.status_code, response.headers["x-was"], response.data) == (451, "403", b"no")


def test_what_the_application_adds_to_responses_stands_at_refusals_too(engine):
    engine.answers = [answer("denied")]
    app, _ = make()

    @app.after_request
    def cors(response):
        response.headers["access-control-allow-origin"] = "*"
        return response

    assert ask(app, "GET", "/items/7").headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("method", "path", "status", "named"),
    [
        ("GET", "/other", 403, "unmapped-route"),
        ("GET", "/static/x.txt", 403, "unmapped-route"),
        ("GET", "/nothing", 404, None),
        ("PUT", "/pay", 405, None),
        ("OPTIONS", "/pay", 200, None),
        ("OPTIONS", "/nothing", 404, None),
        ("POST", "//pay", 400, "bad-request"),
        ("GET", "/nothing//x", 400, "bad-request"),
        ("GET", "/items/..", 400, "bad-request"),
        ("GET", "/items/a;b", 400, "bad-request"),
    ],
)
def test_what_needs_no_authority(engine, method, path, status, named):
    app, ran = make()
    call = Call(app, environ(method, path))
    assert (call.status, ran, engine.submitted) == (status, [], [])
    if named:
        assert call.problem == named


def test_head_runs_the_view_and_is_governed_as_get(engine):
    app, ran = make()
    assert ask(app, "HEAD", "/items/7").status_code == 200
    assert (len(ran), types(engine)) == (1, ["read"])
    engine.answers = [answer("denied")]
    assert ask(app, "HEAD", "/items/7").status_code == 403
    assert len(ran) == 1


def test_redirects_of_the_framework_go_out(engine):
    app, ran = make({"match": "GET /folder", "action_type": "list"})
    app.add_url_rule("/folder/", "folder", lambda: ran.append("folder") or "x")
    assert ask(app, "GET", "/folder").status_code == 308
    assert (ran, engine.submitted) == ([], [])
    # The rule has no trailing slash; that never changes what governs.
    assert ask(app, "GET", "/folder/").status_code == 200
    assert types(engine) == ["list"]


def test_what_the_url_map_makes_of_requests():
    app, _ = make()
    app.add_url_rule("/folder/", "folder", lambda: "x")
    app.register_blueprint(flask.Blueprint("part", "part", static_folder="files", url_prefix="/part"))
    resolver = FlaskResolver(app)
    for method, path, kind in (
        ("GET", "/items/7", Kind.ROUTE),
        ("GET", "/folder", Kind.REDIRECT),
        ("DELETE", "/items/7", Kind.METHOD_NOT_ALLOWED),
        ("OPTIONS", "/items/7", Kind.OPTIONS),
        ("GET", "/none", Kind.NOT_FOUND),
        ("GET", "/static/a", Kind.STATIC),
        ("GET", "/part/files/a", Kind.STATIC),
    ):
        with app.test_request_context(path, method=method):
            found = [resolver.resolve(flask.request, path) for _ in range(2)]
        assert [one.kind for one in found] == [kind] * 2, path
        assert found[0].leaf is found[1].leaf  # the same one each time: what was worked out for it is kept


# OPTIONS


def test_options_that_reach_a_view_are_governed(engine):
    app, ran = make({"match": "GET /mine", "action_type": "read"})
    app.add_url_rule("/mine", "mine", lambda: ran.append("mine") or "x", methods=["GET", "OPTIONS"])
    app.add_url_rule(
        "/manual", "manual", lambda: ran.append("manual") or "x", methods=["OPTIONS"], provide_automatic_options=False
    )
    app.url_map.add(Rule("/bare", endpoint="mine", methods=["GET", "OPTIONS"]))
    for path in ("/mine", "/manual", "/bare"):
        assert ask(app, "OPTIONS", path).status_code == 403
    assert ran == []
    methods = {leaf.template: leaf.methods for leaf in app.extensions["ascend"].resolver.leaves()}
    assert all("OPTIONS" in methods[path] for path in ("/mine", "/manual", "/bare"))
    assert "OPTIONS" not in methods["/other"]


# Where the guard stands


def test_nothing_of_the_application_runs_before_it(engine):
    engine.answers = [answer("denied")]
    app, ran = make()
    hooked = []
    app.before_request(lambda: hooked.append("later"))
    app.before_request_funcs[None].insert(0, lambda: hooked.append("first"))
    app.url_value_preprocessor(lambda endpoint, values: hooked.append("values"))
    assert ask(app, "GET", "/items/7").status_code == 403
    assert (hooked, ran) == ([], [])
    engine.answers = [answer()]
    assert ask(app, "GET", "/items/7").status_code == 200
    assert hooked == ["values", "first", "later"]


def test_an_earlier_hook_stands_behind_it(engine):
    app = flask.Flask("site")
    hooked = []

    @app.before_request
    def early():
        hooked.append(flask.request.path)
        return "answered"

    engine.answers = [answer("denied")]
    make(app=app)
    assert ask(app, "GET", "/items/7").status_code == 403
    assert hooked == []


def test_a_hook_that_answers_where_no_route_is_goes_by_its_path(engine, caplog):
    app, _ = make({"match": "GET /up", "exempt": True}, {"match": "GET /work", "action_type": "work"})
    hooked = []

    @app.before_request
    def early():
        path = flask.request.path
        hooked.append(path)
        if path in ("/up", "/work", "/secret"):
            return f"answered {path}"
        if path == "/in":
            return flask.redirect("/login")
        return None

    assert ask(app, "GET", "/up").data == b"answered /up"
    assert ask(app, "GET", "/work").data == b"answered /work"
    assert types(engine) == ["work"]
    assert problem(ask(app, "GET", "/secret")) == "unmapped-route"
    assert ask(app, "GET", "/in").status_code == 302
    assert ask(app, "GET", "/nothing").status_code == 404
    assert "without a decision" not in caplog.text
    engine.answers = [answer("denied")]
    assert problem(ask(app, "GET", "/work")) == "denied"


def test_a_hook_that_changes_the_route_or_the_method_stops_the_request(engine, caplog):
    app, ran = make({"match": "GET /pub", "exempt": True}, {"match": "GET /both", "action_type": "read"})
    app.add_url_rule("/pub", "pub", lambda: "public")

    class Both(MethodView):
        def get(self):
            return "got"

        def delete(self):
            ran.append("deleted")
            return "deleted"

    app.add_url_rule("/both", view_func=Both.as_view("both"))

    @app.before_request
    def change():
        if "route" in flask.request.args:
            flask.request.url_rule = next(rule for rule in app.url_map.iter_rules() if rule.endpoint == "other")
        if "method" in flask.request.args:
            flask.request.method = "DELETE"

    assert ask(app, "GET", "/pub").data == b"public"
    assert ask(app, "GET", "/both").data == b"got"
    for path in ("/pub?route", "/both?method", "/both?route"):
        response = ask(app, "GET", path)
        assert (response.status_code, problem(response)) == (500, "misconfigured")
    assert ran == []
    assert "after the decision" in caplog.text


@pytest.mark.parametrize("after", [None, "set_user"])
@pytest.mark.parametrize("new_rule", [False, True])
@pytest.mark.parametrize("old_rule", [False, True])
def test_a_view_that_a_hook_replaces_after_the_decision_does_not_run(engine, caplog, old_rule, new_rule, after):
    app, ran = make({"match": "GET /page", "action_type": "table"}, after=after and f"{__name__}.{after}")

    def view(name, governed_as=None):
        function = lambda: ran.append(name) or name  # noqa: E731
        return governed(action_type=governed_as)(function) if governed_as else function

    app.add_url_rule("/page", "page", view("old", old_rule and "table"))
    app.before_request(set_user)

    @app.before_request
    def swap():
        if "swap" in flask.request.args:
            app.view_functions["page"] = view("new", new_rule and "table")

    assert ask(app, "GET", "/page").data == b"old"
    response = ask(app, "GET", "/page?swap")
    assert (response.status_code, problem(response), ran) == (500, "misconfigured", ["old"])
    assert "changed '/page' after the decision" in caplog.text
    # The next request is decided about as what it now is.
    assert ask(app, "GET", "/page").data == b"new"


def test_a_view_that_is_replaced_between_requests_is_governed_as_what_it_is(engine):
    app, ran = make({"match": "GET /page", "exempt": True})
    app.add_url_rule("/page", "page", lambda: ran.append("old") or "old")
    assert ask(app, "GET", "/page").data == b"old"
    app.view_functions["page"] = governed(action_type="new")(lambda: ran.append("new") or "new")
    engine.answers = [answer("denied")]
    assert problem(ask(app, "GET", "/page")) == "denied"
    engine.answers = [answer()]
    assert ask(app, "GET", "/page").data == b"new"
    assert (ran, types(engine)) == (["old", "new"], ["new", "new"])


def test_a_hook_may_take_parameters_but_not_exchange_them(engine):
    app, ran = make({"match": "GET /{lang}/items/{id:int}", "action_type": "read", "details": {"l": "path.lang"}})

    @app.get("/<lang>/items/<int:id>")
    def item(id, **more):
        ran.append((id, more))
        return "x"

    @app.url_value_preprocessor
    def values(endpoint, values):
        if endpoint == "item":
            lang = values.pop("lang")
            if lang == "xx":
                values["id"] = 99
            elif lang == "oo":
                values["id"] = ["an object"]
            else:
                values["extra"] = lang

    assert ask(app, "GET", "/en/items/7").status_code == 200
    assert engine.submitted[0]["action_details"] == {"l": "en"}
    assert ask(app, "GET", "/oo/items/7").status_code == 200
    assert ask(app, "GET", "/xx/items/7").status_code == 500
    assert ran == [(7, {"extra": "en"}), (["an object"], {})]


def test_without_the_first_wall_the_second_stands(engine):
    app, ran = make()
    own = app.preprocess_request
    app.preprocess_request = lambda *arguments: None  # another extension, gone wrong
    app.testing = True
    with pytest.raises(AscendError, match="no decision for this request: the application's preprocess_request was rep"):
        ask(app, "GET", "/items/7")
    app.testing = False
    assert ask(app, "GET", "/items/7").status_code == 500
    assert (ran, engine.requests) == ([], [])
    app.preprocess_request = own
    assert (ask(app, "GET", "/items/7").status_code, len(ran)) == (200, 1)


def test_a_refusal_that_another_extension_loses_stands(engine):
    app, ran = make()
    own = app.preprocess_request
    app.preprocess_request = lambda *arguments: (own(*arguments), None)[1]
    engine.answers = [answer("denied")]
    assert (ask(app, "GET", "/items/7").status_code, ran) == (500, [])
    engine.answers = [answer()]
    assert (ask(app, "GET", "/items/7").status_code, len(ran)) == (200, 1)


def refusing(app, function):
    """Let an application's functions need what is only there where all of it ran."""
    app.before_request(function)

    @app.after_request
    def timed(response):
        response.headers["x-user"] = flask.g.user
        return response


def set_user():
    flask.g.user = "ann"


def test_an_after_request_function_that_needs_what_did_not_come_to_be_set(engine, caplog):
    engine.answers = [answer("denied")]
    app, ran = make()
    refusing(app, set_user)
    app.testing = True
    refused = ask(app, "GET", "/items/7")
    assert (refused.status_code, problem(refused), ran) == (403, "denied", [])
    assert "an after_request function failed at a refusal" in caplog.text
    assert "\nAttributeError: user" in caplog.text
    engine.answers = [answer()]
    assert ask(app, "GET", "/items/7").headers["x-user"] == "ann"


def test_an_after_request_function_that_fails_by_itself_is_the_applications_fault(engine):
    app, _ = make()

    @app.after_request
    def broken(response):
        raise RuntimeError("its own")

    app.testing = True
    with pytest.raises(RuntimeError, match="its own"):
        ask(app, "GET", "/items/7")


class TestDecidingAfterAFunction:
    """`identify` finds what a function of the application has set."""

    @staticmethod
    def identify(request):
        return Agent("bot", principal=flask.g.user)

    def make(self, after, **more):
        app, ran = make(identify=self.identify, after=after, **more)
        order = []
        app.before_request(lambda: order.append("first"))
        refusing(app, set_user)
        app.before_request(lambda: order.append(("last", flask.g.ascend.principal)))
        return app, ran, order

    @pytest.mark.parametrize("after", [set_user, f"{__name__}.set_user"])
    def test_it_comes_right_behind_it(self, engine, after):
        app, ran, order = self.make(after)
        for count in (1, 2):
            assert ask(app, "GET", "/items/7").headers["x-user"] == "ann"
            assert (len(ran), len(engine.requests)) == (count, count)
        assert order == ["first", ("last", "ann")] * 2
        engine.answers = [answer("denied")]
        refused = ask(app, "GET", "/items/7")
        assert (refused.status_code, refused.headers["x-user"], len(ran)) == (403, "ann", 2)
        assert order[4:] == ["first"]

    def test_it_may_stand_in_the_configuration(self, engine):
        app = flask.Flask("site")
        app.config["ASCEND"] = {"after": f"{__name__}.set_user"}
        make(app=app, identify=self.identify)
        refusing(app, set_user)
        assert ask(app, "GET", "/items/7").status_code == 200

    def test_an_argument_wins_over_the_configuration(self, engine):
        app = flask.Flask("site")
        app.config["ASCEND"] = {"after": "shop.no_such_function"}
        make(app=app, identify=self.identify, after=set_user)
        refusing(app, set_user)
        assert ask(app, "GET", "/items/7").status_code == 200

    @pytest.mark.parametrize("name", ["set_user", "factory.<locals>.set_user"])
    def test_it_may_be_within_an_application_factory(self, engine, name):
        def set_user():
            flask.g.user = "ann"

        set_user.__qualname__ = "factory.<locals>.set_user"
        app, ran = make(identify=self.identify, after=f"{__name__}.{name}")
        app.before_request(set_user)
        assert ask(app, "GET", "/items/7").status_code == 200

    def test_a_name_of_several_is_told_and_decides_first(self, engine, caplog):
        app, ran = make(identify=self.identify, after=f"{__name__}.set_user")
        for factory in ("one", "two"):

            def set_user():
                flask.g.user = "ann"

            set_user.__qualname__ = f"{factory}.<locals>.set_user"
            app.before_request(set_user)
        assert ask(app, "GET", "/items/7").status_code == 500
        assert (ran, engine.requests) == ([], [])
        assert f"{__name__}.one.<locals>.set_user, {__name__}.two.<locals>.set_user" in caplog.text

    def test_a_name_of_nothing_is_told_and_decides_first(self, engine, caplog):
        app, ran, _ = self.make("shop.no_such_function")
        for _ in range(3):
            assert ask(app, "GET", "/items/7").status_code == 500  # identify finds no user
        assert (ran, engine.requests) == ([], [])
        assert caplog.text.count("'shop.no_such_function' names no before_request function") == 1

    def test_where_there_is_no_function_at_all_that_is_told(self, engine, caplog):
        app, ran = make(after="shop.no_such_function")
        assert (ask(app, "GET", "/items/7").status_code, len(ran)) == (200, 1)
        assert "of 'site', or several (of: none); the guard decides before all" in caplog.text

    @pytest.mark.parametrize("status", [200, 302])
    def test_a_function_before_it_that_answers(self, engine, status):
        app = flask.Flask("site")
        app.before_request(lambda: ("early", status))
        app, ran = make(app=app, after=set_user)
        refusing(app, set_user)
        app.after_request_funcs.clear()
        engine.answers = [answer("denied")]
        # A success is decided about before it goes out; what else the application answers is its own.
        assert ask(app, "GET", "/items/7").status_code == (403 if status == 200 else 302)
        assert (ran, len(engine.requests)) == ([], 1 if status == 200 else 0)

    def test_what_it_answers_by_itself_goes_out_undecided(self, engine):
        def sign_in():
            return ("who are you?", 401) if "anonymous" in flask.request.args else None

        app, ran = make(after=sign_in)
        app.before_request(sign_in)
        assert ask(app, "GET", "/items/7").status_code == 200
        assert ask(app, "GET", "/items/7?anonymous").data == b"who are you?"
        assert (len(ran), len(engine.submitted)) == (1, 1)

    def test_where_it_runs_twice_the_decision_is_made_once(self, engine):
        app, ran = make({"endpoint": "more.page", "match": "GET /**", "action_type": "read"}, after=set_user)
        app.before_request(set_user)
        more = flask.Blueprint("more", "more")
        more.add_url_rule("/page", "page", lambda: ran.append("page") or "x")
        app.register_blueprint(more)
        app.before_request_funcs["more"] = app.before_request_funcs[None]
        assert (ask(app, "GET", "/page").status_code, ran, types(engine)) == (200, ["page"], ["read"])

    def test_where_it_does_not_run_the_decision_is_made_all_the_same(self, engine):
        app = flask.Flask("site")
        blueprint = flask.Blueprint("other", "other")
        blueprint.before_request(set_user)
        app.register_blueprint(blueprint)
        app, ran = make(app=app, after=set_user)
        engine.answers = [answer("denied")]
        assert (ask(app, "GET", "/items/7").status_code, ran) == (403, [])

    def test_what_was_changed_behind_it_is_refused(self, engine):
        app, ran = make(after=set_user)
        app.before_request(set_user)

        @app.before_request
        def change():
            flask.request.view_args = {"id": "8"}

        assert (ask(app, "GET", "/items/7").status_code, ran) == (500, [])

    def test_what_was_changed_before_it_is_what_is_decided_about(self, engine):
        app = flask.Flask("site")

        @app.before_request
        def change():
            flask.request.view_args = {"id": "8"}

        app.before_request(set_user)
        app, ran = make(app=app, after=set_user)
        assert ask(app, "GET", "/items/7").status_code == 200
        assert [one[1] for one in ran] == ["8"]
        assert engine.submitted[0]["resource_id"] == "8"


@pytest.mark.parametrize("asked", [False, True])
def test_an_application_is_freed_as_soon_as_nobody_holds_it(engine, asked):
    gc.collect()
    gc.disable()
    try:
        app, _ = make()
        if asked:
            assert Call(app, environ("GET", "/items/7")).status == 200
        held = weakref.ref(app)
        del app
        assert held() is None
    finally:
        gc.enable()


class Site(flask.Flask):
    __slots__ = ("of_its_own",)
    known: ClassVar = []

    def __init_subclass__(cls, **options):
        Site.known.append(cls)


@pytest.mark.parametrize("kind", [flask.Flask, Site])
@pytest.mark.parametrize(
    "around",
    [
        lambda app: app.wsgi_app,
        lambda app: ProxyFix(app.wsgi_app),
        lambda app: DispatcherMiddleware(flask.Flask("other"), {"/in": app.wsgi_app}),
    ],
)
def test_an_application_lives_as_long_as_a_method_of_it_is_held(engine, around, kind):
    gc.collect()
    gc.disable()
    try:
        engine.answers = [answer(), answer("denied")]
        app, ran = make(app=kind("site"))
        freed, served = weakref.ref(app), around(app)
        del app
        path = "/in/items/7" if isinstance(served, DispatcherMiddleware) else "/items/7"
        assert [Call(served, environ("GET", path)).status for _ in range(2)] == [200, 403]
        assert len(ran) == 1
        assert type(freed()).__name__ == kind.__name__
        assert isinstance(freed(), kind)
        del served
        assert freed() is None
        assert Site.known == []
    finally:
        gc.enable()


def test_what_an_application_put_in_place_of_its_methods_before_stands_behind(engine):
    app = flask.Flask("site")
    seen = []
    own = app.wsgi_app

    def wsgi_app(environ, start_response):
        seen.append("wsgi_app")
        return own(environ, start_response)

    def preprocess_request(*arguments):
        seen.append("preprocess_request")

    app.wsgi_app, app.preprocess_request = wsgi_app, preprocess_request
    engine.answers = [answer(), answer("denied")]
    app, ran = make(app=app)
    assert [ask(app, "GET", "/items/7").status_code for _ in range(2)] == [200, 403]
    assert (seen, len(ran)) == (["wsgi_app", "preprocess_request", "wsgi_app"], 1)


def test_every_method_that_an_application_replaced_before_is_called(engine):
    seen = []

    class Site(flask.Flask):
        """Its methods are wrapped, each by a function in the object itself."""

    app = Site("site")
    for name in ("preprocess_request", "dispatch_request", "process_response"):
        own = getattr(app, name)
        setattr(app, name, lambda *arguments, own=own, name=name: (seen.append(name), own(*arguments))[1])
    app, ran = make(app=app)
    assert ask(app, "GET", "/items/7").data == b"item"
    assert (seen, len(ran)) == (["preprocess_request", "dispatch_request", "process_response"], 1)


def test_methods_that_are_called_alone_tell_what_is_missing(engine):
    app, ran = make()
    with app.test_request_context("/items/7"), pytest.raises(AscendError, match="preprocess_request was replaced"):
        app.dispatch_request()

    @app.after_request
    def broken(response):
        raise ZeroDivisionError

    with app.test_request_context("/items/7"), pytest.raises(ZeroDivisionError):
        app.process_response(app.response_class("x"))
    assert ran == []


def test_an_after_request_function_that_fails_before_anything_was_decided_is_the_applications_fault(engine):
    app, _ = make()
    app.testing = True
    app.register_error_handler(KeyError, lambda error: ("early", 400))

    @app.after_request
    def broken(response):
        raise ZeroDivisionError

    def early(sender):
        raise KeyError

    with flask.request_started.connected_to(early, app), pytest.raises(ZeroDivisionError):
        ask(app, "GET", "/items/7")


def test_methods_may_be_called_one_by_one(engine):
    app, ran = make()
    with app.test_request_context("/items/7"):
        assert app.preprocess_request() is None
        assert flask.g.ascend.outcome == "allowed"
        assert app.dispatch_request() == "item"
    engine.answers = [answer("denied")]
    with app.test_request_context("/items/7"):
        assert app.preprocess_request().status_code == 403
    assert len(ran) == 1


# Successes without a decision


@pytest.mark.parametrize("strict", [False, True])
def test_a_success_for_what_no_route_is_trips_the_wire(engine, caplog, strict):
    app, _ = make(strict=strict)
    app.register_error_handler(404, lambda error: ("index", 200))
    response = Client(app) if not strict else None
    if strict:
        with pytest.raises(Exception, match="no decision was made"):
            Client(app).get("/nothing")
    else:
        assert response.get("/nothing").data == b"index"
    assert "succeeded without a decision" in caplog.text


@pytest.mark.parametrize(("status", "told"), [(200, True), (299, True), (300, False), (404, False)])
def test_only_successes_trip_the_wire(engine, caplog, status, told):
    app, _ = make()
    app.register_error_handler(404, lambda error: ("index", status))
    assert ask(app, "GET", "/nothing").status_code == status
    assert ("succeeded without a decision" in caplog.text) is told


@pytest.mark.parametrize(("status", "decided"), [(200, True), (299, True), (300, False), (404, False)])
def test_only_successes_of_a_hook_that_answers_where_no_route_is_are_decided_about(engine, status, decided):
    app, _ = make({"match": "GET /work", "action_type": "work"})
    app.before_request(lambda: ("work", status))
    engine.answers = [answer("denied")]
    assert ask(app, "GET", "/work").status_code == (403 if decided else status)
    assert types(engine) == ["work"] * decided


@pytest.mark.parametrize("strict", [False, True])
def test_a_middleware_that_answers_by_itself_trips_the_wire_where_the_guard_stands_outside(engine, caplog, strict):
    app = flask.Flask("site")
    inner = app.wsgi_app

    def health(environ, start_response):
        if environ["PATH_INFO"] == "/healthz":
            start_response("200 OK", [])
            return [b"up"]
        return inner(environ, start_response)

    app.wsgi_app = health
    make(app=app, strict=strict)
    if strict:
        with pytest.raises(Exception, match="no decision was made"):
            Client(app).get("/healthz")
    else:
        assert Client(app).get("/healthz").data == b"up"
    assert "before the guard saw it" in caplog.text
    caplog.clear()
    assert Client(app).get("/items/7").status_code == 200
    assert Client(app).options("/pay").status_code == 200
    assert "without a decision" not in caplog.text


# Routes


class Even(BaseConverter):
    regex = r"\d*[02468]"

    def to_python(self, value):
        return int(value) // 2


class Tail(BaseConverter):
    regex = ".+/end"


@pytest.mark.parametrize(
    ("rule", "match", "path", "told"),
    [
        ("/a/<x>", "GET /a/{x}", "/a/b", "b"),
        ("/a/<string(length=2):x>", "GET /a/{x}", "/a/bb", "bb"),
        ("/a/<int:x>", "GET /a/{x:int}", "/a/7", 7),
        ("/a/<int:x>", "GET /a/{x}", "/a/٣", 3),
        ("/a/<int(signed=True):x>", "GET /a/{x:int}", "/a/-7", -7),
        ("/a/<float:x>", "GET /a/{x}", "/a/1.5", 1.5),
        ("/a/<any(b, c):x>", "GET /a/{x}", "/a/c", "c"),
        ("/a/<uuid:x>", "GET /a/{x:uuid}", "/a/00000000-0000-4000-8000-000000000001", None),
        ("/a/<path:x>", "GET /a/{x:path}", "/a/b/c", "b/c"),
        ("/a/<path:x>", "GET /a/b/**", "/a/b/c", None),
        ("/a/<path:y>/<x>", "GET /a/**", "/a/b/c/d", None),
        ("/a/<even:x>", "GET /a/{x}", "/a/14", 7),
        ("/a/<tail:x>", "GET /a/{x:path}", "/a/b/c/end", "b/c/end"),
        ("/a/<whole:x>", "GET /a/{x:int}", "/a/7", 7),
        ("/a-<x>.<y>", "GET /a-b.c", "/a-b.c", None),
        ("/a/<x>/", "GET /a/{x}/", "/a/b/", "b"),
    ],
)
def test_every_form_of_a_route_is_governed(engine, rule, match, path, told):
    details = {"x": "path.x"} if told is not None else None
    app, ran = make({"match": match, "action_type": "read", **({"details": details} if details else {})})
    app.url_map.converters.update(even=Even, tail=Tail, whole=partial(IntegerConverter, min=1))
    app.add_url_rule(rule, "it", lambda **arguments: ran.append(arguments) or "x")
    assert ask(app, "GET", path).status_code == 200
    assert len(ran) == 1
    if told is not None:
        assert engine.submitted[0]["action_details"] == {"x": told}
        assert ran[0]["x"] == told
    engine.answers = [answer("denied")]
    assert ask(app, "GET", path).status_code == 403
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("rule", "match", "path"),
    [
        ("/a/<tail:x>", "GET /a/{x}", "/a/b/c/end"),
        ("/a/<path:x>", "GET /a/{x}", "/a/b/c"),
        ("/a/<int:x>", "GET /a/{x:uuid}", "/a/7"),
        ("/a/<uuid:x>", "GET /a/{x:int}", "/a/00000000-0000-4000-8000-000000000001"),
        ("/a/<even:x>", "GET /a/{x:uuid}", "/a/14"),
    ],
)
def test_a_rule_for_less_than_a_route_does_not_govern_it(engine, rule, match, path):
    app, ran = make({"match": match, "action_type": "read"})
    app.url_map.converters.update(even=Even, tail=Tail)
    app.add_url_rule(rule, "it", lambda **arguments: ran.append(arguments) or "x")
    assert problem(ask(app, "GET", path)) == "unmapped-route"
    assert (ran, engine.submitted) == ([], [])


def test_rules_may_name_the_endpoint(engine):
    app, ran = make({"endpoint": "shop.buy", "action_type": "buy"})
    blueprint = flask.Blueprint("shop", "shop", url_prefix="/shop")
    blueprint.add_url_rule("/buy/<int:n>", "buy", lambda n: ran.append(n) or "x", methods=["POST"])
    app.register_blueprint(blueprint)
    app.register_blueprint(blueprint, url_prefix="/again", name="again")
    assert ask(app, "POST", "/shop/buy/3").status_code == 200
    assert (ran, types(engine)) == ([3], ["buy"])
    assert ask(app, "POST", "/again/buy/3").status_code == 403


def test_hosts_and_subdomains_have_rules_of_their_own(ran, engine):
    app = flask.Flask("site", host_matching=True, static_host="a.local")
    app.add_url_rule("/pay", "here", lambda: ran.append("here") or "x", host="a.local")
    app.add_url_rule("/pay", "there", lambda: ran.append("there") or "x", host="b.local")
    Ascend(
        app, **options([{"match": "GET /pay", "action_type": "here"}, {"endpoint": "there", "action_type": "there"}])
    )
    for host in ("a.local", "b.local", "c.local"):
        ask(app, "GET", "/pay", base_url=f"http://{host}")
    assert ran == types(engine) == ["here", "there"]
    hosts = {leaf.endpoint: leaf.host for leaf in FlaskResolver(app).leaves()}
    assert hosts == {"static": "a.local", "here": "a.local", "there": "b.local"}


def test_routes_that_come_later_are_governed(engine):
    app, ran = make({"match": "POST /late", "action_type": "late"})
    assert ask(app, "POST", "/late").status_code == 404
    app.view_functions["late"] = lambda: ran.append("late") or "x"
    app.url_map.add(Rule("/late", endpoint="late", methods=["POST"]))
    assert ask(app, "POST", "/late").status_code == 200
    app.view_functions["more"] = lambda: ran.append("more") or "x"
    app.url_map.add(Rule("/more", endpoint="more", methods=["POST"]))
    assert ask(app, "POST", "/more").status_code == 403
    assert (ran, types(engine)) == (["late"], ["late"])


def test_static_files_go_by_their_path(engine, tmp_path):
    for name in ("public", "private"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    app = flask.Flask("site", static_folder=str(tmp_path), static_url_path="/static")
    Ascend(
        app,
        **options(
            [
                {"match": "GET /static/public/**", "exempt": True},
                {"match": "GET /static/private/**", "action_type": "file"},
            ]
        ),
    )
    engine.answers = [answer("denied")]
    with ask(app, "GET", "/static/public/a.txt") as response:
        assert response.data == b"public"
    for path in ("private/a.txt", "public/../private/a.txt", "public/./a.txt", "public/%2e%2e/private/a.txt"):
        assert ask(app, "GET", f"/static/{path}").status_code in (400, 403)
    assert types(engine) == ["file"]


def test_async_views_run(engine):
    app, ran = make({"match": "GET /slow", "action_type": "read"})

    @app.get("/slow")
    async def slow():
        ran.append(flask.g.ascend.outcome)
        return "slow"

    assert ask(app, "GET", "/slow").data == b"slow"
    engine.answers = [answer("denied")]
    assert ask(app, "GET", "/slow").status_code == 403
    assert ran == ["allowed"]


# Bodies


@pytest.mark.parametrize("chunked", [False, True])
def test_the_view_gets_the_body_that_was_judged(engine, chunked):
    app, ran = make()
    content = b'{"amount": 5, "note": "x"}'
    more = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"} if chunked else {}
    given = environ(
        "POST", "/pay", content=Input(content, part=4), length=None if chunked else len(content), headers=JSON, **more
    )
    assert Call(app, given).status == 200
    assert ran == [("pay", {"amount": 5, "note": "x"})]
    assert engine.submitted[0]["action_details"] == {"amount": 5}


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"amount": 5, "amount": 9}', "application/json"),
        (b'{"amount": 5}', "text/plain"),
        (b'{"amount": 5}', "application/json; charset=utf-16"),
        (b"", "application/json"),
    ],
)
def test_a_body_that_could_be_read_two_ways_is_refused(engine, content, kind):
    app, ran = make()
    assert ask(app, "POST", "/pay", data=content, content_type=kind).status_code == 400
    assert (ran, engine.submitted) == ([], [])


def test_compressed_long_and_broken_bodies_are_refused(engine):
    app, ran = make()
    headers = [*JSON, ("content-encoding", "gzip")]
    assert Call(app, environ("POST", "/pay", content=b"\x1f\x8b", headers=headers)).status == 400
    content = b'{"amount": 5, "pad": "' + b"x" * 70_000 + b'"}'
    assert Call(app, environ("POST", "/pay", content=content, headers=JSON)).status == 413
    assert Call(app, environ("POST", "/pay", content=b'{"amount": 5}', length=40, headers=JSON)).status == 400
    assert (ran, engine.submitted) == ([], [])


FORM = {"match": "POST /form", "action_type": "form", "details": {"amount": "form.amount?"}}


def form_app(**more):
    app, ran = make(FORM, **more)

    @app.post("/form")
    def form():
        ran.append(flask.request.values.get("amount"))
        return "x"

    return app, ran


@pytest.mark.parametrize(
    ("query", "content", "told"),
    [("", "amount=5", "5"), ("", "amount=5&amount=9", None), ("amount=9", "amount=5", None), ("amount=9", "x=5", None)],
)
def test_a_form_says_one_thing(engine, query, content, told):
    app, ran = form_app()
    response = ask(app, "POST", f"/form?{query}", data=content, content_type="application/x-www-form-urlencoded")
    assert response.status_code == (200 if told else 400)
    assert ran == ([told] if told else [])
    assert [action["action_details"] for action in engine.submitted] == ([{"amount": told}] if told else [])


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("reads", ["data", "form", "stream"])
def test_what_was_read_before_the_guard_is_judged_or_refused(engine, chunked, reads):
    app, ran = form_app()

    def early(sender):
        request = flask.request
        request.get_data() if reads == "data" else request.form if reads == "form" else request.stream.read()

    flask.request_started.connect(early, app)
    more = {"wsgi.input_terminated": True} if chunked else {}
    content = b"amount=5"
    given = environ(
        "POST",
        "/form",
        content=Input(content),
        length=None if chunked else len(content),
        headers=[("content-type", "application/x-www-form-urlencoded")],
        **more,
    )
    call = Call(app, given)
    assert call.status == (200 if reads == "data" else 400)
    assert ran == (["5"] if reads == "data" else [])
    assert [action["action_details"] for action in engine.submitted] == [{"amount": "5"}] * len(ran)


@pytest.mark.parametrize(("spare", "status"), [(0, 200), (-1, 413)])
def test_what_was_read_before_the_guard_is_no_larger_than_the_limit(engine, spare, status):
    content = b"amount=5"
    app, ran = form_app(body_limit=len(content) + spare)

    def early(sender):
        flask.request.get_data()

    headers = [("content-type", "application/x-www-form-urlencoded")]
    given = environ("POST", "/form", content=Input(content), headers=headers, **{"wsgi.input_terminated": True})
    with flask.request_started.connected_to(early, app):
        assert Call(app, given).status == status
    assert len(ran) == (status == 200)


# Who only observes refuses it, too: the view would get nothing of what was sent.
@pytest.mark.parametrize("mode", ["enforce", "observe"])
@pytest.mark.parametrize(("content", "status"), [(b"", 200), (b"x", 400)])
def test_a_body_that_was_used_up_before_is_told_from_one_that_is_empty(engine, content, status, mode):
    app, ran = form_app(mode=mode)
    flask.request_started.connect(lambda sender: flask.request.stream.read(), app, weak=False)
    kind = "application/x-www-form-urlencoded"
    assert ask(app, "POST", "/form", data=content, content_type=kind).status_code == status
    assert (len(ran), len(engine.submitted)) == ((1, 1) if status == 200 else (0, 0))


def test_a_view_may_stream_a_body_that_no_rule_reads(engine):
    app, ran = make({"match": "POST /up", "action_type": "up"})

    @app.post("/up")
    def up():
        for part in iter(lambda: flask.request.stream.read(1000), b""):
            ran.append(len(part))
        return "x"

    content = Input(b"x" * 200_000)
    assert Call(app, environ("POST", "/up", content=content, length=200_000)).status == 200
    assert sum(ran) == 200_000


# Who asks


def test_identify_gets_the_request(engine):
    found = {"bot": Agent("bot-7"), "person": NotAnAgent("signed in")}
    app, ran = make(identify=lambda request: found.get(request.headers.get("authorization")))
    assert ask(app, "GET", "/items/7", headers={"authorization": "bot"}).status_code == 200
    assert ask(app, "GET", "/items/7", headers={"authorization": "person"}).status_code == 200
    assert ask(app, "GET", "/items/7").status_code == 403
    assert [action["agent_id"] for action in engine.submitted] == ["bot-7"]


# Several applications, factories, settings


def test_one_extension_guards_several_applications(ran, engine):
    ascend = Ascend(**options([READ]))

    def create_app(name):
        app = flask.Flask(name)
        app.add_url_rule("/items/<id>", "items", lambda id: ran.append((name, flask.g.ascend.outcome)) or "x")
        ascend.init_app(app)
        return app

    one, two = create_app("one"), create_app("two")
    assert ask(one, "GET", "/items/1").status_code == ask(two, "GET", "/items/2").status_code == 200
    assert ran == [("one", "allowed"), ("two", "allowed")]
    with pytest.raises(ConfigurationError, match="guarded already"):
        ascend.init_app(one)


@pytest.mark.parametrize(
    "config",
    [
        {"rules": {"rule": [READ]}, **GIVEN},
        {"ascend": GIVEN, "rule": [READ]},
        {"rule": [READ], "ascend": {"agent_id": "bot"}, "api_url": GIVEN["api_url"], "api_key": GIVEN["api_key"]},
    ],
)
def test_settings_may_stand_in_the_configuration(engine, config):
    app = flask.Flask("site")
    app.config["ASCEND"] = {**config, "render": lambda *answer: (418, [], b"")}
    app.add_url_rule("/items/<id>", "items", lambda id: "x")
    Ascend(app, agent_id="other")
    assert ask(app, "GET", "/items/7").status_code == 200
    assert engine.submitted[0]["agent_id"] == "other"
    assert ask(app, "GET", "/static/x").status_code == 418


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("ascend.toml", "mapping"),
        ({"rule": [], "rules": "x"}, "both"),
        ({"agent": "x"}, "agent"),
        ({"rule": [{"match": "GET /x", "action_typ": "y"}]}, "action_typ"),
    ],
)
def test_bad_configuration_is_told_at_once(config, said):
    app = flask.Flask("site")
    app.config["ASCEND"] = config
    with pytest.raises(ConfigurationError, match=said):
        Ascend(app, **GIVEN)


@pytest.mark.parametrize(
    ("command", "wrong"), [(None, MissingAPIKeyError), ("run", click.ClickException), ("shell", None)]
)
def test_without_a_key_only_an_application_that_serves_nobody_is_made(engine, command, wrong):
    def create():
        app = flask.Flask("site")
        Ascend(app, rules={"rule": [READ]}, agent_id="bot", api_url=GIVEN["api_url"])
        return app

    context = contextlib.nullcontext()
    if command is not None:
        above = click.Context(click.Group("flask"), info_name="flask", obj=ScriptInfo(create_app=create))
        context = click.Context(click.Command(command), parent=above, info_name=command)
    with context:
        if wrong is None:
            assert create().extensions["ascend"].runner.lacking is not None
        else:
            with pytest.raises(wrong, match="API key is required"):
                create()


def context(*names, flask_knows=True):
    """Stand where click stands when it runs the last of these commands."""
    obj = ScriptInfo(create_app=lambda: None) if flask_knows else None
    found = None
    for name in names:
        found = click.Context(click.Group(name), parent=found, info_name=name, obj=obj)
    return found


@pytest.mark.parametrize(
    ("around", "serves"),
    [
        (context("mine", "run", flask_knows=False), True),
        (context("mine"), False),
        (context("flask", "group", "run"), False),
        (context("flask", None), False),
    ],
    ids=["a program that is not Flask's", "a program of one command", "run in a group", "a command without a name"],
)
def test_whether_a_command_serves(engine, around, serves):
    app = flask.Flask("site")
    with around, pytest.raises(MissingAPIKeyError) if serves else contextlib.nullcontext():
        Ascend(app, rules={"rule": [READ]}, agent_id="bot", api_url=GIVEN["api_url"])
    assert ("ascend" in app.extensions) is not serves


def test_without_a_table_requests_go_by_their_method(engine):
    app = flask.Flask("site")
    app.add_url_rule("/a", "a", lambda: "x", methods=["GET", "POST"])
    Ascend(app, **GIVEN)
    assert ask(app, "GET", "/a").status_code == ask(app, "POST", "/a").status_code == 200
    assert types(engine) == ["data_access", "data_modification"]


def test_switched_off_everything_passes(engine):
    app, ran = make(enabled=False)
    assert ask(app, "GET", "/other").status_code == 200
    assert (len(ran), engine.submitted) == (1, [])


def test_observing_refuses_nothing(engine):
    engine.answers = [answer("denied")]
    app, ran = make(mode="observe")
    assert ask(app, "GET", "/items/7").status_code == 200
    assert ask(app, "GET", "/other").status_code == 200
    assert len(ran) == 2


# Prefixes


@pytest.mark.parametrize("script", ["", "/api", "/a/b"])
def test_what_is_below_the_script_name_decides(engine, script):
    app, ran = make()
    given = environ("GET", "/items/7", SCRIPT_NAME=script, RAW_URI=f"{script}/items/7")
    assert Call(app, given).status == 200
    assert types(engine) == ["read"]


def test_an_application_root_changes_nothing(engine):
    app, ran = make()
    app.config["APPLICATION_ROOT"] = "/api"
    assert ask(app, "GET", "/items/7").status_code == 200  # the test client takes the root for SCRIPT_NAME
    assert Call(app, environ("GET", "/items/7")).status == 200
    assert Call(app, environ("GET", "/api/items/7")).status == 404
    assert types(engine) == ["read", "read"]


def test_applications_side_by_side_have_guards_of_their_own(engine):
    app, ran = make()
    inner = flask.Flask("inner", static_folder=None)
    inner.add_url_rule("/pay", "pay", lambda: ran.append("inner") or "x", methods=["POST"])
    Ascend(inner, **options([{"match": "POST /pay", "action_type": "inner"}]))

    def plain(environ, start_response):
        ran.append("plain")
        start_response("200 OK", [])
        return [b""]

    guarded = AscendMiddleware(plain, **options([{"match": "GET /x", "action_type": "plain"}]))
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/inner": inner, "/plain": guarded})
    client = Client(app)
    assert client.post("/inner/pay").status_code == 200
    assert client.get("/plain/x").status_code == 200
    assert client.get("/plain/y").status_code == 403
    assert client.get("/items/7").status_code == 200
    assert types(engine) == ["inner", "plain", "read"]
    engine.answers = [answer("denied")]
    assert {client.post("/inner/pay").status_code, client.get("/plain/x").status_code} == {403}
    assert [one for one in ran if isinstance(one, str)] == ["inner", "plain"]


def test_a_handshake_is_what_the_router_takes_for_one(ran, engine):
    app = flask.Flask("site")
    app.add_url_rule("/live", "live", lambda: ran.append("live") or "live", websocket=True)
    app.add_url_rule("/live", "page", lambda: ran.append("page") or "page", methods=["GET", "WEBSOCKET"])
    Ascend(app, **options([{"match": "WEBSOCKET /live", "action_type": "talk"}]))
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
    assert app.test_client().get("/live", headers=upgrade).status_code == 200
    # The same path without, and with a method of that name, has no rule.
    for method in ("GET", "WEBSOCKET"):
        refused = app.test_client().open("/live", method=method)
        assert (refused.status_code, problem(refused)) == (403, "unmapped-route")
    assert (types(engine), ran) == (["talk"], ["live"])
