"""The bypass pack in pytest: a test of each method of each governed route, and a report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from ...exceptions import ConfigurationError
from .report import write
from .trial import Trial

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["BypassPlugin"]

_KEY: Final = "ascend_bypass"


class NotProvenError(Exception):
    """A route let a request through, or it cannot be said that it did not."""


class BypassItem(pytest.Item):
    """One method of one route, under every attack."""

    def __init__(self, *, trial: Trial, route: dict[str, Any], **given: Any) -> None:
        super().__init__(**given)
        self._trial, self._route = trial, route

    def runtest(self) -> None:
        """Send the corpus."""
        found = self._trial.attack(self._route)
        self.user_properties.append((_KEY, json.dumps(found)))
        if problems := list(_problems(found)):
            raise NotProvenError("\n".join(problems))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Tell a hole in a few lines; anything else as pytest does."""
        return str(excinfo.value) if isinstance(excinfo.value, NotProvenError) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """See pytest."""
        return self.path, None, self.name


class AfterwardsItem(BypassItem):
    """Nothing ran after its request was answered."""

    def runtest(self) -> None:
        """Wait a moment, and look."""
        if late := self._trial.afterwards():
            self.user_properties.append((_KEY, json.dumps({**self._route, "late": late})))
            raise NotProvenError(f"ran after every request was answered: {', '.join(late)}")


def _problems(found: dict[str, Any]) -> Iterator[str]:
    for one in found["ran"]:
        yield f"{one['attack']} ({one['about']}) ran {one['handler']}, answered {one['answer']}: {one['request']!r}"
    if found["path"] is None:
        yield "no path leads to this route: name one with --ascend-bypass-path"
    elif not found["met"]:
        answer = found["answers"]["plain"]
        yield (
            f"the guard was not met: the plain request was answered {answer} before it; if that is somebody's sign-in, "
            "give what signs in with --ascend-bypass-header"
        )
    if not found["watched"]:
        yield "it cannot be told whether its handler ran: an exempt route has the same, or it is not written in Python"


class BypassPlugin:
    """Starts the server at collection, and ends it with the session."""

    def __init__(self, config: pytest.Config) -> None:
        option = config.getoption
        self._trial = Trial(
            option("ascend_bypass"),
            directory=option("ascend_bypass_dir"),
            server=option("ascend_bypass_server"),
            headers=option("ascend_bypass_header"),
            paths=option("ascend_bypass_path"),
            handlers=option("ascend_bypass_handler"),
        )
        self._report: str | None = option("ascend_bypass_report")
        self._found: list[dict[str, Any]] = []

    def pytest_ignore_collect(self, config: pytest.Config) -> bool | None:
        """Collect the pack alone, unless tests are named."""
        return None if config.args_source is pytest.Config.ArgsSource.ARGS else True

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add the tests."""
        try:
            self._trial.start()
        except ConfigurationError as error:
            self._trial.stop()
            raise pytest.UsageError(f"--ascend-bypass: {error.message}") from None
        routes = [one for one in self._trial.routes if not one["exempt"]]
        for route in routes:
            name = f"{self._trial.app} {route['route']}"
            items.append(BypassItem.from_parent(session, name=name, trial=self._trial, route=route))
        last: dict[str, Any] = {"route": "afterwards"}
        items.append(
            AfterwardsItem.from_parent(session, name=f"{self._trial.app} afterwards", trial=self._trial, route=last)
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a test found, from whichever process."""
        if report.when == "call":
            self._found += (json.loads(str(value)) for name, value in report.user_properties if name == _KEY)

    def pytest_sessionfinish(self) -> None:
        """End the server, and write the report."""
        self._trial.stop()
        if self._report and self._found:
            write(self._report, self._trial, self._found)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what was proven."""
        ran = sum(len(one.get("ran", one.get("late", ()))) for one in self._found)
        requests = sum(len(one.get("answers", ())) for one in self._found)
        terminalreporter.write_line(
            f"ascend bypass: {requests} requests to {len(self._found)} methods of routes; "
            f"handlers that ran undecided: {ran}" + (f"; {self._report}.json, .md" if self._report else "")
        )
