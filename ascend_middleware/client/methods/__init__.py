"""The public methods, one file for each subject, the blocking class beside its awaitable twin.

A method checks its arguments, makes a flow and runs it; what it does stands in `core`, `base` and `requests`.
"""
