action = AgentAction(
    agent_id="agent-001",
    agent_name="My Agent",
    action_type="data_access",
    resource="database"
)

data = action.to_dict()
# {
# "agent_id": "agent-001",
# "agent_name": "My Agent",
# "action_type": "data_access",
# "resource": "database"
# }
