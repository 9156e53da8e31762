"""The commands that it adds to `manage.py`."""
