"""Prints what the authority's lists, analytics and chores cost at some sizes: `python tests/authority/figures.py 10000 100000`.

Each figure is the least processor time of some runs, in milliseconds; a database is made for each size, which takes four
minutes for a million actions. `--keep FOLDER` keeps them there, and takes those that are there.
"""

import argparse
import json
import pathlib
import shutil
import sys
import tempfile
import time
import tracemalloc
import types

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from kit.desk import Desk
from kit.growth import Growth

from ascend_middleware.authority.page.views import agents, history
from ascend_middleware.authority.page.views_base import Desk as PageDesk
from ascend_middleware.authority.service import Service
from ascend_middleware.authority.store.verification import verify
from ascend_middleware.authority.webhooks import Outbox

AGENTS, QUEUED, OVERDUE = 10_000, 50_000, 10_000


def least(job, runs=5):
    """Return the least processor time of some runs in milliseconds."""
    times = []
    for _ in range(runs):
        before = time.process_time()
        job()
        times.append(time.process_time() - before)
    return min(times) * 1000


class Figures:
    def __init__(self, place, actions):
        fresh = not place.exists()
        self.desk = Desk(path=place)
        if fresh:
            growth = Growth(self.desk)
            growth.actions(actions)
            growth.registered(AGENTS)
            growth.queued(QUEUED)
            growth.overdue(OVERDUE)

    def get(self, path, query="", key="admin"):
        status, answer = self.desk.get(path, query=query, key=key)
        assert status == 200, answer
        return answer

    def page(self, view):
        desk = PageDesk(Service(self.desk.authority))
        request = types.SimpleNamespace(query_params={}, url=types.SimpleNamespace(path="/"))
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
        yield "analytics, dashboard, 7 days", least(lambda: self.get("/api/analytics/executive/dashboard"))
        yield "analytics, dashboard, 90 days", least(lambda: self.get("/api/analytics/executive/dashboard", "days=90"))
        yield "page of agents", least(self.page(agents))
        yield "page of the history", least(self.page(history))
        yield "audit log, newest 50, small organisation", least(lambda: self.get("/audit/logs", key="stranger"))
        yield "webhooks: what is due", least(outbox.due)
        yield "webhooks: the next of one", least(lambda: outbox.due("hook-003"))
        noted = verify(self.desk.store).head
        yield "verify, all", least(lambda: verify(self.desk.store), 1)
        self.desk.time += 8 * 86_400
        yield f"expiry of {OVERDUE:,} overdue", least(self.desk.store.expire, 1)
        yield "verify, from before the expiry", least(lambda: verify(self.desk.store, start=noted), 1)
        tracemalloc.start()
        verify(self.desk.store, start=noted)
        yield "verify, MB at most (tail)", tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="+")
    parser.add_argument("--keep", type=pathlib.Path)
    args = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            place = pathlib.Path(folder) / f"{size}.db"
            kept = args.keep and args.keep / f"{size}.db"
            if kept and kept.exists():
                shutil.copy(kept, place)
            for name, value in Figures(place, size).rows():
                found.setdefault(name, []).append(value)
                print(json.dumps([size, name, round(value, 2)]), file=sys.stderr)
            place.unlink()
    print("| ms | " + " | ".join(f"{size:,}" for size in args.sizes) + " |\n|---" + "|---:" * len(args.sizes) + "|")
    for name, values in found.items():
        print(f"| {name} | " + " | ".join(f"{value:,.2f}" for value in values) + " |")


if __name__ == "__main__":
    main()
