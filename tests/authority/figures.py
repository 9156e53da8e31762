"""Prints what the authority's lists, analytics and chores cost at some sizes: `python tests/authority/figures.py 10000 100000`.

A figure is the least processor time of up to thirty runs, in milliseconds: the authority's, and PostgreSQL's with it.
Submits are told by the clock, so the machine should be idle. A database is made for each size, which takes four
minutes for a million actions; `--keep FOLDER` keeps them there, and takes those that are there. With `--postgres` it is
copied into a PostgreSQL server of its own and measured there.
"""

import argparse
import contextlib
import itertools
import json
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

from ascend_middleware.authority.page.views import agents, history
from ascend_middleware.authority.page.views_base import Desk as PageDesk
from ascend_middleware.authority.service import Service
from ascend_middleware.authority.store.copying import copy
from ascend_middleware.authority.webhooks import Outbox

AGENTS, QUEUED, OVERDUE = 10_000, 50_000, 10_000
READERS, SUBMITS = 40, 300
LIMITS = "[limits]\nread = 0\nlist = 0\nanalytics = 0\n"


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
        yield "newest 50", least(lambda: self.get("/api/v1/actions"))
        yield "50 after a cursor, 10,000 deep", least(lambda: self.get("/api/v1/actions", deep))
        yield "50 at offset 10,000", least(lambda: self.get("/api/v1/actions", "offset=10000"))
        yield "analytics, realtime", least(lambda: self.get("/api/analytics/realtime/metrics"))
        for days in (7, 20, 90):
            path = "/api/analytics/executive/dashboard"
            yield f"analytics, dashboard, {days} days", least(lambda: self.get(path, f"days={days}"))  # noqa: B023
        yield "page of agents", least(self.page(agents))
        yield "page of agents, one found", least(self.page(agents, find="agent-00077"))
        yield "page of the history", least(self.page(history))
        yield "audit log, newest 50, small organisation", least(lambda: self.get("/audit/logs", key="stranger"))
        yield "webhooks: what is due", least(outbox.due)
        yield "webhooks: the next of one", least(lambda: outbox.due("hook-003"))
        took, memory, noted = verified(self.place)
        yield "verify, all", took
        yield "verify, all: MB", memory
        self.desk.time += 8 * 86_400
        yield f"expiry of {OVERDUE:,} overdue", least(self.desk.store.expire, 1)
        took, memory, _ = verified(self.place, "--from", noted)
        yield "verify, from before the expiry", took
        yield "verify, from before the expiry: MB", memory

    def submits(self):
        """Submit by one key, one after the other, alone and while another key reads deep pages."""
        with tempfile.TemporaryDirectory() as folder:
            policy = pathlib.Path(folder) / "policy.toml"
            policy.write_text(UNLIMITED.replace("[limits]\n", LIMITS))
            with Process(policy, "--db", self.place, log=os.devnull) as authority:
                body = {"agent_id": "a", "action_type": "read"}

                def submitted():
                    times = []
                    for _ in range(SUBMITS):
                        before = time.perf_counter()
                        status, answer = authority.call("/api/v1/actions/submit", self.desk.user, body)
                        assert status == 200, answer
                        times.append((time.perf_counter() - before) * 1000)
                    return sorted(times)

                alone = submitted()
                readers = multiprocessing.get_context("spawn").Process(
                    target=read_deep, args=(authority.url, self.desk.admin)
                )
                readers.start()
                time.sleep(2)
                beside = submitted()
                readers.kill()
                readers.join()
        for name, times in (("alone", alone), (f"while {READERS} read deep", beside)):
            yield f"submit {name}: p50", times[len(times) // 2]
            yield f"submit {name}: p99", times[len(times) * 99 // 100]


def made(place, size):
    desk = Desk(path=place)
    growth = Growth(desk)
    growth.actions(size)
    growth.registered(AGENTS)
    growth.queued(QUEUED)
    growth.overdue(OVERDUE)
    desk.authority.close()


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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="+")
    parser.add_argument("--keep", type=pathlib.Path)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--busy", action="store_true", help="without what the clock tells, for a machine that is busy")
    args = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            source = (args.keep or pathlib.Path(folder)) / f"{size}.db"
            if not source.exists():
                made(source, size)
            place = pathlib.Path(folder) / "measured.db"
            if not args.postgres:
                shutil.copy(source, place)
            with postgres(source) if args.postgres else contextlib.nullcontext(str(place)) as measured:
                figures = Figures(measured)
                for name, value in itertools.chain(figures.rows(), () if args.busy else figures.submits()):
                    found.setdefault(name, []).append(value)
                    print(json.dumps([size, name, round(value, 2), os.getloadavg()[0]]), file=sys.stderr, flush=True)
                figures.desk.authority.close()
            place.unlink(missing_ok=True)
    print("| ms | " + " | ".join(f"{size:,}" for size in args.sizes) + " |\n|---" + "|---:" * len(args.sizes) + "|")
    for name, values in found.items():
        print(f"| {name} | " + " | ".join(f"{value:,.2f}" for value in values) + " |")


if __name__ == "__main__":
    main()
