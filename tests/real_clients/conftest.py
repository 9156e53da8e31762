"""An authority on a socket, and environments that hold somebody else's client."""

import json
import os
import shutil
import subprocess
import sys

import pytest

POLICY = """
[limits]
admin = 0

[[policy]]
name = "large transactions need a person"
action_types = ["transaction"]
when = "has(action.action_details.amount) && action.action_details.amount > 1000"
decision = "pending"
risk_score = 75

[[policy]]
name = "nobody drops a schema"
action_types = ["database_schema", "db.drop"]
decision = "denied"
reason = "schemas change by migration only"

[[mcp_server]]
name = "filesystem"
blocked_tools = ["delete_file"]

[[model]]
id = 7
name = "assistant"

[[model]]
id = 8
name = "rogue"
compliance_status = "denied"

[[resource_classification]]
resource_type = "database"
sensitivity_level = "high"
compliance_tags = ["GDPR"]
"""


class Served:
    """A served authority: its URL, and keys of a user, an admin, and an admin of another organisation."""

    def __init__(self, folder):
        (folder / "policy.toml").write_text(POLICY)
        self.folder = folder
        self.user = self.key("user")
        self.admin = self.key("admin")
        self.stranger = self.key("admin", tenant="other")
        command = [sys.executable, "-m", "ascend_middleware.cli", "authority", "--port", "0"]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
        for line in self.process.stdout:
            if "listening on" in line:
                self.url = line.split()[-1]
                return
        raise RuntimeError("the authority did not start: " + (folder / "log").read_text())

    def key(self, role, tenant="default"):
        command = [sys.executable, "-m", "ascend_middleware.cli", "keys", "issue", "--role", role, "--json"]
        done = subprocess.run(
            [*command, "--name", f"{role} of {tenant}", "--tenant", tenant],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)["key"]

    def environment(self, **more):
        """Return the environment of a client's process: nothing of ours leads it astray."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "SYSTEMROOT") if name in os.environ}
        keys = {"USER_KEY": self.user, "ADMIN_KEY": self.admin, "STRANGER_KEY": self.stranger}
        return {**kept, "AUTHORITY_URL": self.url, **keys, "PYTHONDONTWRITEBYTECODE": "1", **more}

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    served = Served(tmp_path_factory.mktemp("authority"))
    yield served
    served.close()


@pytest.fixture(scope="session")
def python_with(tmp_path_factory):
    """Return a function from a requirement to the Python of a fresh environment that holds it."""
    made = {}

    def make(requirement):
        if requirement not in made:
            place = tmp_path_factory.mktemp("client")
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True, timeout=120)
            python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
            pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
            subprocess.run(
                [*pip, "install", "-q", "--no-warn-script-location", requirement],
                check=True,
                timeout=300,
                capture_output=True,
            )
            made[requirement] = python
        return made[requirement]

    yield make
    for python in made.values():
        shutil.rmtree(python.parent.parent, ignore_errors=True)


@pytest.fixture
def run_client(served):
    """Return a function that runs a client's program and returns what it printed, one JSON object."""

    def run(*command, **environment):
        done = subprocess.run(
            [str(part) for part in command],
            env=served.environment(**environment),
            cwd=served.folder,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run
