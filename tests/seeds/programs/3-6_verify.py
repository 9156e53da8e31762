from owkai_client import OWKAIClient

client = OWKAIClient()
status = client.test_connection()

if status['status'] == 'connected':
    print(f"✅ Connected to ASCEND (version: {status['api_version']})")
else:
    print(f"❌ Connection failed: {status['error']}")
