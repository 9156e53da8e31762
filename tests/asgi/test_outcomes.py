"""What became of an allowed action reaches the authority."""

import httpx2
import pytest
from fastapi import FastAPI

from ascend_middleware import AscendClient
from ascend_middleware.asgi import AscendMiddleware

POLICY = '[[policy]]\nname = "all"\naction_types = ["*"]\ndecision = "approved"\n'
DENYING = '[[policy]]\nname = "none"\naction_types = ["*"]\ndecision = "denied"\n'


async def outcomes(tmp_path, paths, *, policy=POLICY, **settings):
    file = tmp_path / "policy.toml"
    file.write_text(policy)
    url = f"local:{file}"
    app = FastAPI()

    @app.get("/good")
    async def good():
        return {}

    @app.get("/bad")
    async def bad():
        raise RuntimeError("owkai_secret_0123456789 went wrong")

    guarded = AscendMiddleware(app, api_url=url, agent_id="a", **settings)
    transport = httpx2.ASGITransport(app=guarded, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://site") as client:
        statuses = [(await client.get(path)).status_code for path in paths]
    await guarded.aclose()
    with AscendClient(api_url=url, agent_id="a") as asking:
        records = [asking.get_action(row.action_id) for row in asking.list_actions(limit=50).actions]
    return statuses, sorted(records, key=lambda record: int(record.action_id))


def trail(record):
    return [entry["event"] for entry in record["audit_trail"]]


@pytest.mark.anyio
async def test_completion_and_failure_are_reported_in_order(tmp_path):
    statuses, (first, second) = await outcomes(tmp_path, ["/good", "/bad"])
    assert statuses == [200, 500]
    assert any("COMPLETED" in event.upper() for event in trail(first)), trail(first)
    assert any("FAILED" in event.upper() for event in trail(second)), trail(second)
    assert "RuntimeError" in str(second.to_dict())
    assert "owkai_secret" not in str(second.to_dict())


@pytest.mark.anyio
async def test_nothing_is_reported_of_what_was_only_observed(tmp_path, caplog):
    statuses, (record,) = await outcomes(tmp_path, ["/good"], policy=DENYING, mode="observe")
    assert statuses == [200]
    assert not any("COMPLETED" in event.upper() for event in trail(record))
    assert "not delivered" not in caplog.text


@pytest.mark.anyio
async def test_reports_can_be_switched_off(tmp_path):
    _, (record,) = await outcomes(tmp_path, ["/good"], report_outcomes=False)
    assert not any("COMPLETED" in event.upper() for event in trail(record))
