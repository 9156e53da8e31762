# Get all recent actions
actions = client.list_actions(limit=100)

# Get only approved actions
approved = client.list_actions(status="approved", limit=50)

# Paginate through actions
page1 = client.list_actions(limit=50, offset=0)
page2 = client.list_actions(limit=50, offset=50)

# List all actions
for action in actions.get('actions', []):
    print(f"{action['action_id']}: {action['status']}")
