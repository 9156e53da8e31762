"""The examples of tools and jobs as a reader runs them: a real MCP session over stdio, and a job run after run."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    """A copy of the examples: they keep their database, and the job its files, beside them."""
    for name in ("mcp_server.py", "scheduled_job.py", "tools_policy.toml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    return tmp_path


def command_line(folder, *arguments):
    command = [sys.executable, "-m", "ascend_middleware.cli", *arguments, "--policy", str(folder / "tools_policy.toml")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def outcomes(folder):
    with sqlite3.connect(folder / "tools_policy.db") as database:
        rows = database.execute("SELECT outcome FROM actions ORDER BY id").fetchall()
    database.close()
    return [bool(outcome) for (outcome,) in rows]


def test_an_mcp_client_session_over_stdio(folder):
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    async def approve_when_held(number):
        for _ in range(60):
            done = await asyncio.to_thread(command_line, folder, "approve", number)
            if done.returncode == 0:
                return True
            await asyncio.sleep(0.1)
        return False

    async def main():
        environment = {**os.environ, "APPROVAL_SECONDS": "45"}
        server = StdioServerParameters(command=sys.executable, args=[str(folder / "mcp_server.py")], env=environment)
        with open(os.devnull, "w") as nowhere:
            async with stdio_client(server, errlog=nowhere) as streams, ClientSession(*streams) as session:
                await session.initialize()
                tools = {tool.name: tool for tool in (await session.list_tools()).tools}
                assert tools["send_report"].input_schema["required"] == ["name", "recipient"]

                read = await session.call_tool("read_report", {"name": "q1"})
                assert not read.is_error and read.content[0].text == "All is well."

                deleted = await session.call_tool("delete_report", {"name": "q1"})
                assert deleted.is_error and "reports are kept for ten years (action 2)" in deleted.content[0].text
                assert not (await session.call_tool("read_report", {"name": "q1"})).is_error, "it is still there"

                approving = asyncio.create_task(approve_when_held("4"))
                sent = await session.call_tool("send_report", {"name": "q1", "recipient": "ada@example.org"})
                assert await approving
                assert not sent.is_error and sent.content[0].text == "sent q1 to ada@example.org"

    asyncio.run(main())
    assert outcomes(folder) == [True, False, True, True]


def test_the_server_tried_with_one_command(folder):
    done = subprocess.run(
        [sys.executable, str(folder / "mcp_server.py"), "--try"],
        env={**os.environ, "APPROVAL_SECONDS": "0.5"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    lines = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
    assert lines[0] == "ran: All is well."
    assert lines[1].startswith("refused: ") and "kept for ten years" in lines[1]
    assert lines[2].startswith("refused: ") and "looked at first" in lines[2]


def job(folder):
    command = [sys.executable, str(folder / "scheduled_job.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout.strip()


def test_the_scheduled_job_asks_and_does_what_was_approved_once(folder):
    assert job(folder) == (75, "a person has to approve action 1 first: more than two files at once")
    (folder / "inbox" / "late.txt").write_text("x")
    assert job(folder)[0] == 75
    assert not (folder / "archive").exists()
    assert command_line(folder, "approve", "1").returncode == 0
    assert job(folder) == (0, "archived a.txt, b.txt, c.txt")
    assert sorted(path.name for path in (folder / "archive").iterdir()) == ["a.txt", "b.txt", "c.txt"]
    assert job(folder) == (0, "archived late.txt")
    for name in ("1", "2", "3"):
        (folder / "inbox" / name).write_text(name)
    assert job(folder)[0] == 75
    assert command_line(folder, "deny", "3").returncode == 0
    status, text = job(folder)
    assert status == 77 and text.startswith("refused: denied")
    assert len(list((folder / "archive").iterdir())) == 4
    assert outcomes(folder) == [True, True, False]


def test_the_scheduled_job_does_nothing_without_a_decision(folder):
    (folder / "tools_policy.toml").write_text("[[policy]]\nname = 'x'\ndecision = 'maybe'\n")
    status, _ = job(folder)
    assert status != 0 and not (folder / "archive").exists()
