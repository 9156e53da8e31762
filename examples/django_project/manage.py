"""A Django project whose views are governed by ascend.toml, on the embedded authority in the same process.

    pip install -e ".[authority,django]" && python examples/django_project/manage.py runserver

In another terminal:

    curl localhost:8000/customers/7                                                                  # runs
    curl -X DELETE localhost:8000/customers/7                                                        # denied
    curl localhost:8000/customers/7/refunds --json '{"amount": 5000, "currency": "EUR"}'            # waits for a person
    ascend-middleware pending --policy examples/policy.toml
    ascend-middleware approve 3 --policy examples/policy.toml    # the number that `pending` shows

and repeat the last request with the handle from its answer, `-H 'Ascend-Approval: …'`. What is governed is listed by
`manage.py ascend routes`, and `manage.py check` says what is wrong. `uvicorn shop.asgi:application` and
`gunicorn shop.wsgi`, in this folder, serve the same project.
"""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    execute_from_command_line(sys.argv)
