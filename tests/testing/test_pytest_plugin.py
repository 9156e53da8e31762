"""pytest inside pytest: the fixtures as a user's own tests see them."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]


def test_the_plugin_is_registered_so_that_a_test_only_names_a_fixture():
    (found,) = importlib.metadata.entry_points(group="pytest11", name="ascend_middleware")
    assert found.value == "ascend_middleware.pytest_plugin"


def test_the_plugin_costs_those_nothing_who_do_not_use_it():
    code = (
        "import sys, ascend_middleware.pytest_plugin as plugin; "
        "print(*[name for name in sys.modules if name.split('.')[0] in ('httpx2', 'httpcore2', 'starlette', 'msgspec')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.fixture
def users(pytester, monkeypatch):
    """A user's project, with a developer's key in the environment that no test may send anywhere."""
    monkeypatch.setenv("ASCEND_API_KEY", "owkai_live_of_a_developer")
    monkeypatch.setenv("ASCEND_API_URL", "https://pilot.invalid")
    monkeypatch.setenv("ASCEND_JOURNAL", str(pytester.path / "journal"))
    monkeypatch.setenv("XDG_STATE_HOME", str(pytester.path / "state"))
    for name in ("ASCEND_STATE", "ASCEND_KILL_SWITCH"):
        monkeypatch.delenv(name, raising=False)
    # Other plugins that happen to be here cost a run more time than its tests.
    others = " ".join(f"-p no:{name}" for name in ("faker", "schemathesis", "django", "flask"))
    pytester.makeini(f"[pytest]\nfilterwarnings = error\naddopts = -p no:cacheprovider {others}\n")
    return pytester


def test_a_users_tests_of_both_clients(users):
    users.makepyfile(
        """
        import asyncio
        import os

        import pytest

        from ascend_middleware import AscendClient, KillSwitchError, ServerError

        def refund(client):
            decision = client.evaluate_action("transaction", "refund", {"amount": 5})
            return "refunded" if decision.is_approved() else decision.reason

        def test_approved(ascend_authority, ascend_client):
            ascend_authority.approve()
            assert refund(ascend_client) == "refunded"
            assert ascend_authority.asked[0].details == {"amount": 5}

        def test_denied_unless_scripted(ascend_client):
            assert "scripted no answer" in refund(ascend_client)

        def test_held_then_approved(ascend_authority, ascend_client):
            ascend_authority.hold(then="approve", polls=20)
            assert refund(ascend_client) == "refunded"

        def test_failures(ascend_authority, ascend_client):
            ascend_authority.fail(500)
            with pytest.raises(ServerError):
                refund(ascend_client)
            ascend_authority.kill()
            with pytest.raises(KillSwitchError):
                refund(ascend_client)

        def test_async(ascend_authority, async_ascend_client):
            ascend_authority.hold("transaction", then="deny")
            decision = asyncio.run(async_ascend_client.evaluate_action("transaction", "refund"))
            assert decision.is_denied()

        def test_programs_that_make_their_own_client(ascend_authority):
            ascend_authority.approve()
            assert "ASCEND_API_KEY" not in os.environ
            with AscendClient() as client:
                assert refund(client) == "refunded"
            assert ascend_authority.asked[0].agent_id == "test-agent"

        def test_each_test_has_its_own(ascend_authority):
            assert ascend_authority.asked == []
        """
    )
    users.runpytest().assert_outcomes(passed=7)


def test_a_users_tests_of_an_application(users):
    users.makefile(
        ".toml",
        ascend="""
        [ascend]
        agent_id = "shop"

        [[rule]]
        match = "POST /customers/{customer_id}/refunds"
        action_type = "transaction"
        details = { amount = "body.amount" }
        """,
    )
    users.makepyfile(
        shop="""
        from fastapi import FastAPI
        from ascend_middleware.asgi import AscendMiddleware

        def create_app():
            app = FastAPI()
            app.add_middleware(AscendMiddleware, rules="ascend.toml")

            @app.post("/customers/{customer_id}/refunds")
            async def refund(customer_id: int):
                return {"refunded": customer_id}

            return app
        """,
        test_shop="""
        import pytest
        from starlette.testclient import TestClient
        from shop import create_app

        @pytest.fixture
        def http(ascend_authority):
            with TestClient(create_app()) as client:
                yield client

        def test_refund(http, ascend_authority):
            ascend_authority.approve("transaction")
            assert http.post("/customers/7/refunds", json={"amount": 5}).json() == {"refunded": 7}
            assert ascend_authority.asked[0].details == {"amount": 5}

        @pytest.mark.parametrize("fault", ["time_out", "refuse_connections", "fail", "garbage"])
        def test_no_decision_no_refund(http, ascend_authority, fault):
            getattr(ascend_authority, fault)()
            assert http.post("/customers/7/refunds", json={"amount": 5}).status_code == 503

        def test_a_person_is_asked(http, ascend_authority):
            ascend_authority.hold()
            answer = http.post("/customers/7/refunds", json={"amount": 5})
            assert (answer.status_code, answer.json()["executed"]) == (403, False)

        @pytest.mark.parametrize("time", ["first", "second"])
        def test_a_denial_of_one_test_is_none_of_another(http, ascend_authority, time):
            ascend_authority.approve() if time == "second" else ascend_authority.deny()
            answer = http.post("/customers/7/refunds", json={"amount": 5})
            assert answer.status_code == (200 if time == "second" else 403)
            assert [asked.path for asked in ascend_authority.requests[:1]] == ["/api/v1/actions/submit"]
        """,
    )
    users.runpytest().assert_outcomes(passed=8)
    assert not (users.path / "state").exists() and not (users.path / "journal").exists()


DOCS = Path(__file__).parent.parent.parent / "docs"


def blocks(name):
    return re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)


def test_the_documented_tests_pass(users):
    first, second, _ = blocks("testing.md")
    users.makepyfile(test_first=first, test_second=second)
    users.runpytest().assert_outcomes(passed=8)


def test_the_documented_tools_work(users):
    tools, _, queue = blocks("mcp.md")  # tests/agent/test_recipes.py serves the second
    users.makepyfile(
        tools=tools,
        queue_reader=queue,
        test_tools="""
        import asyncio

        def test_tools(ascend_authority):
            import tools

            ascend_authority.approve()
            assert asyncio.run(tools.query("SELECT 1")) == ["SELECT 1 limit 100"]
            assert ascend_authority.asked[0].body["mcp_server_name"] == "reports"

        def test_queue():
            import queue_reader

            block = {"command_type": "BLOCK", "target_type": "mcp_server", "mcp_server": "reports", "organization_id": 42}
            queue_reader.read_queue([block])
            assert queue_reader.consumer.is_blocked("reports")
        """,
    )
    users.runpytest().assert_outcomes(passed=2)
