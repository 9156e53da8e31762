result = client.evaluate_action(
    action_type="tool_call",
    resource="crm_system",
    mcp_server_name="salesforce-mcp",
    wait_for_decision=False,
)
# server_registered: True
# enforcement: Layer 13
print(result.mcp_governance)
