"""The routes that the Django project has for one of its hosts."""

from django.urls import path

from apps.django_urls import handler

urlpatterns = [path("tenant", handler("tenant.alt"), name="alternative")]
