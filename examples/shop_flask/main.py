"""A small shop with 30 routes and no guard: docs/tutorial-flask.md governs it.

flask --app examples/shop_flask/main.py run
"""

from flask import Blueprint, Flask, request

app = Flask(__name__, static_folder=None)

customers = Blueprint("customers", __name__, url_prefix="/customers")
orders = Blueprint("orders", __name__, url_prefix="/orders")
products = Blueprint("products", __name__, url_prefix="/products")
reports = Blueprint("reports", __name__, url_prefix="/reports")


@app.get("/health")
def health():
    return {"status": "well"}


# customers: 8 routes


@customers.get("")
def list_customers():
    return [{"id": 7, "name": "Ada"}]


@customers.post("")
def add_customer():
    return request.get_json()


@customers.get("/<int:customer_id>")
def read_customer(customer_id):
    return {"id": customer_id, "name": "Ada"}


@customers.put("/<int:customer_id>")
def change_customer(customer_id):
    return request.get_json()


@customers.delete("/<int:customer_id>")
def delete_customer(customer_id):
    return {"deleted": customer_id}


@customers.get("/<int:customer_id>/addresses")
def list_addresses(customer_id):
    return []


@customers.post("/<int:customer_id>/addresses")
def add_address(customer_id):
    return request.get_json()


@customers.post("/<int:customer_id>/refunds")
def refund(customer_id):
    return {"customer": customer_id, "refunded": request.get_json()["amount"]}


# orders: 9 routes


@orders.get("")
def list_orders():
    return []


@orders.post("")
def add_order():
    return request.get_json()


@orders.get("/<int:order_id>")
def read_order(order_id):
    return {"id": order_id}


@orders.put("/<int:order_id>")
def change_order(order_id):
    return request.get_json()


@orders.delete("/<int:order_id>")
def cancel_order(order_id):
    return {"cancelled": order_id}


@orders.post("/<int:order_id>/payments")
def pay(order_id):
    return request.get_json()


@orders.post("/<int:order_id>/shipments")
def ship(order_id):
    return request.get_json()


@orders.get("/<int:order_id>/invoice")
def invoice(order_id):
    return {"order": order_id}


@orders.post("/<int:order_id>/notes")
def add_note(order_id):
    return request.get_json()


# products: 8 routes


@products.get("")
def list_products():
    return []


@products.post("")
def add_product():
    return request.get_json()


@products.get("/<int:product_id>")
def read_product(product_id):
    return {"id": product_id}


@products.put("/<int:product_id>")
def change_product(product_id):
    return request.get_json()


@products.delete("/<int:product_id>")
def delete_product(product_id):
    return {"deleted": product_id}


@products.get("/<int:product_id>/stock")
def read_stock(product_id):
    return {"stock": 3}


@products.put("/<int:product_id>/stock")
def set_stock(product_id):
    return request.get_json()


@products.put("/<int:product_id>/price")
def set_price(product_id):
    return request.get_json()


# reports: 4 routes


@reports.get("/sales")
def sales():
    return {"sales": 0}


@reports.get("/sales/<int:year>")
def sales_of(year):
    return {"sales": 0, "year": year}


@reports.get("/customers")
def customer_report():
    return {"customers": 1}


@reports.post("/exports")
def export():
    return {"export": "begun"}


for blueprint in (customers, orders, products, reports):
    app.register_blueprint(blueprint)
