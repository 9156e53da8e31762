"""The reference generation: OWKAIClient and AuthorizedAgent, both twins, on scripted answers."""

import builtins

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from kit.clients import KEY, KINDS, Alike, Desk
from kit.engine import Awaited
from kit.scripted import APPROVED, DENIED, HANG, PENDING, Scripted, http

from ascend_middleware import exceptions as errors
from ascend_middleware.client import (
    AscendClient,
    AsyncAscendClient,
    AsyncAuthorizedAgent,
    AsyncOWKAIClient,
    AuthorizedAgent,
    OWKAIClient,
)

VARIABLES = ("OWKAI_API_KEY", "OWKAI_API_URL", "OWKAI_ORG_SLUG", "OWKAI_TIMEOUT", "ASCEND_API_KEY", "ASCEND_API_URL")
ACTION = {"agent_id": "a", "action_type": "data_access", "description": "d", "tool_name": "t"}


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def portal():
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def alike(portal):
    """Let a client or an agent of a kind be called alike, and close its client in the end."""
    opened = []

    def alike(kind, work):
        opened.append(Alike(getattr(work, "client", work), portal))
        return Alike(work, portal if kind == "async" else None)

    yield alike
    for one in opened:
        (one.aclose if isinstance(one.work, AsyncAscendClient | AsyncOWKAIClient) else one.close)()


@pytest.fixture
def reference(alike):
    def make(kind, desk=None, url="http://localhost", **options):
        engine = {} if desk is None else {"engine": desk if kind == "sync" else Awaited(desk)}
        options = {"api_url": url, "api_key": KEY, "max_retries": 0, **engine, **options}
        return alike(kind, (OWKAIClient if kind == "sync" else AsyncOWKAIClient)(**options))

    return make


@pytest.mark.parametrize("cls", [OWKAIClient, AsyncOWKAIClient])
def test_the_environment_is_enough_and_owkai_comes_first(cls, monkeypatch):
    with pytest.raises(ValueError, match=r"API key is required.*OWKAI_API_KEY"):
        cls()
    monkeypatch.setenv("ASCEND_API_KEY", "owkai_live_of_the_others_0")
    monkeypatch.setenv("ASCEND_API_URL", "https://other.example")
    assert cls().settings.api_url == "https://other.example"
    for name, value in zip(VARIABLES, (KEY, "https://x.example/", "acme", "7.5"), strict=False):
        monkeypatch.setenv(name, value)
    client = cls()
    assert (client.settings.api_key, client.settings.api_url) == (KEY, "https://x.example")
    assert (client.settings.timeout, client.organization_slug) == (7.5, "acme")
    explicit = cls(api_url=None, api_key="owkai_admin_0123456789", organization_slug="o", timeout=60, debug=False)
    assert (explicit.settings.api_key, explicit.settings.timeout) == ("owkai_admin_0123456789", 60)
    assert explicit.organization_slug == "o"
    monkeypatch.setenv("OWKAI_TIMEOUT", "soon")
    with pytest.raises(errors.ConfigurationError, match="OWKAI_TIMEOUT"):
        cls()
    with pytest.raises(errors.ConfigurationError, match="max_retires"):
        cls(api_key=KEY, timeout=1, max_retires=1)


@KINDS
def test_answers_are_mappings_with_the_documented_words(kind, reference):
    desk = Desk({"action_id": "act_7", "status": "denied", "decision": "denied", "risk_score": 45, "reason": "no",
                 "created_at": "t"})  # fmt: skip
    client = reference(kind, desk)
    for answer in (client.submit_action(**ACTION), client.get_action_status("act_7")):
        assert (answer["action_id"], answer["status"], answer.get("decision")) == ("7", "denied", "denied")
        assert (answer["risk_score"], answer["reason"], answer["created_at"]) == (45, "no", "t")
    assert desk.body(0) == {**ACTION, "agent_name": "a"}
    modify = reference(kind, Desk({"action_id": 1, "status": "requires_modification"})).get_action_status(1)
    assert modify["decision"] == modify["status"] == "requires_modification" and not modify.is_approved()


@KINDS
def test_c6_nobody_deciding_is_an_answer(kind, reference):
    answer = reference(kind, Desk({"action_id": 7, "status": "pending"})).wait_for_decision("7", 0.03, 0.01)
    assert answer["decision"] == answer["status"] == "timeout" and answer["action_id"] == "7"
    assert not answer.is_approved() and not answer["execution_allowed"]
    decided = Desk({"action_id": 7, "status": "pending"}, {"action_id": 7, "status": "approved"})
    assert reference(kind, decided).wait_for_decision(7, timeout=5, poll_interval=0.01).get("decision") == "approved"


@KINDS
def test_c8_errors_go_by_their_bare_names(kind, reference):
    with Scripted(http(422, {"detail": "tool_name is missing"}), HANG) as server:
        client = reference(kind, url=server.url, timeout=1)
        with pytest.raises(Exception, match=r"^API Error: tool_name is missing"):
            client.submit_action(**ACTION)
        with pytest.raises(builtins.TimeoutError):
            client.submit_action(**ACTION)
    with pytest.raises(builtins.ConnectionError):
        reference(kind, url=server.url, timeout=3).submit_action(**ACTION)


