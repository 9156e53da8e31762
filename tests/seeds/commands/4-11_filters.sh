# Filter by status
curl "https://pilot.owkai.app/api/v1/actions?status=pending_approval"

# Filter by risk level
curl "https://pilot.owkai.app/api/v1/actions?risk_level=high"

# Sort by creation date
curl "https://pilot.owkai.app/api/v1/actions?sort=created_at&order=desc"

# Date range
curl "https://pilot.owkai.app/api/v1/actions?start_date=2025-12-01&end_date=2025-12-15"
