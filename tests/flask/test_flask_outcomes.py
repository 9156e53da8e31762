"""Flask tells whether the view ran: what a function before it answered is no run, and an approval for it is still good."""

import json

import flask
import pytest
from kit.engine import answer, options
from kit.wsgi import Call, Input, environ
from werkzeug.test import Client

from ascend_middleware.flask import Ascend
from ascend_middleware.wsgi import AscendMiddleware

RULES = [{"match": "POST /pay", "action_type": "pay"}]


def application(ran, before=None, view=lambda: "paid", **settings):
    app = flask.Flask("site")
    if before is not None:
        app.before_request(before)

    def pay():
        ran.append(True)
        return view()

    app.add_url_rule("/pay", "pay", pay, methods=["POST"])
    Ascend(app, **settings)
    return app


def raising():
    raise RuntimeError("no")


class TestWhatIsReported:
    """With a scripted authority that keeps what it is told."""

    def told(self, authority, app):
        app.test_client().post("/pay", buffered=True)
        app.extensions["ascend"].close()
        (end,) = (asked for asked in authority.requests if asked.path.endswith(("/complete", "/fail")))
        return end.path.rpartition("/")[2], end.body.get("error")

    @pytest.mark.parametrize(
        ("settings", "status", "runs"),
        [
            ({"before": lambda: ("slow down", 429)}, 429, 0),
            ({"before": lambda: ("who are you?", 401)}, 401, 0),
            ({"before": lambda: flask.redirect("/sign-in")}, 302, 0),
            ({"before": lambda: "from the cache"}, 200, 0),
            ({"before": raising}, 500, 0),
            ({"view": lambda: "paid"}, 200, 1),
            ({"view": lambda: flask.redirect("/done")}, 302, 1),
            ({"view": lambda: ("no", 400)}, 400, 1),
            ({"view": lambda: ("no", 404)}, 404, 1),
            ({"view": lambda: ("no", 429)}, 429, 1),
            ({"view": lambda: ("no", 500)}, 500, 1),
            ({"view": raising}, 500, 1),
        ],
    )
    def test_of_a_view_and_of_one_that_was_not_called(self, ran, ascend_authority, settings, status, runs):
        ascend_authority.approve()
        app = application(ran, **settings, rules={"rule": RULES})
        said = "the handler answered" if runs else "the handler did not run: the application answered"
        done = ("complete", None) if runs and status < 400 else ("fail", f"{said} {status}")
        assert (self.told(ascend_authority, app), ran) == (done, [True] * runs)

    def test_of_an_application_that_begins_when_its_parts_are_asked_for(self, ran, ascend_authority):
        def lazily(inner):
            def wsgi_app(environ, start_response):
                yield from inner(environ, start_response)

            return wsgi_app

        ascend_authority.approve()
        app = flask.Flask("site")
        app.wsgi_app = lazily(app.wsgi_app)
        app.add_url_rule("/pay", "pay", lambda: "paid", methods=["POST"])
        Ascend(app, rules={"rule": RULES})
        assert self.told(ascend_authority, app) == ("complete", None)

    def test_of_a_function_that_answers_where_no_view_was_found(self, ascend_authority):
        ascend_authority.approve()
        app = flask.Flask("site")
        app.before_request(lambda: "answered" if flask.request.path == "/pay" else None)
        Ascend(app, rules={"rule": [{"match": "POST /pay", "action_type": "pay"}]})
        assert self.told(ascend_authority, app) == ("complete", None)

    def test_of_a_request_that_the_application_changed(self, ascend_authority):
        def before():
            flask.request.view_args = {"number": 8}

        ascend_authority.approve()
        app = flask.Flask("site")
        app.before_request(before)
        app.add_url_rule("/pay/<int:number>", "pay", lambda number: "paid", methods=["POST"])
        Ascend(app, rules={"rule": [{"match": "POST /pay/{number}", "action_type": "pay"}]})
        assert app.test_client().post("/pay/7", buffered=True).status_code == 500
        app.extensions["ascend"].close()
        (end,) = (asked for asked in ascend_authority.requests if asked.path.endswith(("/complete", "/fail")))
        assert end.body["error"] == "the handler did not run: the application answered 500"


