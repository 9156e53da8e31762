import sqlite3

import pytest
from kit.asgi import GONE, Wire, http_scope, part
from kit.processes import together

from ascend_middleware.authority.server import create_app
from ascend_middleware.exceptions import ConfigurationError
from ascend_middleware.sqlite import open_database, transaction

pytestmark = pytest.mark.anyio


@pytest.fixture
def desk(desk_of):
    return desk_of("")


async def ask(desk, *headers, parts=(b"{}",), leaves=False):
    """Submit by hand, with the user's key as the last header; the client may leave before the last part."""
    messages = [part(each, more=leaves or number < len(parts)) for number, each in enumerate(parts, 1)]
    scope = http_scope("POST", "/api/v1/actions/submit", headers=[*headers, ("X-API-Key", desk.user)])
    wire = await Wire(*messages, GONE).through(create_app(desk.authority), scope)
    return (wire.status, wire.json) if wire.sent else None


async def test_a_submission_in_parts(desk):
    answer = await ask(desk, parts=(b'{"agent_id":"a",', b'"action_type":"read"}'))
    assert (answer[0], answer[1]["status"]) == (200, "approved")


async def test_a_truncated_body_decides_nothing(desk):
    assert await ask(desk, parts=(b'{"agent_id":"a","action_type":"read"}',), leaves=True) is None
    assert desk.store.actions(tenant="default")[1] == 0


async def test_repeated_headers_are_not_guessed_at(desk):
    assert (await ask(desk, ("x-api-key", desk.user)))[0] == 401
    repeated = ("idempotency-key", "k")
    assert (await ask(desk, repeated, repeated, parts=(b'{"agent_id":"a","action_type":"t"}',)))[0] == 422


async def test_an_endless_body_is_cut(desk):
    assert (await ask(desk, parts=[b" " * 65_536] * 50, leaves=True))[0] == 413


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
