"""The authority's tables. Append only: a migration that has been released is never edited, a change is a new one.

A statement stands once, as SQLite takes it; PostgreSQL gets it with its own types. Where that is not enough, both stand
side by side in `Each`.
"""

from __future__ import annotations

import itertools
import re
from typing import Final, NamedTuple, TypeAlias

__all__ = ["FIRST_WITH_HEAD", "MIGRATIONS", "NUMBERS", "POSTGRES", "RECORDS", "SQLITE", "Each"]


class Each(NamedTuple):
    """One step as each engine takes it; an empty text is none."""

    sqlite: str
    postgres: str


_Step: TypeAlias = "str | Each"


def _refusing(name: str, event: str, table: str, words: str, *, when: str = "") -> Each:
    """Return a trigger that refuses an event."""
    begin = f"CREATE TRIGGER {name} BEFORE {event} ON {table}"
    return Each(
        f"{begin}{f' WHEN {when}' if when else ''} BEGIN SELECT RAISE(ABORT, '{words}'); END",
        f"{begin} FOR EACH ROW{f' WHEN ({when})' if when else ''} EXECUTE FUNCTION ascend_refuse('{words}')",
    )


def _whole(table: str) -> Each:
    """Return a trigger that keeps a table from being emptied at once, which SQLite knows as so many deletions."""
    begin = f"CREATE TRIGGER {table}_whole BEFORE TRUNCATE ON {table}"
    return Each("", f"{begin} FOR EACH STATEMENT EXECUTE FUNCTION ascend_refuse('the audit log is kept')")


def _revising(table: str, event: str) -> Each:
    begin = f"CREATE TRIGGER {table}_{event} AFTER {event} ON {table}"
    return Each(
        f"{begin} BEGIN UPDATE revision SET n = random(); END",  # noqa: S608 - names are ours
        f"{begin} FOR EACH STATEMENT EXECUTE FUNCTION ascend_revise()",
    )


# What may be deleted from the audit log: an entry up to the last one of an archive that a later entry names, unless
# its action is still there. And what may change in it: an entry about an action, where a later entry tells that the
# action's data was erased, loses some of its text and nothing else.
_DELETABLE: Final = """NOT EXISTS (SELECT 1 FROM actions WHERE id = OLD.action_id) AND EXISTS (
    SELECT 1 FROM archives JOIN audit AS told ON told.seq = archives.seq
    WHERE archives.kind = 'audit' AND archives.last >= OLD.seq AND archives.seq > archives.last
    AND {event} = 'AUDIT_ARCHIVED' AND {file} = archives.name AND {last} = archives.last)"""
_ERASABLE: Final = """NEW.seq = OLD.seq AND NEW.tenant = OLD.tenant AND NEW.action_id = OLD.action_id
    AND NEW.previous = OLD.previous AND NEW.hash = OLD.hash AND EXISTS (
    SELECT 1 FROM audit AS told WHERE told.seq = {number} AND told.seq > OLD.seq
    AND told.action_id = OLD.action_id AND {event} = 'ACTION_ERASED')"""


def _sqlite_kept(name: str, event: str, words: str, allowed: str) -> str:
    return (
        f"CREATE TRIGGER {name} BEFORE {event} ON audit WHEN NOT coalesce({allowed}, 0)"
        f" BEGIN SELECT RAISE(ABORT, '{words}'); END"
    )


def _postgres_kept(event: str, words: str, allowed: str, result: str) -> str:
    return f"""CREATE FUNCTION ascend_audit_{event}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NOT coalesce({allowed}, FALSE) THEN RAISE EXCEPTION '{words}'; END IF; RETURN {result}; END $$"""


