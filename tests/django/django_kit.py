"""What the tests of the Django adapter share: the usual rules, and the project as a server runs it."""

import asyncio

from django.test import AsyncClient, Client

from ascend_middleware.django import configuration

RULES = [
    {"match": "GET /customers/{customer_id}", "action_type": "data_access"},
    {"match": "GET /async/customers/{customer_id}", "action_type": "data_access"},
    {"match": "DELETE /customers/{customer_id}", "action_type": "customer_delete"},
    {
        "match": "POST /customers/{customer_id}/refunds",
        "action_type": "transaction",
        "resource": "refund for customer {path.customer_id}",
        "details": {"amount": "body.amount"},
    },
    {"match": "POST,PUT /form", "action_type": "form", "details": {"amount": "form.amount?"}},
    {"match": "POST /checked-form", "action_type": "form", "details": {"amount": "form.amount?"}},
    {"match": "POST /streamed-body", "action_type": "body", "details": {"amount": "body.amount"}},
    {"match": "GET /search", "action_type": "search", "details": {"q": "query.q?", "why": "header.x-reason?"}},
    {"match": "GET /slashed", "action_type": "slashed"},
    {"match": ["GET /boom", "GET /missing", "GET /unavailable", "GET /parts", "GET /async/parts"], "action_type": "x"},
    {"match": "GET /file", "action_type": "file"},
    {"match": "GET /plain", "action_type": "plain"},
    {"match": "GET /wrapped", "action_type": "plain"},
    {"endpoint": "shop:orders:refund", "match": "POST /**", "action_type": "refund", "resource_id": "{path.number}"},
    {"endpoint": "shop:old", "action_type": "old", "details": {"one": "path.arg1", "two": "path.arg2"}},
    {"endpoint": "anywhere", "action_type": "anywhere"},
    {"match": "GET,POST /report", "action_type": "report"},
    {"endpoint": "things-list", "match": "GET /**", "action_type": "thing_list"},
    {
        "endpoint": "things-list",
        "match": "POST /**",
        "action_type": "thing_create",
        "details": {"amount": "body.amount"},
    },
    {"match": "GET /{language}/about", "action_type": "about"},
    {"match": "GET /health", "exempt": True},
    {"match": "* /internal/**", "block": "closed to agents"},
]


class Site:
    """The project as a server runs it, on WSGI or on ASGI."""

    def __init__(self, kind, authority):
        self.kind, self.authority = kind, authority

    @property
    def runner(self):
        return configuration.async_runner() if self.kind == "asgi" else configuration.sync_runner()

    def ask(self, method, path, *, client=None, raises=False, **given):
        """Send a request; streamed parts are read into `answer.parts`."""
        if self.kind == "wsgi":
            answer = (client or Client(raise_request_exception=raises)).generic(method, path, **given)
            if answer.streaming:
                answer.parts = list(answer)
        else:
            answer = asyncio.run(self._ask(method, path, client, raises, given))
        answer.close()
        return answer

    async def _ask(self, method, path, client, raises, given):
        # As arguments of their own: early versions of Django's client write underscores into the names of `headers`.
        given |= given.pop("headers", {})
        answer = await (client or AsyncClient(raise_request_exception=raises)).generic(method, path, **given)
        if answer.streaming and answer.is_async:
            answer.parts = [part async for part in answer.streaming_content]
        elif answer.streaming:
            answer.parts = list(answer.streaming_content)
        return answer

    def outcomes(self):
        """What the authority was told of each action, when all of it is delivered."""
        if self.runner.worker is not None:
            self.runner.worker.close()
        return self.authority.outcomes


def problem(answer):
    """The problem type of a refusal."""
    return answer.json()["type"].rpartition(":")[2]
