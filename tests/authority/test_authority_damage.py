"""A database with damaged pages: every command ends with one message, and a backup is put back safely."""

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys

import pytest
from kit.desk import POLICY, Desk
from kit.filled import filled

from ascend_middleware.authority import Authority
from ascend_middleware.authority.keys import LOCAL
from ascend_middleware.cli import main
from ascend_middleware.exceptions import ConfigurationError, StorageError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    (folder / "policy.toml").write_text(POLICY)
    desk = Desk(path=folder / "policy.db")
    for number in range(30):
        assert desk.submit("transaction", amount=5000 if number % 2 else 1, note="x" * 500)[0] == 200
    desk.post("/api/v1/actions/2/approve", {}, key="admin")
    desk.authority.close()
    return folder


def roots(path):
    """Return the first page of each table and index."""
    with contextlib.closing(sqlite3.connect(path)) as raw:
        size = raw.execute("PRAGMA page_size").fetchone()[0]
        rows = raw.execute("SELECT name, rootpage FROM sqlite_master WHERE rootpage > 0").fetchall()
    return size, dict(rows)


def damage(path, page, size):
    content = bytearray(path.read_bytes())
    content[(page - 1) * size : page * size] = b"\xab" * size
    path.write_bytes(content)


COMMANDS = (
    ["authority", "--port", "0", "--policy"],
    ["audit", "verify", "--policy"],
    ["audit", "export", "--policy"],
    ["authority", "backup", "{}/copy.db", "--policy"],
)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_a_damaged_page_of_any_table_or_index_ends_in_one_message(whole, tmp_path, capsys, command):
    size, pages = roots(whole / "policy.db")
    for name, page in pages.items():
        place = tmp_path / name
        shutil.copytree(whole, place)
        damage(place / "policy.db", page, size)
        code = main([word.format(place) for word in command] + [str(place / "policy.toml")])
        told = capsys.readouterr()
        if command[:2] == ["audit", "export"] and code == 0:
            continue  # it has read what it prints
        assert code in (1, 2), name
        assert len(told.err.splitlines()) + told.out.startswith("damaged: ") == 1, (name, told.err)
        assert "restore" in told.err + told.out or command[:2] != ["audit", "verify"]
        assert not list(place.glob("*copy*"))


# --- whatever is overwritten

# Of which the log tells every value. Of the rest, as old answers, counts with archived actions and the last use of a
# key, only SQLite's own look at its pages can say anything.
TOLD = {
    "actions": "*",
    "approvals": "*",
    "audit": "*",
    "audit_head": "seq, hash",
    "keys": "id, tenant, name, role, lookup, hash, revoked_at",
    "commands": "*",
}


def told(path):
    """Return what is read of the tables of which the log tells, row by row."""
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return {
            table: sorted(map(repr, raw.execute(f"SELECT {columns} FROM {table}"))) for table, columns in TOLD.items()
        }


def overwrite(path, dice):
    """Put random bytes at random places, or a page in another one's, or cut the file; say what was done."""
    content = bytearray(path.read_bytes())
    pages = range(0, len(content), 4096)
    done = []
    for _ in range(dice.choice((1, 1, 2, 5))):
        kind, page = dice.choice(("byte", "bit", "run", "page", "zeros", "swap", "cut")), dice.choice(pages)
        at, size = dice.randrange(len(content)), 1
        if kind == "bit":
            content[at] ^= 1 << dice.randrange(8)
        elif kind == "byte":
            content[at] = dice.randrange(256)
        elif kind == "run":
            size = min(dice.randrange(2, 300), len(content) - at)
            content[at : at + size] = dice.randbytes(size)
        elif kind == "swap":
            other = dice.choice(pages)
            one, two = content[page : page + 4096], content[other : other + 4096]
            content[page : page + 4096], content[other : other + 4096] = two, one
        elif kind == "cut":
            if dice.random() < 0.7:
                continue
            del content[max(page, 4096) :]
            pages = range(0, len(content), 4096)
        else:
            content[page : page + 4096] = dice.randbytes(4096) if kind == "page" else bytes(4096)
        done.append((kind, at, page))
    path.write_bytes(content)
    return done


