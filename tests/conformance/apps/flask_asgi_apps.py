"""Flask behind an adapter from WSGI to ASGI: with its extension inside, and with the ASGI middleware around all of it."""

import a2wsgi

from ascend_middleware.asgi import AscendMiddleware

from . import flask_apps
from .common import rules, settings


def inside(name):
    return lambda url, folder: a2wsgi.WSGIMiddleware(flask_apps.APPS[name](url, folder))


def around(url, folder):
    app = a2wsgi.WSGIMiddleware(flask_apps.flask_app(folder))
    return AscendMiddleware(app, **settings(url, flask_apps.RULES + rules(["GET /admin/healthz -> early.hook"])))


def around_body(url, folder):
    return AscendMiddleware(a2wsgi.WSGIMiddleware(flask_apps.body_app()), **settings(url, flask_apps.BODY_RULES))


APPS = {
    "flask": inside("flask"),
    "flask_body": inside("flask_body"),
    "flask_around": around,
    "flask_body_around": around_body,
}
