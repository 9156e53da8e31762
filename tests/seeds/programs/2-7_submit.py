action = AgentAction(
    agent_id="agent-001",
    agent_name="My Agent",
    action_type="data_access",
    resource="customer_database"
)

response = client.submit_action(action)
print(f"Action ID: {response['action_id']}")
print(f"Decision: {response['decision']}")
