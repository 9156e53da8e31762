from python_sdk_example import ActionType

action_type = ActionType.DATA_ACCESS.value # "data_access"
