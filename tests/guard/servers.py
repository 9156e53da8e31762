"""Real servers in processes of their own, in front of the applications of served_app."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
from pathlib import Path

from kit.processes import free_port, wait_until

HERE = Path(__file__).parent


def post(port, path, *, timeout=20, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", path, body=b"", headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Served:
    """One server process, or one with workers."""

    def __init__(self, kind, environment, *, workers=1, log=None):
        self.port = free_port()
        self.log = log
        if kind.startswith("uvicorn"):
            command = ["-m", "uvicorn", "--factory", "served_app:asgi", "--port", str(self.port)]
            command += ["--log-level", "warning", *kind.split()[1:]]
            if workers > 1:
                command += ["--workers", str(workers)]
        else:
            worker = {
                "gthread": ["-k", "gthread", "--threads", "8"],
                "sync": ["-k", "sync"],
                "gevent": ["-k", "gevent"],
            }[kind.split()[0]]
            command = ["-m", "gunicorn", *worker, "-w", str(workers), "-b", f"127.0.0.1:{self.port}"]
            command += ["--log-level", "warning", "--graceful-timeout", "10", "served_app:wsgi()"]
            if "preload" in kind:
                command.insert(2, "--preload")
        errors = open(log, "ab") if log else None
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=HERE,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=errors or subprocess.DEVNULL,
            start_new_session=True,
        )
        if errors is not None:
            errors.close()
        wait_until(self._serves, "the server did not start", step=0.02)

    def _serves(self):
        try:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
                connection.request("GET", "/health")
                connection.getresponse().read()
            return True
        except OSError:
            assert self.process.poll() is None, f"the server ended: {Path(self.log).read_text() if self.log else ''}"
            return False

    def kill(self):
        """Kill the process group at once: this server and its workers."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def workers(self):
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
