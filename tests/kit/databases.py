"""A PostgreSQL server of the tests' own: on a Unix socket, with fsync, and each test's database new."""

import contextlib
import itertools
import os
import pathlib
import pwd
import re
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
import urllib.parse

import pytest

from ascend_middleware.authority.store.schema import SQLITE
from ascend_middleware.text import is_postgres

from .processes import free_port, is_open, wait_until

_numbers = itertools.count(1)


def programs():
    """Return the folder of PostgreSQL's programs, the newest, or None if there is none."""
    folders = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    found = shutil.which("postgres")
    folders += [pathlib.Path(found).resolve().parent] if found else []
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


def _user():
    """PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return {}
    names = [name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()}]
    entry = pwd.getpwnam(names[0])
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class Cluster:
    """A server; `tcp` lets it listen on a port of this machine too."""

    def __init__(self, *, tcp=False, encoding="UTF8"):
        self.bin = programs()
        if self.bin is None:
            pytest.skip("PostgreSQL is not installed")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ascend-pg-"))
        self.folder.chmod(0o755)
        self.user = _user()
        if self.user:
            os.chown(self.folder, self.user["user"], self.user["group"])
        self.port = free_port() if tcp else 5432
        self._listen = "127.0.0.1" if tcp else ""
        self._run(
            "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", encoding, "--no-locale", "--no-sync"
        )
        hba = self.folder / "data/pg_hba.conf"
        hba.write_text(
            "local all guarded scram-sha-256\nhost all guarded 127.0.0.1/32 scram-sha-256\n"
            "local all all trust\nhost all all 127.0.0.1/32 trust\n"
        )
        self.process = None
        self.start()
        self._template = self._emptying = None
        self._free = []

    @property
    def data(self):
        return str(self.folder / "data")

    def _run(self, program, *arguments):
        subprocess.run([self.bin / program, *arguments], check=True, capture_output=True, cwd=self.folder, **self.user)

    def start(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [self.bin / "postgres", "-D", self.data, "-k", str(self.folder), "-p", str(self.port)]
                + ["-c", f"listen_addresses={self._listen}", "-c", "fsync=on", "-c", "max_connections=200"],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **self.user,
            )
        self.wait()

    def wait(self):
        until = time.monotonic() + 60
        while True:
            try:
                self._run("pg_isready", "-h", str(self.folder), "-p", str(self.port), "-q")
                return
            except subprocess.CalledProcessError:
                assert self.process.poll() is None and time.monotonic() < until, (self.folder / "log").read_text()
                time.sleep(0.02)

    def kill(self):
        """End the server as a power cut does, as far as processes go."""
        # Each of its processes leads a group of its own, and would go on for a moment.
        backends = self._ps("--ppid", str(self.process.pid), "-o", "pid=")
        for pid in (self.process.pid, *map(int, backends)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(30)
        while backends and any(state[0] != "Z" for state in self._ps("-p", ",".join(backends), "-o", "stat=")):
            time.sleep(0.005)

    @staticmethod
    def _ps(*options):
        return subprocess.run(["ps", *options], capture_output=True, text=True).stdout.split()

    def stop_server(self):
        """End the server in order, and all connections with it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database, user="postgres", password="", *, tcp=False):
        user = f"{user}:{urllib.parse.quote(password, safe='')}" if password else user
        if tcp:
            return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"
        return f"postgresql://{user}@/{database}?host={urllib.parse.quote(str(self.folder), safe='')}&port={self.port}"

    def execute(self, statement, database="postgres"):
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else None

    def fresh(self, *, empty=False):
        """Return the URL of a new database, with the authority's tables unless it shall be empty."""
        if self._template is None and not empty:
            from ascend_middleware.authority import Store

            self.execute("CREATE DATABASE made")
            Store.open(self.url("made"), now=time.time).close()
            self._template = "made"
        name = f"test_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {'template0' if empty else self._template}")
        return self.url(name)

    def borrow(self):
        """Return the URL of a database with nothing but the tables in it; `give_back` lets another test have it."""
        if not self._free:
            return self.fresh()
        url = self._free.pop()
        self._wipe(url)
        return url

    def give_back(self, urls):
        self._free += urls

    def _wipe(self, url):
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            if self._emptying is None:
                rows = connection.execute(
                    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
                )
                tables = {row[0] for row in rows} - {"ascend_schema"}
                kept = ("audit_head", "revision", "webhook_scan")
                self._emptying = "; ".join(
                    ["SET session_replication_role = replica", "BEGIN"]
                    + [f"DELETE FROM {name}" for name in sorted(tables - set(kept))]
                    # A test may have deleted it.
                    + ["INSERT INTO audit_head (one, seq, hash) VALUES (1, 0, '') ON CONFLICT DO NOTHING"]
                    + ["UPDATE audit_head SET seq = 0, hash = repeat('0', 64)", "UPDATE webhook_scan SET seq = 0"]
                    + ["SELECT setval(oid, 1, false) FROM pg_class WHERE relkind = 'S'", "COMMIT"]
                )
            connection.execute(self._emptying)


