"""The documents' snippets as they stand, and an authority on a real socket for them to ask.

`programs` and `commands` hold the text of the documents with its indentation restored. What may change when one runs is
done here and nowhere else: the name of the imported module, the placeholder of the key or token, and the base URL.
"""

import contextlib
import gc
import io
import json
import logging
import os
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import uvicorn

from ascend_middleware.authority import Authority, Role, Store, parse_policy
from ascend_middleware.authority.server import create_app
from ascend_middleware.authority.service import Service
from ascend_middleware.client.drivers import Blocking

HERE = Path(__file__).parent
BASE_URL = "https://pilot.owkai.app"
_MODULES = r"^(\s*(?:from|import)\s+)(?:ascend|python_sdk_example|owkai_client)\b"
_KEY = r"owkai_(?:admin_a1b2c3d4\.\.\.|live_your_api_key_here|your_api_key_here|live_your_key_here|your_key_here|live_x+|xxx|\.\.\.)"
_TOKEN = r"(?<=Bearer )(?:eyJhbGciOiJSUzI1NiIs)?\.\.\."

POLICY = """
[limits]
admin = 0
submit = {submit_limit}

[[policy]]
name = "the only one"
decision = "{verdict}"
risk_score = {risk}
reason = "as the test wants it"

[[mcp_server]]
name = "salesforce-mcp"

[[mcp_server]]
name = "filesystem-server"

[[model]]
id = 42
name = "gpt-4-production"

[[model]]
id = 43
name = "unapproved"
compliance_status = "denied"
"""
RISK = {"approved": 20, "denied": 95, "pending": 75}


class _Server(uvicorn.Server):
    """Runs in a thread, where it must leave the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield


class Town:
    """An authority that answers every action with one verdict, a key of each role, and one of another organisation."""

    def __init__(self, verdict, path, submit_limit=0):
        self.verdict = verdict
        self.store = Store.open(path, now=time.time)
        policy = parse_policy(POLICY.format(verdict=verdict, risk=RISK[verdict], submit_limit=submit_limit))
        self.authority = Authority(self.store, policy)
        self.user = self.store.issue_key(name="u", role=Role.USER, tenant="default")
        self.admin = self.store.issue_key(name="boss", role=Role.ADMIN, tenant="default")
        self.stranger = self.store.issue_key(name="s", role=Role.ADMIN, tenant="other")
        self.key = self.user
        service = Service(self.authority)
        app = create_app(self.authority, service=service)
        config = uvicorn.Config(app, port=0, log_config=None, access_log=False, ws="none", server_header=False)
        self.server = _Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        give_up = time.monotonic() + 30
        while not self.server.started:
            assert self.thread.is_alive() and time.monotonic() < give_up
            time.sleep(0.005)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self):
        self.server.should_exit = True
        self.thread.join(30)
        self.authority.close()

    def call(self, method, path, body=None, *, key=None, headers=None):
        """Ask without any client; returns status and body."""
        given = {"X-API-Key": key or self.admin, **(headers or {})}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=given, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def audit(self):
        """Return every audit entry as (event, data)."""
        rows = self.store.rows("SELECT entry FROM audit ORDER BY seq")
        return [(entry["event"], entry["data"]) for entry in (json.loads(row["entry"]) for row in rows)]

    def token(self, key=None):
        """Return a JWT that stands for a key."""
        credential = self.store.find_key(key or self.admin)
        return self.authority.tokens.issue(credential, now=time.time())

    @contextlib.contextmanager
    def deciding(self, how):
        """Have a person decide every held action as soon as it is there."""
        done = threading.Event()

        def watch():
            while not done.is_set():
                for row in self.call("GET", "/api/governance/pending-actions")[1]["actions"]:
                    if how == "approve":
                        self.call("POST", f"/api/governance/workflows/{row['action_id']}/approve", {})
                    else:
                        self.call("POST", f"/api/v1/actions/{row['action_id']}/reject", {"comments": "no"})
                done.wait(0.01)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(30)


def adapt(text, *, url, key, token="."):
    """Change the three things that may change."""
    text = re.sub(_MODULES, r"\1ascend_middleware", text, flags=re.MULTILINE)
    text = re.sub(r"^import ascend_middleware$", "import ascend_middleware as ascend", text, flags=re.MULTILINE)
    text = re.sub(_KEY, key, text)
    text = re.sub(_TOKEN, token, text)
    return text.replace(BASE_URL, url)


class Ran:
    """What a program left behind: its names, what it printed, and what it raised, if that."""

    def __init__(self, names, printed, raised):
        self.names, self.printed, self.raised = names, printed, raised

    def __getattr__(self, name):
        return self.names[name]

    def to_the_end(self):
        if self.raised is not None:
            raise self.raised
        return self


def run(name, town, *, key=None, raises=False, environ=None, **names):
    """Run a program as a main module, with the names that its document leaves open, and close its clients."""
    url = town if isinstance(town, str) else town.url
    paths = (HERE / "programs").glob(f"{name}_*.py")
    return _run(paths, url, key or town.key, names, raises=raises, environ=environ)


def run_page(page, url, *, key, names, until=None, but=()):
    """Run a page's programs from top to bottom in one main module, to one of them if that is told."""
    paths = sorted((HERE / "programs").glob(f"{page}-*.py"), key=lambda path: int(_name_of(path).partition("-")[2]))
    chosen = [path for path in paths if _name_of(path) not in but]
    if until is not None:
        chosen = chosen[: [_name_of(path) for path in chosen].index(until) + 1]
    return _run(chosen, url, key, names)


