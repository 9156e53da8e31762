"""`settings.ASCEND["http_client"]`: the project's own HTTP client, or its dotted path."""

import httpx2
import pytest
from django.test import Client, override_settings

from ascend_middleware.django import configuration

asked = []


def answer(request):
    if request.method == "GET":  # whether the key is known
        return httpx2.Response(200, json={})
    asked.append(request.url.path)
    word = "approved" if len(asked) == 1 else "denied"
    return httpx2.Response(200, json={"action_id": "7", "status": word, "decision": word})


own = httpx2.Client(transport=httpx2.MockTransport(answer))


@pytest.mark.parametrize("given", [own, f"{__name__}.own"], ids=["object", "path"])
def test_the_projects_own_client_asks(given):
    asked.clear()
    config = {
        "rules": {"rule": [{"match": "GET /customers/{customer_id}", "action_type": "data_access"}]},
        "http_client": given,
        "api_url": "https://authority.example",
        "api_key": "owkai_test_0123456789abcdef",
        "agent_id": "a",
        "journal": "off",
    }
    with override_settings(ASCEND=config):
        configuration.forget()
        try:
            assert [Client().get("/customers/7").status_code for _ in range(2)] == [200, 403]
        finally:
            configuration.forget()
    assert asked == ["/api/v1/actions/submit"] * 2
    assert not own.is_closed
