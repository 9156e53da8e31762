"""The flow from a request to a verdict. It knows neither a framework nor an HTTP library."""

from ..flow import BodyConsumed, BodyTimeout, BodyTooLarge, ClientGone, Hook, ReadBody, Watch
from ..verdict import PermittedVerdict, Refusal, Verdict, answer_of
from .decide import Guard
from .firewall import USUAL_METHODS, are_ordinary_headers, is_ordinary_environ, is_ordinary_target
from .log import announce, announce_ways
from .plan import Asked
from .recall import Recalled
from .request import Agent, Came, LazyRequestView, NotAnAgent, RequestView, quoted
from .telemetry import health_of

__all__ = [
    "USUAL_METHODS",
    "Agent",
    "Asked",
    "BodyConsumed",
    "BodyTimeout",
    "BodyTooLarge",
    "Came",
    "ClientGone",
    "Guard",
    "Hook",
    "LazyRequestView",
    "NotAnAgent",
    "PermittedVerdict",
    "ReadBody",
    "Recalled",
    "Refusal",
    "RequestView",
    "Verdict",
    "Watch",
    "announce",
    "announce_ways",
    "answer_of",
    "are_ordinary_headers",
    "health_of",
    "is_ordinary_environ",
    "is_ordinary_target",
    "quoted",
]
