"""Flask applications of the conformance table, each behind the extension."""

import flask
from flask.views import MethodView
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.routing import Rule

from ascend_middleware.flask import Ascend
from ascend_middleware.wsgi import AscendMiddleware

from .common import body_rules, file_action, rules, settings

RULES = rules(
    [
        "POST /pay -> pay.create",
        "GET /pay/{id} -> pay.read",
        "GET /admin/export -> admin.export",
        "DELETE /admin/users/{id} -> admin.delete",
        "POST /item/{n:int} -> item.post",
        "POST /orders/ -> orders.create",
        "POST /loose -> loose.run",
        "* /any -> any.run",
        "GET /pub -> exempt",
        "GET /page/ -> page.run",
        "GET /page/{n:int} -> page.run",
        "GET /files/public/{p:path} -> files.public",
        "GET /files/{p:path} -> files.secret",
        "POST /cls -> cls.post",
        "GET /cls -> cls.get",
        "POST /bp/run -> bp.run",
        "POST /late -> late.run",
        "POST /install -> exempt",
        "GET /static/public/{p:path} -> static.public",
        "GET /static/private/{p:path} -> static.secret",
    ]
)


def answer(action):
    return flask.jsonify(handler=action), 200, {"x-handler": action}


def handler(action):
    def run(**arguments):
        return answer(action)

    run.__name__ = action.replace(".", "_")
    return run


class Class(MethodView):
    def get(self):
        return answer("cls.get")

    def post(self):
        return answer("cls.post")


def flask_app(folder, *, variant=""):
    options = {}
    if variant == "hosts":
        options = {"host_matching": True, "static_host": "localhost"}
    elif variant == "subdomains":
        options = {"subdomain_matching": True}
    app = flask.Flask("conformance", static_folder=str(folder / "static"), static_url_path="/static", **options)
    here = {"host": "localhost"} if variant == "hosts" else {}
    if variant == "subdomains":
        app.config["SERVER_NAME"] = "corp.local"
    if variant == "nomerge":
        app.url_map.merge_slashes = False

    @app.before_request
    def early():
        # A hook that answers by itself, as maintenance pages and health checks do.
        return answer("early.hook") if flask.request.path.endswith("/healthz") else None

    def add(rule, action, **more):
        app.add_url_rule(rule, more.pop("endpoint", action), handler(action), **here, **more)

    add("/pay", "pay.create", methods=["POST"], endpoint="pay")
    add("/pay/<id>", "pay.read", endpoint="payread")
    add("/admin/export", "admin.export", endpoint="export")
    add("/admin/users/<id>", "admin.delete", endpoint="delete", methods=["DELETE"])
    add("/item/<int:n>", "item.post", endpoint="item", methods=["POST"])
    add("/orders/", "orders.create", endpoint="orders", methods=["POST"])
    add("/loose", "loose.run", endpoint="loose", methods=["POST"], strict_slashes=False)
    add("/any", "any.run", endpoint="any", methods=["GET", "POST", "OPTIONS", "PURGE"])
    add("/pub", "public", endpoint="pub")
    page = handler("page.run")
    app.add_url_rule("/page/", "page", page, defaults={"n": 1}, **here)
    app.add_url_rule("/page/<int:n>", "page", page, **here)
    app.add_url_rule(
        "/files/public/<path:p>",
        "filespublic",
        lambda p: answer(file_action("/srv/public", "/srv/public/" + p)),
        **here,
    )
    add("/files/<path:p>", "files.secret", endpoint="files")
    app.add_url_rule("/cls", view_func=Class.as_view("cls"), **here)
    blueprint = flask.Blueprint("bp", "bp", url_prefix="/bp")
    blueprint.add_url_rule("/run", "run", handler("bp.run"), methods=["POST"])
    app.register_blueprint(blueprint)
    if variant == "hosts":
        app.add_url_rule("/pay", "hostpay", handler("host.pay"), methods=["POST"], host="admin.local")
    elif variant == "subdomains":
        app.add_url_rule("/pay", "hostpay", handler("host.pay"), methods=["POST"], subdomain="admin")

    def install():
        app.view_functions["late"] = handler("late.run")
        app.url_map.add(Rule("/late", endpoint="late", methods=["POST"]))
        return "ok"

    app.add_url_rule("/install", "install", install, methods=["POST"], **here)
    return app


class MethodOverride:
    """The recipe of Flask's documentation."""

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        method = environ.get("HTTP_X_HTTP_METHOD_OVERRIDE", "").upper()
        if method in {"GET", "PUT", "DELETE", "PATCH", "POST"}:
            environ["REQUEST_METHOD"] = method
        return self.app(environ, start_response)


def inner_app():
    inner = flask.Flask("inner", static_folder=None)
    inner.add_url_rule("/pay", "pay", handler("inner.pay"), methods=["POST"])
    return inner


def guarded(url, folder, variant=""):
    app = flask_app(folder, variant=variant)
    table = RULES + rules(["POST @hostpay -> host.pay"] if variant in ("hosts", "subdomains") else [])
    Ascend(app, **settings(url, table))
    # What a dispatcher mounts beside the application has a guard of its own.
    inner = inner_app()
    Ascend(inner, **settings(url, rules(["POST /pay -> inner.pay"])))
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/inner": inner})
    if variant == "override":
        app.wsgi_app = MethodOverride(app.wsgi_app)
    return app


def wrapped(url, folder):
    """The same application without the extension, behind the WSGI middleware: its paths are all there is to go by."""
    app = flask_app(folder)
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/inner": inner_app()})
    table = RULES + rules(["POST /inner/pay -> inner.pay", "GET /admin/healthz -> early.hook"])
    app.wsgi_app = AscendMiddleware(app.wsgi_app, **settings(url, table))
    return app


BODY_RULES = body_rules(
    [
        "POST /t -> body.amount",
        "POST /force -> body.amount",
        "POST /f -> form.amount",
        "POST /values -> form.amount",
        "POST /q -> query.amount",
        "GET /cookie",
        "GET /hdr",
    ]
)


def body_app():
    app = flask.Flask("bodies", static_folder=None)

    def used(amount):
        return flask.jsonify(amount=repr(amount)), 200, {"x-handler": "transfer"}

    request = flask.request
    app.add_url_rule("/t", "t", lambda: used(request.get_json()["amount"]), methods=["POST"])
    app.add_url_rule("/force", "force", lambda: used(request.get_json(force=True)["amount"]), methods=["POST"])
    app.add_url_rule("/f", "f", lambda: used(request.form["amount"]), methods=["POST"])
    app.add_url_rule("/values", "values", lambda: used(request.values["amount"]), methods=["POST"])
    app.add_url_rule("/q", "q", lambda: used(request.args["amount"]), methods=["POST"])
    app.add_url_rule("/cookie", "cookie", lambda: used(None))
    app.add_url_rule("/hdr", "hdr", lambda: used(None))
    return app


def guarded_body(url, folder):
    app = body_app()
    Ascend(app, **settings(url, BODY_RULES))
    return app


def wrapped_body(url, folder):
    return AscendMiddleware(body_app(), **settings(url, BODY_RULES))


APPS = {
    "flask": guarded,
    "flask_hosts": lambda url, folder: guarded(url, folder, "hosts"),
    "flask_subdomains": lambda url, folder: guarded(url, folder, "subdomains"),
    "flask_nomerge": lambda url, folder: guarded(url, folder, "nomerge"),
    "flask_override": lambda url, folder: guarded(url, folder, "override"),
    "flask_wrapped": wrapped,
    "flask_body": guarded_body,
    "flask_body_wrapped": wrapped_body,
}
