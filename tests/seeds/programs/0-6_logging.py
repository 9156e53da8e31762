from ascend import AscendClient

# Enable debug logging
client = AscendClient(
    api_key="owkai_live_xxxxxxxxxxxx",
    agent_id="my-agent",
    agent_name="My Agent",
    debug=True,
)
