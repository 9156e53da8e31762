"""Django REST framework: views, view sets, format suffixes, and bodies that it reads after the guard."""

import pytest
from django_kit import problem

JSON = {"content_type": "application/json"}


def test_an_api_view(site, ran):
    assert site.ask("GET", "/report").status_code == 200
    assert site.ask("POST", "/report", data=b'{"amount": 5}', **JSON).status_code == 200
    assert ran == [("report", {}), ("report post", {"amount": 5})]
    assert [asked.action_type for asked in site.authority.asked] == ["report"] * 2


@pytest.mark.parametrize("method", ["PUT", "OPTIONS", "FOO"])
def test_what_no_rule_lists_does_not_come_to_its_permissions(site, ran, method):
    assert problem(site.ask(method, "/report")) == "unmapped-route"


@pytest.mark.parametrize("url", ["/api/things/", "/api/things.json"])
def test_a_view_set_is_governed_by_its_name_with_every_suffix(site, ran, url):
    assert site.ask("GET", url).status_code == 200
    assert site.ask("HEAD", url).status_code == 200
    assert site.ask("POST", url, data=b'{"amount": 5}', **JSON).status_code == 201
    assert site.ask("POST", url, data=b'{"amount": 5, "amount": 6}', **JSON).status_code == 400
    assert [name for name, _ in ran] == ["list", "list", "create"]
    listed, headed, created = site.authority.asked
    assert (listed.action_type, headed.action_type, created.action_type) == ("thing_list", "thing_list", "thing_create")
    assert (dict(created.details), ran[2][1]) == ({"amount": 5}, {"amount": 5})


def test_a_suffix_is_no_way_around_a_rule_for_the_template(site, ran, ascend):
    ascend([{"match": "* /api/things", "exempt": True}, {"match": "* /api/things/{pk}", "block": "closed"}])
    assert site.ask("GET", "/api/things/").status_code == 200
    assert problem(site.ask("GET", "/api/things.json")) == "unmapped-route"
    assert problem(site.ask("GET", "/api/things/5/")) == "blocked"
    assert problem(site.ask("GET", "/api/things/5.json")) == "blocked"
