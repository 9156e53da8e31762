"""Routes of the Django project of the conformance table."""

import json
import posixpath

from django.conf import settings
from django.conf.urls.i18n import i18n_patterns
from django.http import HttpResponseNotAllowed, JsonResponse
from django.urls import clear_url_caches, include, path, re_path
from django.views import View
from django.views.static import serve
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter
from rest_framework.viewsets import ViewSet

from apps.common import file_action


def answer(action):
    return JsonResponse({"handler": action}, headers={"x-handler": action})


def handler(action, *methods):
    def view(request, **arguments):
        if methods and request.method not in methods:
            return HttpResponseNotAllowed(methods)
        return answer(action)

    view.__name__ = action.replace(".", "_")
    return view


def shows_or_acts(request):
    # GET shows a page, and anything else acts.
    return answer("open" if request.method == "GET" else "fn.run")


def files_public(request, p):
    return answer(file_action("/srv/public", posixpath.join("/srv/public", p)))


class Class(View):
    def get(self, request):
        return answer("cls.get")

    def post(self, request):
        return answer("cls.post")


class Things(ViewSet):
    def _answer(self, action):
        return Response({"handler": action}, headers={"x-handler": action})

    def list(self, request, **arguments):
        return self._answer("drf.list")

    def create(self, request, **arguments):
        return self._answer("drf.create")

    def retrieve(self, request, **arguments):
        return self._answer("drf.read")


def install(request):
    if not any(getattr(pattern, "name", None) == "late" for pattern in urlpatterns):
        urlpatterns.insert(0, path("late", handler("late.run", "POST"), name="late"))
        clear_url_caches()
    return answer("open")


def used(amount):
    return JsonResponse({"amount": repr(amount)}, headers={"x-handler": "transfer"})


router = DefaultRouter()
router.register("things", Things, basename="things")
urlpatterns = [
    path("pay/", handler("pay.create", "POST"), name="pay"),
    path("pay/<int:id>", handler("pay.read", "GET", "HEAD"), name="payread"),
    path("admin/export", handler("admin.export"), name="export"),
    path("admin/users/<str:id>", handler("admin.delete", "DELETE"), name="delete"),
    re_path(r"(?i)^secret$", handler("ci.secret"), name="secret"),
    re_path(r"loose/export", handler("loose.export"), name="loose"),
    re_path(r"^open/end", handler("openend.run"), name="openend"),
    path("fn", shows_or_acts, name="fn"),
    re_path(r"^digits/(?P<id>\d+)$", handler("digits.run"), name="digits"),
    path("files/public/<path:p>", files_public, name="filespublic"),
    path("files/<path:p>", handler("files.secret"), name="files"),
    path("cls", Class.as_view(), name="cls"),
    re_path(r"^static/(?P<path>.*)$", serve, {"document_root": settings.CONFORMANCE_STATIC}, name="static"),
    path("api/", include(router.urls)),
    path("tenant", handler("tenant.default"), name="tenant"),
    path("pub", handler("public"), name="pub"),
    path("install", install, name="install"),
    path("t", lambda request: used(json.loads(request.body)["amount"]), name="t"),
    path("f", lambda request: used(request.POST["amount"]), name="f"),
    path("q", lambda request: used(request.GET["amount"]), name="q"),
    path("stream", lambda request: used(json.loads(request.read())["amount"]), name="stream"),
    path("cookie", lambda request: used(None), name="cookie"),
    path("hdr", lambda request: used(None), name="hdr"),
]
urlpatterns += i18n_patterns(path("i18n/export", handler("i18n.export"), name="i18n"), prefix_default_language=True)
