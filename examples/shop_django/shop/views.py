import json

from django.http import JsonResponse
from django.views import View


def echo(request):
    return JsonResponse(json.loads(request.body))


class Health(View):
    def get(self, request):
        return JsonResponse({"status": "well"})


# customers: 8 routes


class Customers(View):
    def get(self, request):
        return JsonResponse([{"id": 7, "name": "Ada"}], safe=False)

    def post(self, request):
        return echo(request)


class Customer(View):
    def get(self, request, customer_id):
        return JsonResponse({"id": customer_id, "name": "Ada"})

    def put(self, request, customer_id):
        return echo(request)

    def delete(self, request, customer_id):
        return JsonResponse({"deleted": customer_id})


class Addresses(View):
    def get(self, request, customer_id):
        return JsonResponse([], safe=False)

    def post(self, request, customer_id):
        return echo(request)


class Refunds(View):
    def post(self, request, customer_id):
        return JsonResponse({"customer": customer_id, "refunded": json.loads(request.body)["amount"]})


# orders: 9 routes


class Orders(View):
    def get(self, request):
        return JsonResponse([], safe=False)

    def post(self, request):
        return echo(request)


class Order(View):
    def get(self, request, order_id):
        return JsonResponse({"id": order_id})

    def put(self, request, order_id):
        return echo(request)

    def delete(self, request, order_id):
        return JsonResponse({"cancelled": order_id})


class Payments(View):
    def post(self, request, order_id):
        return echo(request)


class Shipments(View):
    def post(self, request, order_id):
        return echo(request)


class Invoice(View):
    def get(self, request, order_id):
        return JsonResponse({"order": order_id})


class Notes(View):
    def post(self, request, order_id):
        return echo(request)


# products: 8 routes


class Products(View):
    def get(self, request):
        return JsonResponse([], safe=False)

    def post(self, request):
        return echo(request)


class Product(View):
    def get(self, request, product_id):
        return JsonResponse({"id": product_id})

    def put(self, request, product_id):
        return echo(request)

    def delete(self, request, product_id):
        return JsonResponse({"deleted": product_id})


class Stock(View):
    def get(self, request, product_id):
        return JsonResponse({"stock": 3})

    def put(self, request, product_id):
        return echo(request)


class Price(View):
    def put(self, request, product_id):
        return echo(request)


# reports: 4 routes


class Sales(View):
    def get(self, request):
        return JsonResponse({"sales": 0})


class SalesOfYear(View):
    def get(self, request, year):
        return JsonResponse({"sales": 0, "year": year})


class CustomerReport(View):
    def get(self, request):
        return JsonResponse({"customers": 1})


class Exports(View):
    def post(self, request):
        return JsonResponse({"export": "begun"})
