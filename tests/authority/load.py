"""Requests that come as fast as they are answered, and what was acknowledged."""

import contextlib
import http.client
import itertools
import json
import threading
import urllib.parse

POLICY = """
[limits]
submit = 0
admin = 0

[[policy]]
name = "refunds need a person"
action_types = ["refund"]
decision = "pending"

[[policy]]
name = "no schema"
action_types = ["database_schema"]
decision = "denied"
"""
KINDS = ("read", "refund", "database_schema")


class Load:
    """Connections that submit and approve as fast as they can, and note what was acknowledged."""

    def __init__(self, url, user, admin, connections, *, tolerant=False):
        """A connection ends at the first answer that is no success; a `tolerant` one goes on."""
        self.tolerant, self.ended = tolerant, False
        self.host = urllib.parse.urlsplit(url).netloc
        self.user, self.admin = user, admin
        self.submitted, self.approved = {}, set()
        self.lock = threading.Lock()
        self.running = threading.Event()
        self.odd = []
        self.threads = [threading.Thread(target=self._run, args=(n,)) for n in range(connections)]
        for thread in self.threads:
            thread.start()

    def _run(self, number):
        connection = http.client.HTTPConnection(self.host, timeout=30)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            for turn in itertools.takewhile(lambda _: not self.ended, range(1_000_000)):
                kind = KINDS[(turn + number) % 3]
                answer = self._post(
                    connection, "/api/v1/actions/submit", {"agent_id": "a", "action_type": kind}, self.user
                )
                if answer is None:
                    continue
                with self.lock:
                    self.submitted[answer["id"]] = answer["status"]
                self.running.set()
                if answer["status"] == "pending":
                    answer = self._post(connection, f"/api/v1/actions/{answer['id']}/approve", {}, self.admin)
                    if answer is not None:
                        with self.lock:
                            self.approved.add(answer["id"])

    def _post(self, connection, path, body, key):
        connection.request("POST", path, json.dumps(body), {"X-API-Key": key})
        answer = connection.getresponse()
        content = json.loads(answer.read())
        if answer.status != 200:
            self.odd.append((answer.status, content))
            if self.tolerant:
                return None
            raise http.client.HTTPException
        return content

    def stop(self):
        """End after the request that is under way."""
        self.ended = True

    def join(self):
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()
