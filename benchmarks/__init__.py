"""Benchmarks: what governance costs, side by side; run `python -m benchmarks` from the root of the repository."""
