"""System checks: what would leave a request ungoverned, or every request refused, is told before a server starts."""

import sys

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings
from django_project import GUARD, TRIPWIRE

from ascend_middleware.exceptions import ConfigurationError, MissingAPIKeyError

GOOD = {
    "rules": {"rule": [{"match": "GET /health", "exempt": True}]},
    "api_url": "http://127.0.0.1:1",
    "agent_id": "bot",
}
KEYED = {**GOOD, "api_key": "owkai_test_0123456789abcdef"}


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch):
    for name in ("ASCEND_API_URL", "ASCEND_API_KEY", "ASCEND_AGENT_ID", "OWKAI_API_KEY", "OWKAI_API_URL"):
        monkeypatch.delenv(name, raising=False)


def found(config=KEYED, **changed):
    with override_settings(ASCEND=config, **changed):
        return run_checks(tags=["ascend"])


def ids(config=KEYED, **changed):
    return [message.id.removeprefix("ascend.") for message in found(config, **changed)]


def test_what_is_right_passes():
    assert found() == []


def test_a_problem_is_told_with_its_place_and_what_to_write_instead():
    rules = {"rule": [{"match": "GET /x", "action_type": "y", "timeout": 1}, {"match": "GET /y", "exempt": 1}]}
    assert [(message.id, message.msg, message.hint) for message in found({**KEYED, "rules": rules})] == [
        ("ascend.E001", "rules: rule 1 (GET /x): timeout: no such key", "did you mean body_timeout?"),
        ("ascend.E001", "rules: rule 2 (GET /y): exempt: expected true or false, got 1", None),
    ]


def test_everything_is_told_at_once():
    rules = {
        "ascend": {"agent_nam": "x"},
        "rule": [
            {"match": "GET /x", "action_typ": "y"},
            {"match": "POST /x", "action_type": "y", "details": {"a": "bdy.a"}},
        ],
    }
    config = {"rules": rules, "deadlin": 3, "identify": "no.such.function"}
    messages = found(config, MIDDLEWARE=["django.middleware.common.CommonMiddleware"], DEFAULT_CHARSET="latin-1")
    text = "\n".join(str(message) for message in messages)
    for part in ("agent_nam", "action_typ", "bdy.a", "deadlin", "no.such.function", "not in MIDDLEWARE", "latin-1"):
        assert text.count(part) >= 1, (part, text)
    assert {message.id for message in messages} == {f"ascend.E00{number}" for number in (1, 2, 4, 8)}
    assert len(messages) == len({str(message) for message in messages})


CONSUMERS = """
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
{}
application = ProtocolTypeRouter({{}})
raise RuntimeError("nobody imports this to check it")
"""


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (CONSUMERS.format(""), ["W003"]),
        (CONSUMERS.format("import ascend_middleware.django"), ["W003"]),
        (CONSUMERS.format("from ascend_middleware.asgi import AscendMiddleware"), []),
        (CONSUMERS.format("import ascend_middleware.asgi"), []),
        (CONSUMERS.format("from . import consumers"), ["W003"]),
        ("import channels.routing", ["W003"]),
        ("from django.core.asgi import get_asgi_application", []),
        ("this is no Python", []),
        ("a folder", []),
        (None, []),
    ],
)
def test_consumers_that_no_guard_stands_around(tmp_path, monkeypatch, source, told):
    monkeypatch.syspath_prepend(tmp_path)
    if source == "a folder":
        (tmp_path / "routed_asgi").mkdir()
    elif source is not None:
        (tmp_path / "routed_asgi.py").write_text(source)
    assert ids(ASGI_APPLICATION="routed_asgi.application") == told
    with override_settings(ASCEND=KEYED, ASGI_APPLICATION="routed_asgi.application"):
        WSGIHandler()  # a warning keeps no server from starting


def test_the_check_command_fails():
    short = {**GOOD, "api_key": "short"}
    with override_settings(ASCEND=short), pytest.raises(SystemCheckError, match=r"ascend\.E003.*ill-formed"):
        call_command("check", "--tag", "ascend")


def test_a_missing_key_fails_only_the_check_for_deployment_and_the_server(capsys):
    with override_settings(ASCEND=GOOD):
        call_command("check", "--tag", "ascend")
        assert "ascend.W004" in capsys.readouterr().err
        with pytest.raises(SystemCheckError, match=r"ascend\.E003.*API key is required"):
            call_command("check", "--tag", "ascend", "--deploy")
        with pytest.raises(MissingAPIKeyError):
            WSGIHandler()


def test_a_missing_key_hides_nothing_that_is_found_later():
    assert ids({**GOOD, "kill_switch": "sqs"}) == ["W004", "E003"]


