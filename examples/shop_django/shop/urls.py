from django.urls import include, path

from . import views

customers = [
    path("", views.Customers.as_view()),
    path("/<int:customer_id>", views.Customer.as_view()),
    path("/<int:customer_id>/addresses", views.Addresses.as_view()),
    path("/<int:customer_id>/refunds", views.Refunds.as_view()),
]
orders = [
    path("", views.Orders.as_view()),
    path("/<int:order_id>", views.Order.as_view()),
    path("/<int:order_id>/payments", views.Payments.as_view()),
    path("/<int:order_id>/shipments", views.Shipments.as_view()),
    path("/<int:order_id>/invoice", views.Invoice.as_view()),
    path("/<int:order_id>/notes", views.Notes.as_view()),
]
products = [
    path("", views.Products.as_view()),
    path("/<int:product_id>", views.Product.as_view()),
    path("/<int:product_id>/stock", views.Stock.as_view()),
    path("/<int:product_id>/price", views.Price.as_view()),
]
reports = [
    path("/sales", views.Sales.as_view()),
    path("/sales/<int:year>", views.SalesOfYear.as_view()),
    path("/customers", views.CustomerReport.as_view()),
    path("/exports", views.Exports.as_view()),
]
urlpatterns = [
    path("health", views.Health.as_view()),
    path("customers", include(customers)),
    path("orders", include(orders)),
    path("products", include(products)),
    path("reports", include(reports)),
]
