"""uWSGI forks without telling Python, unless an option says so: whose process something is, the system is asked."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from wire import Server, exchange, read_answer, wait_until_open

pytestmark = [
    pytest.mark.slow,
    pytest.mark.socket,
    pytest.mark.skipif(sys.platform == "win32", reason="uWSGI does not run there"),
]

WORKERS, REQUESTS = 3, 120


class Authority:
    """Approves even amounts; tells what it was asked for, so that an answer of somebody else's shows."""

    def __init__(self):
        self.actions, self.keys, self.outcomes = [], [], Counter()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)))
                outer.keys.append(self.headers["idempotency-key"])
                answer = {}
                if self.path.endswith("/submit"):
                    details = body.get("action_details") or body["parameters"]
                    word = "denied" if int(details["amount"]) % 2 else "approved"
                    outer.actions.append(body["action_type"])
                    number = str(len(outer.actions))
                    time.sleep(0.01)
                    answer = {"action_id": number, "status": word, "decision": word, "parameters": details}
                elif self.path.endswith(("/complete", "/fail")):
                    outer.outcomes[self.path.split("/")[-2]] += 1
                content = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(content)

            def log_message(self, *args): ...

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def authority():
    authority = Authority()
    yield authority
    authority.close()


@contextlib.contextmanager
def uwsgi(authority, folder, *options):
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    command = [str(Path(sys.executable).with_name("pyuwsgi")), "--http-socket", f"fd://{listener.fileno()}", "--master"]
    command += ["--processes", str(WORKERS), "--threads", "4", "--enable-threads", "--die-on-term", "--need-app"]
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
        "SERVED_FOLDER": str(folder),
        "SERVED_AUTHORITY": authority.url,
        "ASCEND_STATE": str(folder / "state.db"),
        "ASCEND_JOURNAL": str(folder / "journal"),
        "ASCEND_KILL_SWITCH": "off",
    }
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--module", "served_uwsgi", *options],
            env=environ,
            stdout=output,
            stderr=output,
            pass_fds=[listener.fileno()],
        )
    port = listener.getsockname()[1]
    listener.close()
    try:
        wait_until_open(port)
        yield port
    except AssertionError as error:
        raise AssertionError(f"{error}\n{log.read_text()[-3000:]}") from None
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def get(port, path):
    return read_answer(
        exchange(port, b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path.encode(), timeout=20)
    )


OPTIONS = [[], ["--py-call-osafterfork"], ["--py-call-uwsgi-fork-hooks"]]
if sys.version_info >= (3, 13):
    # There uWSGI aborts each worker, of an empty application too: it releases an import lock that nobody took before the fork.
    OPTIONS.remove(["--py-call-osafterfork"])


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_workers_share_nothing_of_what_the_master_made(authority, tmp_path, options):
    with uwsgi(authority, tmp_path, *options) as port:
        pids, until = set(), time.monotonic() + 30
        while len(pids) < WORKERS:
            assert time.monotonic() < until, pids
            with ThreadPoolExecutor(12) as threads:
                pids |= {body for _, _, body in threads.map(lambda _: get(port, "/pid"), range(24))}
        with ThreadPoolExecutor(12) as threads:
            answers = list(threads.map(lambda amount: get(port, f"/pay/{amount}"), range(REQUESTS)))
        even = [str(amount) for amount in range(0, REQUESTS, 2)]
        assert [status for status, _, _ in answers] == [200, 403] * (REQUESTS // 2)
        assert [body.decode() for _, _, body in answers[::2]] == [f"{amount} {amount} approved" for amount in even]
        assert sorted((tmp_path / "ran").read_text().split(), key=int) == ["0", *even]
        # One key for each logical call: the same one from two workers would be one action, approved once, run twice.
        assert [key for key, times in Counter(authority.keys).items() if times > 1] == []
        assert Counter(authority.actions) == {"pay": REQUESTS + 1, "ask": REQUESTS // 2 + 1}
        passed, until = len(even), time.monotonic() + 30
        while len(authority.outcomes) < passed:
            assert time.monotonic() < until, authority.outcomes
            time.sleep(0.1)
    assert set(authority.outcomes.values()) == {1}
    assert len(authority.outcomes) in (passed, passed + 1)  # the master's own is left to who comes next