@pytest.mark.parametrize(
    ("config", "expected", "text"),
    [
        (GOOD, "W004", "API key is required"),
        ({**KEYED, "api_key": "short"}, "E003", "ill-formed"),
        ({**KEYED, "agent_id": None}, "E003", "agent_id is required"),
        ({**KEYED, "api_url": "http://example.com"}, "E003", "TLS required"),
        ({**KEYED, "rules": "no-such-file.toml"}, "E001", "no-such-file.toml"),
        ({**KEYED, "rule": []}, "E002", "both a table and rules"),
        ({**KEYED, "render": 5}, "E002", "render"),
        ({**KEYED, "AGENT_ID": "x"}, "E002", "AGENT_ID"),
        (
            {
                **KEYED,
                "on_failure": "open",
                "journal": "off",
                "rules": {"rule": [{"match": "GET /x", "action_type": "y"}]},
            },
            "E003",
            "needs the journal",
        ),
        ([], "E002", "expected a mapping"),
    ],
)
def test_what_is_wrong_with_the_setting(config, expected, text):
    (message,) = found(config)
    assert (message.id, text in str(message)) == (f"ascend.{expected}", True), str(message)


def test_a_project_without_middlewares_is_told_that_it_has_no_guard():
    assert ids({**KEYED, "strict": True}, MIDDLEWARE=[]) == ids({**KEYED, "strict": True}, MIDDLEWARE=["other"]) != []


def test_a_key_never_stands_in_a_message():
    key = "owkai_secret but broken"
    assert key not in "".join(str(message) for message in found({**KEYED, "api_key": key}))


def test_a_table_file_that_is_wrong_hides_nothing_of_its_settings(tmp_path):
    file = tmp_path / "ascend.toml"
    file.write_text('[ascend]\nagent_id = "bot"\n[[rule]]\nmatch = "GET /x"\naction_typ = "y"\n')
    messages = found({"rules": file, "api_url": "http://127.0.0.1:1"})
    assert {message.id for message in messages} == {"ascend.E001", "ascend.W004"}
    assert "agent_id" not in "".join(str(message) for message in messages)


def test_what_is_switched_off_is_told():
    assert ids({**KEYED, "mode": "observe"}) == ["W001"]
    assert ids({**GOOD, "enabled": False}) == ["W001"]
    assert ids({**KEYED, "strict": True}) == ["W002"]
    assert ids({**KEYED, "strict": True}, MIDDLEWARE=[TRIPWIRE, GUARD]) == []


class Derived:
    """Replaced below by a class derived from the middleware."""


COMMON = "django.middleware.common.CommonMiddleware"
FLATPAGES = "django.contrib.flatpages.middleware.FlatpageFallbackMiddleware"
CACHE = "django.middleware.cache.FetchFromCacheMiddleware"
WHOLE_CACHE = "django.middleware.cache.CacheMiddleware"  # derived from it


@pytest.mark.parametrize(
    ("middleware", "expected"),
    [
        ([COMMON, GUARD], []),
        ([COMMON], ["E004"]),
        ([], ["E004"]),
        ([GUARD, COMMON], ["E006"]),
        ([GUARD, COMMON, GUARD], ["E005"]),
        ([FLATPAGES, GUARD], ["E007"]),
        ([GUARD, FLATPAGES], ["E007", "E006"]),
        ([CACHE, GUARD], ["E007"]),
        ([WHOLE_CACHE, GUARD], ["E007"]),
        (["test_django_checks.Derived", COMMON], ["E006"]),
        (["no.such.Middleware", GUARD], []),
    ],
)
def test_the_order_of_the_middlewares(middleware, expected, monkeypatch):
    from ascend_middleware.django import AscendMiddleware

    monkeypatch.setattr("test_django_checks.Derived", type("Derived", (AscendMiddleware,), {}))
    assert ids(MIDDLEWARE=middleware) == expected
    served = [GUARD] if not middleware else middleware
    if "no.such.Middleware" in middleware or expected == ["E004"]:
        return
    with override_settings(ASCEND=KEYED, MIDDLEWARE=served):
        if not expected:
            WSGIHandler()
            return
        # No server runs checks, so it does not start either.
        with pytest.raises(ConfigurationError, match=expected[0]):
            WSGIHandler()
        with override_settings(SILENCED_SYSTEM_CHECKS=[f"ascend.{one}" for one in expected]):
            WSGIHandler()


def test_what_answers_without_a_view_is_told_where_it_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, FLATPAGES.rpartition(".")[0], None)
    assert ids(MIDDLEWARE=[FLATPAGES, GUARD]) == ["E007"]
    assert ids(MIDDLEWARE=[COMMON, GUARD]) == []


def test_a_middleware_may_be_built_where_the_settings_name_none():
    """By a decorator at single views, for one; the check tells of it."""
    from ascend_middleware.django import AscendMiddleware

    with override_settings(ASCEND=KEYED, MIDDLEWARE=[COMMON]):
        assert AscendMiddleware(lambda request: None).guard.settings.agent_id == "bot"


def test_a_server_does_not_start_with_a_bad_table():
    bad = {**KEYED, "rules": {"rule": [{"match": "GET /x", "action_typ": "y"}]}}
    with override_settings(ASCEND=bad), pytest.raises(ConfigurationError, match="action_typ"):
        WSGIHandler()


def test_the_projects_own_settings_are_right():
    assert settings.MIDDLEWARE[-1] == GUARD
