"""What `manage.py` finds of the Django application."""
