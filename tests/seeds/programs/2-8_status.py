status = client.get_action_status("act_xyz789")
print(f"Status: {status.get('decision')}")
