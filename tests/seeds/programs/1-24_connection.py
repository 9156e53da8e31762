# Source: ascend/client.py
# Test API connectivity
status = client.test_connection()

if status.connected:
    print(f"Connected to ASCEND v{status.api_version}")
    print(f"Latency: {status.latency_ms:.0f}ms")
else:
    print(f"Connection failed: {status.error}")
