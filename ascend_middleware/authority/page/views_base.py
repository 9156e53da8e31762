"""What every view shares: the templates, the signed-in person, forms, and the headers that keep scripts out."""

from __future__ import annotations

import itertools
import json
import logging
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import jinja2
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from ascend_middleware._version import __version__

from ..bodies import ApiError
from ..core import Authority
from ..keys import Credential, Role
from ..service import Service
from ..store.database import StorageError, UnstorableError
from ..store.store import Store
from .live import Feed, Verifier
from .sessions import LIFETIME, Session, Sessions

__all__ = ["Desk", "Form", "RefusedError", "Visit", "check_origin", "facts", "read_form", "sentence", "shown"]

log = logging.getLogger(__name__)

# Control, format (which hold what turns the writing direction and what cannot be seen), surrogates, private use,
# unassigned, line and paragraph separators.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_UNSEEN_MARK: Final = Markup('<span class="unseen" title="a character that cannot be seen">U+{:04X}</span>')
_LONGEST: Final = 400
_MOST_FACTS: Final = 60


def shown(value: object, *, lines: bool = False) -> Markup:
    """Return a text in which nothing is hidden: characters that cannot be seen are spelt out.

    It stands in an element of its own writing direction, so that it cannot turn what surrounds it. With `lines` line
    ends may stay.
    """

    def unseen(char: str) -> bool:
        return unicodedata.category(char) in _UNSEEN and not (lines and char == "\n")

    parts = (
        Markup("").join(_UNSEEN_MARK.format(ord(char)) for char in run) if hidden else escape("".join(run))
        for hidden, run in itertools.groupby(str(value), unseen)
    )
    return Markup("<bdi>{}</bdi>").format(Markup("").join(parts))


def short(value: object, longest: int = _LONGEST) -> Markup:
    """Return a text, cut if it is long; how much is missing is said."""
    text = str(value)
    if len(text) <= longest:
        return shown(text)
    return Markup('{} <span class="cut">… {} more characters</span>').format(shown(text[:longest]), len(text) - longest)


def facts(value: object) -> list[tuple[str, str]]:
    """Return the parts of a JSON value as pairs of a dotted place and a text, in order, some dozens at most."""
    found: list[tuple[str, str]] = []
    for place, text in _flat(value, ""):
        if len(found) == _MOST_FACTS:
            found.append(("…", "more; see the whole of it below"))
            break
        found.append((place, text))
    return found


def _flat(value: object, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for number, item in enumerate(value):
            yield from _flat(item, f"{place}[{number}]")
    elif isinstance(value, str):
        yield place, value
    else:
        yield place, json.dumps(value, ensure_ascii=False)


def pretty(value: object) -> Markup:
    """Return a JSON value on several lines."""
    return shown(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True), lines=True)


def moment(value: object) -> Markup:
    """Return a stored time as an element that the script turns into local words."""
    text = str(value or "")
    if not text:
        return Markup("–")
    return Markup('<time datetime="{}">{} UTC</time>').format(text, text[:19].replace("T", " "))


def words(value: object) -> str:
    """Return an upper-case event name as words."""
    return str(value).replace("_", " ").capitalize()


_FILTERS: Final = {one.__name__: one for one in (shown, short, facts, pretty, moment, words)}

# Nothing but what this server itself sends: no inline script or style, no frame around the page, no form to elsewhere.
_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    # Not "no-referrer", with which browsers do not say where a form comes from.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_HSTS: Final = "max-age=31536000"
_COOKIE: Final = "ascend-session"
# A browser takes a cookie of this name only from https, for this host alone.
_SECURE_COOKIE: Final = "__Host-ascend-session"
_MAX_FORM: Final = 64 * 1024
_MAX_FIELDS: Final = 30


