"""The code on the client's page runs as it stands, and its tables name what there is."""

import dataclasses
import re
from pathlib import Path

import pytest

import ascend_middleware
from ascend_middleware.config import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
POLICY = '[[policy]]\nname = "small refunds"\naction_types = ["transaction"]\ndecision = "{}"\nreason = "as it is"\n'


@pytest.mark.parametrize(
    ("verdict", "printed"),
    [("approved", r""), ("denied", r"denied: as it is\n"), ("pending", r"a person decides: \d+\n")],
)
def test_the_code_runs(verdict, printed, tmp_path, monkeypatch, capsys):
    (tmp_path / "policy.toml").write_text(POLICY.format(verdict))
    monkeypatch.chdir(tmp_path)
    asking, wrapping = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(asking, {})
    assert re.fullmatch(printed, capsys.readouterr().out)
    if verdict == "approved":
        names = {}
        exec(wrapping, names)
        assert names["refunded"] == 20
    elif verdict == "denied":
        with pytest.raises(PermissionError, match="as it is"):
            exec(wrapping, {})


def test_every_error_and_default_of_the_tables_is_as_told():
    for row in re.findall(r"^\| ((?:`\w+Error`|`CircuitBreakerOpen`).*) \|$", PAGE, re.MULTILINE):
        names, _, builtin = (cell.strip() for cell in row.split("|"))
        for name in re.findall(r"`(\w+)`", names):
            error = getattr(ascend_middleware, name)
            assert issubclass(error, ascend_middleware.AscendError)
            assert not builtin or any(base.__name__ == builtin for base in error.__mro__)
    defaults = {field.name: field.default for field in dataclasses.fields(Settings)}
    assert (defaults["timeout"], defaults["max_retries"], defaults["fail_mode"]) == (30, 3, "closed")
    assert (defaults["circuit_breaker_threshold"], defaults["circuit_breaker_timeout"]) == (5, 30)
