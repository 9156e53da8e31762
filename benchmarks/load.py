"""Processes: the applications on one core; the authority stub (nginx) and the load generator (wrk) on the other."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Self


class BenchmarkError(Exception):
    """A measurement could not be made, or would tell a lie."""


HERE = Path(__file__).resolve().parent
SDK = "ascend-ai-sdk==2.7.1"
_TICKS = os.sysconf("SC_CLK_TCK")
# Where applications that report outcomes tell how their guard is.
HEALTH_PATH = "/guard"

# Who tells it takes reports of uses, so that decisions may be used again.
POLICY_STATE = "7"
DECISION = {
    "id": 1042,
    "action_id": "1042",
    "status": "approved",
    "decision": "approved",
    "execution_allowed": True,
    "requires_approval": False,
    "risk_score": 12.5,
    "risk_level": "low",
    "reason": "Within the policy for reading customer data",
    "policy_violations": [],
    "conditions": [],
    "correlation_id": "asc_0123456789abcdef",
    "policy_state": POLICY_STATE,
    "metadata": {"policy": "default", "policy_version": 7, "evaluated_in_ms": 1.7, "matched_rules": ["read-customer"]},
}

# What is polled for: nobody is blocked, and nothing is ordered.
QUIET = {
    "/kill-switch/status": {"blocked": False, "active": False, "is_active": False, "policy_state": POLICY_STATE},
    "/commands": {"commands": []},
}

_NGINX = """\
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  ssl_certificate {folder}/authority.pem; ssl_certificate_key {folder}/authority.key;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    listen 127.0.0.1:{secure} ssl backlog=4096;
    default_type application/json;
    location = /requests {{ stub_status; }}
    location = /api/sdk/kill-switch/status {{ return 200 '{nobody_blocked}'; }}
    location ~ ^/api/registry/agents/[^/]+/commands$ {{ return 200 '{no_commands}'; }}
    location = /api/deployment-info {{ return 200 '{{"max_outcomes": 500, "policy_state": "{state}"}}'; }}
    location = /api/agent-action/outcomes {{ proxy_pass http://127.0.0.1:{batches}; client_body_buffer_size 256k; }}
    location / {{ return 200 '{decision}'; }}
  }}
}}
"""


def missing() -> list[str]:
    """Say what this machine lacks."""
    found = []
    if any(shutil.which(name, path=_sbin()) is None for name in ("wrk", "nginx", "openssl")):
        found.append("wrk, nginx and openssl: apt-get install wrk nginx-light openssl")
    if len(os.sched_getaffinity(0)) < 2:
        found.append("a second core: the application needs one for itself")
    found += [
        f"{name}: pip install -e . --group bench"
        for name in ("fastapi", "uvicorn", "uvloop", "httptools", "django", "flask", "gunicorn")
        if not _installed(name)
    ]
    return found


def _sbin() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def sdk_python(*, install: bool) -> str | None:
    """Return the interpreter of an environment with the SDK and this environment's versions of everything else.

    None where it would have to be installed first, and is not to be or cannot be.
    """
    folder = HERE / ".sdk"
    python = folder / "bin" / "python"
    same = ("fastapi", "starlette", "pydantic", "anyio", "uvicorn", "uvloop", "httptools")
    same += ("django", "flask", "werkzeug", "gunicorn")
    pins = [f"{name}=={importlib.metadata.version(name)}" for name in same]
    stamp = folder / "installed.txt"
    wanted = " ".join([SDK, *pins])
    if stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    if not install or folder in _failed:
        return None
    print(f"installing {SDK} into {folder.name} …", file=sys.stderr)
    venv.create(folder, with_pip=True, clear=True)
    try:
        subprocess.run([python, "-m", "pip", "install", "--quiet", SDK, *pins], check=True, timeout=180)
    except subprocess.SubprocessError as error:
        print(f"no rows for the SDK: {error}", file=sys.stderr)
        _failed.add(folder)
        return None
    stamp.write_text(wanted)
    return str(python)


# What could not be installed is not tried again.
_failed: set[Path] = set()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


class Server:
    """A process that listens on a port."""

    def __init__(self, command: list[str], port: int, *, environment: dict[str, str] | None = None) -> None:
        self.port = port
        self._command = command
        self.process = subprocess.Popen(command, cwd=HERE.parent, env=environment, stdout=subprocess.DEVNULL)

    def await_start(self) -> Self:
        """Wait until it takes connections."""
        limit = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > limit:
                    self.stop()
                    raise BenchmarkError(f"did not start: {' '.join(self._command)}") from None
                time.sleep(0.05)

    def memory(self) -> int:
        """Return the bytes of memory that are its own, and its workers' together."""
        pid = self.process.pid
        found = 0
        for one in (pid, *_children(pid)):
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
            found += sum(int(kib) for kib in re.findall(r"^Private_\w+: +(\d+) kB", text, re.MULTILINE)) * 1024
        return found

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def cpu(self) -> float:
        """Return the seconds of processor time used so far, by all threads, in user and system mode.

        The workers of a server that has some count, too.
        """
        ticks = 0
        for one in (self.process.pid, *_children(self.process.pid)):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICKS

    def worker(self) -> float:
        """Return the seconds of processor time that the background worker of its guard has used, if it has one."""
        try:
            return float(json.loads(_read(self.port, HEALTH_PATH))["journal"]["worker_seconds"])
        except (OSError, KeyError, TypeError):
            return 0.0

    def settle(self) -> None:
        """Wait until what a burst left behind (reports to deliver) is done, so that the next burst has the core."""
        limit, before = time.monotonic() + 15, self.cpu()
        while time.monotonic() < limit:
            time.sleep(0.2)
            now = self.cpu()
            if now - before < 0.02:
                return
            before = now


