# Source: ascend/client.py
# List recent actions
result = client.list_actions(
    limit=50, # Max results per page
    offset=0, # Pagination offset
    status="pending" # Filter by status
)

for action in result.actions:
    print(f"{action.action_id}: {action.status}")

# Check for more pages
if result.has_more:
    next_page = client.list_actions(limit=50, offset=50)
