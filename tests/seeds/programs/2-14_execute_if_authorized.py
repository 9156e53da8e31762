agent = AuthorizedAgent("my-agent", "My Agent")

def get_customer_data():
    """Function to execute if authorized."""
    return fetch_from_database()

try:
    result = agent.execute_if_authorized(
        action_type="data_access",
        resource="customer_database",
        execute_fn=get_customer_data,
        resource_id="CUST-12345",
        timeout=60
    )
    print(f"Result: {result}")
except PermissionError as e:
    print(f"Denied: {e}")
except TimeoutError as e:
    print(f"Timeout: {e}")
