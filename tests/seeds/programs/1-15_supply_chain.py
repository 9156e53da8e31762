response = client.register_supply_chain_component(
    component_id="hf-bert-base",
    component_name="bert-base-uncased",
    component_type="model", # matches backend ComponentType enum
    provider="HuggingFace",
    version="1.0.0",
    license_type="Apache-2.0",
    source_url="https://huggingface.co/bert-base-uncased",
    provenance_verified=True,
    risk_level="medium",
    package_name="transformers",
    package_ecosystem="pypi",
)
# response = {"success": True, "component": {...}, "message": "..."}
