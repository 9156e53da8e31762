"""WSGI applications for the bypass pack, one of which has a hole."""

from flask import Flask, request
from flask.views import MethodView

from ascend_middleware.flask import Ascend
from ascend_middleware.wsgi import AscendMiddleware

RULES = {
    "rule": [
        {"match": "GET /open", "exempt": True},
        {"match": "GET /pay", "exempt": True},
        {"match": "POST /pay", "action_type": "pay"},
        {"match": "* /orders/{id}", "action_type": "order"},
    ]
}


class Orders(MethodView):
    def get(self, id):
        return "order"

    def delete(self, id):
        return "gone"


flask = Flask("shop", static_folder=None)
flask.add_url_rule("/open", "open", lambda: "open")
flask.add_url_rule("/pay", "pay", lambda: request.method, methods=["GET", "POST"])
flask.add_url_rule("/orders/<int:id>", view_func=Orders.as_view("orders"))
Ascend(flask, rules=RULES)


def pay(environ, start_response):
    start_response("200 OK", [])
    return [b"paid"]


def plain(environ, start_response):
    if environ["PATH_INFO"].strip("/").lower() == "pay" and environ["REQUEST_METHOD"] == "POST":
        return pay(environ, start_response)
    start_response("404 Not Found", [])
    return [b""]


wsgi = AscendMiddleware(plain, rules=RULES)


def holed(environ, start_response):
    return (wsgi if environ["PATH_INFO"] in ("/pay", "/orders/7", "/open") else plain)(environ, start_response)


holed.app = wsgi
