"""What is kept for an event loop ends with it: programs that run one loop after the other go on for ever."""

import asyncio
import contextlib
import gc
import os
import socket
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from kit.scripted import APPROVED, Scripted

from ascend_middleware import AsyncAscendClient

KEY = "owkai_live_0123456789abcdef"


def still_open(server):
    """How many connections to the server this process holds."""
    port, found = int(server.url.rpartition(":")[2]), 0
    for descriptor in range(256):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as copy:
            found += copy.family == socket.AF_INET and copy.getpeername()[1] == port
    return found


def on_asyncio(main):
    asyncio.run(main())


def on_trio(main):
    anyio.run(main, backend="trio")


def on_a_loop_that_is_just_closed(main):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of the loop that was closed under its connections
@pytest.mark.parametrize("run", [on_asyncio, on_trio, on_a_loop_that_is_just_closed])
def test_a_client_of_many_loops_holds_no_more_than_one(run):
    with Scripted(APPROVED) as server:
        client = AsyncAscendClient(KEY, api_url=server.url, agent_id="a")

        async def main():
            assert (await client.submit_action(action_type="t", resource="r")).is_approved()
            assert (await client.submit_action(action_type="t", resource="r")).is_approved()

        for _ in range(20):
            run(main)
        gc.collect()
        assert still_open(server) <= 1
        assert server.connections == 20
        run(client.aclose)
        gc.collect()


def test_a_loop_that_ends_closes_its_connections_without_a_warning():
    with Scripted(APPROVED) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        client = AsyncAscendClient(KEY, api_url=server.url, agent_id="a")

        async def main():
            await client.submit_action(action_type="t", resource="r")

        for _ in range(3):
            asyncio.run(main())
            assert still_open(server) == 0


def test_a_client_that_is_dropped_closes_its_connections():
    with Scripted(APPROVED) as server:

        async def main():
            await AsyncAscendClient(KEY, api_url=server.url, agent_id="a").submit_action(action_type="t", resource="r")
            gc.collect()
            for _ in range(10):
                await asyncio.sleep(0)
            return still_open(server)

        assert asyncio.run(main()) == 0


SHORT = """
import asyncio, sys
from ascend_middleware import AsyncAscendClient

async def main():
    client = AsyncAscendClient("owkai_live_0123456789abcdef", api_url=sys.argv[1], agent_id="a")
    assert (await client.submit_action(action_type="t", resource="r")).is_approved()
    if sys.argv[2] == "closed":
        await client.aclose()

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize("end", ["closed", "dropped"])
def test_a_short_program_ends_as_it_should(end):
    with Scripted(APPROVED) as server, ThreadPoolExecutor(3) as threads:
        command = [sys.executable, "-c", SHORT, server.url, end]
        runs = list(threads.map(lambda _: subprocess.run(command, capture_output=True, timeout=60), range(24)))
    assert [(run.returncode, run.stderr) for run in runs if run.returncode] == []
