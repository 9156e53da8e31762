"""A plain WSGI application whose paths are governed by ascend.toml, on the embedded authority in the same process.

    pip install -e ".[authority]" && python examples/wsgi_app.py

In another terminal:

    curl localhost:8000/customers/7                                                                  # runs
    curl -X DELETE localhost:8000/customers/7                                                        # denied
    curl localhost:8000/customers/7/refunds --json '{"amount": 5000, "currency": "EUR"}'            # waits for a person
    ascend-middleware pending --policy examples/policy.toml
    ascend-middleware approve 3 --policy examples/policy.toml    # the number that `pending` shows

and repeat the last request with the handle from its answer, `-H 'Ascend-Approval: …'`.
"""

import json
import os
import re
from pathlib import Path
from wsgiref.simple_server import make_server

from ascend_middleware.wsgi import AscendMiddleware

HERE = Path(__file__).parent


def application(environ, start_response):
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    status, answer = "404 Not Found", {"error": "no such thing"}
    customer = re.fullmatch(r"/customers/(\d+)(/refunds)?", path)
    if path == "/health":
        status, answer = "200 OK", {"status": "ok"}
    elif customer and not customer[2] and method in ("GET", "DELETE"):
        status, answer = "200 OK", {"id": int(customer[1]), "deleted": method == "DELETE"}
    elif customer and customer[2] and method == "POST":
        # The very bytes that were decided about.
        body = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        status, answer = "200 OK", {"customer": int(customer[1]), "refunded": body["amount"]}
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


app = AscendMiddleware(application, rules=HERE / "ascend.toml", api_url=f"local:{HERE / 'policy.toml'}")

if __name__ == "__main__":
    make_server("127.0.0.1", int(os.environ.get("PORT", "8000")), app).serve_forever()
