"""A small shop with 30 routes and no guard: docs/tutorial-fastapi.md governs it.

uvicorn --app-dir examples/shop main:app
"""

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

app = FastAPI(title="Shop", openapi_url=None)

customers = APIRouter(prefix="/customers")
orders = APIRouter(prefix="/orders")
products = APIRouter(prefix="/products")
reports = APIRouter(prefix="/reports")


class Refund(BaseModel):
    amount: float
    currency: str = "EUR"


class Change(BaseModel):
    fields: dict[str, str] = {}


@app.get("/health")
def health():
    return {"status": "well"}


# customers: 8 routes


@customers.get("")
def list_customers():
    return [{"id": 7, "name": "Ada"}]


@customers.post("")
def add_customer(change: Change):
    return change


@customers.get("/{customer_id}")
def read_customer(customer_id: int):
    return {"id": customer_id, "name": "Ada"}


@customers.put("/{customer_id}")
def change_customer(customer_id: int, change: Change):
    return change


@customers.delete("/{customer_id}")
def delete_customer(customer_id: int):
    return {"deleted": customer_id}


@customers.get("/{customer_id}/addresses")
def list_addresses(customer_id: int):
    return []


@customers.post("/{customer_id}/addresses")
def add_address(customer_id: int, change: Change):
    return change


@customers.post("/{customer_id}/refunds")
def refund(customer_id: int, refund: Refund):
    return {"customer": customer_id, "refunded": refund.amount}


# orders: 9 routes


@orders.get("")
def list_orders():
    return []


@orders.post("")
def add_order(change: Change):
    return change


@orders.get("/{order_id}")
def read_order(order_id: int):
    return {"id": order_id}


@orders.put("/{order_id}")
def change_order(order_id: int, change: Change):
    return change


@orders.delete("/{order_id}")
def cancel_order(order_id: int):
    return {"cancelled": order_id}


@orders.post("/{order_id}/payments")
def pay(order_id: int, change: Change):
    return change


@orders.post("/{order_id}/shipments")
def ship(order_id: int, change: Change):
    return change


@orders.get("/{order_id}/invoice")
def invoice(order_id: int):
    return {"order": order_id}


@orders.post("/{order_id}/notes")
def add_note(order_id: int, change: Change):
    return change


# products: 8 routes


@products.get("")
def list_products():
    return []


@products.post("")
def add_product(change: Change):
    return change


@products.get("/{product_id}")
def read_product(product_id: int):
    return {"id": product_id}


@products.put("/{product_id}")
def change_product(product_id: int, change: Change):
    return change


@products.delete("/{product_id}")
def delete_product(product_id: int):
    return {"deleted": product_id}


@products.get("/{product_id}/stock")
def read_stock(product_id: int):
    return {"stock": 3}


@products.put("/{product_id}/stock")
def set_stock(product_id: int, change: Change):
    return change


@products.put("/{product_id}/price")
def set_price(product_id: int, change: Change):
    return change


# reports: 4 routes


@reports.get("/sales")
def sales():
    return {"sales": 0}


@reports.get("/sales/{year}")
def sales_of(year: int):
    return {"sales": 0, "year": year}


@reports.get("/customers")
def customer_report():
    return {"customers": 1}


@reports.post("/exports")
def export(change: Change):
    return {"export": "begun"}


for router in (customers, orders, products, reports):
    app.include_router(router)
