from python_sdk_example import DecisionStatus

if decision == DecisionStatus.APPROVED.value:
    execute_action()
