curl -X POST "https://pilot.owkai.app/api/webhooks" \
-H "Authorization: Bearer ..." \
-d '{
"target_url": "https://your-app.com/webhooks",
"event_types": ["action.submitted", "action.approved"]
}'
