result = client.evaluate_action(
    action_type="model_inference",
    resource="ml_pipeline",
    model_id="gpt-4-production",
    wait_for_decision=False,
)
# registry_checked: True
# compliance_status: approved | partially_approved | denied
# enforcement: SR-11-7/EU-AI-ACT-ART9
print(result.model_governance)
