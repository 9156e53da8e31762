"""A FastAPI application whose routes are governed by ascend.toml.

Run it on the embedded authority, with no account:

    ASCEND_API_URL=local:policy.toml uvicorn ascend_middleware.demo.app:app
"""

from pathlib import Path

from fastapi import FastAPI
from pydantic import BaseModel

from ascend_middleware.asgi import AscendMiddleware

app = FastAPI(title="Billing")
app.add_middleware(AscendMiddleware, rules=Path(__file__).with_name("ascend.toml"))


class Refund(BaseModel):
    """What is paid back; the amount is in whole units of the currency."""

    amount: int
    currency: str


@app.get("/health")
async def health() -> dict[str, str]:
    """Say that the service is up; the one route that needs no decision."""
    return {"status": "ok"}


@app.get("/customers/{customer_id}")
async def read_customer(customer_id: int) -> dict[str, object]:
    """Return a customer."""
    return {"id": customer_id, "name": "Ada"}


@app.delete("/customers/{customer_id}")
async def delete_customer(customer_id: int) -> dict[str, object]:
    """Delete a customer."""
    return {"deleted": customer_id}


@app.post("/customers/{customer_id}/refunds")
async def refund(customer_id: int, refund: Refund) -> dict[str, object]:
    """Pay money back."""
    return {"customer": customer_id, "refunded": refund.amount, "currency": refund.currency}
