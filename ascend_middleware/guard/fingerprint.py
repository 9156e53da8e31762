"""What makes two requests the same request, so that the approval of one is not used for another."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..rules import fold_header
from .firewall import parse_json

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ..config import Settings
    from ..rules import CompiledRule
    from .request import Agent, RequestView

__all__ = ["CREDENTIALS", "Binding", "tenant_of"]

_encode: Final = msgspec.json.Encoder().encode
_ALWAYS: Final = ("host", "content-type", "content-encoding")
# Who the application takes the caller for, where it does not tell the guard; `principal_headers` names further ones.
CREDENTIALS: Final = ("authorization", "cookie", "x-api-key", "proxy-authorization")
# In these, proxies name who signed in. Different ones make two callers, whatever cookie or gateway's key they
# have in common; the same one does not make one, because anybody can send it where no proxy takes it out.
_NAMED_BY_PROXIES: Final = frozenset(
    {
        "cf-access-authenticated-user-email",
        "remote-user",
        "tailscale-user-login",
        "x-amzn-oidc-identity",
        "x-auth-request-email",
        "x-auth-request-user",
        "x-authenticated-user",
        "x-authenticated-userid",
        "x-authentik-username",
        "x-consumer-username",
        "x-forwarded-client-cert",
        "x-forwarded-email",
        "x-forwarded-preferred-username",
        "x-forwarded-user",
        "x-goog-authenticated-user-email",
        "x-ms-client-principal-id",
        "x-ms-client-principal-name",
        "x-remote-user",
        "x-ssl-client-s-dn",
        "x-user",
        "x-user-id",
        "x-webauth-user",
    }
)


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """One request with all that an approval of it is bound to.

    Attributes:
        table: the version of the rule table.
        tenant: a digest of the authority, the organisation and the key.
        credentials: headers that tell callers apart where `identify` names no principal.
        single_caller: whether all requests are one caller's.
    """

    view: RequestView
    rule: CompiledRule
    agent: Agent
    table: str
    tenant: str
    params: Mapping[str, Any]
    credentials: tuple[str, ...] = CREDENTIALS
    single_caller: bool = False

    @property
    def caller(self) -> list[Any] | None:
        """Whose request it is: the principal, else the credentials that came with it; None where nobody can tell."""
        if self.agent.principal is not None:
            return ["principal", self.agent.principal]
        shown = self._shown(self.credentials)
        if shown:
            return ["credentials", shown]
        return ["the single caller"] if self.single_caller else None

    @property
    def _named(self) -> list[tuple[str, str]]:
        """Whom proxies name, where nothing else says that it makes no difference."""
        if self.agent.principal is not None or self.single_caller:
            return []
        return self._shown(_NAMED_BY_PROXIES)

    def _shown(self, names: Collection[str]) -> list[tuple[str, str]]:
        """Return those headers that are there and say something."""
        if self.view.header_names.isdisjoint(names):
            return []
        given = ((fold_header(name), value) for name, value in self.view.headers)
        return sorted(one for one in given if one[0] in names and one[1].strip())

    @property
    def hint(self) -> str:
        """A digest of what is known before the body is read, whoever the caller is."""
        return _digest(["hint", *self._head()])[:32]

    def fingerprint(self, content: bytes) -> str:
        """Return the digest of the whole request; its body is `content`."""
        return _digest(["approval", *self._head(), self.caller, self._named, *self._body(content)])

    def sharing(self, content: bytes, *, handle: str = "") -> str:
        """Return the digest under which an identical request of the same caller shares the action.

        Where nobody can tell whose request it is, it is the handle's alone: what was approved for one caller is never
        handed to another.
        """
        return _digest(["sharing", self.fingerprint(content), handle if self.caller is None else ""])

    def exact(self, rules: bytes, telling: Collection[str], content: bytes) -> bytes:
        """Return the digest of all by which two requests might be judged otherwise, as it came.

        That is what `fingerprint` looks at, with the spelling of path and headers, and the agent's name. What of it is
        the same for all requests of a rule is in `rules`, see `ruled`; `telling` are the headers.

        Raises:
            ValueError: there are texts in it that are none.
        """
        view, agent, principal = self.view, self.agent, self.agent.principal
        headers = [one for one in view.headers if fold_header(one[0]) in telling]
        parts = [agent.id, agent.name, principal, view.verb, view.raw_path, *self._place(), headers, len(content)]
        return hashlib.sha256(b"".join([rules, _encode(parts), content])).digest()

    def ruled(self) -> bytes:
        """Return a digest of authority, organisation, key, rule and table."""
        return hashlib.sha256(_encode([self.tenant, *self._ruled()])).digest()

    def telling(self) -> frozenset[str]:
        """Return the headers by which requests of this rule, and of such a caller, are told apart."""
        telling = {*_ALWAYS, *self.rule.reads_headers}
        if self.agent.principal is None:
            telling.update(self.credentials)
            if not self.single_caller:
                telling |= _NAMED_BY_PROXIES
        return frozenset(telling)

    def _head(self) -> list[Any]:
        return [self.tenant, self.agent.id, *self._ruled(), *self._request()]

    def _ruled(self) -> list[Any]:
        rule = self.rule
        # A rule that stands at a handler is no part of the table's version.
        return [
            rule.action_type,
            [rule.match, json.dumps(rule.given, sort_keys=True, default=str)],
            self.table,
        ]

    def _place(self) -> list[Any]:
        view, resolved = self.view, self.view.resolved
        template = resolved.leaf.template if resolved is not None and resolved.leaf is not None else ""
        # The same application may stand in two places: what is one customer's here is another's there.
        params = sorted([(name, str(value)) for name, value in self.params.items()])
        return [template, view.prefix, view.path, params, view.query.decode("latin-1")]

    def _request(self) -> list[Any]:
        view = self.view
        return [
            view.verb,
            view.header("host"),
            *self._place(),
            [(name, view.header(name)) for name in self.rule.reads_headers],
            view.header("content-type"),
            view.header("content-encoding"),
        ]

    def _body(self, content: bytes) -> list[str]:
        """Return the body as it is compared: JSON without key order and white space."""
        try:
            parse_json(self.view, content)  # what is ambiguous is compared byte by byte
            value = json.loads(content, parse_float=_Number, parse_int=_Number)
            return ["json", _digest(_spelt(value))]
        except (ValueError, RecursionError):
            return ["bytes", hashlib.sha256(content).hexdigest()]


def tenant_of(settings: Settings) -> str:
    """Return a digest of the authority, the organisation and the key."""
    text = "\n".join([settings.api_url, settings.organization_id, settings.api_key])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class _Number(str):
    """A number of a JSON body as it was spelt: 1 and 1.0 are two things to some handlers."""

    __slots__ = ()


def _spelt(value: Any) -> Any:
    if isinstance(value, _Number):
        return ["number", str(value)]
    if isinstance(value, str):
        return ["text", value]
    if isinstance(value, dict):
        return ["object", sorted([key, _spelt(item)] for key, item in value.items())]
    if isinstance(value, list):
        return ["array", [_spelt(item) for item in value]]
    return ["word", value]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=True).encode()).hexdigest()
