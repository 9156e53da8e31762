# Source: ascend/client.py
client = AscendClient(
    api_key="owkai_xxx", # Required: Your API key
    api_url="https://pilot.owkai.app", # API endpoint
    timeout=30, # Request timeout (seconds)
    debug=False # Enable debug logging
)
