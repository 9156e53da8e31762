"""What the adapters of all frameworks share: the runner, and what became of a handler."""
