from ascend import AscendClient

client = AscendClient(api_key="owkai_...")
result = client.submit_action(
    agent_id="trading-bot-001",
    action_type="trade_execution",
    parameters={"symbol": "AAPL"}
)
