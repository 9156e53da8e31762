"""Rules to start from, for the idioms of real libraries: what is written loads, covers everything and names no dead rule."""

import re
import tomllib
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from fastapi.staticfiles import StaticFiles
from flask import Flask
from flask_restful import Api, Resource
from kit.processes import python

from ascend_middleware.routing import Kind
from ascend_middleware.routing.coverage import cover
from ascend_middleware.routing.starlette import StarletteResolver
from ascend_middleware.routing.suggestion import suggest
from ascend_middleware.routing.werkzeug import FlaskResolver
from ascend_middleware.rules import RuleTable


def suggested(routes, rules=()):
    """Return the suggested rules, after the checks that hold for every application."""
    before = cover(routes, RuleTable.from_mapping({"rule": list(rules)}))
    text = suggest(before.unmapped, agent_id="x", standing=before.rows)
    written = tomllib.loads(text)["rule"]
    after = cover(routes, RuleTable.from_mapping({"rule": [*rules, *written]}))
    assert [(row.leaf.template, row.methods) for row in after.unmapped] == []
    assert list(map(str, after.problems)) == []
    assert [idle.rule.label for idle in after.idle] == []
    for row in before.unmapped:
        if row.leaf.kind is Kind.ROUTE:
            for name in re.findall(r"\{([A-Za-z_]\w*)|\?P<(\w+)>", row.leaf.template):
                assert f"path.{name[0] or name[1]}" in text or name[0] == "regex"
    return text


def test_a_tutorial_application_of_fastapi():
    app, sub, router = FastAPI(), FastAPI(), APIRouter(prefix="/items")
    router.get("/")(lambda: {"items": []})
    router.put("/{item_id}")(lambda item_id: {})
    sub.get("/sub")(lambda: {"sub": True})
    app.include_router(router)
    app.get("/files/{file_path:path}")(lambda file_path: {})
    app.get("/users/{user_id}/items/{item_id}")(lambda user_id, item_id: {})
    app.mount("/subapi", sub)
    app.mount("/static", StaticFiles(directory="."), name="static")

    @app.websocket("/items/{item_id}/ws")
    async def talk(socket: WebSocket, item_id: str): ...

    text = suggested(StarletteResolver(app))
    assert 'resource_id = "{path.item_id}"\ndetails = { user_id = "path.user_id" }' in text


class Todo(Resource):
    def get(self, todo_id): ...

    def delete(self, todo_id): ...


class Todos(Resource):
    def get(self): ...

    def post(self): ...


def test_flask_restful():
    app = Flask("todos")
    api = Api(app)
    api.add_resource(Todos, "/todos", "/all-todos")
    api.add_resource(Todo, "/todos/<todo_id>", "/t/<todo_id>", "/x/<todo_id>.<form>", endpoint="todo")
    app.add_url_rule("/rate/<any(a, b):kind>/<float:value>", "rate", lambda kind, value: "")
    text = suggested(FlaskResolver(app))
    assert 'endpoint = "todo"\nmatch = "DELETE /**"' in text
    assert 'resource_id = "{path.todo_id}"\ndetails = { form = "path.form?" }' in text


def test_a_suggested_rule_that_takes_the_place_of_another_says_so():
    app = Flask("todos")
    Api(app).add_resource(Todo, "/todos/<todo_id>", "/x/<todo_id>.<form>", endpoint="todo")
    rules = [{"match": "GET,DELETE /todos/{todo_id}", "action_type": "a"}]
    before = cover(FlaskResolver(app), RuleTable.from_mapping({"rule": rules}))
    text = suggest(before.unmapped, agent_id=None, standing=before.rows)
    assert "# takes the place of rule 1 (DELETE,GET /todos/{todo_id}) at 'todo'" in text


DRF = """
from django.contrib.auth.models import Group, User
from django.urls import include, path
from rest_framework import routers, serializers, viewsets
from rest_framework.decorators import action


class Users(viewsets.ModelViewSet):
    queryset = User.objects.all()

    @action(detail=True, methods=["post"])
    def set_password(self, request, pk=None): ...


router = routers.DefaultRouter()
router.register("users", Users)
router.register("groups", type("Groups", (viewsets.ModelViewSet,), {"queryset": Group.objects.all()}))
urlpatterns = [path("", include(router.urls)), path("api-auth/", include("rest_framework.urls"))]
"""

WAGTAIL = """
from django.urls import include, path
from wagtail import urls
from wagtail.admin import urls as admin_urls
from wagtail.documents import urls as documents_urls

urlpatterns = [path("admin/", include(admin_urls)), path("documents/", include(documents_urls)), path("", include(urls))]
"""

APPS = {
    "drf": ["django.contrib.auth", "django.contrib.contenttypes", "rest_framework"],
    "wagtail": [
        *("wagtail.contrib.forms", "wagtail.contrib.redirects", "wagtail.embeds", "wagtail.sites", "wagtail.users"),
        *("wagtail.snippets", "wagtail.documents", "wagtail.images", "wagtail.search", "wagtail.admin", "wagtail"),
        *("modelcluster", "taggit", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"),
        *("django.contrib.messages", "django.contrib.staticfiles", "django.contrib.admin"),
    ],
}

PROGRAM = """
import sys
sys.path[:0] = [{tests!r}, {tests!r} + "/..", {folder!r}]
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="none", ROOT_URLCONF="project_urls", INSTALLED_APPS={apps!r}, WAGTAIL_SITE_NAME="x", STATIC_URL="/static/",
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}}, USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    WAGTAILADMIN_BASE_URL="http://localhost",
)
django.setup()
from ascend_middleware.routing.django import DjangoResolver
from test_suggested_rules import suggested
print(suggested(DjangoResolver()))
"""


@pytest.mark.parametrize(
    ("name", "urls", "expected"),
    [
        (
            "drf",
            DRF,
            'endpoint = "user-detail"\nmatch = "PUT,PATCH,DELETE /**"\naction_type = "system_operation"\n'
            'resource_id = "{path.pk}"\ndetails = { format = "path.format?" }',
        ),
        pytest.param("wagtail", WAGTAIL, 'endpoint = "wagtail_serve"', marks=pytest.mark.slow),
    ],
)
def test_a_django_project(tmp_path, name, urls, expected):
    """In a process of its own: the settings of a project are the process's."""
    (tmp_path / "project_urls.py").write_text(urls)
    program = PROGRAM.format(tests=str(Path(__file__).parent), folder=str(tmp_path), apps=APPS[name])
    done = python("-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert expected in done.stdout
