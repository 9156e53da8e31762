"""A guard whose decisions may be used again, around an embedded authority in memory, with a journal that a test delivers."""

import json
import time

from ascend_middleware.client.http import Response
from ascend_middleware.flow import Sleep, drive
from ascend_middleware.journal.delivery import Delivery

from .desk import Desk
from .engine import Engine

POLICY = """
[[policy]]
name = "no"
action_types = ["forbidden"]
decision = "denied"

[[policy]]
name = "ask"
action_types = ["held"]
decision = "pending"
"""
READ = {"match": "GET /read/{name}", "action_type": "read", "resource_id": "{path.name}", "cache": "30s"}
SETTINGS = {"report_outcomes": True, "journal": "memory:", "deadline": 60}


class Authority(Engine):
    """The embedded authority, as the engine of guards."""

    def __init__(self, policy=POLICY):
        super().__init__()
        self.desk = Desk(policy)
        self.desk.time = time.time()  # by which guards judge when an approval ends
        self.down = None

    def send(self, request, timeout):
        self.requests.append(request)
        if self.down is not None:
            raise self.down
        headers = {name.lower(): value for name, value in request.headers} | {"x-api-key": self.desk.user}
        headers.pop("authorization", None)
        place = request.url[request.url.index("/api/") :]  # whatever stands in for the authority
        return Response(*self.desk.authority.handle(request.method, place, "", headers, request.content))

    def tell(self, guard):
        """Deliver the guard's journal to the end."""
        journal = guard.journal
        delivery = Delivery(journal.log, process=journal.process, core=guard.core, now=guard.core.now)
        while drive(delivery.deliver_many(), self.performed):
            pass

    def performed(self, step):
        """Carry out a step of a client's flow."""
        return None if isinstance(step, Sleep) else Authority.send(self, step.request, step.timeout)

    @property
    def uses(self):
        return [data for event, data in self.desk.audit() if event == "ACTION_USED"]


def entries(guard):
    """Return what the journal holds of passes: how, and by which action."""
    lines = [json.loads(line.partition(b" ")[2]) for line, _ in guard.journal.log.ahead(10_000)]
    return [(line["how"], line["id"]) for line in lines if line["k"] == "entry"]
