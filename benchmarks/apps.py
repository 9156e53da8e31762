"""The applications that are measured; `python -m benchmarks.apps NAME` serves one of them on a given port."""

import argparse
import json
import os
import resource
from typing import Annotated, Any

from .load import HEALTH_PATH

API_KEY = "owkai_benchmark_0123456789"
AGENT = "billing-api"

GOVERNED = ("bare", "no-op", "sdk", "auto", "auto+reports", "httpx2", "tls", "cached", "coalesced", "waiting", "slow")
EXEMPT = ("exempt-no-op", "exempt")
THREADS = ("flask", "flask-sdk", "flask-auto", "flask-auto+reports")
DJANGO = ("django", "django-sdk", "django-auto", "django-auto+reports")
DJANGO_ASYNC = ("django-async", "django-async-auto", "django-async-auto+reports")
TRIVIAL = ("trivial-no-op", "trivial-exempt")
WORKER_THREADS = 16
RULE = {
    "match": "GET /customers/{customer_id}",
    "action_type": "data_access",
    "resource": "customers",
    "resource_id": "{path.customer_id}",
}


def can_reuse() -> bool:
    """Say whether rules of this version may use one decision for several requests."""
    from ascend_middleware.rules import RuleFields

    return {"cache", "coalesce"} <= RuleFields.__annotations__.keys()