class Authority(Server):
    """nginx, which approves everything with the same bytes; what takes outcomes many at a time stands behind it."""

    def __init__(self, folder: Path) -> None:
        port, secure, batches = free_port(), free_port(), free_port()
        self._batches = Server([sys.executable, "-m", "benchmarks.batches", str(batches)], batches).await_start()
        self.certificate = folder / "authority.pem"
        _certify(self.certificate, folder / "authority.key")
        config = folder / "nginx.conf"
        decision = json.dumps(DECISION, separators=(",", ":"))
        places = {"folder": folder, "port": port, "secure": secure, "batches": batches, "state": POLICY_STATE}
        blocked, commands = map(json.dumps, QUIET.values())
        config.write_text(_NGINX.format(**places, decision=decision, nobody_blocked=blocked, no_commands=commands))
        nginx = shutil.which("nginx", path=_sbin()) or "nginx"
        super().__init__([nginx, "-p", str(folder), "-c", str(config)], port)
        self.await_start()
        self.url, self.secure_url = f"http://127.0.0.1:{port}", f"https://127.0.0.1:{secure}"

    def stop(self) -> None:
        """End both processes."""
        super().stop()
        self._batches.stop()

    def delivered(self) -> int:
        """Return how many outcomes it has taken."""
        return int(_read(self._batches.port, "/"))

    def answered(self) -> int:
        """Return how many requests it has answered, this question included."""
        return int(re.findall(r"\d+", _read(self.port, "/requests"))[3])


def _certify(certificate: Path, key: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True)


def _read(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as response:
        return str(response.read().decode())


@dataclass(frozen=True, slots=True)
class Sample:
    """One burst of load; processor time in seconds a request."""

    rate: float
    cpu: float
    asked: float
    delivered: float
    worker: float


def burst(
    server: Server, authority: Authority, *, connections: int, seconds: float, script: str, settles: bool = True
) -> Sample:
    """Load a server for a while; fail if any answer is not a success."""
    asked, told, cpu, worker = authority.answered(), authority.delivered(), server.cpu(), server.worker()
    began = time.perf_counter()
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
    command += ["-s", str(HERE / script), f"http://127.0.0.1:{server.port}/"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    elapsed = time.perf_counter() - began
    cpu, asked, told = server.cpu() - cpu, authority.answered() - asked - 1, authority.delivered() - told
    worker = server.worker() - worker
    if settles:
        server.settle()
    found = re.search(r"RESULT (\d+) (\d+) (\d+)", done.stdout)
    if found is not None and found[0] == "RESULT 0 0 0":  # a machine that is too busy to answer once in that time
        if seconds > 8:
            raise BenchmarkError(f"no answer in {seconds} s: {' '.join(command)}")
        given = {"connections": connections, "seconds": seconds * 2, "script": script, "settles": settles}
        return burst(server, authority, **given)
    if found is None or int(found[2]) or int(found[3]) or not int(found[1]):
        raise BenchmarkError(f"errors under load: {' '.join(command)}\n{done.stdout}{done.stderr}")
    handled = int(found[1])
    exact = re.search(r"DURATION (\d+)", done.stdout)
    elapsed = int(exact[1]) / 1e6 if exact is not None else elapsed
    return Sample(handled / elapsed, cpu / handled, asked / handled, told / handled, worker / handled)
