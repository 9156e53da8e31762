status = client.test_connection()

if status['status'] == 'connected':
    print(f"Connected! Version: {status['api_version']}")
else:
    print(f"Failed: {status['error']}")
