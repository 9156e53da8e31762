"""Every error text that the documents quote, word for word, at the beginning of what is raised; ours may say more after it."""

import builtins

import pytest
from kit.scripted import HANG, Scripted, http
from seed_kit import environment

from ascend_middleware import AgentAction, AscendClient, AuthorizedAgent, OWKAIClient, exceptions

KEY = "owkai_live_0123456789abcdef"
NOWHERE = "http://127.0.0.1:9"
ACTION = AgentAction(agent_id="a", agent_name="A", action_type="data_access", resource="r")
NO_KEYS = {"ASCEND_API_KEY": None, "OWKAI_API_KEY": None}


@pytest.mark.parametrize(
    ("make", "kind", "quoted"),
    [
        (
            AscendClient,
            exceptions.AuthenticationError,
            "API key is required. Set ASCEND_API_KEY or pass api_key parameter.",
        ),
        (OWKAIClient, ValueError, "API key is required. Set OWKAI_API_KEY environment variable."),
        (lambda: AuthorizedAgent("a", "A"), ValueError, "API key is required. Set OWKAI_API_KEY environment variable."),
        (
            lambda: AscendClient(KEY, api_url="http://ascend.example"),
            exceptions.ConfigurationError,
            "TLS required for non-localhost URLs",
        ),
    ],
)
def test_when_a_client_is_made(make, kind, quoted):
    with environment(NO_KEYS), pytest.raises(kind) as caught:
        make()
    assert str(caught.value).startswith(quoted)


def raised(make, *steps):
    """Return what submitting raises, asking nobody or a server of these steps."""
    if not steps:
        with make(NOWHERE) as client, pytest.raises(Exception) as caught:  # noqa: PT011 - the caller looks at it
            client.submit_action(ACTION)
        return caught.value
    with Scripted(*steps) as server, make(server.url) as client, pytest.raises(Exception) as caught:  # noqa: PT011
        client.submit_action(ACTION)
    return caught.value


def sdk(url):
    return AscendClient(KEY, api_url=url, max_retries=0, timeout=1)


def reference(url):
    return OWKAIClient(url, KEY, max_retries=0, timeout=1)


@pytest.mark.parametrize("make", [sdk, reference])
def test_when_nothing_answers(make):
    error = raised(make)
    assert isinstance(error, builtins.ConnectionError)
    assert str(error).startswith("Failed to connect to ASCEND API")
    error = raised(make, HANG)
    assert isinstance(error, builtins.TimeoutError) and str(error).startswith("API request timed out")


def test_when_the_authority_refuses():
    error = raised(sdk, http(429, {"detail": "slow down"}))
    assert (type(error), str(error)) == (exceptions.RateLimitError, "429 Too Many Requests: slow down")
    assert str(raised(sdk, http(429))) == "429 Too Many Requests"
    assert str(raised(reference, http(429, {"detail": "slow down"}))) == "API Error: slow down"
    assert str(raised(reference, http(400, {"detail": "resource is odd"}))).startswith("API Error: resource is odd")


def execute(seconds=10, **answer):
    with Scripted(http(200, {"action_id": 7, **answer})) as server, reference(server.url) as client:
        AuthorizedAgent("a", "A", client).execute_if_authorized(
            "t", "r", lambda: pytest.fail("it ran"), timeout=seconds
        )


@pytest.mark.parametrize("reason", ["too large", None, ""])
def test_when_an_action_is_denied(reason):
    with pytest.raises(builtins.PermissionError) as caught:
        execute(status="denied", reason=reason)
    assert str(caught.value) == f"Action denied: {reason or 'No reason provided'}"


def test_when_nobody_decides():
    with pytest.raises(builtins.TimeoutError) as caught:
        execute(0.2, status="pending")
    assert str(caught.value) == "Authorization decision timed out"


def test_when_a_field_is_missing(approving):
    status, body = approving.call("POST", "/api/v1/actions/submit", {"action_type": "t"})
    assert status == 400
    assert body["error"] == {
        "code": "INVALID_REQUEST",
        "message": "Missing required field: agent_id",
        "details": {"field": "agent_id", "requirement": "required"},
    }
    assert body["detail"] == "Missing required field: agent_id"


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_the_key_of_another_organisation_is_refused(fresh, how):
    """The key alone tells which organisation acts (contract 2.2); a slug says which it is meant to be."""

    def client(slug):
        return OWKAIClient(fresh.url, fresh.user, organization_slug=slug if how == "argument" else None)

    for slug, connected in (("default", True), ("other", False)):
        with environment({"OWKAI_ORG_SLUG": None if how == "argument" else slug}), client(slug) as asking:
            assert asking.organization_slug == slug
            assert asking.test_connection().connected is connected
            if not connected:
                with pytest.raises(exceptions.AuthorizationDeniedError, match="not of the organisation"):
                    asking.submit_action(ACTION)
    assert fresh.call("GET", "/api/v1/actions")[1]["total"] == 0


@pytest.mark.parametrize("slug", ["two words", "line\nbreak", "ünïcode"])
def test_a_slug_that_no_header_can_carry_is_refused(slug):
    with pytest.raises(exceptions.ConfigurationError, match="organization_slug"):
        OWKAIClient(NOWHERE, KEY, organization_slug=slug)
