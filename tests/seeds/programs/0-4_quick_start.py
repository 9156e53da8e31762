from ascend import AscendClient, Decision, FailMode

# Initialize with fail-closed mode (recommended for production)
client = AscendClient(
    api_key="owkai_live_xxxxxxxxxxxx",
    agent_id="customer-service-agent",
    agent_name="Customer Service AI",
    fail_mode=FailMode.CLOSED,
)

# Register agent with platform
client.register(
    agent_type="automation",
    capabilities=["database.query", "file.read", "api.call"],
    allowed_resources=["production_db", "customer_api"],
)

# Evaluate an action
decision = client.evaluate_action(
    action_type="database.query",
    resource="production_db",
    parameters={"query": "SELECT COUNT(*) FROM users"},
)

if decision.decision == Decision.ALLOWED:
    print(f"Approved! Risk score: {decision.risk_score}")
elif decision.decision == Decision.DENIED:
    print(f"Denied: {decision.reason}")
elif decision.decision == Decision.PENDING:
    print(f"Pending approval: {decision.approval_request_id}")
