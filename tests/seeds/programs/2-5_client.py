# From environment variables
client = OWKAIClient()

# Explicit configuration
client = OWKAIClient(
    api_url="https://pilot.owkai.app",
    api_key="owkai_live_your_key_here",
    timeout=60,
    debug=True
)
