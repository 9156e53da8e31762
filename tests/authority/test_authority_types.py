"""A value of another type than its column's, which SQLite lets anybody put there, is named and ends nothing in a traceback."""

import contextlib
import re
import shutil
import signal
import sqlite3

import pytest
from kit.filled import filled

from ascend_middleware.authority import Authority
from ascend_middleware.authority.store.schema import SQLITE
from ascend_middleware.cli import main
from ascend_middleware.exceptions import ConfigurationError

# Of each class of values one; a value is used where it is of another class than the column's.
VALUES = {"integer": "7", "text": "'seven'", "real": "7.5", "blob": "x'ff'", "null": "NULL"}
CLASSES = {"INTEGER": "integer", "TEXT": "text", "REAL": "real", "BLOB": "blob"}


def columns():
    """Return each table with its columns: name, class, whether it may be NULL, and whether it is the row's number."""
    with contextlib.closing(sqlite3.connect(":memory:")) as raw:
        for statement in (statement for step in SQLITE for statement in step):
            raw.execute(statement)
        found = {}
        for (table,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"):
            rows = raw.execute('SELECT name, type, "notnull", pk FROM pragma_table_info(?)', (table,)).fetchall()
            keys = sum(1 for row in rows if row[3])
            found[table] = [
                (name, CLASSES[kind], not (fixed or key), bool(key) and keys == 1 and kind == "INTEGER")
                for name, kind, fixed, key in rows
            ]
    return found


COLUMNS = columns()


@pytest.fixture(scope="module")
def loose(tmp_path_factory):
    """A database with something in every table, whose columns take everything: whoever may write the file can do so."""
    folder = tmp_path_factory.mktemp("loose")
    filled(folder)
    with contextlib.closing(sqlite3.connect(folder / "policy.db", isolation_level=None)) as raw:
        raw.execute("PRAGMA writable_schema=ON")
        for name, sql in raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall():
            untyped = re.sub(r"\bINTEGER\b(?! PRIMARY KEY)|\b(TEXT|BLOB|NOT NULL)\b", "", sql)
            raw.execute("UPDATE sqlite_master SET sql = ? WHERE name = ? AND sql = ?", (untyped, name, sql))
        raw.execute("PRAGMA journal_mode=DELETE")
    with contextlib.closing(sqlite3.connect(folder / "policy.db")) as raw:
        empty = [table for table in COLUMNS if not raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0]]
    assert empty == []
    return folder


def test_a_database_that_nobody_touched_has_the_types_of_its_columns(loose):
    assert main(["audit", "verify", "--policy", str(loose / "policy.toml")]) == 0


@contextlib.contextmanager
def at_once():
    """End what would serve, as nothing refused to start."""

    def late(*_):
        raise AssertionError("it has started")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def wrong_values(kind, may_be_null, full):
    """Return values that are wrong in a column of a class."""
    fits = {kind, *(["null"] if may_be_null else []), *(["integer"] if kind == "real" else [])}
    found = [value for name, value in VALUES.items() if name not in fits]
    return found if full else [VALUES["text" if kind == "blob" else "blob"]]


COMMANDS = (
    ["audit", "verify"],
    ["audit", "export"],
    ["pending"],
    ["approve", "{pending}"],
    ["keys", "list"],
    ["agents", "list"],
    ["authority", "archive", "--before", "2024-01-01", "--to", "{folder}/archive"],
    ["authority", "erase", "{pending}", "--reason", "asked"],
    ["authority", "backup", "{folder}/copy.db"],
    ["authority", "--port", "0"],
)


