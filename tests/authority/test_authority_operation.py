"""Running the authority: first keys, backup, audit commands, TLS, the access log, and a stop that ends what was begun."""

import json
import os
import re
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import trustme
from authority_process import Process
from kit.processes import free_port, in_a_child

from ascend_middleware.authority import Store, sample_policy
from ascend_middleware.cli import main
from ascend_middleware.client import AscendClient
from ascend_middleware.exceptions import ConfigurationError

SUBMIT = {"agent_id": "a", "action_type": "refund", "parameters": {"amount": 5000}}
posix = pytest.mark.skipif(os.name != "posix", reason="needs signals")


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(sample_policy())
    return path


@pytest.fixture
def written(tmp_path):
    """A database with a few audit entries, and its path."""
    store = Store.open(tmp_path / "policy.db", now=lambda: 1_700_000_000.0)
    for number in range(1, 6):
        store.audit(f"E{number}", tenant="default" if number % 2 else "other", actor="a\x1b[2J", data={"n": number})
    store.close()
    return tmp_path / "policy.db"


def run(capsys, *argv):
    try:
        code = main([str(word) for word in argv])
    except SystemExit as error:
        code = error.code
    out = capsys.readouterr()
    return code, out.out, out.err


def test_init_prints_the_first_keys_once(capsys, tmp_path):
    path = tmp_path / "p.toml"
    code, out, _ = run(capsys, "authority", "init", path)
    assert code == 0
    admin = re.search(r"owkai_admin_\S+", out)[0]
    store = Store.open(tmp_path / "p.db", now=time.time, create=False)
    assert store.find_key(admin).role.administers
    assert admin.encode() not in (tmp_path / "p.db").read_bytes()
    store.close()
    path.unlink()
    code, out, _ = run(capsys, "authority", "init", path)
    assert code == 0 and "owkai_" not in out  # the database has keys already


# --- audit


def test_audit_verify(capsys, written):
    place = ("--db", written)
    before = written.read_bytes()
    code, out, _ = run(capsys, "audit", "verify", *place)
    assert code == 0 and "whole: 5 entries" in out
    found = json.loads(run(capsys, "audit", "verify", *place, "--json")[1])
    assert found["whole"] and found["entries"] == 5 and found["findings"] == []
    assert run(capsys, "audit", "verify", *place, "--head", found["head"])[0] == 0
    code, out, _ = run(capsys, "audit", "verify", *place, "--head", f"4:{'a' * 64}")
    assert code == 1 and "entry 4" in out
    assert run(capsys, "audit", "verify", *place, "--head", "4")[0] == 2
    assert written.read_bytes() == before

    raw = sqlite3.connect(written, isolation_level=None)
    raw.execute("DROP TRIGGER audit_kept")
    raw.execute("DELETE FROM audit WHERE seq = 3")
    raw.close()
    code, out, _ = run(capsys, "audit", "verify", *place)
    assert code == 1 and "removed: entry 3 was removed" in out
    findings = json.loads(run(capsys, "audit", "verify", *place, "--json")[1])["findings"]
    assert findings == [{"seq": 3, "kind": "removed", "message": "entry 3 was removed"}]


def test_audit_export_is_one_json_object_a_line(capsys, written):
    code, out, _ = run(capsys, "audit", "export", "--db", written)
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [line["seq"] for line in lines] == [1, 2, 3, 4, 5] and "\x1b" not in out
    assert lines[0].keys() == {"seq", "at", "tenant", "event", "actor", "action_id", "data", "previous", "hash"}
    assert [line["previous"] for line in lines[1:]] == [line["hash"] for line in lines[:-1]]
    some = run(capsys, "audit", "export", "--db", written, "--after", "2", "--tenant", "other")[1]
    assert [json.loads(line)["event"] for line in some.splitlines()] == ["E4"]


def test_audit_commands_read_only(capsys, tmp_path, written):
    assert run(capsys, "audit", "verify", "--db", tmp_path / "none.db")[0] == 2
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("no database at all " * 100)
    code, _, err = run(capsys, "audit", "export", "--db", tmp_path / "text.db")
    assert code == 2 and "text.db" in err
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE x (y)")
    other.close()
    assert run(capsys, "audit", "verify", "--db", tmp_path / "other.db")[0] == 2


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a file system")
def test_audit_of_a_copy_where_nothing_can_be_written(capsys, tmp_path, written):
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    assert run(capsys, "authority", "backup", sealed / "copy.db", "--db", written)[0] == 0
    subprocess.run(["mount", "--bind", "-o", "ro", sealed, sealed], check=True)
    try:
        if os.access(sealed, os.W_OK):
            subprocess.run(["mount", "-o", "remount,ro,bind", sealed], check=True)
        assert run(capsys, "audit", "verify", "--db", sealed / "copy.db")[0] == 0
        code, _, err = run(capsys, "pending", "--db", sealed / "copy.db")
        assert code == 2 and "copy.db" in err and len(err.splitlines()) == 1
    finally:
        subprocess.run(["umount", sealed], check=True)


