agent = AuthorizedAgent("my-agent", "My Agent")

# Request with automatic waiting
decision = agent.request_authorization(
    action_type="data_access",
    resource="customer_database",
    resource_id="CUST-12345",
    details={"operation": "read"},
    context={"user_request": "Show customer"},
    risk_indicators={"pii_involved": True},
    wait_for_decision=True,
    timeout=60
)

if decision.get('decision') == 'approved':
    execute_action()
