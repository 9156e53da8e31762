"""The usual layouts of users' tests, each in a pytest process of its own: every test meets its own script only."""

import os
import sys
import textwrap

import pytest

pytest_plugins = ["pytester"]

RULES = """
[ascend]
agent_id = "shop"

[[rule]]
match = "POST /refunds/{number:int}"
action_type = "transaction"

[[rule]]
match = "GET /health"
exempt = true
"""

# What each layout's tests do with `post()` and `get()`: the second would be green with the script of the first.
TESTS = """
def test_approved(http, ascend_authority):
    ascend_authority.approve()
    assert post(http, "/refunds/7") == 200
    assert [asked.action_type for asked in ascend_authority.asked] == ["transaction"]


def test_denied_where_nothing_is_scripted(http, ascend_authority):
    assert ascend_authority.asked == []
    assert post(http, "/refunds/7") == 403
    assert len(ascend_authority.asked) == 1


def test_what_one_test_denied_another_approves(http, ascend_authority):
    ascend_authority.approve()
    assert post(http, "/refunds/7") == 200


def test_failures_of_one_test(http, ascend_authority):
    ascend_authority.fail(500)
    assert {post(http, f"/refunds/{number}") for number in range(8)} == {503}


def test_are_none_of_another(http, ascend_authority):
    ascend_authority.approve()
    assert post(http, "/refunds/7") == 200


def test_a_kill(http, ascend_authority):
    ascend_authority.kill()
    assert post(http, "/refunds/7") == 503


def test_ends_with_its_test(http, ascend_authority):
    ascend_authority.hold()
    assert post(http, "/refunds/7") == 403
    ascend_authority.approve()
    assert get(http, "/health") == 200
"""

FASTAPI = """
from fastapi import FastAPI

from ascend_middleware.asgi import AscendMiddleware


def create_app():
    app = FastAPI()
    app.add_middleware(AscendMiddleware, rules="ascend.toml")

    @app.post("/refunds/{number}")
    async def refund(number: int):
        return {}

    @app.get("/health")
    async def health():
        return {}

    return app


app = create_app()
"""

FLASK = """
from flask import Flask

from ascend_middleware.flask import Ascend


def create_app():
    app = Flask(__name__)
    Ascend(app, rules="ascend.toml")
    app.post("/refunds/<int:number>")(lambda number: {})
    app.get("/health", endpoint="health")(lambda: {})
    return app


app = create_app()
"""

DJANGO = """
from django.http import HttpResponse
from django.urls import path

SECRET_KEY = "not one"
ALLOWED_HOSTS = ["testserver"]
ROOT_URLCONF = "shop"
INSTALLED_APPS = ["ascend_middleware.django"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
MIDDLEWARE = ["ascend_middleware.django.AscendMiddleware"]
ASCEND = {"rules": "ascend.toml"}

urlpatterns = [path("refunds/<int:number>", lambda request, number: HttpResponse()), path("health", lambda request: HttpResponse())]
"""

ASK = """
def post(http, path):
    return http.post(path).status_code


def get(http, path):
    return http.get(path).status_code
"""


