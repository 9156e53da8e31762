"""An MCP server whose tools ask before they run, on the embedded authority in the same process.

    pip install -e ".[authority]" "mcp>=2" && python examples/mcp_server.py --try

starts it, calls each tool over stdio as an agent would, and prints what came of it. While `send_report` waits, decide
in another terminal:

    ascend-middleware pending --policy examples/tools_policy.toml
    ascend-middleware approve 3 --policy examples/tools_policy.toml    # the number that `pending` shows

In an MCP client, the command is `python examples/mcp_server.py`.
"""

import asyncio
import os
import sys
from pathlib import Path

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from ascend_middleware import AsyncAscendClient, MCPGovernanceConfig, high_risk_action, mcp_governance

HERE = Path(__file__).parent
REPORTS = {"q1": "All is well.", "q2": "All is still well."}


def tell_the_model(decision, tool):
    # What a tool raises otherwise stays on the server; a ToolError is for the model to read.
    raise ToolError(f"not executed: {decision.reason or 'nobody has decided in time'} (action {decision.action_id})")


client = AsyncAscendClient(api_url=f"local:{HERE / 'tools_policy.toml'}", agent_id="report-writer")
config = MCPGovernanceConfig(
    mcp_server="reports",
    approval_timeout_seconds=float(os.environ.get("APPROVAL_SECONDS", "50")),
    approval_poll_interval_seconds=0.5,
    on_denied=tell_the_model,
    on_timeout=tell_the_model,
)
server = MCPServer("reports")


@server.tool()
@mcp_governance(client, "report.read", "a report", config)
async def read_report(name: str) -> str:
    """Return a report."""
    return REPORTS[name]


@server.tool()
@mcp_governance(client, "report.delete", "a report", config)
async def delete_report(name: str) -> str:
    """Delete a report."""
    return f"deleted {REPORTS.pop(name)}"


@server.tool()
@high_risk_action(client, "report.send", "a report that leaves the house", config)
async def send_report(name: str, recipient: str, urgent: bool = False) -> str:
    """Send a report to somebody."""
    return f"sent {name} to {recipient}{' at once' if urgent else ''}"


async def try_it():
    here = StdioServerParameters(command=sys.executable, args=[__file__], env=dict(os.environ))
    async with stdio_client(here) as streams, ClientSession(*streams) as session:
        await session.initialize()
        for tool, arguments in (
            ("read_report", {"name": "q1"}),
            ("delete_report", {"name": "q1"}),
            ("send_report", {"name": "q1", "recipient": "ada@example.org"}),
        ):
            print(f"{tool}({arguments})", flush=True)
            result = await session.call_tool(tool, arguments)
            print(f"  {'refused' if result.is_error else 'ran'}: {result.content[0].text}", flush=True)


if __name__ == "__main__":
    if "--try" in sys.argv:
        asyncio.run(try_it())
    else:
        server.run("stdio")
