"""The Django application: it registers the system checks and brings the `ascend` command."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register


class AscendConfig(AppConfig):
    """`"ascend_middleware.django"` in `INSTALLED_APPS`."""

    name = "ascend_middleware.django"
    label = "ascend"
    verbose_name = "ASCEND"

    def ready(self) -> None:
        """Register the system checks; `manage.py check --tag ascend` runs these alone."""
        from . import configuration as checks

        register(checks.check_configuration, "ascend")
        register(checks.check_middleware, "ascend")
        register(checks.check_key, "ascend", deploy=True)
