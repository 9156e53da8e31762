"""The settings of the tests' Django project. They are a process's own, so all of these tests share them."""

GUARD = "ascend_middleware.django.AscendMiddleware"
TRIPWIRE = "ascend_middleware.django.TripwireMiddleware"


def options(folder):
    """The settings."""
    return {
        "SECRET_KEY": "tests",
        "ALLOWED_HOSTS": ["*"],
        "ROOT_URLCONF": "django_site",
        "MIDDLEWARE": [
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.locale.LocaleMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            GUARD,
        ],
        "INSTALLED_APPS": [
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.sessions",
            "django.contrib.sites",
            "django.contrib.flatpages",
            "rest_framework",
            "ascend_middleware.django",
        ],
        "SITE_ID": 1,
        "DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "db.sqlite3")}},
        "TEMPLATES": [
            {"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [str(folder / "templates")]}
        ],
        "USE_I18N": True,
        "LANGUAGE_CODE": "en",
        "LANGUAGES": [("en", "en"), ("de", "de")],
        "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
        "REST_FRAMEWORK": {"DEFAULT_AUTHENTICATION_CLASSES": [], "UNAUTHENTICATED_USER": None},
    }
