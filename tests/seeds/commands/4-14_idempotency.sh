curl -X POST "https://pilot.owkai.app/api/v1/actions/submit" \
-H "X-API-Key: owkai_..." \
-H "Idempotency-Key: unique-request-id-123" \
-d '{"agent_id": "...", "action_type": "..."}'
