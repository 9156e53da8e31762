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
from argparse import Namespace
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..authority import Role, Store
from ..exceptions import AscendError
from ..inspection import Result

__all__ = ["run"]

HERE = Path(__file__).parent
START_SECONDS = 20.0


def run(args: Namespace) -> Result:
    """Run the demonstration, which prints its own transcript."""
    folder = Path(tempfile.mkdtemp(prefix="ascend-demo-"))
    stage = _Stage(folder)
    # Told to end in whatever way, it leaves no server behind.
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        stage.start_authority()
        stage.start_application()
        return Result(code=_serve(stage) if args.serve else _Play(stage).run())
    finally:
        stage.stop()
        shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


class _Answer(NamedTuple):
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
        self.authority, self.application = (f"http://127.0.0.1:{_free_port()}" for _ in range(2))
        with contextlib.closing(Store.open(self.database, now=time.time)) as store:
            self.key = store.issue_key(name="billing-api", role=Role.USER, tenant="default")
            self.admin_key = store.issue_key(name="a person", role=Role.ADMIN, tenant="default")

    def start_authority(self) -> None:
        command = ["ascend_middleware.cli", "authority", "--policy", str(self.policy), "--db", str(self.database)]
        self._start("authority", command, self.authority, {})

    def start_application(self) -> None:
        command = ["uvicorn", "ascend_middleware.demo.app:app"]
        environment = {
            "ASCEND_API_URL": self.authority,
            "ASCEND_API_KEY": self.key,
            "ASCEND_STATE": str(self._folder / "state.db"),
            "ASCEND_JOURNAL": str(self._folder / "journal"),
        }
        self._start("application", command, self.application, environment)

    def _start(self, name: str, command: list[str], url: str, environment: dict[str, str]) -> None:
        path, port = self._folder / f"{name}.log", url.rpartition(":")[2]
        with path.open("ab") as log:
            self._processes[name] = process = subprocess.Popen(
                [sys.executable, "-m", *command, "--port", port],
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and process.poll() is None:
            try:
                if request("GET", f"{url}/health").status == 200:
                    return
            except OSError:
                time.sleep(0.05)
        tail = path.read_text(errors="replace")[-2000:]
        raise AscendError(f"the {name} did not start; it said:\n{tail}")

    def stop(self, *names: str) -> None:
        for name in names or tuple(self._processes):
            process = self._processes.pop(name)
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


_REFUND: Final = 'POST /customers/7/refunds {"amount": 5000}'


class _Play:
    """The steps of the demonstration, told while they happen."""

    def __init__(self, stage: _Stage) -> None:
        self._stage, self._number, self._failed = stage, 0, False

    def run(self) -> int:
        stage = self._stage
        _say(f"authority   {stage.authority}  (policy: {HERE / 'policy.toml'})")
        _say(f"application {stage.application}  (rules: {HERE / 'ascend.toml'})")
        self._step("An allowed read", "GET /customers/7", 200, "the policy approves data_access")
        self._step("A denied delete", "DELETE /customers/7", 403, "the reason is the policy's")
        self._step("A small refund", _REFUND.replace("5000", "50"), 200, "below the limit")
        person = threading.Thread(target=self._approve)
        person.start()
        look = "the request waited {:.1f} s, until a person approved it at the authority"
        self._step("A large refund, held and released", _REFUND, 200, look)
        person.join()
        self._step("A route without a rule", "GET /openapi.json", 403, "unmapped routes are refused")
        stage.stop("authority")
        look = "no decision, so no handler: fail closed"
        self._step("The authority is stopped", "GET /customers/7", 503, look)
        stage.start_authority()
        self._step("The authority is back", "GET /customers/7", 200, "it works again")
        _say("\nSomething was NOT as expected." if self._failed else "\nEverything was as expected.")
        return 1 if self._failed else 0

    def _step(self, title: str, line: str, expected: int, look: str) -> None:
        """Send a request as the line says, and tell whether the answer is the expected one."""
        method, path, content = f"{line} ".split(" ", 2)
        body = {**json.loads(content), "currency": "EUR"} if content else None
        started = time.monotonic()
        answer = request(method, f"{self._stage.application}{path}", body)
        look = look.format(time.monotonic() - started)
        self._number += 1
        self._failed |= answer.status != expected
        _say(f"\n{self._number}. {title}\n   {line}")
        _say(f"   → {answer.status} {json.dumps(answer.body)[:300]}")
        _say(f"   {'as expected: ' + look if answer.status == expected else f'NOT as expected: {expected} was'}")

    def _approve(self) -> None:
        """Approve what waits, as a person would."""
        authority, key = self._stage.authority, self._stage.admin_key
        until = time.monotonic() + 15
        while time.monotonic() < until:
            page = request("GET", f"{authority}/api/governance/pending-actions", key=key)
            if rows := page.body.get("actions"):
                time.sleep(0.5)  # a person looks before deciding
                path = f"/api/governance/workflows/{rows[0]['action_id']}/approve"
                request("POST", f"{authority}{path}", {"comments": "checked"}, key=key)
                return
            time.sleep(0.05)


def _say(text: str) -> None:
    print(text, flush=True)


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
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
    return 0
