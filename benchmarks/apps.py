"""The applications that are measured; `python -m benchmarks.apps NAME` serves one of them on a given port."""

import argparse
import os
from typing import Annotated, Any

from .load import HEALTH_PATH

API_KEY = "owkai_benchmark_0123456789"
AGENT = "billing-api"

GOVERNED = ("bare", "no-op", "sdk", "auto", "auto+reports", "httpx2")
EXEMPT = ("no-op", "exempt")
THREADS = ("flask", "flask-sdk", "flask-auto", "flask-auto+reports")
TRIVIAL = ("trivial-no-op", "trivial-exempt")
WORKER_THREADS = 16
_RULE = {
    "match": "GET /customers/{customer_id}",
    "action_type": "data_access",
    "resource": "customers",
    "resource_id": "{path.customer_id}",
}


class NoOp:
    """A pure ASGI middleware that does nothing."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def governed(name: str, authority: str) -> Any:
    """Return an application whose one route is governed in the named way."""
    from fastapi import Depends, FastAPI

    dependencies: list[Any] = [Depends(_sdk_dependency(authority))] if name == "sdk" else []
    app = FastAPI(dependencies=dependencies)

    @app.get("/customers/{customer_id}")
    async def read_customer(customer_id: int) -> dict[str, object]:
        return {"id": customer_id, "name": "Ada"}

    if name == "no-op":
        app.add_middleware(NoOp)
    elif name not in ("bare", "sdk"):
        engine, _, reports = name.partition("+")
        _guard(app, [_RULE], authority, engine=engine, **_reporting(bool(reports)))
    return app


def exempt(name: str, routes: int, authority: str) -> Any:
    """Return an application of many routes, all of them exempt, or behind a middleware that does nothing."""
    from fastapi import FastAPI

    app = FastAPI()
    rules = []
    for number in range(routes):

        @app.get(f"/service{number}/items/{{item_id}}")
        async def read_item(item_id: int) -> dict[str, object]:
            return {"id": item_id}

        rules.append({"match": f"GET /service{number}/items/{{item_id}}", "exempt": True})
    if name == "no-op":
        app.add_middleware(NoOp)
    else:
        _guard(app, rules, authority, report_outcomes=False)
    return app


def threaded(name: str, authority: str) -> Any:
    """Return a Flask application whose one view is governed in the named way."""
    import flask

    app = flask.Flask("benchmark")

    @app.get("/customers/<int:customer_id>")
    def read_customer(customer_id: int) -> dict[str, object]:
        return {"id": customer_id, "name": "Ada"}

    if name == "flask-sdk":
        client = _sdk_client(authority)

        @app.before_request
        def ask() -> None:
            customer = (flask.request.view_args or {})["customer_id"]
            if client.evaluate_action("data_access", "customers", resource_id=str(customer)).decision.name != "ALLOWED":
                flask.abort(403)

    elif name != "flask":
        from ascend_middleware.flask import Ascend

        engine, _, reports = name.removeprefix("flask-").partition("+")
        table = {"ascend": {"agent_id": AGENT}, "rule": [_RULE]}
        settings = {"engine": engine, **_reporting(bool(reports))}
        Ascend(app, rules=table, api_url=authority, api_key=API_KEY, **settings)
    return app


def trivial(name: str, rules: int, authority: str) -> Any:
    """Return an ASGI application without a framework, all of whose many paths are exempt, or behind a no-op."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})

    if name == "trivial-no-op":
        return NoOp(app)
    from ascend_middleware.asgi import AscendMiddleware

    exempted = [{"match": f"GET /service{number}/items/{{item_id}}", "exempt": True} for number in range(rules)]
    table = {"ascend": {"agent_id": AGENT}, "rule": exempted}
    return AscendMiddleware(app, rules=table, api_url=authority, api_key=API_KEY, report_outcomes=False)


def _reporting(reports: bool) -> dict[str, Any]:
    return {"report_outcomes": True, "health_path": HEALTH_PATH} if reports else {"report_outcomes": False}


def _guard(app: Any, rules: list[dict[str, object]], authority: str, **settings: Any) -> None:
    from ascend_middleware.asgi import AscendMiddleware

    table = {"ascend": {"agent_id": AGENT}, "rule": rules}
    app.add_middleware(AscendMiddleware, rules=table, api_url=authority, api_key=API_KEY, **settings)


def _sdk_client(authority: str) -> Any:
    from ascend import AscendClient  # type: ignore[import-not-found]  # in an environment of its own

    client = AscendClient(api_key=API_KEY, agent_id=AGENT, agent_name=AGENT, api_url=authority)
    # In its favour: without this it formats and prints a warning on every call.
    client._kill_switch_polling_started = True
    return client


def _sdk_dependency(authority: str) -> Any:
    from ascend import Decision
    from fastapi import HTTPException, Path

    client = _sdk_client(authority)

    def ask(customer_id: Annotated[int, Path()]) -> None:
        decision = client.evaluate_action("data_access", "customers", resource_id=str(customer_id))
        if decision.decision != Decision.ALLOWED:
            raise HTTPException(403)

    return ask


def main() -> None:
    """Serve one application until the process is ended."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=sorted({*GOVERNED, *EXEMPT, *THREADS, *TRIVIAL}))
    parser.add_argument("--routes", type=int, default=0, help="0: the governed application; else the exempt one")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--authority", required=True)
    parser.add_argument("--core", type=int, required=True)
    arguments = parser.parse_args()
    # Before anything starts a thread: threads inherit it.
    os.sched_setaffinity(0, {arguments.core})

    name, routes, authority = arguments.name, arguments.routes, arguments.authority
    if name in THREADS:
        _serve_threads(threaded(name, authority), arguments.port)
    elif name in TRIVIAL:
        _serve_loop(trivial(name, routes, authority), arguments.port)
    else:
        _serve_loop(exempt(name, routes, authority) if routes else governed(name, authority), arguments.port)


def _serve_loop(app: Any, port: int) -> None:
    import uvicorn

    uvicorn.run(app, port=port, loop="uvloop", http="httptools", log_level="warning", access_log=False)


def _serve_threads(app: Any, port: int) -> None:
    from gunicorn.app.base import BaseApplication

    class Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
        def load_config(self) -> None:
            given = {"bind": f"127.0.0.1:{port}", "worker_class": "gthread", "threads": WORKER_THREADS}
            for key, value in {**given, "keepalive": 60, "loglevel": "warning"}.items():
                self.cfg.set(key, value)

        def load(self) -> Any:
            return app

    Application().run()


if __name__ == "__main__":
    main()
