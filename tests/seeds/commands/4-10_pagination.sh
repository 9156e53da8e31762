curl "https://pilot.owkai.app/api/v1/actions?limit=50&offset=100" \
-H "X-API-Key: owkai_..."
