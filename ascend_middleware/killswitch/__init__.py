"""The kill switch of a guard: whether a request may go on, and how commands reach the state."""
