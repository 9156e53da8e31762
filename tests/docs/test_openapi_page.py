"""docs/openapi.md: its programs run one after the other, and the document tells what the page shows."""

import importlib
import json
import re
from pathlib import Path

from fastapi import FastAPI

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.config import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "openapi.md").read_text()
RULES = """
[ascend]
agent_id = "billing-api"

[[rule]]
match = "POST /refunds"
action_type = "transaction"
"""


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_programs_run_and_tell_what_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ascend.toml").write_text(RULES)
    application, written, _ = blocks("python")
    names = {"FastAPI": FastAPI, "AscendMiddleware": AscendMiddleware}
    exec(application, names)
    exec(written, names)
    found = json.loads(Path("openapi.json").read_text())["paths"]["/refunds"]["post"]
    (shown,) = map(json.loads, blocks("json"))
    own = found["responses"].keys() - shown["responses"].keys()
    assert own == {"200", "422"} and shown["responses"].items() <= found["responses"].items()
    assert shown["x-ascend-action"] == found["x-ascend-action"]


def test_the_settings_of_drf_spectacular_name_functions(tmp_path):
    names = {}
    exec(blocks("python")[2], names)
    for path in names["SPECTACULAR_SETTINGS"]["POSTPROCESSING_HOOKS"][1:]:
        module, _, function = path.rpartition(".")
        assert callable(getattr(importlib.import_module(module), function))


def test_the_setting_is_one():
    assert Settings().openapi is True and "openapi = false" in blocks("toml")[0]
