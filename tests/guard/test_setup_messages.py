"""What is told of mistakes before anything is served."""

import json

import pytest
from kit.processes import python

import ascend_middleware
from ascend_middleware.cli import main
from ascend_middleware.compose import build_guard
from ascend_middleware.config import unknown_variables
from ascend_middleware.exceptions import ConfigurationError

SETTINGS = {"api_url": "http://127.0.0.1:1", "api_key": "owkai_user_0123456789abcdef", "agent_id": "a"}


def test_a_hook_that_is_no_function_is_refused():
    with pytest.raises(ConfigurationError, match="identify must be a function, got 'x.y'"):
        build_guard([], SETTINGS, identify="x.y", environ={})


def test_variables_that_no_setting_reads_are_named():
    (line,) = unknown_variables({"ASCEND_MODUS": "observe", "ASCEND_MODE": "observe", "ASCEND_KILL": "1", "PATH": ""})
    assert line == "the environment has ASCEND_MODUS, which is no setting (did you mean ASCEND_MODE?)"


def test_a_missing_table_does_not_blame_the_agent_too():
    with pytest.raises(ConfigurationError) as caught:
        build_guard("none.toml", {**SETTINGS, "agent_id": None}, environ={})
    assert "none.toml" in str(caught.value) and "agent_id" not in str(caught.value)


def test_the_middleware_is_looked_for_where_it_is():
    with pytest.raises(ImportError, match="ascend_middleware.fastapi"):
        from ascend_middleware import AscendMiddleware  # noqa: F401
    assert not hasattr(ascend_middleware, "__nothing__")


def test_check_tells_wrong_usage_from_problems_and_counts_in_english(tmp_path, capsys):
    table = tmp_path / "ascend.toml"
    assert main(["check", str(tmp_path / "nope.toml")]) == 2
    assert "nope.toml" in capsys.readouterr().err
    table.write_text('[[rule]]\nmatch = "GET /a"\nexempt = true\n')
    assert main(["check", str(table)]) == 0
    assert capsys.readouterr().out == "ok: 1 rule\n"


@pytest.mark.parametrize("text", ["", "[[rule]]\nmatch = 'GET /a'\nexempt = true\nenabled = false\n"])
def test_check_refuses_a_table_without_rules(text, tmp_path, capsys):
    table = tmp_path / "ascend.toml"
    table.write_text(text)
    assert main(["check", str(table)]) == 1
    assert "no rule" in capsys.readouterr().out
    assert main(["check", str(table), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["problems"][0]["code"] == "rules.empty"
    table.write_text(f'[ascend]\nunmapped = "by-method"\n{text}')
    assert main(["check", str(table)]) == 0
    assert capsys.readouterr().out == "ok: 0 rules\n"


def test_what_by_method_permits_is_a_closed_set_wherever_it_is_set(tmp_path, capsys):
    table = tmp_path / "ascend.toml"
    table.write_text('[ascend]\nunmapped = "by-method"\nunmapped_permit = ["encoded-seperator"]\n')
    assert main(["check", str(table)]) == 1
    assert "unmapped_permit: there is no finding 'encoded-seperator'; did you mean encoded-separator?" in (
        capsys.readouterr().out
    )
    with pytest.raises(ConfigurationError, match="argument unmapped_permit.*known: backslash"):
        build_guard([], {**SETTINGS, "unmapped_permit": ["x"]}, environ={})


@pytest.mark.parametrize("value", ["inf", "nan", "2.5", "true", "99999"])
def test_a_count_that_is_no_whole_number_in_its_range_is_a_problem_like_any_other(tmp_path, capsys, value):
    table = tmp_path / "ascend.toml"
    table.write_text(f'[ascend]\nunmapped = "by-method"\nmax_retries = {value}\ndeadlin = 5\n')
    assert main(["check", str(table)]) == 1
    told = capsys.readouterr().out
    assert "max_retries: expected a" in told and "did you mean deadline?" in told


def test_routes_tells_how_to_name_an_application(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "setup_factory.py").write_text("def create_app():\n    return None\n")
    (tmp_path / "setup_deep.py").write_text("import setup_deeper\n")
    (tmp_path / "setup_deeper.py").write_text("\n\nimport nothing_of_that_name\n")
    assert main(["routes", "setup_factory:create_app"]) == 2
    assert 'write "setup_factory:create_app()"' in capsys.readouterr().err
    assert main(["routes", "elsewhere_module:app"]) == 2
    assert "--app-dir" in capsys.readouterr().err
    assert main(["routes", "setup_deep:app"]) == 2
    told = capsys.readouterr().err
    assert "nothing_of_that_name" in told and "setup_deeper.py, line 3" in told


def test_an_older_python_is_told_as_what_it_is():
    program = "import sys; sys.version_info = (3, 10, 13); sys.version = '3.10.13 (old)'; import ascend_middleware"
    done = python("-c", program)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: ascend-middleware needs Python 3.11 or newer, and this is 3.10.13"
    )