# --- serving


@posix
@pytest.mark.socket
def test_a_stop_ends_what_was_begun_and_lets_the_waiting_go(policy, tmp_path):
    with Process(policy, log=tmp_path / "log") as authority:
        user = authority.keys["user"]
        assert authority.call("/api/v1/actions/submit", user, SUBMIT)[1]["status"] == "pending"
        answers = []
        waiting = threading.Thread(
            target=lambda: answers.append(authority.call("/api/v1/actions/1/status?wait=50", user))
        )
        waiting.start()
        time.sleep(0.3)
        started = time.monotonic()
        assert authority.end(signal.SIGTERM) == 0
        waiting.join(30)
        assert answers[0][0] == 200 and answers[0][1]["status"] == "pending"
        assert time.monotonic() - started < 25  # of 50 seconds, for which the waiting asked
    log = (tmp_path / "log").read_text()
    heads = re.findall(r"audit log: head (\d+:[0-9a-f]{64})", log)
    assert len(heads) == 2 and main(["audit", "verify", "--policy", str(policy), "--head", heads[-1]]) == 0


@posix
@pytest.mark.socket
def test_a_stop_that_comes_before_the_server_listens_for_signals_ends_it(policy):
    with Process(policy) as authority:
        assert authority.end(signal.SIGTERM) == 0


@posix
@pytest.mark.socket
def test_a_waiting_client_of_ours_learns_at_once(policy, tmp_path, record_property):
    """Within 100 ms on a machine that has them; the bound leaves room for a busy one, and is far below one poll."""
    with Process(policy, log=tmp_path / "log") as authority:
        took = []
        with AscendClient(authority.keys["user"], api_url=authority.url, agent_id="a") as client:
            for _ in range(3):
                number = client.submit_action(agent_id="a", action_type="refund", parameters={"amount": 5000}).action_id
                decided = []

                def approve(number=number, decided=decided):
                    time.sleep(0.3)
                    authority.call(f"/api/v1/actions/{number}/approve", authority.keys["admin"], {})
                    decided.append(time.monotonic())

                person = threading.Thread(target=approve)
                person.start()
                assert client.wait_for_decision(number, timeout=200, poll_interval=60).is_approved()
                told = time.monotonic()
                person.join()
                took.append(told - decided[0])
        record_property("seconds", sorted(took)[1])
        print(f"told after {sorted(took)[1] * 1000:.0f} ms")
        assert sorted(took)[1] < 20


