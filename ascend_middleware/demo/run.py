"""Run the demonstration and print its transcript; the exit status says whether every answer was the expected one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..authority import Role, Store

if TYPE_CHECKING:
    import argparse

__all__ = ["run"]

HERE = Path(__file__).parent
START_SECONDS = 20.0


def run(args: argparse.Namespace) -> int:
    """Run the demonstration, and return its exit code."""
    folder = Path(tempfile.mkdtemp(prefix="ascend-demo-"))
    stage = _Stage(folder)
    # Told to end in whatever way, it leaves no server behind.
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        stage.start_authority()
        stage.start_application()
        if args.serve:
            return _serve(stage)
        return _play(stage)
    except _StartFailed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        stage.stop()
        shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


class _StartFailed(Exception):  # noqa: N818 - what happened
    pass


@dataclass
class _Answer:
    status: int
    body: dict[str, Any]


class _Stage:
    """The two servers of the demonstration."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.policy = folder / "policy.toml"
        shutil.copyfile(HERE / "policy.toml", self.policy)
        self.database = folder / "authority.db"
        self.authority_port, self.application_port = _free_port(), _free_port()
        with contextlib.closing(Store.open(self.database, now=time.time)) as store:
            self.key = store.issue_key(name="billing-api", role=Role.USER, tenant="default")
            self.admin_key = store.issue_key(name="a person", role=Role.ADMIN, tenant="default")

    @property
    def authority(self) -> str:
        return f"http://127.0.0.1:{self.authority_port}"

    @property
    def application(self) -> str:
        return f"http://127.0.0.1:{self.application_port}"

    def start_authority(self) -> None:
        command = ["-m", "ascend_middleware.cli", "authority", "--policy", str(self.policy)]
        command += ["--db", str(self.database), "--port", str(self.authority_port)]
        self._start("authority", command, f"{self.authority}/health", {})

    def start_application(self) -> None:
        command = ["-m", "uvicorn", "ascend_middleware.demo.app:app", "--port", str(self.application_port)]
        environment = {
            "ASCEND_API_URL": self.authority,
            "ASCEND_API_KEY": self.key,
            "ASCEND_STATE": str(self._folder / "state.db"),
            "ASCEND_JOURNAL": str(self._folder / "journal"),
        }
        self._start("application", command, f"{self.application}/health", environment)

    def stop_authority(self) -> None:
        self._stop("authority")

    def stop(self) -> None:
        for name in list(self._processes):
            self._stop(name)

    def _start(self, name: str, command: list[str], url: str, environment: dict[str, str]) -> None:
        log = (self._folder / f"{name}.log").open("ab")
        with log:
            self._processes[name] = process = subprocess.Popen(
                [sys.executable, *command], stdout=log, stderr=log, env={**os.environ, **environment}
            )
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and process.poll() is None:
            try:
                if request("GET", url).status == 200:
                    return
            except OSError:
                time.sleep(0.05)
        tail = (self._folder / f"{name}.log").read_text(errors="replace")[-2000:]
        raise _StartFailed(f"the {name} did not start; it said:\n{tail}")

    def _stop(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def request(method: str, url: str, body: object = None, *, key: str = "") -> _Answer:
    """Send one request and return the answer, whatever its status."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if key:
        headers["X-API-Key"] = key
    content = json.dumps(body).encode() if body is not None else None
    sent = urllib.request.Request(url, data=content, headers=headers, method=method)
    try:
        with _opener.open(sent, timeout=40) as answer:
            return _Answer(answer.status, json.loads(answer.read() or b"{}"))
    except urllib.error.HTTPError as error:
        with error:
            return _Answer(error.code, json.loads(error.read() or b"{}"))


class _Transcript:
    def __init__(self) -> None:
        self.failed = False

    def say(self, text: str) -> None:
        print(text, flush=True)

    def show(self, number: int, title: str, line: str, answer: _Answer, expected: int, look: str) -> None:
        right = answer.status == expected
        self.failed |= not right
        self.say(f"\n{number}. {title}\n   {line}")
        self.say(f"   → {answer.status} {json.dumps(answer.body)[:300]}")
        self.say(f"   {'as expected: ' + look if right else f'NOT as expected: {expected} was'}")


def _play(stage: _Stage) -> int:
    script = _Transcript()
    site = stage.application
    script.say(f"authority   {stage.authority}  (policy: {HERE / 'policy.toml'})")
    script.say(f"application {site}  (rules: {HERE / 'ascend.toml'})")

    answer = request("GET", f"{site}/customers/7")
    script.show(1, "An allowed read", "GET /customers/7", answer, 200, "the policy approves data_access")
    answer = request("DELETE", f"{site}/customers/7")
    script.show(2, "A denied delete", "DELETE /customers/7", answer, 403, "the reason is the policy's")
    answer = request("POST", f"{site}/customers/7/refunds", {"amount": 50, "currency": "EUR"})
    script.show(3, "A small refund", 'POST /customers/7/refunds {"amount": 50}', answer, 200, "below the limit")

    answer, held = _held_refund(stage)
    look = f"the request waited {held:.1f} s, until a person approved it at the authority"
    script.show(4, "A large refund, held and released", 'POST /customers/7/refunds {"amount": 5000}', answer, 200, look)

    answer = request("GET", f"{site}/openapi.json")
    script.show(5, "A route without a rule", "GET /openapi.json", answer, 403, "unmapped routes are refused")

    stage.stop_authority()
    answer = request("GET", f"{site}/customers/7")
    script.show(
        6, "The authority is stopped", "GET /customers/7", answer, 503, "no decision, so no handler: fail closed"
    )
    stage.start_authority()
    answer = request("GET", f"{site}/customers/7")
    script.show(7, "The authority is back", "GET /customers/7", answer, 200, "it works again")

    script.say("\nSomething was NOT as expected." if script.failed else "\nEverything was as expected.")
    return 1 if script.failed else 0


def _held_refund(stage: _Stage) -> tuple[_Answer, float]:
    answers: list[_Answer] = []
    body = {"amount": 5000, "currency": "EUR"}
    url = f"{stage.application}/customers/7/refunds"
    started = time.monotonic()
    waiting = threading.Thread(target=lambda: answers.append(request("POST", url, body)))
    waiting.start()
    until = started + 15
    while time.monotonic() < until:
        page = request("GET", f"{stage.authority}/api/governance/pending-actions", key=stage.admin_key)
        if rows := page.body.get("actions"):
            time.sleep(0.5)  # a person looks before deciding
            path = f"/api/governance/workflows/{rows[0]['action_id']}/approve"
            request("POST", f"{stage.authority}{path}", {"comments": "checked"}, key=stage.admin_key)
            break
        time.sleep(0.05)
    waiting.join()
    return answers[0] if answers else _Answer(0, {}), time.monotonic() - started


def _serve(stage: _Stage) -> int:
    site, authority = stage.application, stage.authority
    print(
        f"""Both are running; Ctrl-C stops them.

allowed:    curl -i {site}/customers/7
denied:     curl -i -X DELETE {site}/customers/7
held:       curl -i -H 'Content-Type: application/json' -d '{{"amount": 5000, "currency": "EUR"}}' \\
                 {site}/customers/7/refunds
who waits:  ascend-middleware pending --db {stage.database}
release:    ascend-middleware approve <id> --db {stage.database}
the page:   {authority}/ (sign in with the key {stage.admin_key})
the API:    curl -H 'X-API-Key: {stage.admin_key}' \\
                 {authority}/api/v1/actions""",
        flush=True,
    )
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return 0
