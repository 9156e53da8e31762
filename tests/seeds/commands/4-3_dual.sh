# Using API key
curl -H "X-API-Key: owkai_..."

# Or using JWT
curl -H "Authorization: Bearer ..."
