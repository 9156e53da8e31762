from ascend import AscendClient

# Client reads from environment variables automatically
client = AscendClient(agent_name="My Agent")