_SQLITE_ENTRY: Final = {
    "event": "json_extract(told.entry, '$.event')",
    "file": "json_extract(told.entry, '$.data.file')",
    "last": "json_extract(told.entry, '$.data.last')",
    "number": "CASE WHEN json_valid(NEW.entry) THEN json_extract(NEW.entry, '$.erased') END",
}
_POSTGRES_ENTRY: Final = {
    "event": "told.entry::jsonb ->> 'event'",
    "file": "told.entry::jsonb -> 'data' ->> 'file'",
    "last": "(told.entry::jsonb -> 'data' ->> 'last')::BIGINT",
    "number": "(NEW.entry::jsonb ->> 'erased')::BIGINT",
}
_KEPT: Final = "the audit log is kept"
_FIXED: Final = "the audit log is fixed"


# `revision` is another one after each change that a cached reading would miss, also of other processes. It is drawn at
# random: a number that a rolled back change had must not come again.
RECORDS: Final[tuple[_Step, ...]] = (
    """CREATE TABLE records (
        id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
        fields TEXT NOT NULL, key_id INTEGER NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
        UNIQUE (tenant, kind, name))""",
    # An agent's id belongs to one organisation.
    "CREATE UNIQUE INDEX records_agent ON records (name) WHERE kind = 'agent'",
    """CREATE TABLE commands (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, command_id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL,
        command_type TEXT NOT NULL, target_type TEXT NOT NULL, agent_id TEXT, mcp_server TEXT, reason TEXT NOT NULL,
        parameters TEXT NOT NULL, issued_by TEXT NOT NULL, issued_via TEXT NOT NULL, created_at TEXT NOT NULL)""",
    "CREATE INDEX commands_target ON commands (tenant, target_type, agent_id, seq)",
    """CREATE TABLE acks (
        command_id TEXT NOT NULL, agent_id TEXT NOT NULL, key_id INTEGER NOT NULL, at TEXT NOT NULL,
        PRIMARY KEY (command_id, agent_id))""",
    """CREATE TABLE heartbeats (
        tenant TEXT NOT NULL, agent_id TEXT NOT NULL, first_at TEXT NOT NULL, last_at TEXT NOT NULL,
        fields TEXT NOT NULL, PRIMARY KEY (tenant, agent_id))""",
    "CREATE TABLE organizations (id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL UNIQUE)",
    "CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL)",
    "CREATE INDEX actions_agent ON actions (tenant, agent_id, id)",
    "CREATE TABLE revision (n INTEGER NOT NULL)",
    "INSERT INTO revision (n) VALUES (0)",
    Each(
        "",
        """CREATE FUNCTION ascend_revise() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN UPDATE revision SET n = (random() * 9e18)::BIGINT; RETURN NULL; END'""",
    ),
    *(_revising(table, event) for table in ("records", "commands") for event in ("INSERT", "UPDATE", "DELETE")),
)


