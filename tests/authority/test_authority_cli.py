import contextlib
import http.client
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading

import pytest
from authority_process import Process

from ascend_middleware.authority import Authority, sample_policy
from ascend_middleware.authority.keys import LOCAL
from ascend_middleware.cli import main
from ascend_middleware.cli.commands import COMMANDS as DECLARED
from ascend_middleware.exceptions import ConfigurationError

SUBMIT = {"agent_id": "a", "action_type": "refund", "parameters": {"amount": 5000}}


@pytest.fixture
def database(policy_database):
    return policy_database


@pytest.fixture
def policy(tmp_path, database):
    path = tmp_path / "policy.toml"
    path.write_text(sample_policy())
    return str(path)


@pytest.fixture
def pending(policy, database):
    authority = Authority.open(policy, database)
    body = json.dumps({**SUBMIT, "resource": "evil\x1b[2J"}).encode()
    assert authority.handle("POST", "/api/v1/actions/submit", "", {}, body, credential=LOCAL)[0] == 200
    authority.close()


def run(capsys, *argv):
    try:
        code = main(argv)
    except SystemExit as error:
        code = error.code
    out = capsys.readouterr()
    return code, out.out, out.err


def test_version(capsys):
    from ascend_middleware import __version__

    assert run(capsys, "version") == (0, f"{__version__}\n", "")
    assert json.loads(run(capsys, "version", "--json")[1]) == {"version": __version__}


@pytest.mark.parametrize("command", DECLARED, ids=lambda command: command.path)
def test_every_command_leads_to_its_function_and_has_help(capsys, command):
    assert command.load().__doc__
    code, out, _ = run(capsys, *command.path.split(), "--help")
    assert code == 0 and out.startswith(f"usage: ascend-middleware {command.path} ")


def test_the_help_lists_every_command_once_by_groups(capsys):
    code, out, _ = run(capsys, "--help")
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    names = list(dict.fromkeys(command.path.split()[0] for command in DECLARED))
    assert code == 0 and [word for word in listed if not word.startswith("-")] == names
    assert [line for line in out.splitlines() if line.endswith(":")] == [
        "govern an application:", "run an authority:", "administer an authority:", "get to know this package:", "options:"
    ]  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="needs a terminal")
@pytest.mark.parametrize("command", [["--help"], ["policy", "replay", "--since", "2020-01-01", "--policy"]])
def test_a_terminal_is_sent_no_colours(policy, pending, command):
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "ascend_middleware.cli", *command, *([policy] if "--policy" in command else [])]
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # of Linux, at the end
            while part := os.read(ours, 65_536):
                shown += part
    os.close(ours)
    assert process.returncode == 0 and shown
    assert not re.search(rb"\x1b\[[\d;]*m", shown)


def test_init_writes_once(capsys, tmp_path):
    path = tmp_path / "p.toml"
    assert run(capsys, "authority", "init", str(path))[0] == 0
    assert path.read_text() == sample_policy()
    assert run(capsys, "authority", "init", str(path))[0] == 1


def test_keys_are_issued_listed_and_revoked(capsys, policy):
    code, key, _ = run(capsys, "keys", "issue", "--name", "ci", "--role", "admin", "--policy", policy)
    assert code == 0 and key.startswith("owkai_admin_")
    code, out, _ = run(capsys, "keys", "list", "--policy", policy, "--json")
    assert json.loads(out)["keys"][0]["name"] == "ci" and key.strip() not in out
    assert run(capsys, "keys", "revoke", "1", "--policy", policy)[0] == 0
    assert run(capsys, "keys", "revoke", "9", "--policy", policy)[0] == 1
    assert "revoked" in run(capsys, "keys", "list", "--policy", policy)[1]


