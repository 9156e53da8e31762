"""The routes and views of the tests' Django project; each view says that it ran."""

import asyncio
import json
from pathlib import Path

from asgiref.sync import iscoroutinefunction
from django.conf.urls.i18n import i18n_patterns
from django.http import FileResponse, Http404, HttpResponse, HttpResponseNotAllowed, JsonResponse, StreamingHttpResponse
from django.urls import include, path, re_path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from rest_framework.decorators import api_view
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from ascend_middleware.django import GovernedMixin, governed

RAN = []  # (name, what it was given)


def said(name, **given):
    RAN.append((name, given))
    return JsonResponse({"ran": name, **{key: str(value) for key, value in given.items()}})


def customer(request, customer_id):
    return said(request.method.lower(), customer_id=customer_id, outcome=request.ascend.outcome)


async def customer_async(request, customer_id):
    return said(f"async {request.method.lower()}", customer_id=customer_id, outcome=request.ascend.outcome)


@csrf_exempt
def refund(request, customer_id):
    return said("refund", customer_id=customer_id, amount=json.loads(request.body)["amount"], size=len(request.body))


@csrf_exempt
def form(request):
    return said("form", amount=request.POST.get("amount"), files=sorted(request.FILES))


def checked_form(request):  # Django's middleware against cross-site requests reads it first
    return said("checked form", amount=request.POST.get("amount"))


@csrf_exempt
def streamed_body(request):
    return said("streamed body", size=len(request.read()))


def search(request):
    return said("search", q=request.GET.get("q"))


def positional(request, *args, **kwargs):
    return said("positional", args=args, kwargs=kwargs)


def boom(request):
    RAN.append(("boom", {}))
    raise RuntimeError("owkai_secret_0123456789 went wrong")


def missing(request):
    RAN.append(("missing", {}))
    raise Http404


def unavailable(request):
    return HttpResponse(status=503)


def answers(request, status):
    RAN.append(("answers", {}))
    headers = {"Retry-After": "1"} if "later" in request.GET else {"Location": "/"}
    return HttpResponse(status=status, headers=headers)


def interrupted(request):
    RAN.append(("interrupted", {}))
    raise SystemExit


async def interrupted_async(request):
    RAN.append(("interrupted", {}))
    raise asyncio.CancelledError


def parts(request):
    RAN.append(("parts", {}))
    broken = "broken" in request.GET

    def produce():
        yield b"one"
        if broken:
            raise OSError("broken")
        yield b"two"

    return StreamingHttpResponse(produce())


async def parts_async(request):
    RAN.append(("async parts", {}))
    broken = "broken" in request.GET

    async def produce():
        yield b"one"
        if broken:
            raise OSError("broken")
        yield b"two"

    return StreamingHttpResponse(produce())


def file(request):
    RAN.append(("file", {}))
    return FileResponse(Path(__file__).open("rb"))  # noqa: SIM115 - the response closes it


class Plain(View):
    def get(self, request):
        return said("plain get")

    def post(self, request):
        return said("plain post")


def logging_decorator(view):
    def logged(request, *args, **kwargs):
        RAN.append(("decorator", {}))
        return view(request, *args, **kwargs)

    logged.__dict__.update(view.__dict__)
    return logged


# Rules at views


@governed(action_type="decorated", details={"amount": "query.amount"})
def decorated(request):
    return said("decorated", outcome=request.ascend.outcome)


@governed(action_type="decorated_async")
async def decorated_async(request):
    return said("decorated async")


class Mixed(GovernedMixin, View):
    governed = {"action_type": "mixed"}

    def get(self, request):
        return said("mixed get")

    async def unused(self):
        """No handler of a method."""


class MixedAsync(GovernedMixin, View):
    governed = {"action_type": "mixed_async"}

    async def get(self, request):
        return said("mixed async get")


@governed(action_type="whole_class")
class Whole(View):
    def get(self, request):
        return said("whole get")


class OneMethod(View):
    def get(self, request):
        return said("one get")

    @method_decorator(governed(action_type="one_method"))
    def post(self, request):
        return said("one post")

    @governed(action_type="one_put")
    def put(self, request):
        return said("one put")