MIGRATIONS: Final[tuple[tuple[_Step, ...], ...]] = (
    (
        Each(
            "",
            """CREATE FUNCTION ascend_refuse() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN RAISE EXCEPTION USING MESSAGE = TG_ARGV[0]; END'""",
        ),
        """CREATE TABLE keys (
            id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL,
            lookup TEXT NOT NULL, hash TEXT NOT NULL UNIQUE, created_at TEXT NOT NULL, revoked_at TEXT)""",
        "CREATE INDEX keys_lookup ON keys (lookup)",
        """CREATE TABLE actions (
            id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, agent_id TEXT NOT NULL, status TEXT NOT NULL,
            risk_score INTEGER NOT NULL, risk_level TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
            submitted_by INTEGER NOT NULL, session TEXT, submission TEXT NOT NULL, judgement TEXT NOT NULL,
            approval TEXT, outcome TEXT)""",
        "CREATE INDEX actions_list ON actions (tenant, status, id)",
        """CREATE TABLE answers (
            key_id INTEGER NOT NULL, path TEXT NOT NULL, name TEXT NOT NULL, fingerprint TEXT NOT NULL,
            status INTEGER NOT NULL, body BLOB NOT NULL, at REAL NOT NULL, PRIMARY KEY (key_id, path, name))""",
        "CREATE INDEX answers_at ON answers (at)",
        """CREATE TABLE audit (
            seq INTEGER PRIMARY KEY, entry TEXT NOT NULL, tenant TEXT NOT NULL, action_id INTEGER,
            previous TEXT NOT NULL, hash TEXT NOT NULL)""",
        "CREATE INDEX audit_action ON audit (action_id)",
        _refusing("audit_fixed", "UPDATE", "audit", "the audit log is fixed"),
        _refusing("audit_kept", "DELETE", "audit", "the audit log is kept"),
    ),
    # Approvals by several people, expiry, and the audit log's head, by which its end cannot go missing unnoticed.
    (
        "ALTER TABLE actions ADD COLUMN expires_at TEXT",
        "CREATE INDEX actions_expiry ON actions (expires_at) WHERE status = 'pending'",
        """CREATE TABLE approvals (
            action_id INTEGER NOT NULL REFERENCES actions (id), approver TEXT NOT NULL, key_id INTEGER,
            comments TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (action_id, approver)) WITHOUT ROWID""",
        """CREATE TABLE audit_head (
            one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL)""",
        Each(
            "INSERT INTO audit_head (one, seq, hash) VALUES (1, 0, printf('%064d', 0))",
            "INSERT INTO audit_head (one, seq, hash) VALUES (1, 0, repeat('0', 64))",
        ),
        """UPDATE audit_head SET (seq, hash) = (SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1)
            WHERE EXISTS (SELECT 1 FROM audit)""",
        _refusing("audit_head_grows", "UPDATE", "audit_head", "the audit log only grows", when="NEW.seq <= OLD.seq"),
        _refusing("audit_head_kept", "DELETE", "audit_head", "the audit log is kept"),
    ),
    RECORDS,
    # Webhooks: the queue of deliveries, and how far the audit log has been read for it.
    (
        """CREATE TABLE deliveries (
            id INTEGER PRIMARY KEY AUTOINCREMENT, webhook TEXT NOT NULL, tenant TEXT NOT NULL, name TEXT NOT NULL,
            event TEXT NOT NULL, body TEXT NOT NULL, since REAL NOT NULL, next_at REAL NOT NULL,
            attempts INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '', UNIQUE (webhook, name))""",
        "CREATE TABLE webhook_scan (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL)",
        "INSERT INTO webhook_scan (one, seq) VALUES (1, 0)",
    ),
    # The page's sessions; only the hash of a cookie is kept.
    (
        """CREATE TABLE sessions (
            hash TEXT PRIMARY KEY, key_id INTEGER NOT NULL REFERENCES keys (id), created_at REAL NOT NULL,
            seen_at REAL NOT NULL, expires_at REAL NOT NULL) WITHOUT ROWID""",
        "CREATE INDEX sessions_key ON sessions (key_id)",
    ),
    # Who submitted an action, as a person and not as a key; of earlier actions the audit log tells it.
    (
        "ALTER TABLE actions ADD COLUMN submitter TEXT NOT NULL DEFAULT ''",
        Each(  # on PostgreSQL there are no earlier ones
            """UPDATE actions SET submitter = coalesce(
            (SELECT json_extract(entry, '$.actor') FROM audit WHERE audit.action_id = actions.id AND json_valid(entry)
                AND json_extract(entry, '$.event') = 'ACTION_SUBMITTED' ORDER BY seq LIMIT 1),
            (SELECT name FROM keys WHERE keys.id = actions.submitted_by), '')""",
            "",
        ),
    ),
    # Keys that end by themselves, their last use, the agents they speak for (a JSON list), and how often their tokens
    # were ended.
    (
        "ALTER TABLE keys ADD COLUMN expires_at TEXT",
        "ALTER TABLE keys ADD COLUMN used_at TEXT",
        "ALTER TABLE keys ADD COLUMN agents TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE keys ADD COLUMN token_round INTEGER NOT NULL DEFAULT 0",
    ),
    # What grows: an index for each way in which lists are asked for, and counts of actions by hour and by agent.
    (
        "CREATE INDEX actions_newest ON actions (tenant, id)",
        # With what is counted in a part of an hour.
        "CREATE INDEX actions_created ON actions (tenant, created_at, id, agent_id, status, risk_level, risk_score)",
        "CREATE INDEX actions_updated ON actions (tenant, updated_at, id)",
        "CREATE INDEX actions_risk ON actions (tenant, risk_score, id)",
        "CREATE INDEX actions_level ON actions (tenant, risk_level, id)",
        "CREATE INDEX actions_due ON actions (tenant, expires_at) WHERE status = 'pending'",
        "CREATE INDEX audit_tenant ON audit (tenant, seq)",
        "CREATE INDEX deliveries_queue ON deliveries (webhook, id)",
        "CREATE INDEX records_kind ON records (kind, tenant, id)",
        "CREATE INDEX records_key ON records (tenant, kind, key_id, id)",
        """CREATE TABLE tallies (
            tenant TEXT NOT NULL, hour TEXT NOT NULL, status TEXT NOT NULL, risk_level TEXT NOT NULL,
            n INTEGER NOT NULL, risk INTEGER NOT NULL, highest INTEGER NOT NULL,
            PRIMARY KEY (tenant, hour, status, risk_level)) WITHOUT ROWID""",
        """CREATE TABLE actors (
            tenant TEXT NOT NULL, agent_id TEXT NOT NULL, n INTEGER NOT NULL, last_at TEXT NOT NULL,
            PRIMARY KEY (tenant, agent_id)) WITHOUT ROWID""",
        "CREATE INDEX actors_last ON actors (tenant, last_at)",
        """CREATE TABLE actor_days (
            tenant TEXT NOT NULL, day TEXT NOT NULL, agent_id TEXT NOT NULL, n INTEGER NOT NULL,
            PRIMARY KEY (tenant, day, agent_id)) WITHOUT ROWID""",
        """INSERT INTO tallies (tenant, hour, status, risk_level, n, risk, highest)
            SELECT tenant, substr(created_at, 1, 13), status, risk_level, count(*), sum(risk_score), max(risk_score)
            FROM actions GROUP BY tenant, substr(created_at, 1, 13), status, risk_level""",
        """INSERT INTO actors (tenant, agent_id, n, last_at)
            SELECT tenant, agent_id, count(*), max(created_at) FROM actions GROUP BY tenant, agent_id""",
        """INSERT INTO actor_days (tenant, day, agent_id, n)
            SELECT tenant, substr(created_at, 1, 10), agent_id, count(*) FROM actions
            GROUP BY tenant, substr(created_at, 1, 10), agent_id""",
    ),
    # On PostgreSQL alone.
    (_whole("audit"), _whole("audit_head")),
    # Which audit entry tells of a kept answer; none of those that an earlier version kept.
    ("ALTER TABLE answers ADD COLUMN seq INTEGER NOT NULL DEFAULT 0",),
    # On PostgreSQL alone: what replicas count together, and who is there. Nothing of it outlives a crash, or has to.
    (
        Each(
            "",
            "CREATE UNLOGGED TABLE allowances (subject TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, n BIGINT NOT NULL)",
        ),
        Each("", "CREATE INDEX allowances_subject ON allowances (subject, at)"),
        Each(
            "",
            "CREATE UNLOGGED TABLE replicas"
            " (name TEXT PRIMARY KEY, policy TEXT NOT NULL, seen DOUBLE PRECISION NOT NULL)",
        ),
    ),
    # Archives and erasure. `state` goes from `planned` over `named` (an entry, `seq`, names the file) to `done` (what
    # the file holds is deleted here); `replaced` is one for which another file was written, without erased data.
    (
        """CREATE TABLE archives (
            name TEXT PRIMARY KEY, kind TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
            state TEXT NOT NULL, seq INTEGER NOT NULL DEFAULT 0, sha256 TEXT NOT NULL DEFAULT '')""",
        _refusing(
            "archives_kept", "DELETE", "archives", "what an archive holds is kept", when="OLD.state <> 'planned'"
        ),
        _refusing(
            "archives_fixed",
            "UPDATE",
            "archives",
            "what an archive holds is fixed",
            when="NEW.name <> OLD.name OR NEW.kind <> OLD.kind OR NEW.first <> OLD.first OR NEW.last <> OLD.last"
            " OR NEW.state = 'planned' OR (OLD.state <> 'planned'"
            " AND (NEW.seq <> OLD.seq OR NEW.sha256 <> OLD.sha256 OR NEW.state = 'named'))",
        ),
        # What one process at a time does.
        "CREATE TABLE leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, until REAL NOT NULL)",
        # By which the hash of what was submitted confirms no guess of it, once the data is erased.
        "ALTER TABLE actions ADD COLUMN salt TEXT NOT NULL DEFAULT ''",
        Each("DROP TRIGGER audit_kept", "DROP TRIGGER audit_kept ON audit"),
        Each("DROP TRIGGER audit_fixed", "DROP TRIGGER audit_fixed ON audit"),
        Each("", _postgres_kept("kept", _KEPT, _DELETABLE.format(**_POSTGRES_ENTRY), "OLD")),
        Each("", _postgres_kept("fixed", _FIXED, _ERASABLE.format(**_POSTGRES_ENTRY), "NEW")),
        Each(
            _sqlite_kept("audit_kept", "DELETE", _KEPT, _DELETABLE.format(**_SQLITE_ENTRY)),
            "CREATE TRIGGER audit_kept BEFORE DELETE ON audit FOR EACH ROW EXECUTE FUNCTION ascend_audit_kept()",
        ),
        Each(
            _sqlite_kept("audit_fixed", "UPDATE", _FIXED, _ERASABLE.format(**_SQLITE_ENTRY)),
            "CREATE TRIGGER audit_fixed BEFORE UPDATE ON audit FOR EACH ROW EXECUTE FUNCTION ascend_audit_fixed()",
        ),
    ),
)

