"""Plain WSGI, with the ways to dispatch that people write by hand, behind the WSGI middleware."""

import json
import re
from wsgiref.util import shift_path_info

from ascend_middleware.wsgi import AscendMiddleware

from .common import rules, settings

RULES = rules(
    [
        "POST /pay -> pay.create",
        "GET /admin/export -> admin.export",
        "POST /api/run -> api.run",
        "GET /pub -> exempt",
        "POST /shift/pay -> shift.pay",
    ]
)


def answer(start_response, action, environ):
    body = json.dumps({"handler": action, "agent": environ.get("HTTP_X_AGENT_ID", "")}).encode()
    start_response("200 OK", [("x-handler", action), ("Content-Length", str(len(body)))])
    return [body]


def dispatch(environ, start_response):
    path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]
    if method.upper() == "POST" and path.rstrip("/") == "/pay":
        return answer(start_response, "pay.create", environ)
    if path == "/pub":
        return answer(start_response, "public", environ)
    if re.match(r"^/admin/export$", path):
        return answer(start_response, "admin.export", environ)
    if path.lower().startswith("/api/run"):
        return answer(start_response, "api.run", environ)
    rest = dict(environ)
    if shift_path_info(rest) == "shift" and rest["PATH_INFO"].strip("/") == "pay":
        return answer(start_response, "shift.pay", rest)
    start_response("404 Not Found", [("Content-Length", "0")])
    return [b""]


def guarded(url, folder):
    return AscendMiddleware(dispatch, **settings(url, RULES))


APPS = {"wsgi": guarded}
