# Source: ascend/models.py
from ascend import AgentAction

action = AgentAction(
    agent_id="my-agent-001", # Required: Unique agent identifier
    agent_name="My AI Agent", # Required: Human-readable name
    action_type="database_read", # Required: Action category
    resource="Description of action", # Required: What is being done
    tool_name="postgresql" # Required: Tool/service name
)
