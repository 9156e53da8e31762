"""The page's application: which view answers what, and how it runs; sign-in, live updates and files."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from ..service import Service
from . import views
from .views_base import Desk, RefusedError, Visit, check_origin, read_form

# For everybody, and for those who are signed in.
Open = Callable[[Desk, Request], Awaitable[Response]]
View = Callable[[Visit], Response]
Guarded = Callable[[Visit], Awaitable[Response]]

__all__ = ["create_page", "is_page"]

_STATIC: Final = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_PAGES: Final = frozenset(
    {"", "sign-in", "sign-out", "account", "actions", "history", "agents", "audit", "live", "page"}
)
_NOTHING: Final = "There is nothing here."


def is_page(path: str) -> bool:
    """Say whether a path is the page's and not the API's."""
    return path.split("/", 2)[1] in _PAGES and path != "/audit/logs"


# --- how a view runs


def _reads(view: View) -> Guarded:
    """Run a view as one of the few readers of much."""
    return lambda visit: visit.desk.service.read(visit.who.key_id, functools.partial(view, visit))


def _changes(view: View) -> Guarded:
    """Run a view in the writer, and answer once what it changed is durable."""
    return lambda visit: visit.desk.service.change(functools.partial(view, visit))


def _looks(view: View) -> Guarded:
    """Run a view in a thread."""
    return lambda visit: anyio.to_thread.run_sync(view, visit)


def _signed_in(view: Guarded) -> Open:
    """Let only signed-in admins to a view; a form also needs the session's own token and this page's origin."""

    async def guarded(desk: Desk, request: Request) -> Response:
        session = await anyio.to_thread.run_sync(desk.session_of, request)
        if session is None:
            return desk.signed_out(request)
        visit = Visit(desk, request, session)
        try:
            desk.authority.count("read", session.credential)
            if request.method == "POST":
                check_origin(request)
                visit.form.update(await read_form(request))
                if not session.accepts(visit.form.pop("csrf", "")):
                    raise RefusedError(403, "The form is out of date. Open the page again and repeat.")
            # What the script fetches by itself is no sign of a person.
            if "x-live" not in request.headers and desk.sessions.is_due(session):
                await desk.service.change(functools.partial(desk.sessions.touch, session))
            return await view(visit)
        except Exception as error:
            return await anyio.to_thread.run_sync(desk.failed, request, error, session)

    return guarded


# --- the session


async def _sign_in(desk: Desk, request: Request) -> Response:
    """Show the sign-in, or begin a session."""
    if request.method != "POST":
        if await anyio.to_thread.run_sync(desk.session_of, request) is not None:
            return RedirectResponse("/", status_code=303)
        return desk.page(request, "sign-in.html", error="")
    check_origin(request)
    form = await read_form(request)
    client = request.client.host if request.client else ""
    credential, error = await anyio.to_thread.run_sync(desk.recognise, form.text("key"), client)
    if credential is None:
        return desk.page(request, "sign-in.html", status=401, error=error)
    session = await desk.service.change(functools.partial(desk.sessions.open, credential))
    response = RedirectResponse("/", status_code=303)
    desk.remember(request, response, session)
    return response


def _sign_out(visit: Visit) -> Response:
    visit.desk.sessions.close(visit.session, everywhere=visit.form.text("everywhere") == "yes")
    response = RedirectResponse("/sign-in?done=out", status_code=303)
    visit.desk.forget(response)
    return response


async def _account(visit: Visit) -> Response:
    token, authority = "", visit.desk.authority
    if visit.request.method == "POST":
        token = await visit.desk.service.change(lambda: authority.tokens.issue(visit.who, now=authority.now()))
    return await anyio.to_thread.run_sync(lambda: visit.page("account.html", token=token))


# --- live updates and files


async def _live(visit: Visit) -> Response:
    desk, session = visit.desk, visit.session
    if desk.feed.full:
        raise RefusedError(503, "Too many pages are open.")
    events = desk.feed.listen(visit.tenant, valid=lambda: desk.sessions.find(session.cookie) is not None)
    return StreamingResponse(events, media_type="text/event-stream")


async def _static(desk: Desk, request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _STATIC:
        raise RefusedError(404, _NOTHING)
    response = FileResponse(Path(__file__).parent / "static" / name, media_type=_STATIC[name])
    response.headers["cache-control"] = "no-cache"
    return response


def create_page(service: Service) -> Starlette:
    """Return the page's application; `state.desk` is what its views share."""
    desk = Desk(service)

    def route(path: str, view: Open, *methods: str) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                response = await view(desk, request)
            except Exception as error:
                response = desk.failed(request, error, None)
            return desk.guarded(request, response)

        return Route(path, endpoint, methods=list(methods) or ["GET"])

    async def missing(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return desk.guarded(request, desk.failed(request, RefusedError(status, _NOTHING), None))

    app = Starlette(
        routes=[
            route("/", _signed_in(_reads(views.queue))),
            route("/sign-in", _sign_in, "GET", "POST"),
            route("/sign-out", _signed_in(_changes(_sign_out)), "POST"),
            route("/account", _signed_in(_account), "GET", "POST"),
            route("/actions/{id:int}", _signed_in(_looks(views.details))),
            route("/actions/{id:int}/decide", _signed_in(_changes(views.decide)), "POST"),
            route("/history", _signed_in(_reads(views.history))),
            route("/agents", _signed_in(_reads(views.agents))),
            route("/agents/command", _signed_in(_changes(views.command)), "POST"),
            route("/audit", _signed_in(_reads(views.audit_log))),
            route("/audit/verify", _signed_in(_reads(views.verify)), "POST"),
            route("/live", _signed_in(_live)),
            route("/page/{name}", _static),
        ],
        exception_handlers={404: missing, 405: missing},
    )
    app.state.desk = desk
    return app