class Pooler:
    """A pgbouncer in front of a cluster, in transaction mode, with few connections for many clients."""

    def __init__(self, cluster):
        if shutil.which("pgbouncer") is None:
            pytest.skip("pgbouncer is not installed")
        self.cluster, self.port = cluster, free_port()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ascend-pool-"))
        (self.folder / "users").write_text('"postgres" ""\n')
        (self.folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={cluster.folder} port={cluster.port} user=postgres\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\nauth_type = any\n"
            f"auth_file = {self.folder}/users\npool_mode = transaction\ndefault_pool_size = 2\n"
        )
        user = _user()
        for path in (self.folder, *self.folder.iterdir()):
            if user:
                os.chown(path, user["user"], user["group"])
        self.process = subprocess.Popen(
            ["pgbouncer", "-q", str(self.folder / "pgbouncer.ini")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **user,
        )
        wait_until(lambda: is_open(self.port))

    def url(self, database):
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


# --- what whoever owns the database can do, of either kind


class Owner:
    """Runs plain SQL beside an authority, as whoever owns its database can; `?` stands for a value.

    Args:
        of: a file's path, a URL, or a store, whose own connection is used if its database is in memory.
        guarded: whether the triggers, which refuse what no authority does, are in force.
    """

    def __init__(self, of, *, guarded=True):
        self.triggers, self._ends = (), contextlib.ExitStack()
        place = of if isinstance(of, str | os.PathLike) else of.engine.place
        self._is_postgres = is_postgres(str(place))
        if self._is_postgres:
            import psycopg

            opened = psycopg.connect(place, autocommit=True) if of is place else of.engine.link.connect()
            self._raw = self._ends.enter_context(opened)
            self._raw.execute("SET synchronous_commit = off")
            if not guarded:
                self._raw.execute("SET session_replication_role = replica")
            return
        if place == ":memory:":
            self._raw = of.engine.connection
        else:
            self._raw = self._ends.enter_context(contextlib.closing(sqlite3.connect(place, isolation_level=None)))
            self._raw.execute("PRAGMA synchronous=OFF")
        if not guarded:
            self.triggers = self._raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
            for name, _ in self.triggers:
                self._raw.execute(f'DROP TRIGGER "{name}"')

    def _run(self, statement, values):
        if self._is_postgres and values:
            statement = statement.replace("%", "%%").replace("?", "%s")
        return self._raw.execute(statement, values) if values else self._raw.execute(statement)

    def rows(self, statement, *values):
        """Return what a statement selects."""
        return [tuple(row) for row in self._run(statement, values).fetchall()]

    def change(self, statement, *values):
        """Run a statement that changes something; return how many rows it changed."""
        return self._run(statement, values).rowcount

    def close(self):
        for _, statement in self.triggers:
            self._raw.execute(statement)
        self._ends.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def rows(of, statement, *values):
    """Return what a statement selects behind the authority's back."""
    with Owner(of) as owner:
        return owner.rows(statement, *values)


def change(of, statement, *values, guarded=False):
    """Run one statement behind the authority's back, without its triggers; return how many rows it changed."""
    with Owner(of, guarded=guarded) as owner:
        return owner.change(statement, *values)


def keep(url):
    """Keep the rows of a PostgreSQL database as they are; return what puts them back."""
    with Owner(url, guarded=False) as owner:
        found = owner.rows("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        tables = sorted(name for (name,) in found)
        owner.change("CREATE SCHEMA kept")
        for name in tables:
            owner.change(f"CREATE TABLE kept.{name} AS TABLE {name}")
    back = "; ".join(f"DELETE FROM {name}; INSERT INTO {name} SELECT * FROM kept.{name}" for name in tables)

    def put_back():
        with Owner(url, guarded=False) as owner:
            owner.change(back)

    return put_back


def behind(store, *statements, guarded=True):
    """Run statements behind the authority's back; unguarded, without its triggers."""
    with Owner(store, guarded=guarded) as owner:
        for statement in statements:
            owner.change(statement)


@contextlib.contextmanager
def refusing(store, table):
    """A database that takes no more rows for a table."""
    begin = f"CREATE TRIGGER no_more BEFORE INSERT ON {table}"
    if is_postgres(store.engine.place):
        behind(store, f"{begin} FOR EACH ROW EXECUTE FUNCTION ascend_refuse('disk full')")
        end = f"DROP TRIGGER no_more ON {table}"
    else:
        behind(store, f"{begin} BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        end = "DROP TRIGGER no_more"
    try:
        yield
    finally:
        behind(store, end)


def contents(store):
    """Return all that is stored, as text."""
    tables = [name for step in itertools.chain(*SQLITE) for name in re.findall(r"CREATE TABLE (\w+)", step)]
    return "\n".join(str([*row]) for table in tables for row in store.rows(f"SELECT * FROM {table}"))


def sqlite_files(folder):
    """Return the files of a folder that are databases of an authority."""
    found = []
    for file in pathlib.Path(folder).rglob("*"):
        if file.is_file() and file.read_bytes()[:15] == b"SQLite format 3":
            with contextlib.closing(sqlite3.connect(file)) as raw:
                found += [file for _ in raw.execute("SELECT 1 FROM sqlite_master WHERE name = 'audit_head'")]
    return found
