"""The Django project of the conformance table: configured once for a process, as WSGI and as ASGI application."""

import django
from django.conf import settings as django_settings

from .common import rules, settings

RULES = rules(
    [
        "POST /pay/ -> pay.create",
        "GET /pay/{id:int} -> pay.read",
        "* /admin/export -> admin.export",
        "DELETE /admin/users/{id} -> admin.delete",
        "GET @secret -> ci.secret",
        "GET @loose -> loose.export",
        "GET @openend -> openend.run",
        "POST,PUT,HEAD /fn -> fn.run",
        "GET @digits -> digits.run",
        "GET /files/public/{p:path} -> files.public",
        "GET /files/{p:path} -> files.secret",
        "POST /cls -> cls.post",
        "GET /cls -> cls.get",
        "GET /static/public/{p:path} -> static.public",
        "GET /static/private/{p:path} -> static.secret",
        "GET @things-list -> drf.list",
        "POST @things-list -> drf.create",
        "GET @things-detail -> drf.read",
        "GET @tenant -> tenant.default",
        "GET @apps.django_alternative_urls:alternative -> tenant.alt",
        "GET @i18n -> i18n.export",
        "GET /pub -> exempt",
        "GET /install -> exempt",
        "POST /late -> late.run",
    ]
)
TRANSFERS = [
    {"match": f"POST /{name}", "action_type": "transfer", "details": {"amount": source}}
    for name, source in (("t", "body.amount"), ("stream", "body.amount"), ("f", "form.amount"), ("q", "query.amount"))
]
PLAIN = [{"match": f"GET /{name}", "action_type": "transfer"} for name in ("cookie", "hdr")]


class PerHost:
    """Chooses the routes by the host, as multi-tenant projects do."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        if request.META.get("HTTP_HOST", "").startswith("alt."):
            request.urlconf = "apps.django_alternative_urls"
        return self.get_response(request)


class Rewrite:
    """Changes the path before the view is looked up."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        if request.path_info.startswith("/v0/"):
            request.path_info = request.path_info[3:]
        return self.get_response(request)


class MethodOverride:
    """Changes the method before the view is called."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        if "X-HTTP-Method-Override" in request.headers:
            request.method = request.headers["X-HTTP-Method-Override"].upper()
        return self.get_response(request)


def configure(url, folder, variant=""):
    given = settings(url, RULES + TRANSFERS + PLAIN)
    flat = variant == "flat"
    django_settings.configure(
        SECRET_KEY="conformance",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="apps.django_urls",
        MIDDLEWARE=[
            "django.middleware.common.CommonMiddleware",
            "django.middleware.locale.LocaleMiddleware",
            "apps.django_apps.PerHost",
            "apps.django_apps.Rewrite",
            "apps.django_apps.MethodOverride",
            *(["django.contrib.flatpages.middleware.FlatpageFallbackMiddleware"] if flat else []),
            "ascend_middleware.django.AscendMiddleware",
        ],
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            *(["django.contrib.sites", "django.contrib.flatpages"] if flat else []),
            "rest_framework",
            "ascend_middleware.django",
        ],
        ASCEND=given,
        SILENCED_SYSTEM_CHECKS=["ascend.E007"] if flat else [],
        USE_I18N=True,
        LANGUAGE_CODE="en",
        LANGUAGES=[("en", "en"), ("de", "de")],
        SITE_ID=1,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "django.sqlite3")}},
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "DIRS": [str(folder / "templates")],
                "APP_DIRS": True,
            }
        ],
        FORCE_SCRIPT_NAME="/prefix" if variant == "prefixed" else None,
        CONFORMANCE_STATIC=str(folder / "static"),
        REST_FRAMEWORK={
            "DEFAULT_AUTHENTICATION_CLASSES": [],
            "DEFAULT_PERMISSION_CLASSES": [],
            "UNAUTHENTICATED_USER": None,
        },
    )
    django.setup()
    if flat:
        write_flatpage(folder)


def write_flatpage(folder):
    from django.contrib.flatpages.models import FlatPage
    from django.core.management import call_command

    (folder / "templates/flatpages").mkdir(parents=True, exist_ok=True)
    (folder / "templates/flatpages/default.html").write_text("HANDLER:flat.page {{flatpage.content}}\n")
    call_command("migrate", verbosity=0, run_syncdb=True)
    page, _ = FlatPage.objects.get_or_create(url="/flat/wire/", defaults={"title": "x", "content": "c"})
    page.sites.set([1])


def wsgi(url, folder, variant=""):
    from django.core.wsgi import get_wsgi_application

    if not django_settings.configured:
        configure(url, folder, variant)
    return get_wsgi_application()


def asgi(url, folder, variant=""):
    from django.core.asgi import get_asgi_application

    if not django_settings.configured:
        configure(url, folder, variant)
    return get_asgi_application()


WSGI_APPS = {"django": wsgi}
ASGI_APPS = {"django": asgi, "django_below_public": asgi}
FLAT_APPS = {"django_flat": lambda url, folder: wsgi(url, folder, "flat")}
PREFIXED_APPS = {"django_prefixed": lambda url, folder: wsgi(url, folder, "prefixed")}
