"""The flow from a request to a verdict. It knows neither a framework nor an HTTP library."""

from .announcing import announce, announce_ways
from .engine import Guard
from .health import health_of
from .identity import Agent, NotAnAgent
from .outcome import Outcome
from .standing import standing
from .steps import BodyConsumed, BodyTimeout, BodyTooLarge, ClientGone, Hook, ReadBody, Watch
from .verdicts import Refusal, Verdict, answer_of
from .view import RequestView, quoted

__all__ = [
    "Agent",
    "BodyConsumed",
    "BodyTimeout",
    "BodyTooLarge",
    "ClientGone",
    "Guard",
    "Hook",
    "NotAnAgent",
    "Outcome",
    "ReadBody",
    "Refusal",
    "RequestView",
    "Verdict",
    "Watch",
    "announce",
    "announce_ways",
    "answer_of",
    "health_of",
    "quoted",
    "standing",
]
