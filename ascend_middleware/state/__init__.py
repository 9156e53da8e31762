"""What the workers of a service share: approvals, claims, the kill state, limits, leases. Memory, SQLite, Redis."""
