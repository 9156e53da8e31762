# Poll for pending BLOCK/UNBLOCK/SUSPEND/RATE_LIMIT/QUARANTINE commands.
# Returns commands targeted at this agent AND org-broadcast commands.
commands = client.get_pending_commands(agent_id="agent-001")

for cmd in commands:
    cmd_id = cmd["command_id"]
    cmd_type = cmd["command_type"] # "BLOCK" | "UNBLOCK" | ...
    reason = cmd["reason"]

    if cmd_type == "BLOCK":
        # Halt agent operations
        ...

    # Ack as received — receipt-only; off-tenant acks are 403 fail-secure
    client.ack_command(command_id=cmd_id, agent_id="agent-001")