@pytest.fixture(scope="module")
def full_of_all(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full-of-all")
    filled(folder, rounds=12)
    with contextlib.closing(sqlite3.connect(folder / "policy.db")) as raw:
        raw.execute("PRAGMA journal_mode=DELETE")
    return folder


@pytest.mark.slow
def test_whatever_is_overwritten_nothing_ends_in_a_traceback_or_passes_for_whole_that_is_not(
    full_of_all, tmp_path, capsys, full
):
    place, seed = tmp_path / "policy.db", random.randrange(2**32)
    policy = tmp_path / "policy.toml"
    shutil.copy(full_of_all / "policy.toml", policy)
    before = told(full_of_all / "policy.db")

    def run(*command):
        capsys.readouterr()
        code = main([*command, "--policy", str(policy)])
        return code, *capsys.readouterr()

    shutil.copy(full_of_all / "policy.db", place)
    exported = run("audit", "export")[1]
    refused = changed = 0
    for number in range(seed, seed + (500 if full else 10)):
        for file in tmp_path.glob("policy.db*"):
            file.unlink()
        shutil.copy(full_of_all / "policy.db", place)
        at = number, overwrite(place, random.Random(number))
        verified, out, err = run("audit", "verify")
        assert verified in (0, 1, 2) and len(err.splitlines()) <= 1 and "Traceback" not in out + err, at
        assert verified == 0 or out or err, at
        if verified == 0:
            assert told(place) == before, at
        code, out, err = run("audit", "export")
        assert code in (0, 1, 2) and len(err.splitlines()) == (code != 0), (at, err)
        if code == 0:
            assert out == exported, at
        changed += verified != 0
        # As a server starts, which looks at all pages.
        capsys.readouterr()
        try:
            with contextlib.closing(Authority.open(policy)) as authority:
                authority.store.check(pages=True)
                status, _, answer = authority.handle("GET", "/api/v1/actions", "", {}, b"", credential=LOCAL)
                assert status in (200, 503), (at, answer)
        except (ConfigurationError, StorageError):
            refused += 1
    print(f"seed {seed}: {changed} found by verify, {refused} refused at the start")


# --- restoring


@pytest.fixture
def place(whole, tmp_path):
    """A database, as it is after its backup was made and some more was decided."""
    folder = tmp_path / "place"
    shutil.copytree(whole, folder)
    assert main(["authority", "backup", str(folder / "backup.db"), "--policy", str(folder / "policy.toml")]) == 0
    desk = Desk(path=folder / "policy.db")
    desk.submit()
    desk.authority.close()
    return folder


def restore(place, name="backup.db"):
    return main(["authority", "restore", str(place / name), "--policy", str(place / "policy.toml")])


def entries(path):
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return raw.execute("SELECT count(*) FROM audit").fetchone()[0]


def verified(path):
    return main(["audit", "verify", "--db", str(path)]) == 0


def kept(place):
    return sorted(file for file in place.iterdir() if ".replaced-" in file.name)


def test_a_backup_takes_the_place_of_the_database_which_is_kept(place, capsys):
    database = place / "policy.db"
    database.chmod(0o640)
    before, new = entries(database), entries(place / "backup.db")
    capsys.readouterr()
    assert restore(place) == 0
    (old,) = kept(place)
    told = capsys.readouterr().out
    assert str(old) in told and f"{new} entries, head {new}:" in told
    assert (entries(old), entries(database), entries(place / "backup.db")) == (before, new, new)
    assert verified(old) and verified(database)
    assert database.stat().st_mode & 0o777 == 0o640
    assert not [file for file in place.iterdir() if file.name.startswith(".")]
    desk = Desk(path=database)
    assert desk.submit()[0] == 200
    desk.authority.close()


@pytest.mark.parametrize("what", ["garbage", "a page", "gone", "emptied"])
def test_it_takes_the_place_of_what_is_damaged_or_gone(place, what):
    database = place / "policy.db"
    size, pages = roots(database)
    damaged = {"garbage": lambda: database.write_bytes(b"x" * 9000), "emptied": lambda: database.write_bytes(b"")}
    damaged |= {"a page": lambda: damage(database, pages["actions"], size), "gone": database.unlink}
    damaged[what]()
    assert restore(place) == 0
    assert verified(database) and len(kept(place)) == (what != "gone")


def test_what_the_old_log_holds_is_kept_with_the_old_file_and_never_joins_the_new_one(place):
    """A process that was killed leaves a write-ahead log."""
    database = place / "policy.db"
    desk = Desk(path=database)
    desk.submit()
    for suffix in ("", "-wal"):
        shutil.copy(f"{database}{suffix}", place / f"crashed{suffix}")
    desk.authority.close()
    before = entries(database)
    for suffix in ("", "-wal"):
        shutil.move(place / f"crashed{suffix}", f"{database}{suffix}")
    assert restore(place) == 0
    assert verified(database) and entries(database) < before
    assert entries(kept(place)[0]) == before and not list(place.glob("policy.db-*"))


def test_a_log_that_cannot_be_read_is_kept_beside(place):
    database = place / "policy.db"
    database.write_bytes(b"x" * 9000)
    (place / "policy.db-wal").write_bytes(b"something")
    assert restore(place) == 0 and verified(database)
    assert [file.name.rpartition("Z")[2] for file in kept(place)] == ["", "-wal"]
    assert not list(place.glob("policy.db-wal"))


@pytest.mark.parametrize("what", ["missing", "no database", "a page", "tampered", "itself", "a full path"])
def test_what_is_no_sound_backup_is_refused_and_nothing_changes(place, capsys, what):
    backup, database = place / "backup.db", place / "policy.db"
    if what == "missing":
        backup.unlink()
    elif what == "no database":
        backup.write_text("hello " * 1000)
    elif what == "a page":
        size, pages = roots(backup)
        damage(backup, pages["audit_action"], size)
    elif what == "tampered":
        with contextlib.closing(sqlite3.connect(backup)) as raw:
            raw.execute("UPDATE actions SET status = 'approved' WHERE id = 4")
            raw.commit()
    before = database.read_bytes(), sorted(place.iterdir())
    capsys.readouterr()
    assert restore(place, "policy.db" if what == "itself" else "backup.db" if what != "a full path" else "no/b.db") in (
        1,
        2,
    )
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1 and "Traceback" not in told
    assert "actions 4, status" in told or what != "tampered"
    assert (database.read_bytes(), sorted(place.iterdir())) == before


def test_nothing_is_replaced_that_is_in_use(place, capsys):
    desk = Desk(path=place / "policy.db")
    try:
        command = [sys.executable, "-m", "ascend_middleware.cli", "authority", "restore", place / "backup.db"]
        done = subprocess.run([*command, "--policy", place / "policy.toml"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and "is in use: stop the authority" in done.stderr, done.stderr
        assert desk.submit()[0] == 200 and not kept(place)
        # Not in this process, which would lose its locks of a file that it opens and closes besides.
        overwrite = "import sys; open(sys.argv[1], 'r+b').write(b'x' * 9000)"
        subprocess.run([sys.executable, "-c", overwrite, place / "policy.db"], check=True)
        done = subprocess.run([*command, "--policy", place / "policy.toml"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and "is in use: stop the authority" in done.stderr, done.stderr
    finally:
        desk.authority.close()


# Ends itself, as `kill -9` does, right before the call of a number that changes the folder.
KILLED = """
import os, pathlib, signal, sys
left = int(sys.argv[1])
def counted(call):
    def counting(*values, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*values, **options)
    return counting
for name in ("link", "unlink", "replace", "chmod", "fsync"):
    setattr(os, name, counted(getattr(os, name)))
from ascend_middleware.cli import main
raise SystemExit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("state", ["sound", "damaged"])
def test_whenever_it_is_killed_the_old_database_is_in_its_place_or_the_new_one(place, tmp_path, state):
    program = tmp_path / "killed.py"
    program.write_text(KILLED)
    database = place / "policy.db"
    if state == "damaged":
        database.write_bytes(b"x" * 9000)
        (place / "policy.db-wal").write_bytes(b"something")
    new = entries(place / "backup.db")
    old, before = database.read_bytes(), new if state == "damaged" else entries(database)
    for step in range(50):
        again = tmp_path / str(step)
        shutil.copytree(place, again)
        words = ["authority", "restore", str(again / "backup.db"), "--policy", str(again / "policy.toml")]
        code = subprocess.run([sys.executable, program, str(step), *words], capture_output=True, timeout=60).returncode
        now = again / "policy.db"
        assert now.exists() and verified(again / "backup.db")
        if state == "damaged" and code != 0 and now.read_bytes() == old:
            assert restore(again) == 0  # again, and nothing stands in the way
        assert verified(now)
        assert entries(now) in (new, before)
        if code == 0:
            assert step > 4
            return
    pytest.fail("it never came to its end")
