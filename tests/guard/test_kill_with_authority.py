"""The kill switch from an operator's command line to a handler that does not run, on the embedded authority."""

import time

import anyio
import httpx2
import pytest
from kit.asgi import Handler
from kit.desk import local_authority

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.cli import main


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["block", "suspend", "quarantine"])
async def test_a_command_reaches_the_guard_and_its_lift_too(handler, tmp_path, capsys, kind):
    url, policy = local_authority(tmp_path), tmp_path / "policy.toml"
    app = AscendMiddleware(
        handler,
        rules={"rule": [{"match": "POST /run", "action_type": "t"}]},
        api_url=url,
        agent_id="bot",
        kill_switch="poll",
        kill_poll_interval=0.05,
    )

    async def until(status, what):
        end = time.monotonic() + 60
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://site") as client:
            while True:
                answer = await client.post("/run")
                if answer.status_code == status and what():
                    return answer
                assert time.monotonic() < end, (answer.status_code, answer.text)

    def block():
        return app.guard.kill.snapshot.orders.get(("bot", "block"))

    await until(200, lambda: True)
    assert main(["agents", kind, "bot", "--policy", str(policy), "--reason", "misbehaves"]) == 0
    # The authority refuses the next submit anyway; the guard knows without asking once the command was received.
    answer = await until(503, lambda: block() is not None)
    assert answer.json()["type"] == "urn:ascend:problem:kill-switch"
    assert (block().kind, block().reason) == (kind.upper(), "misbehaves")
    ran = handler.ran
    assert main(["agents", "unblock", "bot", "--policy", str(policy), "--reason", "well again"]) == 0
    await until(200, lambda: block().lifts)
    assert handler.ran > ran
    await app.aclose()


@pytest.mark.anyio
async def test_projects_that_spell_their_local_authority_alike_share_nothing(tmp_path, monkeypatch):
    apps = []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        local_authority(folder)
        monkeypatch.chdir(folder)
        apps.append(
            AscendMiddleware(
                Handler(),
                rules={"rule": [{"match": "POST /run", "action_type": "t"}]},
                api_url="local:policy.toml?db=kept.db",
                agent_id="bot",
                state=str(tmp_path / "state.db"),
                journal="memory:",
                kill_switch="poll",
                kill_poll_interval=0.05,
            )
        )
    monkeypatch.chdir(tmp_path)

    async def ask(app):
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://site") as client:
            return (await client.post("/run")).status_code

    assert [await ask(app) for app in apps] == [200, 200]
    place = ["--policy", str(tmp_path / "one" / "policy.toml"), "--db", str(tmp_path / "one" / "kept.db")]
    assert main(["agents", "block", "bot", *place, "--reason", "misbehaves"]) == 0
    end = time.monotonic() + 60
    while ("bot", "block") not in apps[0].guard.kill.snapshot.orders:
        await ask(apps[0])
        assert time.monotonic() < end
    await anyio.sleep(0.5)  # twice as long as the other one may go by what it read last
    assert await ask(apps[0]) == 503
    assert await ask(apps[1]) == 200
    for app in apps:
        await app.aclose()
