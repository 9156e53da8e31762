"""Views of Django REST framework, with a document of drf-spectacular about them."""

from django.urls import include, path, re_path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view
from drf_spectacular.views import SpectacularAPIView
from rest_framework.decorators import action, api_view
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter
from rest_framework.serializers import DecimalField, Serializer
from rest_framework.versioning import URLPathVersioning
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from ascend_middleware.django import governed


class RefundSerializer(Serializer):
    amount = DecimalField(max_digits=9, decimal_places=2)


PK = OpenApiParameter("id", OpenApiTypes.INT, OpenApiParameter.PATH)
DOES = extend_schema(parameters=[PK], request=RefundSerializer, responses=RefundSerializer)


@extend_schema_view(list=extend_schema(responses=RefundSerializer(many=True)), retrieve=DOES, destroy=DOES, cancel=DOES)
class Refunds(ViewSet):
    serializer_class = RefundSerializer

    def list(self, request):
        return Response([{"amount": "5.00"}])

    def create(self, request):
        return Response({"amount": "5.00"}, status=201)

    def retrieve(self, request, pk=None):
        return Response({"amount": "5.00"})

    @governed(action_type="at_the_view")
    def destroy(self, request, pk=None):
        return Response(status=204)

    @action(detail=True, methods=["post"])
    def cancel(self, request, pk=None):
        return Response({"amount": "5.00"})


class Report(APIView):
    @extend_schema(responses={200: OpenApiTypes.STR, 403: OpenApiResponse(description="mine")})
    def get(self, request, year):
        return Response("ran")

    @extend_schema(exclude=True)
    def post(self, request, year):
        return Response("hidden")


@extend_schema(responses=OpenApiTypes.STR)
@api_view(["GET"])
def health(request):
    return Response("ok")


class Versioned(APIView):
    versioning_class = URLPathVersioning

    @extend_schema(responses=OpenApiTypes.STR)
    def get(self, request, version):
        return Response("ran")


class Document(SpectacularAPIView):
    schema = None  # it does not stand in itself


router = DefaultRouter()
router.register("refunds", Refunds, basename="refunds")
urlpatterns = [
    path("api/", include(router.urls)),
    re_path(r"^api/reports/(?P<year>[0-9]{4})/?$", Report.as_view(), name="report"),
    path("api/health", health),
    path("api/<str:version>/versioned", Versioned.as_view()),
    path("schema", Document.as_view(), name="schema"),
]
