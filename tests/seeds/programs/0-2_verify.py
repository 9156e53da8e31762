from ascend import AscendClient, Decision, FailMode

client = AscendClient(
    api_key="owkai_your_api_key_here",
    agent_id="test-agent",
    agent_name="Test Agent",
)

status = client.test_connection()

if status["status"] == "connected":
    print(f"Connected to ASCEND (v{status['api_version']})")
else:
    print(f"Connection error: {status.get('error')}")
