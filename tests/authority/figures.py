"""Prints the table of docs/authority.md, what the authority's lists, analytics and chores cost once it has grown, on both engines:

    python tests/authority/figures.py 10000 100000 1000000

A figure is the least processor time of up to thirty runs, in milliseconds: the authority's, and PostgreSQL's with it.
Submits are told by the clock, so the machine should be idle. A database is made for each size and copied into a
PostgreSQL server of its own. `--keep FOLDER` keeps what was made and measured, and takes what is there, so that a table
may be measured by parts. `--engines sqlite` or `--engines postgres` measures one of the two, `--busy` leaves out what the
clock tells.
"""

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import types
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from authority.authority_process import Process
from authority.load import POLICY as UNLIMITED
from kit.databases import Cluster
from kit.desk import POLICY, Desk
from kit.growth import Growth
from kit.processes import together

from ascend_middleware.authority.page.views import agents
from ascend_middleware.authority.page.views_base import Desk as PageDesk
from ascend_middleware.authority.service import Service
from ascend_middleware.authority.store.copying import copy
from ascend_middleware.authority.webhooks import Outbox

AGENTS, QUEUED, OVERDUE = 10_000, 50_000, 10_000
READERS, SUBMITS = 40, 300
BEGUN = time.monotonic()
MEMORY = "the memory of `audit verify`"
LIMITS = "[limits]\nread = 0\nlist = 0\nanalytics = 0\n"
ARCHIVING = '[retention]\nactions = "1d"\nwithout_outcome = "2d"\narchive_to = "archive"\n'
# A server that archives right after its start, not only after a minute.
ARCHIVES_SOON = (
    sys.executable,
    "-c",
    "from ascend_middleware.authority.retention import Retirement; Retirement.__init__.__kwdefaults__['first'] = 0.5\n"
    "from ascend_middleware.cli import main; raise SystemExit(main())",
    "authority",
)


