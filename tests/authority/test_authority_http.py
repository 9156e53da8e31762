import json
import sqlite3

import pytest
from kit.processes import together

from ascend_middleware.authority import Authority, Role, Store, parse_policy
from ascend_middleware.authority.server import create_app
from ascend_middleware.exceptions import ConfigurationError
from ascend_middleware.sqlite import open_database, transaction

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def authority():
    authority = Authority(Store.open(":memory:", now=lambda: 0.0), parse_policy(""))
    yield authority
    authority.close()


async def ask(authority, *headers, method="POST", path="/api/v1/actions/submit", parts=(b"{}",), leaves=False):
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": list(headers)}
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = leaves
    messages.append({"type": "http.disconnect"})
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    await create_app(authority)(scope, receive, send)
    return (sent[0]["status"], json.loads(sent[1]["body"])) if sent else None


async def test_a_submission_in_parts(authority):
    key = authority.store.issue_key(name="u", role=Role.USER, tenant="t").encode()
    answer = await ask(authority, (b"X-API-Key", key), parts=(b'{"agent_id":"a",', b'"action_type":"read"}'))
    assert (answer[0], answer[1]["status"]) == (200, "approved")


async def test_a_truncated_body_decides_nothing(authority):
    key = authority.store.issue_key(name="u", role=Role.USER, tenant="t").encode()
    parts = (b'{"agent_id":"a","action_type":"read"}',)
    assert await ask(authority, (b"X-API-Key", key), parts=parts, leaves=True) is None
    assert authority.store.actions(tenant="t")[1] == 0


async def test_repeated_headers_are_not_guessed_at(authority):
    key = (b"x-api-key", authority.store.issue_key(name="u", role=Role.USER, tenant="t").encode())
    assert (await ask(authority, key, key))[0] == 401
    repeated = (b"idempotency-key", b"k")
    assert (await ask(authority, key, repeated, repeated, parts=(b'{"agent_id":"a","action_type":"t"}',)))[0] == 422


async def test_an_endless_body_is_cut(authority):
    key = (b"x-api-key", authority.store.issue_key(name="u", role=Role.USER, tenant="t").encode())
    assert (await ask(authority, key, parts=[b" " * 65_536] * 50, leaves=True))[0] == 413


async def test_a_newer_database_is_refused(tmp_path):
    path = tmp_path / "x.db"
    open_database(path, migrations=[["CREATE TABLE a (x)"], ["CREATE TABLE b (x)"]]).close()
    with pytest.raises(ConfigurationError, match="newer version"):
        open_database(path, migrations=[["CREATE TABLE a (x)"]])


async def test_a_database_grows_by_the_missing_migrations(tmp_path):
    path = tmp_path / "x.db"
    first = ["CREATE TABLE a (x)"]
    open_database(path, migrations=[first]).close()
    connection = open_database(path, migrations=[first, ["ALTER TABLE a ADD COLUMN y"]])
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    connection.execute("INSERT INTO a (x, y) VALUES (1, 2)")
    with pytest.raises(ZeroDivisionError), transaction(connection):
        connection.execute("DELETE FROM a")
        raise ZeroDivisionError
    assert connection.execute("SELECT count(*) FROM a").fetchone()[0] == 1
    connection.close()


async def test_many_open_a_new_database_at_once(tmp_path):
    failures = []

    def open_it():
        try:
            open_database(tmp_path / "x.db", migrations=[["CREATE TABLE a (x)"]]).close()
        except (ConfigurationError, sqlite3.Error) as error:
            failures.append(error)

    together(*[open_it] * 8)
    assert not failures
