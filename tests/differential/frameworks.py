"""Random route sets, built in each framework; every handler says that it ran, with which arguments and which body."""

import json
from dataclasses import dataclass, field

KINDS = ("name", "int", "uuid", "path")


@dataclass(frozen=True)
class Route:
    """One route: its segments are texts, or `(parameter, kind)`."""

    name: str
    segments: tuple
    methods: tuple[str, ...]
    below: str = ""  # what it is mounted under, included with, or registered below

    def template(self, form):
        """Write the route down; `form` maps a kind to how a parameter of it is written."""
        parts = [form[part[1]].format(part[0]) if isinstance(part, tuple) else part for part in self.segments]
        return "/" + "/".join(parts)


RULE_FORM = {"name": "{{{}}}", "int": "{{{}:int}}", "uuid": "{{{}:uuid}}", "path": "{{{}:path}}"}
STARLETTE_FORM = RULE_FORM
WERKZEUG_FORM = {"name": "<{}>", "int": "<int:{}>", "uuid": "<uuid:{}>", "path": "<path:{}>"}
DJANGO_FORM = {**WERKZEUG_FORM, "name": "<str:{}>"}
LITESTAR_FORM = {"name": "{{{}:str}}", "int": "{{{}:int}}", "uuid": "{{{}:uuid}}", "path": "{{{}:path}}"}


@dataclass
class Account:
    """What the handlers told."""

    runs: list = field(default_factory=list)

    def ran(self, name, method, arguments, body):
        self.runs.append((name, method, {key: str(value) for key, value in arguments.items()}, body))


def amount_in(body):
    """Return what a handler takes from a body, by the parser that the framework itself uses."""
    return json.loads(body)["amount"] if body else None


def starlette(routes, account):
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount
    from starlette.routing import Route as StarletteRoute

    def endpoint(route):
        async def run(request):
            body = await request.body()
            account.ran(route.name, request.method, request.path_params, body)
            return PlainTextResponse(route.name)

        return run

    found, below = [], {}
    for route in routes:
        made = StarletteRoute(
            route.template(STARLETTE_FORM), endpoint(route), methods=list(route.methods), name=route.name
        )
        if route.below:
            if route.below not in below:
                below[route.below] = []
                found.append(Mount(f"/{route.below}", routes=below[route.below]))
            below[route.below].append(made)
        else:
            found.append(made)
    # A mount keeps the list it was given as it is at that time.
    found = [Mount(item.path, routes=below[item.path[1:]]) if isinstance(item, Mount) else item for item in found]
    return Starlette(routes=found)


def fastapi(routes, account):
    from fastapi import APIRouter, FastAPI, Request
    from fastapi.responses import PlainTextResponse

    def endpoint(route):
        async def run(request: Request):
            body = await request.body()
            account.ran(route.name, request.method, request.path_params, body)
            return PlainTextResponse(route.name)

        return run

    app = FastAPI(openapi_url=None)
    routers = {}
    for route in routes:
        router = app if not route.below else routers.setdefault(route.below, APIRouter())
        router.add_api_route(
            route.template(STARLETTE_FORM), endpoint(route), methods=list(route.methods), name=route.name
        )
        if route.below and len(router.routes) == 1:
            # Included before its other routes are there: these go live, too, where FastAPI keeps routers whole.
            app.include_router(router, prefix=f"/{route.below}")
    return app


def flask(routes, account):
    import flask as flask_module

    app = flask_module.Flask("differential", static_folder=None)
    blueprints = {}

    def view(route):
        def run(**arguments):
            request = flask_module.request
            account.ran(route.name, request.method, arguments, request.get_data())
            return route.name

        return run

    for route in routes:
        place = app
        if route.below:
            place = blueprints.setdefault(
                route.below, flask_module.Blueprint(route.below, "differential", url_prefix=f"/{route.below}")
            )
        place.add_url_rule(
            route.template(WERKZEUG_FORM),
            route.name,
            view(route),
            methods=list(route.methods),
            provide_automatic_options=False,
        )
    for blueprint in blueprints.values():
        app.register_blueprint(blueprint)
    return app


def quart(routes, account):
    import quart as quart_module

    app = quart_module.Quart("differential", static_folder=None)

    def view(route):
        async def run(**arguments):
            request = quart_module.request
            account.ran(route.name, request.method, arguments, await request.get_data())
            return route.name

        return run

    for route in routes:
        prefix = f"/{route.below}" if route.below else ""
        app.add_url_rule(prefix + route.template(WERKZEUG_FORM), route.name, view(route), methods=list(route.methods))
    return app


def litestar(routes, account):
    from litestar import Litestar, Request, Response
    from litestar import route as litestar_route

    made = []
    for number, route in enumerate(routes):

        def build(route=route):
            async def run(request: Request) -> Response[str]:
                account.ran(route.name, request.method, request.path_params, await request.body())
                return Response(route.name, media_type="text/plain")

            return run

        prefix = f"/{route.below}" if route.below else ""
        made.append(
            litestar_route(
                prefix + route.template(LITESTAR_FORM),
                http_method=list(route.methods),
                name=f"{route.name}-{number}",
                status_code=200,
            )(build())
        )
    return Litestar(made, openapi_config=None)


def django_urls(routes, account):
    """Return the URL patterns; the settings are the caller's."""
    from django.http import HttpResponse, HttpResponseNotAllowed
    from django.urls import include, path

    def view(route):
        def run(request, **arguments):
            if request.method not in route.methods:
                return HttpResponseNotAllowed(route.methods)
            account.ran(route.name, request.method, arguments, request.body)
            return HttpResponse(route.name)

        return run

    patterns, below = [], {}
    for route in routes:
        made = path(route.template(DJANGO_FORM)[1:], view(route), name=route.name)
        if route.below:
            if route.below not in below:
                below[route.below] = []
                patterns.append(path(f"{route.below}/", include(below[route.below])))
            below[route.below].append(made)
        else:
            patterns.append(made)
    return patterns