def put(database, table, column, value):
    """Put a value in a column of a table, where need be of one row only; say whether it could be."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as raw:
        triggers = raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            raw.execute(f"DROP TRIGGER {name}")
        pending = raw.execute("SELECT max(id) FROM actions WHERE status = 'pending'").fetchone()[0]
        where = f"WHERE id = {pending}" if table == "actions" else ""
        try:
            raw.execute(f"UPDATE {table} SET {column} = {value} {where}")
        except sqlite3.IntegrityError:  # a key, and there are several rows
            raw.execute(f"UPDATE OR IGNORE {table} SET {column} = {value}")
            if not raw.execute("SELECT changes()").fetchone()[0]:
                assert value == "NULL", (table, column, value)  # never in a key of a table without row numbers
                return None
        for _, statement in triggers:
            raw.execute(statement)
    return pending


@pytest.mark.parametrize("table", COLUMNS)
def test_a_value_of_another_type_is_named_by_table_and_column(loose, tmp_path, capsys, table, full):
    wrong, database, policy = tmp_path / "wrong.db", tmp_path / "policy.db", tmp_path / "policy.toml"
    shutil.copy(loose / "policy.toml", policy)
    shutil.copytree(loose / "archive", tmp_path / "archive")
    for column, kind, may_be_null, is_number in COLUMNS[table]:
        if is_number:
            continue  # the number of a row cannot be anything else
        for value in wrong_values(kind, may_be_null, full):
            shutil.copy(loose / "policy.db", wrong)
            pending = put(wrong, table, column, value)
            if pending is None:
                continue
            words = re.compile(rf"\b{table} .*, {column}: it is (an? |bytes|nothing).* can stand there")
            for command in COMMANDS if full else COMMANDS[:1]:
                for file in tmp_path.glob("*.db*"):
                    if file != wrong:
                        file.unlink()
                shutil.copy(wrong, database)
                capsys.readouterr()
                with at_once():
                    line = [word.format(folder=tmp_path, pending=pending) for word in command]
                    code = main([*line, "--policy", str(policy)])
                told = capsys.readouterr()
                at = (column, value, command, code, told.out[-300:], told.err[-500:])
                if command[:2] in (["audit", "verify"], ["authority", "--port"]):
                    assert code in (1, 2) and words.search(told.out + told.err), at
                assert code in (0, 1, 2) and len(told.err.splitlines()) <= 1, at
                assert code == 0 or told.err or told.out, at
            if full:
                with contextlib.suppress(ConfigurationError), contextlib.closing(Authority.open(policy, wrong)):
                    pass  # as of a local: URL, which looks at the small tables


def test_a_column_that_is_not_there_is_named(loose, tmp_path, capsys):
    shutil.copytree(loose, tmp_path / "x")
    with contextlib.closing(sqlite3.connect(tmp_path / "x" / "policy.db")) as raw:
        raw.execute("ALTER TABLE leases DROP COLUMN until")
    assert main(["audit", "verify", "--policy", str(tmp_path / "x" / "policy.toml")]) == 1
    assert "is damaged: the table leases has no column until. Put a backup" in capsys.readouterr().err


def test_copying_such_a_database_is_refused(loose, tmp_path, capsys):
    shutil.copy(loose / "policy.db", tmp_path / "a.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as raw:
        raw.execute("UPDATE deliveries SET attempts = 'many'")
    assert main(["authority", "copy", "--from", str(tmp_path / "a.db"), "--to", str(tmp_path / "b.db")]) == 1
    assert "cannot be copied: deliveries 1, attempts: it is a text" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]


def test_such_a_backup_is_not_restored(loose, tmp_path, capsys):
    shutil.copytree(loose, tmp_path / "x")
    with contextlib.closing(sqlite3.connect(tmp_path / "x" / "policy.db", isolation_level=None)) as raw:
        raw.execute("UPDATE webhook_scan SET seq = 'one'")
    shutil.copy(tmp_path / "x" / "policy.db", tmp_path / "backup.db")
    assert main(["authority", "restore", str(tmp_path / "backup.db"), "--db", str(tmp_path / "new.db")]) == 1
    assert "seq: it is a text" in capsys.readouterr().err and not (tmp_path / "new.db").exists()
