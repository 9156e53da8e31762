from python_sdk_example import (
    OWKAIClient,
    AuthorizedAgent,
    AgentAction,
    ActionType,
    DecisionStatus
)
