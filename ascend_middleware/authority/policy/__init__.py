"""What is decided about an action: the policy file, conditions, risk scores, and who must approve."""
