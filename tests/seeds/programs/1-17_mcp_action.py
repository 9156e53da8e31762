decision = client.evaluate_mcp_action(
    mcp_server="filesystem-server",
    namespace="filesystem",
    verb="read_file",
    resource="/data/reports/financial.csv",
    # action_type defaults to "<namespace>.<verb>"
    parameters={"encoding": "utf-8"},
    context={"session_id": "sess_abc"},
    environment="production",
)