@pytest.fixture
def users(pytester, monkeypatch):
    """A user's project; nothing is set, as on a machine that runs tests and no more."""
    for name in [name for name in os.environ if name.startswith(("ASCEND_", "OWKAI_", "DJANGO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(pytester.path / "state"))
    # Other plugins that happen to be here cost a run more time than its tests.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    plugins = "-p no:cacheprovider -p ascend_middleware.pytest_plugin"
    pytester.makeini(f"[pytest]\nfilterwarnings = error\naddopts = {plugins}\npythonpath = .\n")
    pytester.makefile(".toml", ascend=RULES)
    return pytester


def passes(users, *options, **modules):
    """Run the modules as one test run, in which everything passes, and which leaves no file."""
    users.makepyfile(**{name: textwrap.dedent(text) for name, text in modules.items()})
    result = users.runpytest_subprocess(*options)
    outcomes = result.parseoutcomes()
    assert outcomes.keys() == {"passed"}, result.stdout.str()
    assert outcomes["passed"] == sum(text.count("def test_") for text in modules.values())
    assert not (users.path / "state").exists()


MODULE_LEVEL = """
from starlette.testclient import TestClient
from shop import app

client = TestClient(app)

@pytest.fixture
def http():
    return client
"""


def layout(http, tests=TESTS):
    return f"import pytest\n{textwrap.dedent(http)}\n{ASK}\n{tests}"


@pytest.mark.slow
def test_fastapi(users):
    """The tutorial's module-level client, one client for the session with its lifespan, and an application factory."""
    passes(
        users,
        shop=FASTAPI,
        test_module_level=layout(MODULE_LEVEL),
        test_session=layout(
            """
            from starlette.testclient import TestClient
            from shop import create_app

            @pytest.fixture(scope="session")
            def http():
                with TestClient(create_app()) as client:
                    yield client
            """
        ),
        test_session_that_names_the_authority=layout(
            """
            from starlette.testclient import TestClient
            from shop import create_app

            @pytest.fixture(scope="module")
            def http(ascend_authority):
                with TestClient(create_app()) as client:
                    yield client
            """
        ),
        test_factory=layout(
            """
            from starlette.testclient import TestClient
            from shop import create_app

            @pytest.fixture
            def http():
                with TestClient(create_app()) as client:
                    yield client
            """
        ),
    )


@pytest.mark.slow
def test_fastapi_asked_on_an_event_loop(users):
    passes(
        users,
        "-p",
        "anyio.pytest_plugin",
        shop=FASTAPI,
        test_anyio="""
        import pytest
        from httpx2 import ASGITransport, AsyncClient
        from shop import app

        pytestmark = pytest.mark.anyio

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.fixture
        async def http():
            async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
                yield client

        async def test_approved(http, ascend_authority):
            ascend_authority.approve()
            assert (await http.post("/refunds/7")).status_code == 200

        async def test_denied(http, ascend_authority):
            assert (await http.post("/refunds/7")).status_code == 403
        """,
    )


@pytest.mark.slow
def test_flask(users):
    """A module-level application, factories of every scope, with and without naming the authority."""
    factories = {
        f"test_{scope}_{'named' if named else 'unnamed'}": layout(
            f"""
            from shop import create_app

            @pytest.fixture(scope="{scope}")
            def app({"ascend_authority" if named else ""}):
                app = create_app()
                app.config.update(TESTING=True)
                yield app

            @pytest.fixture
            def http(app):
                return app.test_client()
            """
        )
        for scope in ("session", "module", "function")
        for named in (True, False)
    }
    module_level = layout("from shop import app\n\n@pytest.fixture\ndef http():\n    return app.test_client()\n")
    passes(users, shop=FLASK, test_module_level=module_level, **factories)


@pytest.mark.slow
def test_pytest_flask(users):
    conftest = "import pytest\nfrom shop import create_app\n\n@pytest.fixture(scope='session')\ndef app():\n    return create_app()\n"
    tests = layout("@pytest.fixture\ndef http(client):\n    return client\n")
    passes(users, "-p", "pytest_flask.plugin", shop=FLASK, conftest=conftest, test_shop=tests)


@pytest.mark.slow
def test_pytest_django(users):
    tests = layout("@pytest.fixture\ndef http(client):\n    return client\n")
    module_level = (
        "from django.test import Client\n\nclient = Client()\n\n@pytest.fixture\ndef http():\n    return client\n"
    )
    asynchronous = """
    import asyncio
    import pytest

    def test_approved(async_client, ascend_authority):
        ascend_authority.approve()
        assert asyncio.run(async_client.post("/refunds/7")).status_code == 200

    def test_denied(async_client, ascend_authority):
        assert asyncio.run(async_client.post("/refunds/7")).status_code == 403
    """
    options = "-p", "pytest_django.plugin", "--ds=shop"
    passes(
        users, *options, shop=DJANGO, test_client=tests, test_module_level=layout(module_level), test_async=asynchronous
    )


DJANGO_CASE = """
import pytest
from django.test import SimpleTestCase, TestCase


class Refunds:
    @pytest.fixture(autouse=True)
    def _authority(self, ascend_authority):
        self.authority = ascend_authority

    def test_approved(self):
        self.authority.approve()
        assert self.client.post("/refunds/7").status_code == 200

    def test_denied(self):
        assert self.client.post("/refunds/7").status_code == 403
        assert len(self.authority.asked) == 1

    def test_failing(self):
        self.authority.fail(500)
        assert self.client.post("/refunds/7").status_code == 503


class TestSimple(Refunds, SimpleTestCase):
    pass


class TestDatabase(Refunds, TestCase):
    pass
"""


@pytest.mark.slow
def test_django_test_cases(users):
    users.makepyfile(shop=DJANGO, test_cases=DJANGO_CASE)
    result = users.runpytest_subprocess("-p", "pytest_django.plugin", "--ds=shop")
    assert result.parseoutcomes() == {"passed": 6}, result.stdout.str()


@pytest.mark.slow
def test_django_without_pytest(users, monkeypatch):
    """`manage.py test`: the authority stands in within `setUp`; the system check asks for some authority before."""
    monkeypatch.setenv("ASCEND_API_URL", "test:mine")
    users.makepyfile(
        shop=DJANGO,
        tests="""
        from django.test import SimpleTestCase

        from ascend_middleware.testing import ScriptedAuthority


        class Refunds(SimpleTestCase):
            def setUp(self):
                self.authority = self.enterContext(ScriptedAuthority("mine").standing_in())

            def test_a_approved(self):
                self.authority.approve()
                assert self.client.post("/refunds/7").status_code == 200

            def test_b_denied(self):
                assert self.client.post("/refunds/7").status_code == 403
                assert len(self.authority.asked) == 1
        """,
    )
    done = users.run(sys.executable, "-m", "django", "test", "--settings", "shop", "--pythonpath", ".", "tests")
    done.stderr.fnmatch_lines(["Ran 2 tests in *", "OK"])


OUTSIDE = """
def test_an_exempt_route_needs_no_authority(http):
    assert get(http, "/health") == 200


def test_with_the_authority(http, ascend_authority):
    ascend_authority.approve()
    assert post(http, "/refunds/7") == 200


def test_without_it_again(http, caplog):
    assert get(http, "/health") == 200
    assert post(http, "/refunds/7") == 500
    assert "names the fixture ascend_authority" in caplog.text
"""


@pytest.mark.slow
def test_a_test_that_does_not_name_the_authority_is_told_so(users):
    passes(
        users,
        shop=FLASK,
        test_module_level=layout(
            "from shop import app\n\n@pytest.fixture\ndef http():\n    return app.test_client()\n", OUTSIDE
        ),
        test_session=layout(
            "from shop import create_app\n\n@pytest.fixture(scope='session')\ndef http():\n    return create_app().test_client()\n",
            OUTSIDE,
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize("first", [OUTSIDE, OUTSIDE.split("def test_without_it_again")[0], ""])
def test_django_whose_middleware_is_made_by_a_test_that_does_not_name_the_authority(users, first):
    client = "@pytest.fixture\ndef http(client):\n    client.raise_request_exception = False\n    return client\n"
    again = "\ndef test_without_it_again" + OUTSIDE.split("def test_without_it_again")[1]
    modules = {"test_a": layout(client, first), "test_b": layout(client, again)}
    passes(users, "-p", "pytest_django.plugin", "--ds=shop", shop=DJANGO, **modules)


@pytest.mark.slow
def test_an_application_that_was_made_for_the_authority_is_told_so_when_a_test_does_not_name_it(users):
    made = "from shop import create_app\n\n@pytest.fixture(scope='session')\ndef http():\n    return create_app().test_client()\n"
    tests = OUTSIDE[OUTSIDE.index("def test_with_the_authority") :]
    passes(users, shop=FLASK, test_session=layout(made, tests))


@pytest.mark.slow
def test_a_test_that_asks_for_the_authority_only_when_it_runs(users):
    passes(
        users,
        shop=FLASK,
        test_shop=layout(
            "from shop import app\n\n@pytest.fixture\ndef http():\n    return app.test_client()\n",
            """
def test_approved(request, http):
    request.getfixturevalue("ascend_authority").approve()
    assert post(http, "/refunds/7") == 200


def test_denied(request, http):
    assert request.getfixturevalue("ascend_authority").asked == []
    assert post(http, "/refunds/7") == 403
""",
        ),
    )


@pytest.mark.slow
def test_a_guard_that_was_made_without_an_authority_tells_its_name_later(users):
    """Starlette makes its middlewares at the first request: here in a test that names no authority."""
    passes(
        users,
        shop=FASTAPI,
        test_shop=layout(
            MODULE_LEVEL,
            """
            def test_before(http):
                with pytest.raises(Exception, match="API key is required"):
                    get(http, "/health")


            def test_with_the_authority(http, ascend_authority):
                ascend_authority.approve()
                assert post(http, "/refunds/7") == 200
            """.replace("\n            ", "\n"),
        ),
    )


def test_clients_that_a_module_made(users, monkeypatch):
    passes(
        users,
        tools="""
        from ascend_middleware import AscendClient

        client = AscendClient()

        def refund():
            return client.evaluate_action("transaction", "refund").is_approved()
        """,
        test_tools="""
        import pytest
        from tools import refund
        from ascend_middleware import ConfigurationError

        def test_approved(ascend_authority):
            ascend_authority.approve()
            assert refund()

        def test_denied(ascend_authority):
            assert not refund()
            assert len(ascend_authority.asked) == 1

        def test_without():
            with pytest.raises(ConfigurationError, match="names the fixture ascend_authority"):
                refund()
        """,
    )


@pytest.mark.slow
def test_a_developers_own_settings_reach_no_authority(users, monkeypatch):
    """A guard that was told its URL, and a key in the environment: while the authority stands in, it is what is asked."""
    monkeypatch.setenv("ASCEND_API_KEY", "owkai_live_of_a_developer")
    monkeypatch.setenv("ASCEND_JOURNAL", "memory:")
    monkeypatch.setenv("ASCEND_STATE", "memory:")
    told = 'rules="ascend.toml", api_url="https://authority.invalid"'
    passes(
        users,
        shop=FLASK.replace('rules="ascend.toml"', told),
        test_flask=layout("from shop import app\n\n@pytest.fixture\ndef http():\n    return app.test_client()\n"),
        fast=FASTAPI.replace('rules="ascend.toml"', told),
        test_fastapi=layout(MODULE_LEVEL.replace("shop", "fast")),
        test_client="""
        import pytest
        from ascend_middleware import AscendClient, ConfigurationError

        client = AscendClient(agent_id="shop")

        def test_a_client_that_was_made_before_and_asks_somebody_else_says_so(ascend_authority):
            with pytest.raises(ConfigurationError, match="pilot.owkai.app.*ascend_authority"):
                client.evaluate_action("transaction", "refund")
            assert ascend_authority.requests == []
        """,
    )


def test_a_script_of_an_application_that_names_it_ends_with_the_test(users):
    passes(
        users,
        test_scopes="""
        import os
        import pytest

        @pytest.fixture(scope="module")
        def wide(ascend_authority):
            ascend_authority.approve()
            return ascend_authority

        def test_first(wide, ascend_client):
            assert ascend_client.evaluate_action("transaction", "refund").is_approved()
            assert os.environ["ASCEND_API_URL"] == wide.api_url

        def test_second(wide, ascend_client):
            assert not ascend_client.evaluate_action("transaction", "refund").is_approved()

        def test_third():
            assert "ASCEND_API_URL" not in os.environ
        """,
    )
