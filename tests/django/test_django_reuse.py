"""A decision that is used again, on Django's WSGI and ASGI."""

import pytest
from kit.engine import API, KEY, plug
from kit.reuse import SETTINGS, Authority

RULES = [{"match": "GET /customers/{customer_id}", "action_type": "data_access", "cache": "30s", "coalesce": True}]


@pytest.mark.parametrize("more", [{}, {"telemetry": True}], ids=["", "telemetry"])
def test_identical_requests_are_one_question(site, ascend, ran, monkeypatch, more):
    house = plug(monkeypatch, Authority())
    ascend(RULES, api_url=API, api_key=KEY, agent_id="bot", **SETTINGS, **more)
    for path in ("/customers/7", "/customers/7", "/customers/8", "/customers/7", "/customers/7?x=1"):
        assert site.ask("GET", path).status_code == 200
    assert len(house.submitted) == 3 and len(ran) == 5
    assert site.runner.health()["cache"]["cached"] == 2
