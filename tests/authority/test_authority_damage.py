"""A database with damaged pages: every command ends with one message, and a backup is put back safely."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys

import pytest
from kit.desk import POLICY, Desk

from ascend_middleware.cli import main


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