@method_decorator(governed(action_type="by_name"), name="dispatch")
@method_decorator(csrf_exempt, name="dispatch")
class ByName(View):
    def post(self, request):
        return said("by name")


# Django REST framework


class Report(APIView):
    def get(self, request):
        return Response({"ran": "report"}) if RAN.append(("report", {})) is None else None

    def post(self, request):
        RAN.append(("report post", {"amount": request.data["amount"]}))
        return Response({})


class Things(ViewSet):
    def list(self, request, **kwargs):
        RAN.append(("list", {}))
        return Response([])

    def create(self, request, **kwargs):
        RAN.append(("create", dict(request.data)))
        return Response({}, status=201)

    @governed(action_type="thing_read")
    def retrieve(self, request, pk, **kwargs):
        RAN.append(("retrieve", {"pk": pk}))
        return Response({})

    @method_decorator(governed(action_type="thing_delete"))
    def destroy(self, request, pk, **kwargs):
        RAN.append(("destroy", {"pk": pk}))
        return Response(status=204)


@governed(action_type="whole_set")
class GovernedThings(ViewSet):
    def list(self, request, **kwargs):
        RAN.append(("governed list", {}))
        return Response([])


@governed(action_type="function")
@api_view(["POST"])
def api_function(request):
    RAN.append(("api function", dict(request.data)))
    return Response({})


def answering(get_response):
    """A middleware that answers by itself."""

    def mine(request):
        if request.path_info == "/by-middleware":
            return HttpResponse("mine", status=int(request.headers.get("x-status", 200)))
        return None

    if iscoroutinefunction(get_response):

        async def middleware(request):
            return mine(request) or await get_response(request)

    else:

        def middleware(request):
            return mine(request) or get_response(request)

    return middleware


answering.async_capable = True


class Tampering:
    """A middleware that changes what the view will see."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        request.GET = request.GET.copy()
        request.GET["q"] = "changed"
        request.META["HTTP_X_REASON"] = "changed"
        return self.get_response(request)


class PerHost:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        if request.headers.get("x-tenant") == "other":
            request.urlconf = "django_site_other"
        return self.get_response(request)


router = DefaultRouter()
router.register("things", Things, basename="things")
router.register("governed-things", GovernedThings, basename="governed-things")

orders = ([path("<int:number>/refund", positional, name="refund")], "orders")
shop = ([path("orders/", include(orders)), re_path(r"^old/(\d+)/(\w+)$", positional, name="old")], "shop")

urlpatterns = [
    path("customers/<int:customer_id>", customer, name="customer"),
    path("async/customers/<int:customer_id>", customer_async),
    path("customers/<int:customer_id>/refunds", refund),
    path("form", form),
    path("checked-form", checked_form),
    path("streamed-body", streamed_body),
    path("search", search),
    path("slashed/", search),
    path("boom", boom),
    path("missing", missing),
    path("unavailable", unavailable),
    path("answers/<int:status>", answers),
    path("interrupted", interrupted),
    path("async/interrupted", interrupted_async),
    path("parts", parts),
    path("async/parts", parts_async),
    path("file", file),
    path("plain", Plain.as_view()),
    path("wrapped", logging_decorator(Plain.as_view())),
    path("only-post", lambda request: HttpResponseNotAllowed(["POST"]), name="only-post"),
    path("shop/", include(shop, namespace="shop")),
    re_path(r"(?i)anywhere", positional, name="anywhere"),
    path("health", lambda request: said("health"), name="health"),
    path("internal/keys", lambda request: said("keys")),
    path("unlisted", lambda request: said("unlisted")),
    path("governed/function", decorated),
    path("governed/async", decorated_async),
    path("governed/mixed", Mixed.as_view()),
    path("governed/mixed-async", MixedAsync.as_view()),
    path("governed/class", Whole.as_view()),
    path("governed/one", csrf_exempt(OneMethod.as_view())),
    path("governed/by-name", ByName.as_view()),
    path("governed/api", api_function),
    path("report", Report.as_view()),
    path("api/", include(router.urls)),
]
urlpatterns += i18n_patterns(path("about", lambda request: said("about"), name="about"))
