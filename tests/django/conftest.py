import tempfile
from pathlib import Path

import django
import django_project
import pytest
from django.conf import settings
from django.test import override_settings

if not settings.configured:
    folder = tempfile.TemporaryDirectory(prefix="ascend-django-", ignore_cleanup_errors=True)  # removed at the end
    settings.configure(**django_project.options(Path(folder.name)))
    django.setup()

import django_site  # noqa: E402
from django_kit import RULES, Site  # noqa: E402

from ascend_middleware.django import configuration  # noqa: E402


@pytest.fixture(scope="session")
def database():
    """The project's database, with its tables."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0, run_syncdb=True)


@pytest.fixture
def ran():
    django_site.RAN.clear()
    return django_site.RAN


@pytest.fixture(params=["wsgi", "asgi"])
def kind(request):
    return request.param


@pytest.fixture
def ascend(ascend_authority):
    """Set `settings.ASCEND` for a test: rules, and any setting."""
    standing = []

    def configure(rules=RULES, **given):
        override = override_settings(ASCEND={"rules": {"rule": rules}, "api_url": ascend_authority.api_url, **given})
        override.enable()
        standing.append(override)

    configure()
    yield configure
    configuration.forget()
    for override in reversed(standing):
        override.disable()


@pytest.fixture
def site(kind, ascend, ascend_authority, ran):
    ascend_authority.approve()
    return Site(kind, ascend_authority)
