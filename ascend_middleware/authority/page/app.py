"""The page's application: which view answers what."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from . import actions, agents, log
from .views_base import Desk, Form, RefusedError, check_origin, on_error, read_form, signed_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from ..service import Service
    from .sessions import Session

__all__ = ["create_page", "is_page"]

_STATIC: Final = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_PAGES: Final = frozenset(
    {"", "sign-in", "sign-out", "account", "actions", "history", "agents", "audit", "live", "page"}
)


def is_page(path: str) -> bool:
    """Say whether a path is the page's and not the API's."""
    return path.split("/", 2)[1] in _PAGES and path != "/audit/logs"


async def _sign_in(desk: Desk, request: Request) -> Response:
    """Show the sign-in, or begin a session."""
    if request.method != "POST":
        if await anyio.to_thread.run_sync(desk.session_of, request) is not None:
            return desk.guarded(request, Response(status_code=303, headers={"location": "/"}))
        return desk.page(request, "sign-in.html", error="")
    check_origin(request)
    form = await read_form(request)
    client = request.client.host if request.client else ""
    credential, error = await anyio.to_thread.run_sync(desk.recognise, form.text("key"), client)
    if credential is None:
        return desk.page(request, "sign-in.html", status=401, error=error)
    session = await desk.change(functools.partial(desk.sessions.open, credential))
    response = desk.guarded(request, Response(status_code=303, headers={"location": "/"}))
    desk.remember(request, response, session)
    return response


@signed_in
async def _sign_out(desk: Desk, request: Request, session: Session, form: Form) -> Response:
    everywhere = form.text("everywhere") == "yes"
    close = desk.sessions.close_all if everywhere else desk.sessions.close
    await desk.change(functools.partial(close, session))
    response = desk.guarded(request, Response(status_code=303, headers={"location": "/sign-in?done=out"}))
    desk.forget(response)
    return response


@signed_in
async def _account(desk: Desk, request: Request, session: Session, form: Form) -> Response:
    token = ""
    if request.method == "POST":
        token = await desk.change(lambda: desk.authority.tokens.issue(session.credential, now=desk.authority.now()))
    return await anyio.to_thread.run_sync(
        functools.partial(desk.page, request, "account.html", session=session, token=token)
    )


@signed_in
async def _live(desk: Desk, request: Request, session: Session, form: Form) -> Response:
    if desk.feed.full:
        raise RefusedError(503, "Too many pages are open.")
    events = desk.feed.listen(session.credential.tenant, valid=lambda: desk.sessions.find(session.cookie) is not None)
    return desk.guarded(request, StreamingResponse(events, media_type="text/event-stream"))


async def _static(desk: Desk, request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _STATIC:
        raise RefusedError(404, "There is nothing here.")
    response = FileResponse(Path(__file__).parent / "static" / name, media_type=_STATIC[name])
    response.headers["cache-control"] = "no-cache"
    return desk.guarded(request, response)


async def _nothing(desk: Desk, request: Request) -> Response:
    raise RefusedError(404, "There is nothing here.")


def create_page(service: Service) -> Starlette:
    """Return the page's application; `state.desk` is what its views share."""
    desk = Desk(service)

    def route(path: str, view: Callable[[Desk, Request], Awaitable[Response]], *methods: str) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                return await view(desk, request)
            except Exception as error:
                return await on_error(desk, request, error)

        return Route(path, endpoint, methods=list(methods) or ["GET"])

    async def missing(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return desk.failed(request, status, "There is nothing here.", None)

    app = Starlette(
        routes=[
            route("/", actions.queue),
            route("/sign-in", _sign_in, "GET", "POST"),
            route("/sign-out", _sign_out, "POST"),
            route("/account", _account, "GET", "POST"),
            route("/actions/{id:int}", actions.details),
            route("/actions/{id:int}/decide", actions.decide, "POST"),
            route("/history", actions.history),
            route("/agents", agents.listing),
            route("/agents/command", agents.command, "POST"),
            route("/audit", log.listing),
            route("/audit/verify", log.verify, "POST"),
            route("/live", _live),
            route("/page/{name}", _static),
        ],
        exception_handlers={404: missing, 405: missing},
    )
    app.state.desk = desk
    return app
