"""The page where people decide: pending actions, the history, agents, and whether the audit log is whole."""
