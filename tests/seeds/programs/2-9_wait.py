response = client.submit_action(action)

if response.get('decision') == 'pending':
    final = client.wait_for_decision(
        action_id=response['action_id'],
        timeout=300,
        poll_interval=5.0
    )

    if final.get('decision') == 'approved':
        print("Approved!")
    elif final.get('decision') == 'timeout':
        print("Decision timeout")