def test_a_person_decides_on_the_command_line(capsys, policy, pending):
    code, out, _ = run(capsys, "pending", "--policy", policy)
    assert code == 0 and "refund" in out and "\x1b" not in out
    assert json.loads(run(capsys, "pending", "--policy", policy, "--json")[1])["total"] == 1
    code, out, _ = run(capsys, "approve", "act_1", "--policy", policy, "--comments", "ok", "--json")
    assert code == 0 and json.loads(out)["decided_by"] == "local-operator"
    assert run(capsys, "deny", "1", "--policy", policy)[0] == 1
    assert run(capsys, "deny", "7", "--policy", policy)[0] == 1
    assert run(capsys, "deny", "x", "--policy", policy)[0] == 2
    assert "nothing" in run(capsys, "pending", "--policy", policy)[1]


def test_a_missing_database_is_told_and_not_made(capsys, tmp_path):
    code, _, err = run(capsys, "pending", "--db", str(tmp_path / "x.db"))
    assert code == 2 and "no database" in err
    assert not (tmp_path / "x.db").exists()


def test_a_database_that_is_none(capsys, tmp_path):
    (tmp_path / "x.db").write_text("hello, this is no database at all" * 50)
    code, _, err = run(capsys, "pending", "--db", str(tmp_path / "x.db"))
    assert code == 2 and "x.db" in err and len(err.splitlines()) == 1


