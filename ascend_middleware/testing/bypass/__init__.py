"""The bypass pack: `pytest --ascend-bypass app:app` proves that no governed handler runs undecided; see docs/bypass.md.

A server of the user's runs the application, in whose process `target` notes each governed handler that runs; the
authority of that process denies everything. `attacks` makes the requests, as bytes; `trial` sends them and keeps what
became of them; `plugin` makes a test of each route, and `report` tells auditors.
"""