class NoOp:
    """A pure ASGI middleware that does nothing."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def governed(name: str, authority: str, ca_file: str = "") -> Any:
    """Return an application whose one route is governed in the named way."""
    import asyncio

    from fastapi import Depends, FastAPI

    dependencies: list[Any] = [Depends(_sdk_dependency(authority))] if name == "sdk" else []
    app = FastAPI(dependencies=dependencies)

    @app.get("/customers/{customer_id}")
    async def read_customer(customer_id: int) -> dict[str, object]:
        return {"id": customer_id, "name": "Ada"}

    @app.get("/slow/{customer_id}")
    async def read_slowly(customer_id: int) -> dict[str, object]:
        await asyncio.sleep(50)
        return {"id": customer_id}

    if name == "no-op":
        app.add_middleware(NoOp)
    elif name not in ("bare", "sdk", "slow"):
        kind, _, reports = name.partition("+")
        rule, settings = RULE, _reporting(bool(reports) or kind in ("cached", "coalesced"))
        if kind == "cached":
            rule = {**RULE, "cache": "60s"}
        elif kind == "coalesced":
            rule = {**RULE, "coalesce": True}
        elif kind == "waiting":
            rule = {**RULE, "match": "GET /slow/{customer_id}", "pending": "wait:55s"}
            settings |= {"max_waiters": 10_000, "poll_interval": 50.0, "deadline": 30.0}
        elif kind == "tls":
            settings["ca_file"] = ca_file
        else:
            settings["engine"] = kind
        guard(app, [rule], authority, **settings)
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
    if name == "exempt-no-op":
        app.add_middleware(NoOp)
    elif name == "exempt":
        guard(app, rules, authority, report_outcomes=False)
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
        table = {"ascend": {"agent_id": AGENT}, "rule": [RULE]}
        settings = {"engine": engine, **_reporting(bool(reports))}
        Ascend(app, rules=table, api_url=authority, api_key=API_KEY, **settings)
    return app


def django_site(name: str, authority: str) -> Any:
    """Return a Django project whose one view is governed in the named way, for WSGI or ASGI."""
    import sys

    import django
    from django.conf import settings
    from django.http import HttpRequest, JsonResponse
    from django.urls import path

    kind = name.removeprefix("django").removeprefix("-")
    is_async = kind.startswith("async")
    kind, _, reports = kind.removeprefix("async").removeprefix("-").partition("+")

    def read(request: HttpRequest, customer_id: int) -> JsonResponse:
        return JsonResponse({"id": customer_id, "name": "Ada"})

    async def read_async(request: HttpRequest, customer_id: int) -> JsonResponse:
        return JsonResponse({"id": customer_id, "name": "Ada"})

    module: Any = type(sys)("benchmark_site")
    module.urlpatterns = [path("customers/<int:customer_id>", read_async if is_async else read)]
    module.ask_sdk = _sdk_middleware(authority) if kind == "sdk" else None
    sys.modules["benchmark_site"] = module
    middleware = {"": [], "sdk": ["benchmark_site.ask_sdk"]}.get(kind, ["ascend_middleware.django.AscendMiddleware"])
    table = {"ascend": {"agent_id": AGENT}, "rule": [RULE]}
    given = {"rules": table, "api_url": authority, "api_key": API_KEY, "engine": kind, **_reporting(bool(reports))}
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="benchmark_site",
        SECRET_KEY="benchmark",
        INSTALLED_APPS=["ascend_middleware.django"] if kind == "auto" else [],
        MIDDLEWARE=middleware,
        ASCEND=given,
    )
    django.setup()
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application

    return get_asgi_application() if is_async else get_wsgi_application()


def _sdk_middleware(authority: str) -> Any:
    client = _sdk_client(authority)

    def middleware(get_response: Any) -> Any:
        def ask(request: Any) -> Any:
            from django.http import HttpResponseForbidden

            customer = request.path_info.rpartition("/")[2]
            if client.evaluate_action("data_access", "customers", resource_id=customer).decision.name != "ALLOWED":
                return HttpResponseForbidden()
            return get_response(request)

        return ask

    return middleware


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


def guard(app: Any, rules: list[dict[str, object]], authority: str, **settings: Any) -> None:
    """Add our middleware to an application."""
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


def application(name: str, *, authority: str, routes: int = 0, ca_file: str = "") -> Any:
    """Return the application of a name."""
    if name in THREADS:
        return threaded(name, authority)
    if name in DJANGO or name in DJANGO_ASYNC:
        return django_site(name, authority)
    if name in TRIVIAL:
        return trivial(name, routes, authority)
    return exempt(name, routes, authority) if name in EXEMPT else governed(name, authority, ca_file)


def from_environment() -> Any:
    """Return what `main` was told to serve, in a worker of its own."""
    return application(**json.loads(os.environ["BENCHMARK_APPLICATION"]))


def main() -> None:
    """Serve one application until the process is ended."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    names = sorted({*GOVERNED, *EXEMPT, *THREADS, *DJANGO, *DJANGO_ASYNC, *TRIVIAL})
    parser.add_argument("name", choices=names)
    parser.add_argument("--routes", type=int, default=0, help="how many routes, or rules, it has")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--authority", required=True)
    parser.add_argument("--ca", default="", help="the certificate of an authority with TLS")
    parser.add_argument("--cores", type=int, nargs="+", required=True)
    parser.add_argument("--http", default="httptools", help="uvicorn's parser")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    # Before anything starts a thread: threads inherit it.
    os.sched_setaffinity(0, arguments.cores)
    # Connections that wait count as files.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    name = arguments.name
    given = {"name": name, "authority": arguments.authority, "routes": arguments.routes, "ca_file": arguments.ca}
    if name in THREADS or name in DJANGO:
        _serve_threads(application(**given), arguments.port)
    elif arguments.workers == 1:
        _serve_loop(application(**given), arguments.port, http=arguments.http)
    else:
        os.environ["BENCHMARK_APPLICATION"] = json.dumps(given)
        place = "benchmarks.apps:from_environment"
        _serve_loop(place, arguments.port, http=arguments.http, factory=True, workers=arguments.workers)


def _serve_loop(app: Any, port: int, **options: Any) -> None:
    import uvicorn

    # Django tells of no lifespan, which would be a line in the log.
    uvicorn.run(app, port=port, loop="uvloop", backlog=4096, log_level="warning", access_log=False, **options)


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
