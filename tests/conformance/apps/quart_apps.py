"""Quart applications of the conformance table: a foreign framework, of which the guard sees the path only."""

import quart

from ascend_middleware.asgi import AscendMiddleware

from .common import body_rules, rules, settings

RULES = rules(
    [
        "POST /pay -> pay.create",
        "GET /admin/export -> admin.export",
        "POST /item/{n} -> item.post",
        "GET /static/public/{p:path} -> static.public",
        "GET /static/private/{p:path} -> static.secret",
        "WEBSOCKET /ws/trade -> ws.trade",
        "GET /pub -> exempt",
    ]
)


def handler(action):
    async def run(**arguments):
        return quart.jsonify(handler=action), 200, {"x-handler": action}

    return run


def guarded(url, folder):
    app = quart.Quart("conformance", static_folder=str(folder / "static"), static_url_path="/static")
    app.add_url_rule("/pay", "pay", handler("pay.create"), methods=["POST"])
    app.add_url_rule("/admin/export", "export", handler("admin.export"))
    app.add_url_rule("/pub", "pub", handler("public"))
    app.add_url_rule("/item/<int:n>", "item", handler("item.post"), methods=["POST"])

    @app.websocket("/ws/trade")
    async def trade():
        await quart.websocket.send_json({"handler": "ws.trade"})

    return AscendMiddleware(app, **settings(url, RULES))


def guarded_body(url, folder):
    app = quart.Quart("bodies", static_folder=None)

    def used(amount):
        return quart.jsonify(amount=repr(amount)), 200, {"x-handler": "transfer"}

    @app.post("/t")
    async def t():
        return used((await quart.request.get_json())["amount"])

    @app.post("/f")
    async def f():
        return used((await quart.request.form)["amount"])

    table = body_rules(["POST /t -> body.amount", "POST /f -> form.amount"])
    return AscendMiddleware(app, **settings(url, table))


APPS = {"quart": guarded, "quart_below_api": guarded, "quart_body": guarded_body}
