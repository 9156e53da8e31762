curl "https://pilot.owkai.app/api/v1/actions" \
-H "X-API-Version: 2025-12-01"
