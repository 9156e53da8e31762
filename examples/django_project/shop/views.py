import json

from django.http import JsonResponse
from django.views import View
from django.views.decorators.http import require_POST

from ascend_middleware.django import governed


def health(request):
    return JsonResponse({"status": "ok"})


class Customer(View):
    def get(self, request, customer_id):
        return JsonResponse({"id": customer_id, "name": "Ada"})

    def delete(self, request, customer_id):
        return JsonResponse({"deleted": customer_id})


@require_POST
def refund(request, customer_id):
    body = json.loads(request.body)
    return JsonResponse({"customer": customer_id, "refunded": body["amount"], "currency": body["currency"]})


@governed(action_type="data_access", details={"year": "query.year?"})  # a rule at the view, instead of in the table
async def report(request):
    return JsonResponse({"customers": 1})