class TestAnApproval:
    def approved(self, engine, app):
        client = app.test_client()
        engine.answers = [answer("pending")]
        handle = client.post("/pay", data=b"five").json["approval"]["handle"]
        engine.answers = [answer("approved")]
        return lambda: client.post("/pay", data=b"five", headers={"Ascend-Approval": handle}, buffered=True)

    def test_is_still_good_where_the_view_was_not_called(self, ran, engine):
        stop = [True]
        app = application(ran, lambda: ("sign in", 401) if stop[0] else None, **options(RULES))
        resume = self.approved(engine, app)
        for _ in range(2):
            assert resume().status_code == 401
        stop[0] = False
        assert (resume().status_code, ran) == (200, [True])
        used = resume()
        assert (used.status_code, used.json["outcome"], ran) == (409, "completed", [True])

    def test_is_given_back_three_times_at_most(self, ran, engine, caplog):
        app = application(ran, lambda: ("sign in", 401), **options(RULES))
        resume = self.approved(engine, app)
        assert [resume().status_code for _ in range(6)] == [401, 401, 401, 401, 409, 409]
        assert resume().json["outcome"] == "failed"
        said = [line.getMessage() for line in caplog.records if "given back" in line.getMessage()]
        assert [text.rpartition("(")[2] for text in said] == ["1 of 3)", "2 of 3)", "3 of 3)"]

    @pytest.mark.parametrize(
        ("settings", "statuses", "runs"),
        [
            # It may have called the view by itself.
            ({"before": lambda: flask.current_app.view_functions["pay"]()}, [200, 409], 1),
            ({"view": lambda: ("no", 401)}, [401, 409], 1),
            # The view says when to come again.
            ({"view": lambda: ("no", 429, {"Retry-After": "1"})}, [429, 429, 429], 3),
        ],
        ids=["answered in its place", "refused by itself", "come again"],
    )
    def test_is_used_where_the_view_ran_unless_that_says_when_to_come_again(
        self, engine, ran, settings, statuses, runs
    ):
        resume = self.approved(engine, application(ran, **settings, **options(RULES)))
        assert [resume().status_code for _ in statuses] == statuses
        assert ran == [True] * runs


class TestTheLastLook:
    """A kill while the client takes its time; also while the application does, before the view."""

    RULES = [{"match": "POST /pay", "action_type": "pay", "details": {"amount": "body.amount"}}]
    BODY = b'{"amount": 5}'

    class Slow(Input):
        def __init__(self, content, happens):
            super().__init__(content, part=4)
            self._happens = happens

        def read(self, size=-1):
            if self.reads == 1:
                self._happens()
            return super().read(size)

    def ask(self, app, guard, file, handle=None):
        def throw():
            file.write_text("")
            guard.kill.expire()

        headers = [("content-type", "application/json"), *([("ascend-approval", handle)] if handle else [])]
        stream, length = self.Slow(self.BODY, throw), len(self.BODY)
        return Call(app, environ("POST", "/pay", headers=headers, content=stream, length=length, HTTP_HOST="site"))

    @pytest.mark.parametrize("resumed", [False, True])
    @pytest.mark.parametrize("rules", [RULES, [{"match": "POST /pay", "action_type": "pay"}]], ids=["read", "bound"])
    @pytest.mark.parametrize("kind", ["flask", "wsgi"])
    def test_while_the_body_arrives(self, ran, engine, tmp_path, kind, rules, resumed):
        if rules is not self.RULES and not resumed:
            return  # nobody reads that body before the view
        file = tmp_path / "kill"
        settings = options(rules, kill_file=str(file))
        if kind == "flask":
            app = application(ran, **settings)
            guard = app.extensions["ascend"].guard
        else:

            def paid(environ, start_response):
                ran.append(True)
                start_response("200 OK", [])
                return [b"paid"]

            app = AscendMiddleware(paid, **settings)
            guard = app.guard
        handle = None
        if resumed:
            engine.answers = [answer("pending")]
            given = {"content_type": "application/json", "base_url": "http://site"}
            held = Client(app).post("/pay", data=self.BODY, **given)
            handle = json.loads(held.data)["approval"]["handle"]
            engine.answers = [answer("approved")]
        refused = self.ask(app, guard, file, handle)
        assert (refused.status, ran) == (503, [])
        assert json.loads(refused.body)["type"].endswith(":kill-switch")

    def test_while_a_function_before_the_view_reads_the_body(self, ran, engine, tmp_path):
        file = tmp_path / "kill"
        settings = options([{"match": "POST /pay", "action_type": "pay"}], kill_file=str(file))
        app = application(ran, lambda: flask.request.get_data() and None, **settings)
        refused = self.ask(app, app.extensions["ascend"].guard, file)
        assert (refused.status, ran) == (503, [])
