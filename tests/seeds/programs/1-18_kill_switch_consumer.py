from ascend.mcp import MCPKillSwitchConsumer

consumer = MCPKillSwitchConsumer()

# In your SQS poll loop — backend publishes target_type="mcp_server" messages
for msg in sqs_messages:
    consumer.apply_message(msg) # fail-secure on malformed

# In the governed tool, check before executing:
if consumer.is_blocked("filesystem-server"):
    raise RuntimeError("MCP server blocked by administrator")
