"""Two replicas of the authority on one PostgreSQL behind nginx: the demo's story, while one replica is killed.

`python examples/fleet/fleet.py` starts the services of compose.yaml on this machine, without containers: their commands
and environments, the balancer's configuration, the database's health check. Names of services become ports of this
machine, and paths in containers the files that are mounted there. All is in a folder that is gone afterwards. The exit
code says whether every answer was the expected one.
"""

import contextlib
import json
import os
import pathlib
import pwd
import re
import secrets
import shlex
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

import yaml

HERE = pathlib.Path(__file__).parent
SERVICES = yaml.safe_load((HERE / "compose.yaml").read_text())["services"]
REPLICAS = [name for name, service in SERVICES.items() if "ASCEND_AUTHORITY_DB" in service.get("environment", {})]
SECONDS = 30
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(method, url, body=None, key=""):
    """Return status and body of an answer."""
    headers = {"Content-Type": "application/json", **({"X-API-Key": key} if key else {})}
    content = None if body is None else json.dumps(body).encode()
    try:
        with opener.open(urllib.request.Request(url, content, headers, method=method), timeout=70) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        with error:
            text = error.read()
            return error.code, json.loads(text) if text.startswith(b"{") else {"text": text.decode(errors="replace")}


def wait_until(condition, what):
    until = time.monotonic() + SECONDS
    while True:
        with contextlib.suppress(OSError):
            if condition():
                return
        if time.monotonic() > until:
            sys.exit(f"{what} did not come to be within {SECONDS} s")
        time.sleep(0.05)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Fleet:
    def __init__(self, folder):
        self.folder = folder
        self.processes = {}
        self.ports = {name: free_port() for name in (*SERVICES, "application")}
        self.secrets = {"ASCEND_DB_PASSWORD": secrets.token_hex()}

    def url(self, name):
        return f"http://127.0.0.1:{self.ports[name]}"

    def start(self, name, *command, **options):
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            self.processes[name] = subprocess.Popen([*map(str, command)], stdout=log, stderr=log, **options)

    # --- what compose.yaml says, as it is on this machine

    def environment(self, service, **more):
        given = SERVICES[service].get("environment", {})
        return {**os.environ, **{name: self.here(text) for name, text in given.items()}, **more}

    def here(self, text):
        """Return a value with its secrets in it, and with ports of this machine in the place of services."""
        text = re.sub(r"\$\{(\w+)[^}]*\}", lambda found: self.secrets[found[1]], text)
        text = re.sub(rf"@({'|'.join(SERVICES)})/", lambda found: f"@127.0.0.1:{self.ports[found[1]]}/", text)
        return re.sub(rf"\b({'|'.join(SERVICES)}):(\d+)\b", lambda found: f"127.0.0.1:{self.ports[found[1]]}", text)

    def command(self, service):
        """Return what runs in a container; nobody else can reach it here."""
        mounted = dict(reversed(volume.split(":")[:2]) for volume in SERVICES[service].get("volumes", ()))
        words = [str(HERE / mounted[word]) if word in mounted else word for word in SERVICES[service]["command"]]
        return ["127.0.0.1" if word == "0.0.0.0" else word for word in words]

    def start_database(self):
        found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        path = shutil.which("postgres")
        programs = found[-1] if found else pathlib.Path(path or sys.exit("PostgreSQL is not installed")).parent
        owner = {}
        if os.geteuid() == 0:  # it does not run as root
            entry = pwd.getpwnam("postgres")
            owner = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        # What the image does at its first start.
        environment = self.environment("database")
        user, password = environment["POSTGRES_USER"], self.folder / "password"
        password.write_text(environment["POSTGRES_PASSWORD"])
        password.chmod(0o644)
        data, more = self.folder / "data", shlex.split(environment["POSTGRES_INITDB_ARGS"])
        made = [programs / "initdb", "-D", data, "-U", user, "-A", "scram-sha-256", "--pwfile", password, "--no-sync"]
        subprocess.run([*made, "--no-locale", *more], check=True, stdout=subprocess.DEVNULL, cwd=self.folder, **owner)
        password.unlink()
        port = str(self.ports["database"])
        options = ("-c", "listen_addresses=127.0.0.1", "-p", port, "-k", self.folder)
        self.start("database", programs / "postgres", "-D", data, *options, cwd=self.folder, **owner)
        kind, program, *words = SERVICES["database"]["healthcheck"]["test"]
        healthy = [programs / program, *words, "-q", "-p", port]
        wait_until(lambda: kind == "CMD" and subprocess.run(healthy, check=False).returncode == 0, "the database")
        create = [programs / "createdb", "-h", "127.0.0.1", "-p", port, "-U", user, user]
        subprocess.run(create, check=True, env={**environment, "PGPASSWORD": environment["POSTGRES_PASSWORD"]})

    def authority(self, *arguments):
        return [sys.executable, "-m", "ascend_middleware.cli", *arguments]

    def key(self, role):
        command = self.authority("keys", "issue", "--role", role, "--name", role, "--json")
        made = subprocess.run(command, check=True, capture_output=True, env=self.environment(REPLICAS[0]))
        return json.loads(made.stdout)["key"]

    def start_replicas(self, *names):
        for name in names:
            command = self.authority(*self.command(name), "--port", str(self.ports[name]))
            self.start(name, *command, env=self.environment(name))
        for name in names:
            wait_until(lambda name=name: ask("GET", f"{self.url(name)}/ready")[0] == 200, name)

    def start_balancer(self):
        text = self.here((HERE / "nginx.conf").read_text())
        (published,) = SERVICES["balancer"]["ports"]
        text = text.replace(f"listen {published.split(':')[-1]}", f"listen 127.0.0.1:{self.ports['balancer']}")
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        text = text.replace(
            "http {", "http {\n" + "".join(f"{kind}_temp_path {self.folder}/{kind};\n" for kind in kinds)
        )
        user = "user root; " if os.geteuid() == 0 else ""
        (self.folder / "nginx.conf").write_text(text)
        more = f"{user}daemon off; pid {self.folder}/nginx.pid; error_log {self.folder}/nginx.log;"
        self.start("balancer", "nginx", "-p", self.folder, "-c", self.folder / "nginx.conf", "-g", more)
        wait_until(lambda: ask("GET", f"{self.url('balancer')}/ready")[0] == 200, "the balancer")

    def start_application(self, key):
        environment = dict(
            os.environ,
            ASCEND_API_URL=self.url("balancer"),
            ASCEND_API_KEY=key,
            ASCEND_STATE=str(self.folder / "state.db"),
            ASCEND_JOURNAL=str(self.folder / "journal"),
        )
        port = str(self.ports["application"])
        self.start(
            "application",
            sys.executable,
            "-m",
            "uvicorn",
            "ascend_middleware.demo.app:app",
            "--port",
            port,
            env=environment,
        )

    def wait_for_application(self):
        wait_until(lambda: ask("GET", f"{self.url('application')}/health")[0] == 200, "the application")

    def kill(self, name):
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self):
        for process in reversed(self.processes.values()):
            process.send_signal(signal.SIGINT)
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Story:
    def __init__(self, fleet, admin):
        self.fleet, self.admin, self.failed = fleet, admin, False

    def tell(self, title, expected, found, body=None):
        fits = found == expected
        self.failed |= not fits
        print(
            f"{title}: {found}{'' if fits else f', NOT {expected} as expected: {json.dumps(body)[:300]}'}", flush=True
        )

    def step(self, title, expected, method, path, body=None):
        self.tell(title, expected, *ask(method, self.fleet.url("application") + path, body))

    def refund(self, title, amount):
        self.step(title, 200, "POST", "/customers/7/refunds", {"amount": amount, "currency": "EUR"})

    def waiting(self):
        rows = ask("GET", f"{self.fleet.url('balancer')}/api/governance/pending-actions", key=self.admin)[1]
        return rows.get("actions")

    def run(self):
        fleet = self.fleet
        self.step("an allowed read", 200, "GET", "/customers/7")
        self.step("a denied delete", 403, "DELETE", "/customers/7")
        self.refund("a small refund", 50)
        held = threading.Thread(target=self.refund, args=("a large refund, held, and released after the kill", 5000))
        held.start()
        wait_until(self.waiting, "the large refund")
        fleet.kill(REPLICAS[0])
        print(f"{REPLICAS[0]} is killed", flush=True)
        path = f"/api/governance/workflows/{self.waiting()[0]['action_id']}/approve"
        status, body = ask("POST", fleet.url("balancer") + path, {"comments": "checked"}, self.admin)
        self.tell("a person approves it at the other replica", 200, status, body)
        held.join()
        answers = [ask("GET", f"{fleet.url('application')}/customers/7")[0] for _ in range(30)]
        self.tell("reads that were answered meanwhile", 30, answers.count(200), answers)
        fleet.start_replicas(REPLICAS[0])
        self.tell("replicas that know of each other", 2, self.replicas())
        self.refund("a small refund, with both again", 50)
        command = fleet.authority("audit", "verify", "--json")
        found = json.loads(
            subprocess.run(command, capture_output=True, env=fleet.environment(REPLICAS[0]), check=False).stdout
        )
        self.tell("the audit log is whole", True, found["whole"], found)
        print("something was NOT as expected" if self.failed else "everything was as expected", flush=True)
        return 1 if self.failed else 0

    def replicas(self):
        count = [0]

        def both():
            count[0] = ask("GET", f"{self.fleet.url(REPLICAS[1])}/ready")[1]["replicas"]
            return count[0] == 2

        wait_until(both, "the second replica")
        return count[0]


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ascend-fleet-"))
    fleet = Fleet(folder)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        fleet.start_database()
        user = fleet.key("user")  # with `run authority-1 keys issue`, in containers
        fleet.start_application(user)  # it needs no authority to start
        fleet.start_replicas(*REPLICAS)
        fleet.start_balancer()
        admin = fleet.key("admin")
        fleet.wait_for_application()
        print(f"balancer {fleet.url('balancer')}, replicas {' and '.join(map(fleet.url, REPLICAS))}", flush=True)
        return Story(fleet, admin).run()
    finally:
        fleet.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
