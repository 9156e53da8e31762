"""A small shop with 30 routes and no guard: docs/tutorial-django.md governs it.

python examples/shop_django/manage.py runserver
"""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    execute_from_command_line(sys.argv)
