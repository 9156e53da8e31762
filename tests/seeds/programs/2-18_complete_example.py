from python_sdk_example import (
    OWKAIClient,
    AuthorizedAgent,
    AgentAction,
    ActionType
)

# Initialize client
client = OWKAIClient()

# Test connection
status = client.test_connection()
print(f"Connected: {status['status']}")

# Create agent
agent = AuthorizedAgent(
    agent_id="financial-advisor-001",
    agent_name="Financial Advisor AI",
    client=client
)

# Define operation
def process_transaction():
    return {"status": "completed", "amount": 50000}

# Execute with authorization
try:
    result = agent.execute_if_authorized(
        action_type=ActionType.TRANSACTION.value,
        resource="customer_account",
        execute_fn=process_transaction,
        resource_id="ACC-12345",
        details={"amount": 50000, "currency": "USD"},
        risk_indicators={"external_transfer": True},
        timeout=60
    )
    print(f"Success: {result}")
except PermissionError as e:
    print(f"Denied: {e}")
except TimeoutError as e:
    print(f"Timeout: {e}")

# List recent actions
actions = client.list_actions(limit=10)
for action in actions.get('actions', []):
    print(f"{action['action_id']}: {action['status']}")