@KINDS
def test_a_status_is_asked_for_ten_seconds_at_most(kind, reference):
    class Timed(Desk):
        def send(self, request, timeout):
            self.timeout = timeout
            return super().send(request, timeout)

    desk = Timed({"action_id": 7, "status": "pending"})
    reference(kind, desk).get_action_status(7)
    assert 9 < desk.timeout <= 10
    reference(kind, desk).submit_action(**ACTION)
    assert desk.timeout > 29


@KINDS
def test_lists_and_details(kind, reference):
    rows = {"actions": [{"action_id": "act_1", "status": "approved"}], "total": 3}
    client = reference(kind, Desk(rows))
    page = client.list_actions(limit=1, status="approved")
    assert [f"{row['action_id']}: {row['status']}" for row in page.get("actions", [])] == ["1: approved"]
    assert (page["total"], page["limit"], page["offset"]) == (3, 1, 0)
    details = reference(kind, Desk({"action_id": 1, "agent_id": "a", "risk_score": 3})).get_action_details("act_1")
    assert (details["agent_id"], details["risk_score"]) == ("a", 3)


# --- the agent


CLASSES = {
    ("sync", "owkai"): OWKAIClient,
    ("sync", "ascend"): AscendClient,
    ("async", "owkai"): AsyncOWKAIClient,
    ("async", "ascend"): AsyncAscendClient,
}


@pytest.fixture
def agent(alike):
    def make(kind, client_kind, url, **options):
        client = CLASSES[kind, client_kind](api_url=url, api_key=KEY, timeout=5, max_retries=0, **options)
        return alike(
            kind, (AuthorizedAgent if kind == "sync" else AsyncAuthorizedAgent)("my-agent", "My Agent", client)
        )

    return make


CLIENTS = pytest.mark.parametrize("client_kind", ["owkai", "ascend"])


class Work:
    def __init__(self, error=None):
        self.runs, self.error = 0, error

    def __call__(self):
        self.runs += 1
        if self.error is not None:
            raise self.error
        return "done"


@KINDS
@CLIENTS
def test_an_agent_runs_what_is_approved_once(kind, client_kind, agent):
    work = Work()
    with Scripted(PENDING, APPROVED) as server:
        subject = agent(kind, client_kind, server.url)
        extra = {"model_id": 4, "mcp_server_name": "m", "tool_name": "t"}
        result = subject.execute_if_authorized(
            "data_access", "db", work, "C-1", {"n": 1}, {"c": 1}, {"pii": True}, 5, **extra
        )
        assert (result, work.runs) == ("done", 1)
        assert server.requests[0].json() == {
            "agent_id": "my-agent", "agent_name": "My Agent", "action_type": "data_access", "resource": "db",
            "resource_id": "C-1", "action_details": {"n": 1}, "context": {"c": 1}, "risk_indicators": {"pii": True},
            **extra,
        }  # fmt: skip


@KINDS
@CLIENTS
@pytest.mark.parametrize(
    ("steps", "error", "text"),
    [
        ([DENIED], builtins.PermissionError, "no"),
        ([PENDING, DENIED], builtins.PermissionError, "no"),
        ([PENDING], builtins.TimeoutError, "timed out"),
        ([http(200, {"action_id": 7, "status": "requires_modification"})], errors.AscendError, "requires_modification"),
        ([http(200, {"action_id": 7, "status": "sure"})], errors.ProtocolError, "unknown word"),
        ([http(403, {"detail": "not yours"})], builtins.PermissionError, "not yours"),
        ([http(500)], errors.ServerError, "500"),
    ],
)
def test_an_agent_runs_nothing_else(kind, client_kind, agent, steps, error, text):
    work = Work()
    with Scripted(*steps) as server:
        # Nobody decides about what stays pending; whatever else is answered is waited for.
        seconds = 0.2 if steps == [PENDING] else 10
        with pytest.raises(error, match=text):
            agent(kind, client_kind, server.url).execute_if_authorized("t", "r", work, timeout=seconds)
    assert work.runs == 0


@KINDS
@CLIENTS
def test_c6_an_agent_asked_only_gets_the_word(kind, client_kind, agent):
    with Scripted(PENDING) as server:
        subject = agent(kind, client_kind, server.url)
        assert subject.request_authorization("t", "r", wait_for_decision=False)["decision"] == "pending"
        assert len(server.requests) == 1
        late = subject.request_authorization("t", "r", timeout=0.2)
        assert late.get("decision") == late.get("status") == "timeout" and late["action_id"] == "7"


@KINDS
def test_what_the_function_raises_goes_through_unchanged(kind, agent):
    error = PermissionError("of the function itself")
    with Scripted(APPROVED) as server:
        with pytest.raises(PermissionError) as caught:
            agent(kind, "owkai", server.url).execute_if_authorized("t", "r", Work(error))
    assert caught.value is error


def test_an_async_agent_runs_coroutine_functions_too(agent):
    async def work():
        await anyio.sleep(0)
        return "done"

    with Scripted(APPROVED) as server:
        assert agent("async", "owkai", server.url).execute_if_authorized("t", "r", work) == "done"


@pytest.mark.parametrize("cls", [AuthorizedAgent, AsyncAuthorizedAgent])
def test_an_agent_makes_a_client_from_the_environment(cls, monkeypatch):
    with pytest.raises(ValueError, match="OWKAI_API_KEY"):
        cls("a", "A")
    monkeypatch.setenv("OWKAI_API_KEY", KEY)
    assert cls("a", "A").client.settings.api_key == KEY
    assert KEY not in repr(cls("a", "A")) + repr(cls("a", "A").client)