@posix
@pytest.mark.slow
@pytest.mark.socket
def test_health_tells_soon_that_the_database_is_locked_or_gone(policy, tmp_path):
    with Process(policy, log=tmp_path / "log") as authority:
        other = sqlite3.connect(tmp_path / "policy.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        answers = []
        asking = [
            threading.Thread(target=lambda: answers.append(authority.call("/health", None, timeout=4)))
            for _ in range(4)
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(30)
        assert [status for status, _ in answers] == [503] * 4
        other.execute("ROLLBACK")
        other.close()
        for name in ("policy.db", "policy.db-wal", "policy.db-shm"):
            (tmp_path / name).unlink()
        time.sleep(1.1)
        assert authority.call("/health", None)[1]["status"] == "unhealthy"
        assert authority.call("/api/v1/actions/submit", authority.keys["user"], SUBMIT)[0] == 503
        assert authority.end() == 0
    assert "moved away, deleted, replaced or emptied" in (tmp_path / "log").read_text()
    assert not (tmp_path / "policy.db").exists()


@posix
@pytest.mark.socket
def test_the_access_log_holds_no_secret(policy, tmp_path):
    with Process(policy, log=tmp_path / "log") as authority:
        key = authority.keys["user"]
        assert authority.call("/api/v1/actions/submit?token=SECRET1", key, {**SUBMIT, "context": {"x": "SECRET2"}})
        assert authority.call("/evil%0Aline%1B%5B2J", "owkai_user_SECRET3SECRET3")[0] == 401
        assert authority.end() == 0
    log = (tmp_path / "log").read_text()
    assert re.search(r"access: 127\.0\.0\.1 POST /api/v1/actions/submit 200 [\d.]+ ms", log)
    assert "/evil\\nline\\x1b[2J 401" in log and "\x1b" not in log
    assert "SECRET" not in log and key not in log

    with Process(policy, "--no-access-log", log=tmp_path / "quiet") as authority:
        authority.call("/health", None)
        authority.end()
    assert "access" not in (tmp_path / "quiet").read_text()


@posix
@pytest.mark.socket
def test_a_backup_while_it_is_served(policy, tmp_path, capsys):
    with Process(policy, log=tmp_path / "log") as authority:
        for _ in range(3):
            authority.call("/api/v1/actions/submit", authority.keys["user"], SUBMIT)
        code, out, _ = run(capsys, "authority", "backup", tmp_path / "copy.db", "--policy", policy)
        assert code == 0 and "copy.db" in out
        assert authority.call("/api/v1/actions", authority.keys["user"])[1]["total"] == 3
    code, out, _ = run(capsys, "pending", "--db", tmp_path / "copy.db")
    assert code == 0 and len(out.splitlines()) == 3
    assert run(capsys, "audit", "verify", "--db", tmp_path / "copy.db")[0] == 0
    assert run(capsys, "authority", "backup", tmp_path / "copy.db", "--policy", policy)[0] == 1
    assert run(capsys, "authority", "backup", "--policy", policy)[0] == 2
    assert run(capsys, "authority", "backup", tmp_path / "x.db", "--db", tmp_path / "none.db")[0] == 2


@posix
@pytest.mark.socket
def test_tls(policy, tmp_path, capsys):
    issuer = trustme.CA()
    certificate = issuer.issue_cert("127.0.0.1")
    files = {name: tmp_path / f"{name}.pem" for name in ("cert", "key", "ca")}
    certificate.private_key_pem.write_to_path(files["key"])
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(files["cert"], append=True)
    issuer.cert_pem.write_to_path(files["ca"])
    tls = ("--tls-cert", str(files["cert"]), "--tls-key", str(files["key"]))
    with Process(policy, *tls, "--host", "0.0.0.0", trust=files["ca"], log=tmp_path / "log") as authority:
        authority.url = authority.url.replace("0.0.0.0", "127.0.0.1")
        assert authority.url.startswith("https://")
        assert authority.call("/health", None)[1]["status"] == "healthy"
        with pytest.raises(OSError, match="certificate verify failed"):
            urllib.request.urlopen(authority.url + "/health", timeout=10, context=ssl.create_default_context())

    def refused(*arguments):
        code, _, err = run(capsys, "authority", "--policy", policy, "--port", "0", *arguments)
        assert code == 2 and len(err.splitlines()) == 1
        return err

    assert "both" in refused("--tls-cert", files["cert"])
    assert "none.pem" in refused("--tls-cert", files["cert"], "--tls-key", tmp_path / "none.pem")
    assert "no certificate and its key" in refused("--tls-cert", files["ca"], "--tls-key", files["key"])
    assert "--tls-cert" in refused("--host", "0.0.0.0")
    locked = tmp_path / "locked.pem"
    from cryptography.hazmat.primitives import serialization as forms

    key = forms.load_pem_private_key(files["key"].read_bytes(), None)
    sealed = forms.BestAvailableEncryption(b"password")
    locked.write_bytes(key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, sealed))
    assert "encrypted" in refused("--tls-cert", files["cert"], "--tls-key", locked)


@posix
@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_on_a_read_only_mount_the_authority_says_so_and_the_log_is_read(policy, tmp_path, capsys, end):
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounts a file system, which needs root on Linux")
    place = tmp_path / "disk"
    place.mkdir()
    path = place / "a.db"
    with Process(policy, "--db", str(path)) as authority:
        assert authority.call("/api/v1/actions/submit", authority.keys["user"], SUBMIT)[0] == 200
        authority.end(end)
    # After a kill the side files are there, and SQLite would open the database to read it.
    assert (place / "a.db-wal").exists() == (end == signal.SIGKILL)
    subprocess.run(["mount", "--bind", place, place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        code, _, said = run(capsys, "authority", "--policy", policy, "--db", path, "--port", "0")
        assert code == 2 and f"{path} cannot be written" in said and "mounted read-only" in said
        assert run(capsys, "audit", "verify", "--policy", policy, "--db", path)[0] == 0
    finally:
        subprocess.run(["umount", "-l", place], check=True)
    with Process(policy, "--db", str(path)) as authority:
        assert authority.call("/health", None)[1]["status"] == "healthy"


@posix
@pytest.mark.parametrize("missing", ["", "a.db"], ids=["directory", "file"])
def test_a_database_of_another_user_is_refused_with_what_cannot_be_written(written, missing):
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        path = Path(shutil.move(written, place / "a.db"))
        path.chmod(0o444 if missing else 0o666)
        place.chmod(0o777 if missing else 0o555)

        def refused():
            if os.geteuid() == 0:  # who may write everywhere
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            with pytest.raises(ConfigurationError, match=re.escape(f"{place / missing} cannot be written; it belongs")):
                Store.open(path, now=time.time)
            return os.listdir(place) == ["a.db"]

        assert in_a_child(refused)
        place.chmod(0o700)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["authority", "--port", "0", "--db", "{}"], "the database {} is a folder; name a file in it"),
        (["authority", "--port", "0", "--db", "{}/no/a.db"], "there is no folder {}/no; make it first"),
        (["authority", "--port", "0", "--db", "mysql://u:hunter2@h/x"], "neither a file nor a URL that begins with postgresql://"),
        (["keys", "list", "--db", "sqlite:///a.db"], "neither a file nor a URL that begins with postgresql://"),
        (["authority", "backup", "{}/no/b.db", "--db", "{}/policy.db"], "there is no folder {}/no; make it first"),
        (["authority", "copy", "--from", "{}/policy.db", "--to", "{}/no/b.db"], "there is no folder {}/no; make it first"),
        (["authority", "restore", "{}/policy.db", "--db", "{}/no/b.db"], "there is no folder {}/no; make it first"),
        (["audit", "verify", "--db", "{}/policy.db", "--head", "head.txt"], "head.txt is neither a file nor NUMBER:HASH"),
        (["audit", "verify", "--db", "{}/policy.db", "--archive", "{}/no"], "--archive: there is no folder {}/no"),
        (["authority", "--port", "0", "--tls-cert", "{}/policy.toml", "--tls-key", "{}/policy.toml"], "not in the form of PEM"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_ends_in_one_message_that_says_what_to_do(capsys, tmp_path, policy, written, words, said):
    place = ["--policy", str(policy)] if words[0] == "authority" else []
    code, out, err = run(capsys, *(word.format(tmp_path) for word in words), *place)
    assert code in (1, 2) and out == "" and len(err.splitlines()) == 1
    assert said.format(tmp_path) in err and "hunter2" not in err
    # A reader leaves the side files, which hold nothing.
    assert {path.name for path in tmp_path.iterdir()} - {"policy.db-wal", "policy.db-shm"} == {
        "policy.db",
        "policy.toml",
    }


@posix
@pytest.mark.skipif(sys.platform != "linux", reason="needs a device that is always full")
def test_a_policy_file_that_was_not_wholly_written_is_not_left_there(capsys, tmp_path, monkeypatch):
    real, path = Path.open, tmp_path / "p.toml"

    def full(place, *mode, **options):
        file = real(place, *mode, **options)
        if place == path:
            with real(Path("/dev/full"), "w") as device:
                os.dup2(device.fileno(), file.fileno())
        return file

    monkeypatch.setattr(Path, "open", full)
    code, _, err = run(capsys, "authority", "init", path)
    assert code == 1 and "No space left on device" in err and not path.exists()


@posix
def test_a_process_that_has_no_file_left_to_open_does_not_call_the_database_damaged(written):
    import resource

    def told():
        store = Store.open(written, now=time.time)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/dev/fd"))) + 10,) * 2)
        with pytest.raises(OSError):
            while True:
                os.dup(0)
        with pytest.raises(ConfigurationError, match="cannot be used: unable to open database file; this process may"):
            store.check(pages=True)
        return True

    assert in_a_child(told)


# A process in which threads take turns as its program says; what it embeds and what it serves tell how they do.
TURNS = """
import gc, json, os, signal, sys, threading, urllib.request
from ascend_middleware.authority import Authority
from ascend_middleware.authority.server import create_app
from ascend_middleware.cli import main
from ascend_middleware.client import AscendClient
policy, port = sys.argv[1:]
found = {}

def note(what):
    found[what] = sys.getswitchinterval(), gc.get_threshold()

def look():
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
            break
        except OSError:
            pass
    note("served")
    os.kill(os.getpid(), signal.SIGTERM)

sys.setswitchinterval(0.003)
gc.set_threshold(701, 11, 12)
note("before")
with AscendClient(api_url=f"local:{policy}", agent_id="a") as client:
    assert client.test_connection()
    note("local")
authority = Authority.open(policy)
create_app(authority)
note("application")
authority.close()
threading.Thread(target=look, daemon=True).start()
try:
    main(["authority", "--policy", policy, "--port", port])
except SystemExit as end:
    assert not end.code
note("after")
print(json.dumps(found))
"""


@posix
@pytest.mark.slow
@pytest.mark.socket
def test_a_server_shares_its_process_in_short_turns_and_what_embeds_the_authority_is_left_as_it_is(policy):
    program = [sys.executable, "-c", TURNS, policy, str(free_port())]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    turn, thresholds = found.pop("served")
    assert turn == pytest.approx(0.0005) and thresholds[0] > 701
    assert set(found) == {"before", "local", "application", "after"}
    for what, (turn, thresholds) in found.items():
        assert turn == pytest.approx(0.003) and thresholds[:2] == [701, 11], what
