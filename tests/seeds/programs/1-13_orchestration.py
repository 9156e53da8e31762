# Source: ascend/client.py
root = client.evaluate_action(
    action_type="orchestrator.plan",
    resource="customer-onboarding-flow",
    orchestration_session_id="sess-onboard-7f3a",
    orchestration_depth=0, # root of the session
    wait_for_decision=False,
)

# Any subsequent delegated action links back via parent_action_id + session
worker = client.evaluate_action(
    action_type="database.write",
    resource="customers.create",
    orchestration_session_id="sess-onboard-7f3a",
    parent_action_id=int(root.action_id),
    orchestration_depth=1,
    wait_for_decision=False,
)
