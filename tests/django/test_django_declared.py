"""Rules at views: entries of the same table, decided by the middleware, and never twice."""

import pytest
from django.conf import settings
from django.test import override_settings
from django.urls import path
from django.views import View
from django_kit import problem

from ascend_middleware.django import GovernedMixin, governed
from ascend_middleware.exceptions import ConfigurationError


@pytest.fixture(autouse=True)
def without_rules(ascend):
    ascend([{"match": "GET /health", "exempt": True}])


@pytest.mark.parametrize(
    ("method", "url", "action_type", "name"),
    [
        ("GET", "/governed/function?amount=5", "decorated", "decorated"),
        ("GET", "/governed/async", "decorated_async", "decorated async"),
        ("GET", "/governed/mixed", "mixed", "mixed get"),
        ("GET", "/governed/mixed-async", "mixed_async", "mixed async get"),
        ("GET", "/governed/class", "whole_class", "whole get"),
        ("POST", "/governed/one", "one_method", "one post"),
        ("PUT", "/governed/one", "one_put", "one put"),
        ("POST", "/governed/by-name", "by_name", "by name"),
        ("GET", "/api/governed-things/", "whole_set", "governed list"),
        ("GET", "/api/governed-things.json", "whole_set", "governed list"),
        ("GET", "/api/things/5/", "thing_read", "retrieve"),
        ("HEAD", "/api/things/5/", "thing_read", "retrieve"),
        ("DELETE", "/api/things/5/", "thing_delete", "destroy"),
        ("POST", "/governed/api", "function", "api function"),
    ],
)
def test_a_view_with_a_rule_is_asked_about_once(site, ran, method, url, action_type, name):
    assert site.ask(method, url, data=b"{}", content_type="application/json").status_code < 300
    assert [asked.action_type for asked in site.authority.asked] == [action_type]
    assert [one for one, _ in ran] == [name]
    site.authority.deny()
    assert (
        problem(site.ask(method, url, data=b"{}", content_type="application/json")) == "denied"
        if method != "HEAD"
        else True
    )
    assert len(ran) == 1


def test_its_fields_are_those_of_a_rule(site, ran):
    site.ask("GET", "/governed/function?amount=5")
    assert dict(site.authority.asked[0].details) == {"amount": "5"}
    assert site.ask("GET", "/governed/function").status_code == 400


def test_what_a_class_says_of_one_method_holds_for_that_one(site, ran):
    assert problem(site.ask("GET", "/governed/one")) == "unmapped-route"
    assert problem(site.ask("GET", "/api/things/")) == "unmapped-route"


def test_a_rule_of_the_table_that_contradicts_it_refuses_the_route(site, ran, ascend):
    ascend([{"endpoint": "django_site.decorated", "action_type": "other"}])
    assert problem(site.ask("GET", "/governed/function?amount=5")) == "misconfigured"
    ascend([{"match": "GET /governed/function", "block": "closed"}])
    assert problem(site.ask("GET", "/governed/function?amount=5")) == "blocked"
    assert ran == []


@pytest.mark.parametrize(
    "url", ["/governed/function", "/governed/async", "/governed/mixed", "/governed/class", "/api/governed-things/"]
)
def test_without_the_middleware_it_does_not_run(site, ran, url):
    with override_settings(MIDDLEWARE=settings.MIDDLEWARE[:-1]):
        assert site.ask("GET", url).status_code == 500
        with pytest.raises(ConfigurationError, match="nobody decided about this request"):
            site.ask("GET", url, raises=True)
    assert ran == []


class Views:
    """Routes of a module, as a URL configuration."""


def test_a_view_that_another_view_calls_runs_on_its_own_decision_only(site, ran, ascend):
    import django_site

    def outer(request):
        return django_site.decorated(request)

    ascend([{"match": "GET /outer", "action_type": "outer"}])
    Views.urlpatterns = [path("outer", outer)]
    with override_settings(ROOT_URLCONF=Views):
        with pytest.raises(ConfigurationError, match="decided under"):
            site.ask("GET", "/outer", raises=True)
    assert ran == []


def test_switched_off_it_runs(site, ran, ascend):
    ascend([], enabled=False)
    assert site.ask("GET", "/governed/function").status_code == 200
    assert site.ask("GET", "/governed/mixed").status_code == 200


# What is wrong is told where it is written


def test_a_rule_that_cannot_be_is_refused_at_once():
    with pytest.raises(ConfigurationError, match="action_typ"):

        @governed(action_typ="x")
        def view(request): ...

    with pytest.raises(ConfigurationError, match="not at a str"):
        governed(action_type="x")("view")
    with pytest.raises(ConfigurationError, match="which has dispatch"):

        @governed(action_type="x")
        class NoView: ...


def test_two_rules_at_one_view_contradict_each_other():
    with pytest.raises(ConfigurationError, match="two rules"):

        @governed(action_type="x")
        @governed(action_type="y")
        def view(request): ...


def test_the_mixin_stands_left_and_has_a_rule(rf_request):
    with pytest.raises(ConfigurationError, match="before View"):

        class Right(View, GovernedMixin):
            governed = {"action_type": "x"}

    with pytest.raises(ConfigurationError, match="bdy"):

        class Wrong(GovernedMixin, View):
            governed = {"action_type": "x", "details": {"a": "bdy.a"}}

    class Base(GovernedMixin):
        """Views are to be made of it."""

    class Without(Base, View):
        def get(self, request): ...

    with pytest.raises(ConfigurationError, match="without a rule"):
        Without.as_view()(rf_request)


def test_a_derived_class_may_have_a_rule_of_its_own(site, ran):
    import django_site

    class Derived(django_site.Mixed):
        governed = {"action_type": "derived"}

    class Same(django_site.Mixed): ...

    Views.urlpatterns = [path("derived", Derived.as_view()), path("same", Same.as_view())]
    with override_settings(ROOT_URLCONF=Views):
        assert site.ask("GET", "/derived").status_code == site.ask("GET", "/same").status_code == 200
    assert [asked.action_type for asked in site.authority.asked] == ["derived", "mixed"]


@pytest.fixture
def rf_request():
    from django.test import RequestFactory

    return RequestFactory().get("/")


@pytest.mark.parametrize("target", [object(), 5])
def test_what_is_no_view_is_told_with_the_line_of_the_decorator(target):
    with pytest.raises(ConfigurationError, match=rf"^{__name__} line \d+: governed stands at .*, not at a "):
        governed(action_type="x")(target)
