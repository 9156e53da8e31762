"""A Flask application whose routes are governed by ascend.toml, on the embedded authority in the same process.

    pip install -e ".[authority,flask]" && python examples/flask_app.py

In another terminal:

    curl localhost:8000/customers/7                                                                  # runs
    curl -X DELETE localhost:8000/customers/7                                                        # denied
    curl localhost:8000/customers/7/refunds --json '{"amount": 5000, "currency": "EUR"}'            # waits for a person
    ascend-middleware pending --policy examples/policy.toml
    ascend-middleware approve 3 --policy examples/policy.toml    # the number that `pending` shows

and repeat the last request with the handle from its answer, `-H 'Ascend-Approval: …'`. What is governed is listed by
`flask --app examples/flask_app.py ascend routes`.
"""

import os
from pathlib import Path

from flask import Flask, request

from ascend_middleware.flask import Ascend

HERE = Path(__file__).parent

app = Flask(__name__)
Ascend(app, rules=HERE / "ascend.toml", api_url=f"local:{HERE / 'policy.toml'}")


@app.get("/health")
def health():
    return {"status": "ok"}


@app.get("/customers/<int:customer_id>")
def read_customer(customer_id):
    return {"id": customer_id, "name": "Ada"}


@app.delete("/customers/<int:customer_id>")
def delete_customer(customer_id):
    return {"deleted": customer_id}


@app.post("/customers/<int:customer_id>/refunds")
def refund(customer_id):
    body = request.get_json()
    return {"customer": customer_id, "refunded": body["amount"], "currency": body["currency"]}


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "8000")))
