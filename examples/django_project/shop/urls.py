from django.urls import path

from . import views

urlpatterns = [
    path("health", views.health),
    path("customers/<int:customer_id>", views.Customer.as_view()),
    path("customers/<int:customer_id>/refunds", views.refund),
    path("reports", views.report),
]
