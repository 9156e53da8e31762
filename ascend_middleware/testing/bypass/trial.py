"""The server of the bypass pack, what is sent to it, and what became of that."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ...exceptions import ConfigurationError
from . import target
from .attacks import PLAIN, corpus, wire_form

__all__ = ["Trial"]

_SERVED: Final = "ascend_middleware.testing.bypass.served:app"
_DEFAULT: Final = f"{shlex.quote(sys.executable)} -m ascend_middleware.testing.bypass.target {{port}}"
# Seconds: for the server to begin, for an answer, and for one that an odd request may never get.
_START: Final = 60.0
_ANSWER: Final = 10.0
_SILENCE: Final = 1.0
# What no other program answers with.
_OURS: Final = re.compile(rb"(?im)urn:ascend:problem:|^ascend-decision:")


@dataclass(slots=True)
class Trial:
    """One run of the pack.

    Args:
        app: the application, `module:name`.
        directory: where the module is looked for.
        server: the command that serves it, with `{app}` and `{port}`; a usual server when empty.
        headers: `name: value`, sent with every request.
        paths: of routes whose paths cannot be guessed.
        handlers: functions that may never run, `module:name`.

    Attributes:
        framework: as the application's resolver calls it.
        routes: the methods of the routes, as `target` lists them.
    """

    app: str
    directory: str = "."
    server: str = ""
    headers: Sequence[str] = ()
    paths: Sequence[str] = ()
    handlers: Sequence[str] = ()
    framework: str = ""
    routes: list[dict[str, Any]] = field(default_factory=list)
    _process: subprocess.Popen[bytes] | None = None
    _folder: str = ""
    _port: int = 0
    _read: int = 0

    def start(self) -> None:
        """Start the server.

        Raises:
            ConfigurationError: it does not start, with what it printed; or the application is not governed.
        """
        self._folder = tempfile.mkdtemp(prefix="ascend-bypass-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        words = [one.format(port=self._port, app=_SERVED) for one in shlex.split(self.server or _DEFAULT)]
        places = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", "")))
        told = {
            target.APP: self.app,
            target.DIRECTORY: self.directory,
            target.NOTES: str(self._notes),
            target.PATHS: json.dumps(list(self.paths)),
            target.HANDLERS: json.dumps(list(self.handlers)),
        }
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603 - the user's own command
                    [shutil.which(words[0], path=places) or words[0], *words[1:]],
                    env={**os.environ, "PATH": places, **told},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise ConfigurationError(f"the server cannot be started: {error}") from None
        self._await()

    def _await(self) -> None:
        until = time.monotonic() + _START
        while True:
            for line in self._new_notes():
                if "failed" in line:
                    raise ConfigurationError(line["failed"])
                if "routes" in line and not self.routes:
                    self.framework, self.routes = line["framework"], line["routes"]
            if self.routes and b"HTTP/1." in self._exchange(b"GET /-/ HTTP/1.0\r\nHost: localhost\r\n\r\n", _SILENCE):
                self._new_notes()
                return
            assert self._process is not None  # noqa: S101 - for type checkers
            if self._process.poll() is not None or time.monotonic() > until:
                log = self._log.read_text(errors="replace")[-2000:]
                raise ConfigurationError(f"the server does not serve the application:\n{log}")
            time.sleep(0.05)

    @property
    def _notes(self) -> Path:
        return Path(self._folder, "notes")

    @property
    def _log(self) -> Path:
        return Path(self._folder, "log")

    def stop(self) -> None:
        """End the server, and delete what it left."""
        if self._process is not None:
            for sign in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, sign)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(5)
        shutil.rmtree(self._folder, ignore_errors=True)

    def attack(self, route: dict[str, Any]) -> dict[str, Any]:
        """Send the whole corpus to one route; return the answers, what ran, and whether the guard was met."""
        answers: dict[str, str] = {}
        ran: list[dict[str, str]] = []
        exempt = next((one["path"] for one in self.routes if one["exempt"] and one["path"]), "/")
        met = False
        for attack in corpus() if route["path"] else ():
            sent = wire_form(
                attack,
                method=route["method"],
                path=route["path"],
                exempt=exempt,
                host=route["host"],
                headers=tuple(self.headers),
            )
            odd = attack.raw or route["websocket"] or attack.websocket
            answer = self._exchange(sent, _SILENCE if odd else _ANSWER, cut=attack.cut, several=bool(attack.raw))
            answers[attack.name] = status_of(answer)
            notes = self._new_notes()
            told = {"attack": attack.name, "about": attack.about, "answer": answers[attack.name]}
            for handler in dict.fromkeys(one["ran"] for one in notes if "ran" in one):
                ran.append({**told, "handler": handler, "request": sent.decode("latin-1")})
            if attack.name == PLAIN:
                met = bool(_OURS.search(answer)) or any("asked" in one for one in notes)
        return {**route, "met": met, "answers": answers, "ran": ran}

    def afterwards(self) -> list[str]:
        """Return the handlers that ran since the last answer."""
        time.sleep(0.2)
        return [one["ran"] for one in self._new_notes() if "ran" in one]

    def _new_notes(self) -> list[dict[str, Any]]:
        try:
            with self._notes.open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except FileNotFoundError:
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def _exchange(self, sent: bytes, seconds: float, *, cut: bool = False, several: bool = False) -> bytes:
        """Send bytes; return what comes until the server closes, one answer is whole, or time is over."""
        found = b""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), seconds) as connection:
            connection.sendall(sent)
            if cut:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65_536):
                found += part
                if not several and _is_whole(found):
                    break
        return found


def _is_whole(answer: bytes) -> bool:
    """Whether an answer has come whose end can be told: of a handshake, or with a length."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    return bool(end) and (head.startswith(b"HTTP/1.1 101") or (length is not None and len(body) >= int(length[1])))


def status_of(answer: bytes) -> str:
    """Return the status of an answer; of several on one connection, all."""
    return " ".join(found.decode() for found in re.findall(rb"HTTP/1\.[01] (\d{3})", answer)) or "none"
