"""The page where people decide: what waits, what was, who may act, and whether the audit log is whole."""
