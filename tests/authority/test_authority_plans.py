"""The plans of PostgreSQL: what a list, analytics, a page or a chore reads, on a database that is filled and analyzed."""

import json
import re

import pytest
from kit.desk import Desk
from kit.growth import READS, Growth

from ascend_middleware.authority.roster import read_roster
from ascend_middleware.authority.store.copying import copy
from ascend_middleware.authority.store.verification import verify
from ascend_middleware.authority.webhooks import Outbox

pytestmark = pytest.mark.slow

ACTIONS, QUEUED, AGENTS = 5000, 3000, 60
# The rows of one statement that may be read in one table: some pages and what is counted, never a table.
MOST = 700
EXPLAINED = "&options=" + "%20".join(
    f"-c%20{setting}"
    for setting in (
        "session_preload_libraries%3Dauto_explain",
        "auto_explain.log_min_duration%3D0",
        "auto_explain.log_analyze%3Don",
        "auto_explain.log_format%3Djson",
        "auto_explain.log_timing%3Doff",
    )
)


class Plans:
    """Tells what the server's log says of statements: each with what it did at each of its steps."""

    def __init__(self, cluster):
        self.log = cluster.folder / "log"

    def of(self, read):
        """Return the statements that a reading runs, each with its steps."""
        begin = self.log.stat().st_size
        read()
        with self.log.open() as log:
            log.seek(begin)
            found = [json.loads(text) for text in re.findall(r"plan:\n((?:\t.*\n)+)", log.read())]
        assert found
        return [(one["Query Text"], list(self._steps(one["Plan"]))) for one in found]

    def _steps(self, node):
        yield node
        for child in node.get("Plans", ()):
            yield from self._steps(child)


def rows_of(step):
    """Return how many rows a step had in hand."""
    left_out = sum(value for name, value in step.items() if name.startswith("Rows Removed by"))
    return (step["Actual Rows"] + left_out) * step["Actual Loops"]


@pytest.fixture(scope="module")
def grown(cluster, tmp_path_factory):
    """A desk on PostgreSQL with some thousand actions, decided, overdue and refused, agents and queued deliveries."""
    source = tmp_path_factory.mktemp("grown") / "a.db"
    desk = Desk(path=source)
    growth = Growth(desk, agents=20, days=3, small=50)
    growth.actions(ACTIONS)
    growth.overdue(20)
    growth.registered(AGENTS)
    growth.queued(QUEUED, webhooks=4)
    for amount in (2000, 3000):
        desk.submit("transaction", amount=amount)
    desk.authority.close()
    url = cluster.fresh(empty=True)
    copy(str(source), url)
    cluster.execute("VACUUM ANALYZE", re.search(r"@/(\w+)", url)[1])
    desk = Desk(path=url + EXPLAINED)
    desk.plans = Plans(cluster)
    yield desk
    desk.authority.close()


# And what else may be asked of actions.
READS = {
    **READS,
    "/api/v1/actions": [*READS["/api/v1/actions"], "order=asc", "agent_id=agent-00003", "start_date=2023-11-14"],
}


def check(statements, most=MOST):
    for text, steps in statements:
        for step in steps:
            assert rows_of(step) <= most, (step["Node Type"], step.get("Relation Name"), rows_of(step), text)


@pytest.mark.parametrize("key", ["admin", "stranger"])
@pytest.mark.parametrize(("path", "query"), [(path, query) for path, queries in READS.items() for query in queries])
def test_no_list_and_no_analytics_reads_or_sorts_a_whole_table(grown, monkeypatch, path, query, key):
    monkeypatch.setattr("ascend_middleware.authority.store.listing._COUNTED", 100)
    check(grown.plans.of(lambda: grown.get(path, query=query, key=key)))


@pytest.mark.parametrize("path", ["/api/v1/actions", "/audit/logs"])
def test_a_deep_page_reads_no_more_than_the_first(grown, monkeypatch, path):
    monkeypatch.setattr("ascend_middleware.authority.store.listing._COUNTED", 100)
    page = grown.get(path, query="limit=1000", key="admin")[1]
    page = grown.get(path, query=f"limit=1000&cursor={page['next']}", key="admin")[1]
    check(grown.plans.of(lambda: grown.get(path, query=f"limit=10&cursor={page['next']}", key="admin")))


def test_the_page_of_agents_reads_what_is_kept_of_agents(grown):
    check(grown.plans.of(lambda: read_roster(grown.store, tenant="default", most=100)))


def test_what_is_due_is_found_without_a_look_at_the_queues(grown):
    outbox = Outbox(grown.authority)
    check(grown.plans.of(lambda: (outbox.due(), outbox.due("hook-001"))), most=20)
    assert [row["webhook"] for row in outbox.due()] == [f"hook-00{n}" for n in range(4)]


def test_whatever_is_overdue_is_found_by_its_time(grown):
    desk = grown
    check(
        desk.plans.of(
            lambda: desk.store.rows(
                "SELECT id FROM actions WHERE status = 'pending' AND expires_at <= ?", (desk.store.moment(),)
            )
        ),
        most=50,
    )
    check(desk.plans.of(lambda: desk.store.expire()))
    assert desk.get("/api/v1/actions", query="status=denied&limit=1000", key="admin")[1]["total"] >= 20
    assert verify(desk.store).findings == ()