def _name_of(path):
    return path.name.partition("_")[0]


def _run(paths, url, key, names, *, raises=False, environ=None):
    codes = [compile(adapt(path.read_text("utf-8"), url=url, key=key), path.name, "exec") for path in paths]
    assert codes
    names = {"__name__": "__main__", **names}
    before = unclosed()
    printed, raised = io.StringIO(), None
    variables = {"ASCEND_API_KEY": key, "ASCEND_API_URL": url, "OWKAI_API_KEY": key, "OWKAI_API_URL": url}
    with environment({**variables, **(environ or {})}), contextlib.redirect_stdout(printed), quiet():
        try:
            for code in codes:
                exec(code, names)
        except BaseException as error:
            raised = error
            if not raises:
                raise
        finally:
            # The documents' programs leave that to the end of the process.
            for client in unclosed() - before:
                client.close()
    return Ran(names, printed.getvalue(), raised)


def unclosed():
    """Return the clients of this process that are open."""
    # By type: to ask a lazy object of somebody else's for its class would make it.
    found = (each for each in gc.get_objects() if issubclass(type(each), Blocking))
    return {each for each in found if "core" in vars(each) and not each.closed}


@contextlib.contextmanager
def quiet():
    """Leave logging as it was: some programs configure it."""
    root, own = logging.getLogger(), logging.getLogger("ascend_middleware")
    before = root.level, list(root.handlers), own.level
    try:
        yield
    finally:
        root.setLevel(before[0])
        own.setLevel(before[2])
        for handler in list(root.handlers):
            if handler not in before[1]:
                root.removeHandler(handler)


@contextlib.contextmanager
def environment(variables):
    before = {name: os.environ.get(name) for name in variables}
    try:
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def curl(name, town, *, key=None, home=None, append="", token=None):
    """Run the commands of a document with the real curl; returns (status, body) of each.

    `home` is a folder whose .curlrc stands for what a reader has in theirs: the documents' shorter commands leave the
    credentials out.
    """
    (path,) = (HERE / "commands").glob(f"{name}_*.sh")
    text = adapt(path.read_text(), url=town.url, key=key or town.key, token=token or town.token())
    if append:
        text = re.sub(r'(?m)(^curl [^\\\n]*")$', rf"\1 {append}", text)
    script = 'curl() { command curl --silent --max-time 30 --write-out "\\n%{http_code}\\n" "$@"; }\n' + text
    environ = {"PATH": os.environ["PATH"], **({"CURL_HOME": str(home)} if home else {})}
    done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, env=environ, check=True, timeout=60)
    lines = done.stdout.splitlines()
    return [(int(status), json.loads(body)) for body, status in zip(lines[::2], lines[1::2], strict=True)]
