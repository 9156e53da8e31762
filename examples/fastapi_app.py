"""A FastAPI application whose routes are governed by ascend.toml, on the embedded authority in the same process.

    pip install -e ".[demo]" && python examples/fastapi_app.py

In another terminal:

    curl localhost:8000/customers/7                                                                  # runs
    curl -X DELETE localhost:8000/customers/7                                                        # denied
    curl localhost:8000/customers/7/refunds --json '{"amount": 5000, "currency": "EUR"}'            # waits for a person
    ascend-middleware pending --policy examples/policy.toml
    ascend-middleware approve 3 --policy examples/policy.toml    # the number that `pending` shows

and repeat the last request with the handle from its answer, `-H 'Ascend-Approval: …'`. What is governed is listed by
`ascend-middleware routes fastapi_app:app --app-dir examples`.
"""

import os
from pathlib import Path

import uvicorn
from fastapi import Depends, FastAPI
from pydantic import BaseModel

from ascend_middleware.fastapi import AscendMiddleware, governed

HERE = Path(__file__).parent

app = FastAPI(title="Billing", openapi_url=None)
app.add_middleware(AscendMiddleware, rules=HERE / "ascend.toml", api_url=f"local:{HERE / 'policy.toml'}")


class Refund(BaseModel):
    amount: int
    currency: str


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.get("/customers/{customer_id}")
async def read_customer(customer_id: int):
    return {"id": customer_id, "name": "Ada"}


@app.delete("/customers/{customer_id}")
async def delete_customer(customer_id: int):
    return {"deleted": customer_id}


@app.post("/customers/{customer_id}/refunds")
async def refund(customer_id: int, refund: Refund):
    return {"customer": customer_id, "refunded": refund.amount, "currency": refund.currency}


# A rule may stand at its handler instead of the table.
@app.get("/invoices/{number}", dependencies=[Depends(governed(action_type="data_access", resource_id="{path.number}"))])
async def read_invoice(number: int):
    return {"number": number}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
