"""What uWSGI's master loads before it forks: a guard and a client that are used there already."""

import os
from pathlib import Path

from werkzeug.test import Client

from ascend_middleware import AscendClient
from ascend_middleware.wsgi import AscendMiddleware

FOLDER = Path(os.environ["SERVED_FOLDER"])
GIVEN = {"api_url": os.environ["SERVED_AUTHORITY"], "api_key": "owkai_test_0123456789abcdef", "agent_id": "served"}
RULES = [
    {"match": "GET /pay/{amount}", "action_type": "pay", "details": {"amount": "path.amount"}},
    {"match": "GET /pid", "exempt": True},
]
client = AscendClient(**GIVEN)


def pay(environ, start_response):
    answer = str(os.getpid())
    if environ["PATH_INFO"] != "/pid":
        amount = environ["PATH_INFO"].rpartition("/")[2]
        asked = client.evaluate_action("ask", "account", parameters={"amount": amount}, wait_for_decision=False)
        answer = f"{amount} {asked.parameters['amount']} {asked.decision}"
        descriptor = os.open(FOLDER / "ran", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{amount}\n".encode())
        os.close(descriptor)
    start_response("200 OK", [("content-type", "text/plain"), ("content-length", str(len(answer)))])
    return [answer.encode()]


application = AscendMiddleware(pay, rules={"rule": RULES}, max_retries=0, **GIVEN)
assert Client(application).get("/pay/0").status_code == 200