class Processor:
    """Tells the processor time that a job takes here, in finished children and in a PostgreSQL server, in milliseconds."""

    def __init__(self):
        self.server = None  # the server's first process

    def took(self, job):
        server, own = self._server(), self._own()
        job()
        return self._own() - own + self._server() - server

    def _own(self):
        times = os.times()
        return 1000 * (time.process_time() + times.children_user + times.children_system)

    def _server(self):
        if self.server is None:
            return 0
        place = pathlib.Path(f"/proc/{self.server}")
        children = [*map(int, (place / f"task/{self.server}/children").read_text().split())]
        # Of those that have ended, in ticks; they leave the list at the same time.
        ended = sum(map(int, (place / "stat").read_text().rpartition(")")[2].split()[13:15]))
        return sum(map(self._of, [self.server, *children])) + 1000 * ended / os.sysconf("SC_CLK_TCK")

    def _of(self, pid):
        try:
            return int(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6
        except OSError:
            return 0


processor = Processor()


def least(job, runs=30, seconds=10.0):
    """Return the least time of some runs; no further one begins after so many seconds."""
    times, until = [], time.monotonic() + seconds
    while len(times) < runs and (not times or time.monotonic() < until):
        times.append(processor.took(job))
    return min(times)


def verified(place, *more):
    """Run `audit verify`; return its milliseconds, the most memory that it took in MB, and the log's head."""
    command = [sys.executable, "-m", "ascend_middleware.cli", "audit", "verify", "--json", "--db", place, *more]
    memory, said = [0], []

    def run():
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            while child.poll() is None:
                with contextlib.suppress(OSError):
                    status = pathlib.Path(f"/proc/{child.pid}/status").read_text()
                    memory.extend(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
                time.sleep(0.02)
            said.append(json.load(child.stdout))

    took = processor.took(run)
    assert said[0]["whole"], said
    return took, max(memory) * 1024 / 1e6, said[0]["head"]


def read_deep(url, key):
    """Ask for deep pages until ended, so many at a time, and again soon where it is refused."""

    def read():
        request = urllib.request.Request(f"{url}/api/v1/actions?limit=1000&offset=10000", headers={"X-API-Key": key})
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    answer.read()
            except urllib.error.HTTPError as error:
                with error:
                    time.sleep(0.2)

    for _ in range(READERS):
        threading.Thread(target=read).start()


class Figures:
    def __init__(self, place):
        self.place, self.desk = place, Desk(LIMITS + POLICY, place)

    def get(self, path, query="", key="admin"):
        status, answer = self.desk.get(path, query=query, key=key)
        assert status == 200, answer
        return answer

    def page(self, view, **query):
        desk = PageDesk(Service(self.desk.authority))
        request = types.SimpleNamespace(query_params=query, url=types.SimpleNamespace(path="/"))
        session = types.SimpleNamespace(credential=self.desk.store.find_key(self.desk.admin), csrf="")
        visit = types.SimpleNamespace(desk=desk, request=request, who=session.credential, tenant="default")
        visit.store = self.desk.store
        visit.page = lambda template, **values: desk.page(request, template, session=session, **values)
        return lambda: view(visit)

    def deep(self):
        page = self.get("/api/v1/actions", "limit=1000")
        for _ in range(9):
            page = self.get("/api/v1/actions", f"limit=1000&cursor={page['next']}")
        return f"cursor={page['next']}"

    def rows(self):
        outbox = Outbox(self.desk.authority)
        deep = self.deep()
        yield "newest 50 of the list", least(lambda: self.get("/api/v1/actions"))
        yield "50 after a cursor, 10,000 rows deep", least(lambda: self.get("/api/v1/actions", deep))
        yield "analytics: now", least(lambda: self.get("/api/analytics/realtime/metrics"))
        for days in (7, 20, 90):
            path = "/api/analytics/executive/dashboard"
            yield f"analytics: dashboard of {days} days", least(lambda: self.get(path, f"days={days}"))  # noqa: B023
        yield "page of agents", least(self.page(agents))
        yield "page of agents, searched", least(self.page(agents, find="agent-00077"))
        yield "audit log of a small organisation", least(lambda: self.get("/audit/logs", key="stranger"))
        yield "webhooks: what is due, of 20 subscriptions", least(outbox.due)
        yield "webhooks: what one subscription is owed next", least(lambda: outbox.due("hook-003"))
        took, memory, noted = verified(self.place)
        self.desk.time += 8 * 86_400
        yield f"denying {OVERDUE:,} overdue actions", least(self.desk.store.expire, 1)
        yield "`audit verify`", took
        yield (
            f"`audit verify --from` a head before the {OVERDUE:,} last entries",
            verified(self.place, "--from", noted)[0],
        )
        yield MEMORY, memory

    def submits(self):
        """Submit, one after the other: alone, while another key reads deep pages, and while the server archives."""
        with tempfile.TemporaryDirectory() as folder:
            policy = pathlib.Path(folder) / "policy.toml"
            policy.write_text(UNLIMITED.replace("[limits]\n", LIMITS))
            with Process(policy, "--db", self.place, log=os.devnull) as authority:
                yield "submit alone", submitted(authority, self.desk.user)
                readers = multiprocessing.get_context("spawn").Process(
                    target=read_deep, args=(authority.url, self.desk.admin)
                )
                readers.start()
                time.sleep(2)
                yield f"submit while {READERS} read deep", submitted(authority, self.desk.user)
                readers.kill()
                readers.join()
                yield "submit, two clients", submitted(authority, self.desk.user, clients=2)
            archive = pathlib.Path(folder) / "archive"
            archive.mkdir()
            policy.write_text(policy.read_text() + ARCHIVING)
            with Process(policy, "--db", self.place, log=os.devnull, command=ARCHIVES_SOON) as authority:
                while not any(archive.iterdir()):
                    time.sleep(0.01)
                yield (
                    "submit, two clients, while the server archives",
                    submitted(authority, self.desk.user, clients=2, until=lambda: not archives(self.desk.store)),
                )


def submitted(authority, key, *, clients=1, until=lambda: False):
    """Submit by one key, one after the other, or until something ends; return the milliseconds of each, in order."""
    times, body = [], {"agent_id": "a", "action_type": "read"}

    def submit():
        for _ in range(SUBMITS):
            before = time.perf_counter()
            status, answer = authority.call("/api/v1/actions/submit", key, body)
            took = time.perf_counter() - before
            assert status == 200, answer
            if until():
                return
            times.append(took * 1000)

    together(*[submit] * clients, timeout=600)
    return sorted(times) or [float("nan")]


def archives(store):
    """Whether something is being archived."""
    return bool(store.rows("SELECT 1 FROM leases WHERE name = 'archive'"))


def made(source, size):
    place = source.with_suffix(".part")
    desk = Desk(path=place)
    growth = Growth(desk)
    growth.actions(size)
    growth.registered(AGENTS)
    growth.queued(QUEUED)
    growth.overdue(OVERDUE)
    desk.authority.close()
    place.rename(source)


@contextlib.contextmanager
def postgres(source):
    """A PostgreSQL database with the same in it."""
    cluster = Cluster()
    try:
        url = cluster.fresh(empty=True)
        copy(str(source), url)
        cluster.execute("VACUUM ANALYZE", url.split("@/")[1].split("?")[0])
        cluster.execute("CHECKPOINT")
        processor.server = cluster.process.pid
        yield url
    finally:
        cluster.stop()


@contextlib.contextmanager
def sqlite(source):
    """The same in a file of its own."""
    with tempfile.TemporaryDirectory() as folder:
        place = shutil.copy(source, pathlib.Path(folder) / "measured.db")
        processor.server = None
        yield str(place)


ENGINES = {"sqlite": ("SQLite", sqlite), "postgres": ("PostgreSQL", postgres)}


def measured(source, engine, size, *, busy):
    """Return the figures of one database, and the milliseconds of submits."""
    with ENGINES[engine][1](source) as place:
        figures, found, submits = Figures(place), {}, {}
        for name, value in figures.rows():
            found[name] = value
            told(engine, size, name, value)
        for name, times in () if busy else figures.submits():
            submits[name] = times[len(times) // 2], times[len(times) * 99 // 100], len(times)
            told(engine, size, name, *submits[name])
        figures.desk.authority.close()
    return found, submits


def told(*words):
    words = [round(word, 2) if isinstance(word, float) else word for word in words]
    print(
        json.dumps([*words, round(os.getloadavg()[0], 1), round(time.monotonic() - BEGUN)]), file=sys.stderr, flush=True
    )


def shown(value):
    """Return a figure with two digits that count."""
    return f"{value:.2g}" if value < 10 else f"{round(value, 1 - math.floor(math.log10(value))):,.0f}"


def table(found):
    """Yield the lines of the table, and below it those of the submits."""
    columns = sorted(found, key=lambda column: ([*ENGINES].index(column[0]), column[1]))
    first = {engine: min(size for one, size in columns if one == engine) for engine, _ in columns}
    titles = [f"{ENGINES[engine][0]}: {size:,}" if size == first[engine] else f"{size:,}" for engine, size in columns]
    yield f"| actions stored | {' | '.join(titles)} |"
    yield "|---|" + "---:|" * len(columns)
    for name in found[columns[0]][0]:
        if name == MEMORY:
            continue
        yield f"| {name} | {' | '.join(shown(found[column][0][name]) for column in columns)} |"
    for engine, size in columns:
        yield f"{ENGINES[engine][0]}, {size:,}: {MEMORY}: {shown(found[engine, size][0][MEMORY])} MB"
        for name, (half, most, count) in found[engine, size][1].items():
            yield f"{ENGINES[engine][0]}, {size:,}: {name}: p50 {shown(half)} ms, p99 {shown(most)} ms, of {count}"


def kept(results):
    """Return what was measured before."""
    rows = json.loads(results.read_text()) if results.exists() else []
    return {(engine, size): (figures, submits) for engine, size, figures, submits in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="+")
    parser.add_argument("--engines", choices=ENGINES, nargs="+", default=[*ENGINES])
    parser.add_argument("--keep", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--busy", action="store_true", help="without what the clock tells, for a machine that is busy")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        keep = args.keep or pathlib.Path(folder)
        keep.mkdir(parents=True, exist_ok=True)
        results, found = keep / "figures.json", {}
        for size in args.sizes:
            source = keep / f"{size}.db"
            if not source.exists():
                made(source, size)
                told("made", size)
            for engine in args.engines:
                figures = measured(source, engine, size, busy=args.busy)
                # Read now: the other engine may be measured meanwhile.
                found = kept(results) | {(engine, size): figures}
                results.write_text(json.dumps([[*column, *values] for column, values in found.items()]))
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
