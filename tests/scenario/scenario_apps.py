"""One application, in every framework: two governed routes and a free one, and a record of what its handlers got."""

import json
import types

TABLE = {
    "ascend": {"agent_id": "billing-api"},
    "rule": [
        {"match": "GET /health", "exempt": True},
        {"match": "GET /customers/{customer_id}", "action_type": "data_access"},
        {
            "match": "POST /customers/{customer_id}/refunds",
            "action_type": "transaction",
            "resource": "refund for customer {path.customer_id}",
            "resource_id": "{path.customer_id}",
            "details": {"amount": "body.amount"},
        },
        {"match": "* /internal/**", "block": "internal routes are closed to agents"},
    ],
}
ROUTES = (
    ("GET", "/health", "health"),
    ("GET", "/customers/{customer_id}", "read"),
    ("POST", "/customers/{customer_id}/refunds", "refund"),
    ("GET", "/internal/keys", "keys"),
    ("GET", "/forgotten", "forgotten"),
)


def fastapi(ran, options):
    from fastapi import FastAPI, Request

    from ascend_middleware.asgi import AscendMiddleware

    app = FastAPI(openapi_url=None)
    app.add_middleware(AscendMiddleware, rules=TABLE, **options)

    def endpoint(name):
        async def run(request: Request):
            ran.append((name, {k: str(v) for k, v in request.path_params.items()}, await request.body()))
            return {"ran": name}

        return run

    for method, path, name in ROUTES:
        app.add_api_route(path, endpoint(name), methods=[method])
    return app


def starlette(ran, options):
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from ascend_middleware.asgi import AscendMiddleware

    def endpoint(name):
        async def run(request):
            ran.append((name, {k: str(v) for k, v in request.path_params.items()}, await request.body()))
            return JSONResponse({"ran": name})

        return run

    app = Starlette(routes=[Route(path, endpoint(name), methods=[method]) for method, path, name in ROUTES])
    app.add_middleware(AscendMiddleware, rules=TABLE, **options)
    return app


def asgi(ran, options):
    """Plain ASGI: no router that could be asked."""
    from ascend_middleware.asgi import AscendMiddleware

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            for word in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{word}.complete"})
            return
        name, params = find(scope["method"], scope["path"])
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        ran.append((name, params, body))
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps({"ran": name}).encode()})

    return AscendMiddleware(app, rules=TABLE, **options)


def quart(ran, options):
    import quart as quart_module

    from ascend_middleware.asgi import AscendMiddleware

    app = quart_module.Quart("scenario", static_folder=None)

    def view(name):
        async def run(**arguments):
            ran.append((name, arguments, await quart_module.request.get_data()))
            return {"ran": name}

        return run

    for method, path, name in ROUTES:
        app.add_url_rule(angled(path), name, view(name), methods=[method])
    return AscendMiddleware(app, rules=TABLE, **options)


def litestar(ran, options):
    from litestar import Litestar, Request, Response
    from litestar import route as litestar_route

    from ascend_middleware.asgi import AscendMiddleware

    def handler(method, path, name):
        async def run(request: Request) -> Response[str]:
            ran.append((name, {k: str(v) for k, v in request.path_params.items()}, await request.body()))
            return Response(json.dumps({"ran": name}), media_type="application/json")

        return litestar_route(path.replace("_id}", "_id:str}"), http_method=[method], status_code=200)(run)

    return AscendMiddleware(Litestar([handler(*route) for route in ROUTES]), rules=TABLE, **options)


def flask(ran, options):
    import flask as flask_module

    from ascend_middleware.flask import Ascend

    app = flask_module.Flask("scenario", static_folder=None)
    Ascend(app, rules=TABLE, **options)

    def view(name):
        def run(**arguments):
            ran.append((name, arguments, flask_module.request.get_data()))
            return {"ran": name}

        return run

    for method, path, name in ROUTES:
        app.add_url_rule(angled(path), name, view(name), methods=[method])
    return app


def wsgi(ran, options):
    """Plain WSGI: no router that could be asked."""
    from ascend_middleware.wsgi import AscendMiddleware

    def app(environ, start_response):
        name, params = find(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        ran.append((name, params, environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))))
        start_response("200 OK", [("content-type", "application/json")])
        return [json.dumps({"ran": name}).encode()]

    return AscendMiddleware(app, rules=TABLE, **options)


def django(ran, options, *, asynchronous=False):
    """Django keeps its settings for the whole process: the caller runs one application at a time."""
    from django.conf import settings
    from django.http import JsonResponse
    from django.test import override_settings
    from django.urls import clear_url_caches, path

    from ascend_middleware.django import configuration

    def view(name, method):
        def run(request, **arguments):
            ran.append((name, arguments, request.body))
            return JsonResponse({"ran": name})

        async def run_async(request, **arguments):
            return run(request, **arguments)

        return run_async if asynchronous else run

    if not settings.configured:
        import django as django_module

        settings.configure(SECRET_KEY="scenario", ALLOWED_HOSTS=["*"], INSTALLED_APPS=["ascend_middleware.django"])
        django_module.setup()
    urls = types.ModuleType("scenario_urls")
    urls.urlpatterns = [path(angled(route)[1:], view(name, method), name=name) for method, route, name in ROUTES]
    given = override_settings(
        ROOT_URLCONF=urls,
        MIDDLEWARE=["ascend_middleware.django.AscendMiddleware"],
        ASCEND={"rules": TABLE, **options},
    )
    given.enable()
    clear_url_caches()
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application

    app = get_asgi_application() if asynchronous else get_wsgi_application()

    async def close():
        # Django has no lifespan, so nobody tells its guard that the server stops.
        if asynchronous:
            await configuration.async_runner().aclose()
        configuration.forget()
        given.disable()

    return app, close


def django_asgi(ran, options):
    return django(ran, options, asynchronous=True)


def angled(path):
    return path.replace("{", "<").replace("}", ">")


def find(method, path):
    """Route by hand."""
    parts = path.strip("/").split("/")
    if parts[0] == "customers" and len(parts) > 1:
        return ("refund" if len(parts) == 3 else "read"), {"customer_id": parts[1]}
    return {"health": "health", "internal": "keys"}.get(parts[0], "forgotten"), {}


ASGI = {"fastapi": fastapi, "starlette": starlette, "asgi": asgi, "quart": quart, "litestar": litestar}
ASGI |= {"django-asgi": django_asgi}
WSGI = {"flask": flask, "wsgi": wsgi, "django": django}
