"""The routes of another host."""

from django.urls import path
from django_site import said

urlpatterns = [
    path("health", lambda request: said("other health"), name="health"),
    path("own", lambda request: said("own"), name="own"),
]
