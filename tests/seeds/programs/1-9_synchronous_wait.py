# Source: ascend/client.py
# Submit action
result = client.submit_action(action)

if result.is_pending():
    # Wait up to 5 minutes for approval
    final_result = client.wait_for_decision(
        action_id=result.action_id,
        timeout_ms=300000, # 5 minutes
        poll_interval=5.0 # Check every 5 seconds
    )

    if final_result.is_approved():
        print("Approval received!")
        execute_action()