class RefusedError(Exception):
    """What was asked for cannot be done; the page says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Form(dict[str, str]):
    """The fields of a submitted form; a field that is given twice is refused."""

    def text(self, name: str) -> str:
        """Return a field, with plain line ends; empty if it is not there."""
        return self.get(name, "").replace("\r\n", "\n").strip()


class Desk:
    """The page of one served authority; decisions go through the writer of its service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.authority: Authority = service.authority
        self.sessions = Sessions(self.authority.store, now=self.authority.now)
        self.feed = Feed(self.authority.store)
        self.verifier = Verifier(self.authority.store, now=self.authority.now)
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader(__package__ or "", "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(_FILTERS)

    # --- answers

    def page(
        self, request: Request, template: str, *, session: Session | None = None, status: int = 200, **values: Any
    ) -> Response:
        """Return a rendered page."""
        context = {
            "version": __version__,
            "session": session,
            "who": session.credential.name if session else "",
            "csrf": session.csrf if session else "",
            "path": request.url.path,
            "notice": _NOTICES.get(request.query_params.get("done", ""), ""),
            "policy": self.authority.policy.version[:8],
            "policy_problem": self.authority.policy_problem if session else "",
            "policies_differ": self.authority.peers.differing if session else {},
            "state": self.feed.state(session.credential.tenant) if session else {},
            **values,
        }
        return HTMLResponse(self._templates.get_template(template).render(context), status_code=status)

    def signed_out(self, request: Request) -> Response:
        """Answer somebody who is not signed in, or is so no more."""
        if not _wants_json(request):
            return RedirectResponse("/sign-in", status_code=303)
        return JSONResponse({"error": "Your session has ended. Sign in again."}, status_code=401)

    def failed(self, request: Request, error: Exception, session: Session | None) -> Response:
        """Answer what cannot be done, or went wrong."""
        if isinstance(error, ApiError):
            error = RefusedError(error.status, sentence(error.message))
        elif isinstance(error, UnstorableError):
            error = RefusedError(422, "The text holds a character that cannot be stored.")
        elif isinstance(error, StorageError):
            error = RefusedError(503, "The database cannot be used right now. Nothing was decided.")
            session = None  # to show one takes the database
        elif not isinstance(error, RefusedError):
            log.error("the page could not answer %s", request.method, exc_info=error)
            error, session = RefusedError(500, "The page failed. Nothing was decided."), None
        if _wants_json(request):
            return JSONResponse({"error": error.message}, status_code=error.status)
        return self.page(request, "message.html", session=session, status=error.status, message=error.message)

    def guarded(self, request: Request, response: Response) -> Response:
        """Add the headers that every answer of the page has."""
        response.headers.update(_HEADERS)
        response.headers.setdefault("cache-control", "no-store")
        if request.url.scheme == "https":
            response.headers["strict-transport-security"] = _HSTS
        return response

    # --- people

    def recognise(self, key: str, client: str) -> tuple[Credential | None, str]:
        """Return whose key was given, or why it opens nothing here."""
        try:
            credential = self.authority.authenticate({"x-api-key": key}, client)
        except ApiError as error:
            if error.status == 429:
                return None, "Too many failed attempts from your address. Wait a minute."
            return None, "This is no valid key."
        if credential.role is Role.USER:
            return None, "This key is for programs that submit actions. Sign in with the key of a person."
        return credential, ""

    def session_of(self, request: Request) -> Session | None:
        """Return whose request it is; a cookie that is there twice counts for nothing."""
        cookie = request.cookies.get(_SECURE_COOKIE) or request.cookies.get(_COOKIE)
        return self.sessions.find(cookie) if cookie else None

    def remember(self, request: Request, response: Response, session: Session) -> None:
        """Give the browser its cookie: unreadable to scripts, never sent along from other sites."""
        # Behind a proxy that ends TLS, the browser's own word tells that the page was fetched over https.
        secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
        response.set_cookie(
            _SECURE_COOKIE if secure else _COOKIE,
            session.cookie,
            max_age=int(LIFETIME),
            path="/",
            httponly=True,
            samesite="strict",
            secure=secure,
        )

    def forget(self, response: Response) -> None:
        """Take the cookies back."""
        response.delete_cookie(_COOKIE, path="/", httponly=True, samesite="strict")
        response.delete_cookie(_SECURE_COOKIE, path="/", httponly=True, samesite="strict", secure=True)


class Visit:
    """One request of a signed-in person; `form` is what they sent."""

    def __init__(self, desk: Desk, request: Request, session: Session) -> None:
        self.desk, self.request, self.session, self.form = desk, request, session, Form()
        self.who: Credential = session.credential
        self.tenant: str = session.credential.tenant
        self.store: Store = desk.authority.store

    def page(self, template: str, **values: Any) -> Response:
        """Return a rendered page."""
        return self.desk.page(self.request, template, session=self.session, **values)

    def done(self, code: str, *, to: str) -> Response:
        """Answer a form: the script gets words, a browser without it the next page."""
        if _wants_json(self.request):
            return JSONResponse({"message": _NOTICES[code]})
        return RedirectResponse(f"{to}?done={code}", status_code=303)


async def read_form(request: Request) -> Form:
    """Return the fields of a form; refuse what is no form, too long, or gives a field twice."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise RefusedError(415, "This is no form.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MAX_FORM:
            raise RefusedError(413, "The form is too long.")
    try:
        strict: dict[str, Any] = {"strict_parsing": bool(body), "errors": "strict", "max_num_fields": _MAX_FIELDS}
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, **strict)
    except ValueError:
        raise RefusedError(400, "The form is malformed.") from None
    form = Form(pairs)
    if len(form) != len(pairs):
        raise RefusedError(400, "The form gives a field twice.")
    return form


def check_origin(request: Request) -> None:
    """Refuse a form that another site sent; every current browser says where one comes from."""
    origin, fetched = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    same = origin is not None and urlsplit(origin).netloc == request.headers.get("host", "")
    if not same or fetched not in (None, "same-origin"):
        raise RefusedError(403, "The form did not come from this page. Open the page again and repeat.")


def _wants_json(request: Request) -> bool:
    """Say whether the script asks, which shows words by itself."""
    return request.headers.get("accept", "") == "application/json"


def sentence(words: str) -> str:
    """Return words of the API as a sentence."""
    return f"{words[:1].upper()}{words[1:]}."


_NOTICES: Final[Mapping[str, str]] = {
    "approved": "Approved.",
    "denied": "Denied.",
    "counted": "Your approval counts; others are needed too.",
    "commanded": "The command is issued.",
    "verified": "The whole audit log was read again.",
    "out": "You are signed out.",
}