def test_the_server_refuses_to_start_with_one_clear_message(capsys, policy, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, out, err = run(capsys, "authority", "--policy", policy, "--port", port)
    assert code == 1 and port in err and len(err.splitlines()) == 1 and "owkai_" not in out
    code, _, err = run(capsys, "authority", "--policy", str(tmp_path / "none.toml"))
    assert code == 2 and "authority init" in err
    code, _, err = run(capsys, "authority", "--policy", policy, "--host", "0.0.0.0", "--port", "0")
    assert code == 2 and "--allow-remote" in err
    assert run(capsys, "authority", "--policy", policy, "--port", "99999")[0] == 2
    assert run(capsys)[0] == 2


@pytest.mark.socket
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_decisions_survive_kill_9(policy, database, capsys):
    server = Process(policy)
    user, admin = server.keys["user"], server.keys["admin"]
    assert server.call("/api/v1/actions/submit", "owkai_wrong_wrong_wrong", SUBMIT)[0] == 401
    assert server.call("/api/v1/actions/submit", user, {**SUBMIT, "context": {"x": "y" * 200_000}})[0] == 413
    assert server.call("/api/v1/actions/submit", user, SUBMIT)[1]["status"] == "pending"
    assert server.end(signal.SIGKILL) == -signal.SIGKILL

    server = Process(policy)
    assert server.keys == {}
    assert server.call("/api/v1/actions/1/status", user)[1]["status"] == "pending"
    assert run(capsys, "approve", "1", "--policy", policy)[0] == 0
    assert server.call("/api/v1/actions/1/status", user)[1]["status"] == "approved"
    assert server.call("/api/v1/actions/1/reject", admin, {})[0] == 409
    server.end(signal.SIGTERM)
    authority = Authority.open(policy, database)
    assert authority.store.verify_audit() is None
    authority.close()


@pytest.mark.socket
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_what_was_acknowledged_before_kill_9_is_there(policy, database):
    server = Process(policy)
    acknowledged, enough = [], threading.Event()

    def submit():
        try:
            while True:
                acknowledged.append(server.call("/api/v1/actions/submit", server.keys["user"], SUBMIT)[1]["id"])
                if len(acknowledged) >= 40:
                    enough.set()
        except (OSError, http.client.HTTPException):
            enough.set()

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert enough.wait(10)
    server.end(signal.SIGKILL)
    for thread in threads:
        thread.join()
    authority = Authority.open(policy, database)
    rows, total, *_ = authority.store.actions(tenant="default", limit=1000)
    assert set(acknowledged) <= {row["id"] for row in rows}
    assert total >= len(acknowledged) >= 40
    assert authority.store.verify_audit() is None
    assert all(authority.store.audit_trail(row["id"], tenant="default") for row in rows)
    authority.close()


def test_what_is_not_there_is_said_with_what_to_do(capsys, policy, pending, tmp_path):
    code, _, err = run(capsys, "approve", "99", "--policy", policy)
    assert code == 1 and "no action 99" in err and "ascend-middleware pending" in err
    code, _, err = run(capsys, "pending", "--db", str(tmp_path / "none.db"))
    assert code == 2 and "none.db" in err and "--policy" in err
    assert not (tmp_path / "none.db").exists()


COMMANDS = [
    ["audit", "verify"],
    ["audit", "export"],
    ["pending"],
    ["approve", "1"],
    ["keys", "list"],
    ["agents", "list"],
    ["models", "list"],
    ["mcp-servers", "list"],
    ["approvers", "list"],
    ["authority"],
]


def overwrite(path, start, data):
    content = bytearray(path.read_bytes())
    content[start : start + len(data)] = data
    path.write_bytes(content)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    "kind", ["text", "cut short", "overwritten", "another program's", "with its version", "no head"]
)
def test_a_damaged_or_foreign_database_is_told_and_never_a_traceback(tmp_path, capsys, kind, command):
    policy, database = tmp_path / "policy.toml", tmp_path / "policy.db"
    assert main(["authority", "init", str(policy)]) == 0
    if kind == "text":
        database.write_text("hello, this is no database at all" * 500)
    elif kind == "cut short":
        database.write_bytes(database.read_bytes()[:5000])
    elif kind == "overwritten":
        for page in range(1, database.stat().st_size // 4096):
            overwrite(database, page * 4096, b"\x07" * 64)
    elif kind == "no head":
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("DROP TABLE audit_head")
            connection.commit()
    else:
        version = 0
        with contextlib.closing(sqlite3.connect(database)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        database.unlink()
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("CREATE TABLE theirs (x)")
            connection.execute(f"PRAGMA user_version={version if kind == 'with its version' else 0}")
            connection.commit()
    before = database.read_bytes()
    capsys.readouterr()
    extra = ["--port", "0"] if command == ["authority"] else []
    code = main([*command, *extra, "--policy", str(policy)])
    told = capsys.readouterr()
    if (kind, command) == ("no head", ["audit", "export"]):
        # Its entries can still be read, which is what the command is for, and who uses them is told.
        assert [json.loads(line)["event"] for line in told.out.splitlines()][:1] == ["KEY_ISSUED"]
    assert code in (1, 2)
    assert len(told.err.splitlines()) == 1
    assert "database" in told.err
    if kind in ("another program's", "with its version"):
        assert database.read_bytes() == before


def test_the_server_does_not_start_on_a_log_that_was_cut(tmp_path, capsys):
    policy, database = tmp_path / "policy.toml", tmp_path / "policy.db"
    assert main(["authority", "init", str(policy)]) == 0
    with contextlib.closing(sqlite3.connect(database)) as connection:
        kept = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'audit_kept'").fetchone()[0]
        connection.execute("DROP TRIGGER audit_kept")
        connection.execute("DELETE FROM audit WHERE seq = 2")
        connection.execute(kept)
        connection.commit()
    capsys.readouterr()
    assert main(["authority", "--port", "0", "--policy", str(policy)]) == 2
    told = capsys.readouterr().err
    assert "the audit log does not end where its head says" in told and "backup" in told
    with pytest.raises(ConfigurationError, match="does not end where its head says"):
        Authority.open(policy)


def test_pending_tells_whom_it_is_about(tmp_path, database, capsys):
    policy = tmp_path / "policy.toml"
    policy.write_text('[[policy]]\nname = "p"\naction_types = ["refund"]\ndecision = "pending"\n')
    body = {
        "agent_id": "a", "action_type": "refund", "resource": "POST /customers/{customer_id}/refunds",
        "resource_id": "customer-7", "action_details": {"amount": 5000, "note": "n" * 100},
    }  # fmt: skip
    authority = Authority.open(policy, database)
    authority.handle("POST", "/api/v1/actions/submit", "", {}, json.dumps(body).encode(), credential=LOCAL)
    authority.close()
    assert main(["pending", "--policy", str(policy)]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert f"on POST /customers/{{customer_id}}/refunds [id=customer-7, amount=5000, note={'n' * 40}…]" in line
