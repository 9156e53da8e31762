details = client.get_action_details("act_xyz789")

print(f"Agent: {details['agent_id']}")
print(f"Resource: {details['resource']}")
print(f"Risk Score: {details['risk_score']}")
print(f"Created: {details['created_at']}")