# What a word of a table's definition is to PostgreSQL. Texts compare by their characters' numbers, as in SQLite: times
# and ids must not sort by the rules of a language.
_TYPES: Final = {
    "INTEGER PRIMARY KEY AUTOINCREMENT": "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
    "INTEGER": "BIGINT",
    "TEXT": 'TEXT COLLATE "C"',
    "REAL": "DOUBLE PRECISION",
    "BLOB": "BYTEA",
    " WITHOUT ROWID": "",
}
_TYPE = re.compile("|".join(_TYPES))


def _for_postgres(step: _Step) -> str:
    if isinstance(step, Each):
        return step.postgres
    if not step.startswith(("CREATE TABLE", "ALTER TABLE")):
        return step
    return _TYPE.sub(lambda found: _TYPES[found[0]], step)


def _for_sqlite(step: _Step) -> str:
    return step.sqlite if isinstance(step, Each) else step


SQLITE: Final = tuple(tuple(filter(None, map(_for_sqlite, steps))) for steps in MIGRATIONS)
POSTGRES: Final = tuple(tuple(filter(None, map(_for_postgres, steps))) for steps in MIGRATIONS)

# The version that brought the audit log's head.
FIRST_WITH_HEAD: Final = 2
# The column of each table whose number the database gives.
NUMBERS: Final = dict(
    re.findall(r"CREATE TABLE (\w+) \(\s*(\w+) INTEGER PRIMARY KEY AUTOINCREMENT", "\n".join(itertools.chain(*SQLITE)))
)
