curl "https://pilot.owkai.app/api/v1/actions" \
-H "X-API-Key: owkai_admin_a1b2c3d4..."
