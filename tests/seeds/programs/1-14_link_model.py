response = client.link_model_to_agent(
    agent_id="financial-advisor-prod",
    model_id=42, # DeployedModel.id
)
# response = {"success": True, "agent": {...}, "message": "..."}
