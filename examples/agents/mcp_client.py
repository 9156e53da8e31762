"""An MCP client over HTTP: its transport waits where a person has to approve the call of a tool.

    pip install ascend-middleware "mcp>=2"
    python mcp_client.py http://127.0.0.1:8000/mcp send_report '{"name": "q1", "recipient": "ada@example.org"}'

The server's application has the guard in front of it; docs/mcp.md shows the rules.
"""

import asyncio
import json
import sys

import httpx2
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from ascend_middleware.agent import ApprovalAuth, ApprovalError


def tell(hold):
    print(f"on hold: {hold.detail}", flush=True)


async def main(url, tool, arguments):
    headers = {"Authorization": "Bearer report-agent"}
    async with (
        httpx2.AsyncClient(headers=headers, auth=ApprovalAuth(timeout=600, on_hold=tell), timeout=60) as http,
        streamable_http_client(url, http_client=http) as streams,
        ClientSession(*streams) as session,
    ):
        await session.initialize()
        result = await session.call_tool(tool, json.loads(arguments))
    print("refused:" if result.is_error else "ran:", result.content[0].text)


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:4]))
    except* ApprovalError as errors:
        sys.exit(str(errors.exceptions[0]))
