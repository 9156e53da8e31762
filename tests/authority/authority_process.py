"""The authority as people run it: a process of the command line, asked over a socket."""

import json
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request

COMMAND = (sys.executable, "-m", "ascend_middleware.cli", "authority")


class Process:
    """A served authority. Its first start prints `keys`; `log` is a file that takes what it logs."""

    def __init__(self, policy, *arguments, log=None, trust=None, prefix=(), command=COMMAND):
        self.log = log
        self.context = None if trust is None else ssl.create_default_context(cafile=trust)
        self._stderr = None if log is None else open(log, "a")
        self.process = subprocess.Popen(
            [*prefix, *command, "--policy", str(policy), "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        self.keys, self.url = {}, None
        for line in self.process.stdout:
            words = line.split()
            if words[-1].startswith("http"):
                self.url = words[-1]
                break
            if words[-1].startswith("owkai_"):
                self.keys[words[0]] = words[1]
        if self.url is None:
            raise AssertionError(f"the authority did not start: exit code {self.end(signal.SIGKILL)}")

    def call(self, path, key, body=None, *, timeout=30, method=None):
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"X-API-Key": key} if key else {},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout, context=self.context) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def text(self, path, headers=()):
        """Return the body of an answer of 200."""
        request = urllib.request.Request(self.url + path, headers=dict(headers))
        with urllib.request.urlopen(request, timeout=30, context=self.context) as answer:
            return answer.read().decode()

    def end(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.stdout.close()
        code = self.process.wait(30)
        if self._stderr is not None:
            self._stderr.close()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end(signal.SIGKILL)
